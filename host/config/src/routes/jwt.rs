//! `jwt:` of a route: signed tokens of an issuer (RFC 7519).
//!
//! This module does not know: how a signature is verified, how keys are fetched.

use std::fmt;
use std::time::Duration;

use http::HeaderName;
use http::uri::Uri;

use super::policies::editable_name;
use crate::values::{HOUR, authority, header_name, path, token};
use crate::yaml::{Key, Node, Section, Value};

const ALGORITHMS: [&str; 5] = ["RS256", "PS256", "ES256", "ES384", "EdDSA"];
const LEEWAY_MAX: Duration = Duration::from_secs(300);
const DAY: Duration = Duration::from_secs(24 * 3600);
/// Claims that become fields or notes.
const CLAIMS_MAX: usize = 16;
/// Notes are named `jwt.CLAIM`, and the name of a note has at most 64 bytes.
const CLAIM_BYTES_MAX: usize = 60;

/// Which tokens may use a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Jwt {
    /// The claim `iss` that a token must have.
    pub issuer: String,
    /// A token must have one of these in its claim `aud`. Empty for any.
    pub audience: Vec<String>,
    /// The keys of the issuer.
    pub keys: JwtKeys,
    /// Names of algorithms. Default RS256, PS256, ES256, ES384 and EdDSA.
    pub algorithms: Vec<&'static str>,
    /// How far the clocks of gateway and issuer may differ. Default 30 s; at most 5 min.
    pub leeway: Duration,
    /// Where the token is. Default `authorization: Bearer`.
    pub token: TokenPlace,
    /// Whether a request without a token is refused. Default true.
    pub required: bool,
    /// Whether filters and the upstream get the token. Default true.
    pub forward_token: bool,
    /// Fields of the request with the claims that they get. A client cannot set them.
    pub headers: Vec<(HeaderName, String)>,
    /// Claims that become notes `jwt.CLAIM`. Default `sub`.
    pub notes: Vec<String>,
}

/// Where the keys of an issuer come from.
#[derive(Clone, PartialEq, Eq)]
pub enum JwtKeys {
    /// `keys:`: a key set (JWKS), a key (JWK) or a public key in PEM.
    Text(String),
    /// `jwks:`: the issuer publishes a key set.
    Fetched(Jwks),
}

/// A key set that the gateway fetches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Jwks {
    /// A name in `upstreams:`.
    pub upstream: String,
    /// The path of the key set. Default `/.well-known/jwks.json`.
    pub path: String,
    /// The `host` field of the request. Default the host of the issuer.
    pub host: String,
    /// How long a key set is used before it is fetched again. Default 10 min; 1 s to 24 h.
    pub refresh: Duration,
    /// The time between two fetches, also for tokens with unknown keys. Default 10 s; 100 ms to
    /// 1 h.
    pub min_interval: Duration,
    /// How long a key set is used if no new one can be fetched. Default 24 h; at most 7 days.
    pub stale: Duration,
}

/// Where a request has its token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenPlace {
    /// `authorization: Bearer TOKEN`.
    Authorization,
    /// `{header: NAME}`: the value of a field, with or without `Bearer`.
    Header(HeaderName),
    /// `{cookie: NAME}`: the value of a cookie.
    Cookie(String),
}

impl fmt::Debug for JwtKeys {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(_) => formatter.write_str("Text(…)"),
            Self::Fetched(jwks) => formatter.debug_tuple("Fetched").field(jwks).finish(),
        }
    }
}

impl Jwt {
    pub(crate) fn read(section: &Section) -> Self {
        section.require("issuer", "write the claim iss of the issuer's tokens");
        let issuer = section.string("issuer").unwrap_or_default();
        let audience = section.list("audience", |text| Ok(text.to_owned()));
        if audience.is_empty() {
            let message = "without audience, a token that the issuer made for another service passes, too";
            section.warn(section.line(), "audience", message);
        }
        let mut algorithms = section.choices(
            "algorithms",
            &ALGORITHMS.map(|name| (name, name)),
            "write RS256, PS256, ES256, ES384 or EdDSA: others are weak or have a shared key",
        );
        if algorithms.is_empty() {
            algorithms = ALGORITHMS.to_vec();
        }
        let jwt = Self {
            keys: JwtKeys::read(section, &issuer),
            issuer,
            audience,
            algorithms,
            leeway: section.duration("leeway", Duration::ZERO, LEEWAY_MAX).unwrap_or(Duration::from_secs(30)),
            token: TokenPlace::read(section),
            required: section.bool("required").unwrap_or(true),
            forward_token: section.bool("forward_token").unwrap_or(true),
            headers: read_headers(section),
            notes: if section.has("notes") { section.list("notes", claim) } else { vec!["sub".into()] },
        };
        if jwt.headers.len() > CLAIMS_MAX || jwt.notes.len() > CLAIMS_MAX {
            section.error(
                section.line(),
                "headers",
                format!("headers and notes have at most {CLAIMS_MAX} claims each"),
            );
        }
        if !jwt.forward_token && matches!(jwt.token, TokenPlace::Cookie(_)) {
            section.error_at(&["forward_token"], "a cookie is always forwarded: remove it");
        }
        jwt
    }
}

impl JwtKeys {
    fn read(jwt: &Section, issuer: &str) -> Self {
        if jwt.has("keys") == jwt.has("jwks") {
            let advice =
                "give either jwks: {upstream: NAME}, or keys: {file: PATH} with a JWKS, a JWK or a public key in PEM";
            jwt.error(jwt.line(), "jwks", advice);
        }
        match jwt.document("keys", |text| Ok(text.to_owned())) {
            Some(text) => Self::Text(text),
            None => Self::Fetched(jwt.nested("jwks", |section| Jwks::read(section, issuer))),
        }
    }
}

impl Jwks {
    fn read(section: &Section, issuer: &str) -> Self {
        let has_section = section.has("upstream") || section.has("path");
        if has_section {
            section.require("upstream", "name one of the upstreams");
        }
        let of_issuer = issuer.parse::<Uri>().ok().and_then(|uri| uri.authority().map(ToString::to_string));
        let duration = |key, min, max| section.duration(key, min, max);
        Self {
            upstream: section.string("upstream").unwrap_or_default(),
            path: section.scalar("path", path).unwrap_or_else(|| "/.well-known/jwks.json".into()),
            host: section.scalar("host", authority).or(of_issuer).unwrap_or_else(|| "localhost".into()),
            refresh: duration("refresh", Duration::from_secs(1), DAY).unwrap_or(Duration::from_secs(600)),
            min_interval: duration("min_interval", Duration::from_millis(100), HOUR).unwrap_or(Duration::from_secs(10)),
            stale: duration("stale", Duration::ZERO, 7 * DAY).unwrap_or(DAY),
        }
    }
}

impl TokenPlace {
    fn read(jwt: &Section) -> Self {
        let advice = "write {header: NAME} or {cookie: NAME}; the default is authorization: Bearer";
        match jwt.get("token").map(|node| &node.value) {
            None => Self::Authorization,
            Some(Value::Map(entries)) if entries.len() == 1 => jwt.nested("token", |place| {
                let header = place.scalar("header", header_name).map(Self::Header);
                header.or_else(|| place.scalar("cookie", token).map(Self::Cookie)).unwrap_or(Self::Authorization)
            }),
            Some(_) => {
                jwt.error_at(&["token"], advice);
                Self::Authorization
            }
        }
    }
}

/// A mapping from fields to claims.
fn read_headers(jwt: &Section) -> Vec<(HeaderName, String)> {
    let fields = jwt.free_form("headers");
    let read = |(name, node): &(Key, Node)| {
        let Value::Scalar { text, .. } = &node.value else {
            fields.error(node.line, &name.text, format!("expected the name of a claim, found {}", node.describe()));
            return None;
        };
        let field = editable_name(&name.text).and_then(|name| Ok((name, claim(text)?)));
        field.map_err(|why| fields.error(name.line, &name.text, why)).ok()
    };
    fields.entries().iter().filter_map(read).collect()
}

fn claim(text: &str) -> Result<String, String> {
    if (1..=CLAIM_BYTES_MAX).contains(&text.len()) && !text.chars().any(char::is_control) {
        return Ok(text.to_owned());
    }
    Err(format!("the name of a claim has 1 to {CLAIM_BYTES_MAX} bytes"))
}
