//! Signed tokens (RFC 7519): who may use a route, and which claims the upstream learns.
//!
//! The rules are those of RFC 8725. The route names the algorithms, and the key must fit the one
//! that the token names. Nothing of a token is believed before its signature was verified, except
//! the id of the key. This module does not know: how keys are fetched, how signatures work.

mod claims;
pub mod key_cache;

use std::rc::Rc;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use http::HeaderMap;
use http::header::{self, HeaderValue};
use serde_json::Value;

use crate::upstream::{Cluster, UpstreamClient, cookies};
use claims::{check_claims, field_value, find_claim};
use key_cache::{KeyCache, KeyCaches};
use witgate_config::{Jwks, Jwt, JwtKeys, TokenPlace};
use witgate_http::error::{Error, Kind};
use witgate_http::semantics::fields::remove_with_lookalikes;
use witgate_http::text::quoted;
use witgate_runtime::crypto::{KeySet, SignatureAlgorithm, VerifyingKey};
use witgate_runtime::exchange::{Exchange, ExchangeNote};

/// Tokens above this size are refused.
const TOKEN_BYTES_MAX: usize = 16 << 10;
/// Keys that are tried for a token without a key id.
const CANDIDATES_MAX: usize = 8;
const KEY_ID_BYTES_MAX: usize = 256;
/// The longest value of a note.
const NOTE_BYTES_MAX: usize = 4 << 10;

/// The tokens of one route.
pub struct TokenPolicy {
    settings: Jwt,
    algorithms: Vec<SignatureAlgorithm>,
    keys: Keys,
    /// The owner of the notes.
    owner: Arc<str>,
}

enum Keys {
    Fixed(Arc<KeySet>),
    Fetched(Jwks, Arc<KeyCache>, Arc<Cluster>),
}

/// The parts of a token that are read before its signature.
struct Token<'a> {
    algorithm: SignatureAlgorithm,
    key_id: Option<String>,
    signed: &'a [u8],
    payload: &'a str,
    signature: Vec<u8>,
}

/// What is wrong with a request: no token, or a bad one.
#[derive(Debug)]
enum Refusal {
    Missing,
    Invalid(String),
}

impl TokenPolicy {
    /// Prepares a checked configuration. `cluster` finds the upstream of a key set.
    ///
    /// # Errors
    /// The keys cannot be read, or the upstream is missing.
    pub fn new(
        settings: &Jwt,
        caches: &KeyCaches,
        cluster: impl Fn(&str) -> Result<Arc<Cluster>, String>,
    ) -> Result<Self, String> {
        let keys = match &settings.keys {
            JwtKeys::Text(text) => Keys::Fixed(Arc::new(parse_keys(text)?)),
            JwtKeys::Fetched(jwks) => Keys::Fetched(jwks.clone(), caches.get(jwks), cluster(&jwks.upstream)?),
        };
        let algorithms = settings.algorithms.iter().filter_map(|name| SignatureAlgorithm::from_name(name)).collect();
        Ok(Self { settings: settings.clone(), algorithms, keys, owner: "jwt".into() })
    }

    /// Checks the token of a request, and adds the fields and notes of its claims.
    ///
    /// # Errors
    /// The request has no token that is valid, or there are no keys to verify it.
    pub async fn check(&self, upstream: &Rc<UpstreamClient>, exchange: &mut Exchange) -> Result<(), Error> {
        let headers = &mut exchange.request.headers;
        for (name, _) in &self.settings.headers {
            remove_with_lookalikes(headers, name);
        }
        let claims = match self.verify(upstream, headers).await? {
            Ok(claims) => claims,
            Err(Refusal::Missing) if !self.settings.required => return Ok(()),
            Err(Refusal::Missing) => return Err(unauthorized("the request has no token")),
            Err(Refusal::Invalid(why)) => return Err(unauthorized(&why)),
        };
        match &self.settings.token {
            _ if self.settings.forward_token => {}
            TokenPlace::Authorization => drop(headers.remove(header::AUTHORIZATION)),
            TokenPlace::Header(name) => drop(headers.remove(name)),
            TokenPlace::Cookie(_) => {}
        }
        for (name, claim) in &self.settings.headers {
            let Some(value) = find_claim(&claims, claim) else { continue };
            let value = HeaderValue::try_from(field_value(value));
            let value = value.map_err(|_| unauthorized(&format!("the claim {claim} is not a valid field value")))?;
            headers.insert(name, value);
        }
        for claim in &self.settings.notes {
            let Some(value) = find_claim(&claims, claim).map(field_value) else { continue };
            if value.len() > NOTE_BYTES_MAX {
                return Err(unauthorized(&format!("the claim {claim} has more than {NOTE_BYTES_MAX} bytes")));
            }
            let name = format!("jwt.{claim}");
            exchange.notes.push(ExchangeNote { name, value, owner: self.owner.clone() });
        }
        Ok(())
    }

    /// The value of `www-authenticate` of a refusal (RFC 6750, section 3).
    pub fn challenge(&self, headers: &HeaderMap) -> HeaderValue {
        match find_token(&self.settings.token, headers) {
            Err(Refusal::Missing) => HeaderValue::from_static("Bearer"),
            _ => HeaderValue::from_static("Bearer error=\"invalid_token\""),
        }
    }

    /// The claims of the token. The outer error says that there are no keys.
    async fn verify(
        &self,
        upstream: &Rc<UpstreamClient>,
        headers: &HeaderMap,
    ) -> Result<Result<Value, Refusal>, Error> {
        let parsed = find_token(&self.settings.token, headers).and_then(|text| {
            let token = parse(text).map_err(Refusal::Invalid)?;
            match self.algorithms.contains(&token.algorithm) {
                true => Ok(token),
                false => Err(Refusal::Invalid(format!("the algorithm {} is not allowed", token.algorithm))),
            }
        });
        let token = match parsed {
            Ok(token) => token,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let keys = match &self.keys {
            Keys::Fixed(keys) => keys.clone(),
            Keys::Fetched(jwks, cache, cluster) => cache.keys(token.key_id.as_deref(), jwks, cluster, upstream).await?,
        };
        Ok(self.claims(&keys, &token).map_err(Refusal::Invalid))
    }

    fn claims(&self, keys: &KeySet, token: &Token<'_>) -> Result<Value, String> {
        let key_id = token.key_id.as_deref();
        let mut candidates = keys.candidates(key_id, token.algorithm).take(CANDIDATES_MAX).peekable();
        if candidates.peek().is_none() {
            let id = key_id.map_or_else(|| "no key id".into(), |id| format!("the key id {}", quoted(id)));
            if let Some(why) = key_id.and_then(|id| keys.why_left_out(id)) {
                return Err(format!("the issuer's key with {id} cannot be used: {why}"));
            }
            return Err(format!("the issuer has no key for {} and {id}", token.algorithm));
        }
        if !candidates.any(|key| key.verify(token.algorithm, token.signed, &token.signature)) {
            return Err("the signature is wrong".into());
        }
        let payload = BASE64.decode(token.payload).map_err(|_| "the claims are not base64url")?;
        let claims: Value = serde_json::from_slice(&payload).map_err(|_| "the claims are not JSON")?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        check_claims(&claims, &self.settings, now)?;
        Ok(claims)
    }
}

/// Reads a key set, a key or a PEM text.
///
/// # Errors
/// Why it is refused, without a part of a key.
pub fn parse_keys(text: &str) -> Result<KeySet, String> {
    let is_set = serde_json::from_str(text).is_ok_and(|value: Value| value.get("keys").is_some());
    let parsed =
        if is_set { KeySet::from_json(text.as_bytes()) } else { VerifyingKey::from_text(text).map(KeySet::from_key) };
    parsed.map_err(|error| error.to_string())
}

fn unauthorized(why: &str) -> Error {
    Error::new(Kind::Unauthorized, format!("jwt: {why}"))
}

fn find_token<'a>(place: &'a TokenPlace, headers: &'a HeaderMap) -> Result<&'a str, Refusal> {
    let invalid = |why: &str| Refusal::Invalid(why.to_owned());
    let only = |name: &header::HeaderName| {
        let mut lines = headers.get_all(name).iter();
        let first = lines.next().ok_or(Refusal::Missing)?;
        if lines.next().is_some() {
            return Err(Refusal::Invalid(format!("the request has several fields {name}")));
        }
        Ok(first.as_bytes())
    };
    let bearer = |value: &'a [u8]| {
        let (scheme, token) = value.split_at_checked(7)?;
        scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
    };
    let bytes = match place {
        // Another scheme, such as Basic, is not a token.
        TokenPlace::Authorization => bearer(only(&header::AUTHORIZATION)?).ok_or(Refusal::Missing)?,
        TokenPlace::Header(name) => {
            let value = only(name)?;
            bearer(value).unwrap_or(value)
        }
        TokenPlace::Cookie(name) => {
            let mut values = cookies(headers, name);
            let first = values.next().ok_or(Refusal::Missing)?;
            // The upstream could read another one than the one that was verified.
            if values.any(|value| value != first) {
                return Err(Refusal::Invalid(format!("the request has several cookies {name}")));
            }
            first
        }
    };
    if bytes.len() > TOKEN_BYTES_MAX {
        return Err(invalid("the token is larger than 16 KiB"));
    }
    std::str::from_utf8(bytes).map_err(|_| invalid("the token is not ASCII"))
}

/// Reads the header of a token in the compact form (RFC 7515, section 7.1).
fn parse(text: &str) -> Result<Token<'_>, String> {
    let (signed, signature) = text.rsplit_once('.').ok_or("the token does not have three parts")?;
    let (head, payload) = signed.split_once('.').ok_or("the token does not have three parts")?;
    if payload.contains('.') {
        return Err("the token has more than three parts: an encrypted one (JWE) is not supported".into());
    }
    let head = BASE64.decode(head).map_err(|_| "the token's header is not base64url")?;
    let head: Value = serde_json::from_slice(&head).map_err(|_| "the token's header is not JSON")?;
    if head.get("crit").is_some() || head.get("b64").is_some() {
        return Err("the token needs an extension (crit), and none is supported".into());
    }
    let name = head.get("alg").and_then(Value::as_str).unwrap_or_default();
    let algorithm = SignatureAlgorithm::from_name(name);
    let algorithm = algorithm.ok_or_else(|| format!("the algorithm {} is not supported", quoted(name)))?;
    let key_id = match head.get("kid") {
        None => None,
        Some(Value::String(id)) if id.len() <= KEY_ID_BYTES_MAX => Some(id.clone()),
        Some(_) => return Err("the token's key id is too long or not a text".into()),
    };
    let signature = BASE64.decode(signature).map_err(|_| "the signature is not base64url")?;
    Ok(Token { algorithm, key_id, signed: signed.as_bytes(), payload, signature })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(header: &str) -> String {
        format!("{}.{}.AAAA", BASE64.encode(header), BASE64.encode("{}"))
    }

    #[test]
    fn a_header_that_could_mislead_is_refused() {
        for (header, expected) in [
            (r#"{"alg":"none"}"#, "not supported"),
            (r#"{"alg":"HS256"}"#, "not supported"),
            (r#"{"alg":"rs256"}"#, "not supported"),
            (r#"{"alg":["RS256"]}"#, "not supported"),
            (r#"{"alg":"RS256","crit":["exp"]}"#, "crit"),
            (r#"{"alg":"RS256","kid":7}"#, "key id"),
            ("[]", "not supported"),
            ("{", "not JSON"),
        ] {
            let why = parse(&token(header)).map(drop).err().unwrap_or_default();
            assert!(why.contains(expected), "{header}: {why}");
        }
        for text in ["", "a", "a.b", "a.b.c.d", "a.b.c.d.e", "..", "!.!.!"] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert!(parse(&token(r#"{"alg":"ES256","kid":"a","jku":"https://evil.test","jwk":{}}"#)).is_ok());
    }

    #[test]
    fn a_token_is_found_where_the_route_says() {
        let headers: HeaderMap = [
            (header::AUTHORIZATION, "bEaReR  abc"),
            (header::HeaderName::from_static("x-token"), "def"),
            (header::COOKIE, "a=1; session=ghi"),
        ]
        .into_iter()
        .map(|(name, value)| (name, HeaderValue::from_static(value)))
        .collect();
        let find = |place| find_token(&place, &headers).ok().map(str::to_owned);
        let found = |text: &str| Some(text.to_owned());
        assert_eq!(find(TokenPlace::Authorization), found("abc"));
        assert_eq!(find(TokenPlace::Header(header::HeaderName::from_static("x-token"))), found("def"));
        assert_eq!(find(TokenPlace::Cookie("session".into())), found("ghi"));
        assert_eq!(find(TokenPlace::Cookie("sess".into())), None);
        let cookie = |text| HeaderMap::from_iter([(header::COOKIE, HeaderValue::from_static(text))]);
        let place = TokenPlace::Cookie("session".into());
        assert_eq!(find_token(&place, &cookie("session=ghi; a=1; session=ghi")).ok(), Some("ghi"));
        let headers = cookie("session=ghi; session=jkl");
        assert!(matches!(find_token(&place, &headers), Err(Refusal::Invalid(_))), "they could be read differently");
    }
}
