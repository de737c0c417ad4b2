//! The claims of a token whose signature was verified.
//!
//! This module does not know: signatures, requests.

use serde_json::Value;
use witgate_config::Jwt;

/// Checks times, issuer and audience. `now` is Unix time in seconds.
pub(super) fn check_claims(claims: &Value, policy: &Jwt, now: f64) -> Result<(), String> {
    let leeway = policy.leeway.as_secs_f64();
    let time = |name: &str| match claims.get(name) {
        None => Ok(None),
        Some(value) => value.as_f64().map(Some).ok_or_else(|| format!("the claim {name} is not a number")),
    };
    let expires = time("exp")?.ok_or("the token never expires (it has no claim exp)")?;
    if now >= expires + leeway {
        return Err(format!("the token expired {:.0} s ago", now - expires));
    }
    if let Some(begins) = time("nbf")?.filter(|begins| now + leeway < *begins) {
        return Err(format!("the token is valid in {:.0} s (nbf): do the clocks differ?", begins - now));
    }
    if claims.get("iss").and_then(Value::as_str) != Some(&policy.issuer) {
        return Err("the token is of another issuer (iss)".into());
    }
    let is_ours = |value: &Value| value.as_str().is_some_and(|one| policy.audience.iter().any(|own| own == one));
    let is_meant = match claims.get("aud") {
        _ if policy.audience.is_empty() => true,
        Some(Value::Array(list)) => list.iter().any(is_ours),
        Some(one) => is_ours(one),
        None => false,
    };
    if is_meant { Ok(()) } else { Err("the token is for another audience (aud)".into()) }
}

/// The claim with this name; if there is none, the dots of the name lead into objects.
pub(super) fn find_claim<'a>(claims: &'a Value, name: &str) -> Option<&'a Value> {
    let found = claims.get(name).or_else(|| name.split('.').try_fold(claims, |value, part| value.get(part)));
    found.filter(|value| !value.is_null())
}

/// A claim as text: a list of plain values is joined by commas, other structures are JSON.
pub(super) fn field_value(claim: &Value) -> String {
    match claim {
        Value::String(text) => text.clone(),
        Value::Array(list) if !list.iter().any(|one| one.is_array() || one.is_object()) => {
            list.iter().map(field_value).collect::<Vec<_>>().join(",")
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;
    use witgate_config::{JwtKeys, TokenPlace};

    use super::*;

    fn policy(audience: &[&str]) -> Jwt {
        Jwt {
            issuer: "https://id.test".into(),
            audience: audience.iter().map(|one| (*one).to_owned()).collect(),
            keys: JwtKeys::Text(String::new()),
            algorithms: vec![],
            leeway: Duration::from_secs(30),
            token: TokenPlace::Authorization,
            required: true,
            forward_token: true,
            headers: vec![],
            notes: vec![],
        }
    }

    #[test]
    fn times_issuer_and_audience_are_checked() {
        let good = json!({"iss": "https://id.test", "aud": ["x", "api"], "exp": 1000, "nbf": 900});
        let with = |name: &str, value: Value| {
            let mut claims = good.clone();
            claims[name] = value;
            claims
        };
        let is_ok = |claims: &Value, now| check_claims(claims, &policy(&["api"]), now).is_ok();
        assert!(is_ok(&good, 950.0) && is_ok(&good, 1029.9) && is_ok(&good, 870.0));
        assert!(!is_ok(&good, 1030.0) && !is_ok(&good, 869.0));
        assert!(is_ok(&with("aud", json!("api")), 950.0));
        for (name, value) in [
            ("aud", json!("apis")),
            ("aud", json!([["api"]])),
            ("aud", Value::Null),
            ("iss", json!("https://id.test/")),
            ("iss", json!(["https://id.test"])),
            ("exp", json!("2000")),
            ("exp", Value::Null),
            ("nbf", json!("0")),
        ] {
            assert!(!is_ok(&with(name, value.clone()), 950.0), "{name} {value}");
        }
        assert!(!is_ok(&json!([]), 0.0) && !is_ok(&json!({"iss": "https://id.test", "aud": "api"}), 0.0));
        assert!(check_claims(&json!({"iss": "https://id.test", "exp": 1e300}), &policy(&[]), 950.0).is_ok());
    }

    #[test]
    fn claims_become_text() {
        let claims = json!({"sub": "ada", "https://x.test/role": "a", "realm": {"roles": ["a", 1, true]}, "n": null,
            "deep": [{"a": 1}], "exp": 5});
        let text = |name: &str| find_claim(&claims, name).map(field_value);
        assert_eq!(text("sub").as_deref(), Some("ada"));
        assert_eq!(text("https://x.test/role").as_deref(), Some("a"));
        assert_eq!(text("realm.roles").as_deref(), Some("a,1,true"));
        assert_eq!(text("deep").as_deref(), Some(r#"[{"a":1}]"#));
        assert_eq!(text("exp").as_deref(), Some("5"));
        assert_eq!((text("n"), text("realm.none"), text("sub.x")), (None, None, None));
    }
}
