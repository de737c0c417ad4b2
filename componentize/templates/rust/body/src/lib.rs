//! Hides secrets in JSON bodies from the upstream.

use serde_json::Value;
use witgate_filter::{Action, Request};

const SECRETS: [&str; 3] = ["password", "token", "secret"];

fn on_request(request: &mut Request) -> Result<Action, String> {
    let is_json = request.header("content-type").is_some_and(|value| value.starts_with("application/json"));
    // A body that is not JSON passes: the upstream will refuse it.
    if let Some(mut body) = is_json.then(|| serde_json::from_slice(&request.body()).ok()).flatten() {
        redact(&mut body);
        request.set_body(body.to_string().as_bytes());
    }
    Ok(Action::Proceed)
}

/// Replaces secrets at any depth.
fn redact(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(redact),
        Value::Object(entries) => entries.iter_mut().for_each(|(key, inner)| {
            if SECRETS.contains(&key.as_str()) {
                *inner = "REDACTED".into();
            } else {
                redact(inner);
            }
        }),
        _ => {}
    }
}

witgate_filter::filter!(request: on_request);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_replaced_at_any_depth() {
        let mut value = serde_json::json!({"a": [{"token": "x"}], "b": 1});
        redact(&mut value);
        assert_eq!(value, serde_json::json!({"a": [{"token": "REDACTED"}], "b": 1}));
    }
}
