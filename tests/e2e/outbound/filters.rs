//! The shipped filters that call services or use cryptography.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Result, anyhow};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair};
use harness::{Gateway, Setup, wait_until};
use serde_json::{Value, json};

use super::service::Service;

/// A key of an issuer, with its id.
pub(super) enum Pair {
    Rsa(&'static str, Box<RsaKeyPair>),
    Ec(&'static str, EcdsaKeyPair),
}

impl Pair {
    pub(super) fn rsa(kid: &'static str) -> Result<Self> {
        Ok(Self::Rsa(kid, Box::new(RsaKeyPair::generate(KeySize::Rsa2048).map_err(|_| anyhow!("no key"))?)))
    }

    pub(super) fn ec(kid: &'static str) -> Result<Self> {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).map_err(|_| anyhow!("no key"))?;
        Ok(Self::Ec(kid, pair))
    }

    pub(super) fn algorithm(&self) -> &'static str {
        match self {
            Self::Rsa(..) => "RS256",
            Self::Ec(..) => "ES256",
        }
    }

    fn jwk(&self) -> Value {
        match self {
            Self::Rsa(kid, pair) => {
                let (n, e) = rsa_numbers(pair.public_key().as_ref());
                json!({"kty": "RSA", "kid": kid, "use": "sig", "alg": "RS256", "n": base64url(n), "e": base64url(e)})
            }
            Self::Ec(kid, pair) => {
                let point = pair.public_key().as_ref();
                let (x, y) = (base64url(&point[1..33]), base64url(&point[33..]));
                json!({"kty": "EC", "crv": "P-256", "kid": kid, "use": "sig", "x": x, "y": y})
            }
        }
    }

    /// A token for the user `ada` that is valid for a minute.
    pub(super) fn token(&self) -> Result<String> {
        let (Self::Rsa(kid, _) | Self::Ec(kid, _)) = self;
        let until = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs() + 60;
        let claims = json!({"iss": "issuer", "aud": ["api"], "sub": "ada", "exp": until});
        let part = |value: &Value| base64url(value.to_string().as_bytes());
        let signed = format!("{}.{}", part(&json!({"alg": self.algorithm(), "kid": kid})), part(&claims));
        let failed = |_| anyhow!("no signature");
        let signature = match self {
            Self::Rsa(_, pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), signed.as_bytes(), &mut signature)
                    .map_err(failed)?;
                signature
            }
            Self::Ec(_, pair) => pair.sign(&SystemRandom::new(), signed.as_bytes()).map_err(failed)?.as_ref().to_vec(),
        };
        Ok(format!("{signed}.{}", base64url(&signature)))
    }
}

/// Modulus and exponent of a public key in DER (RFC 8017, appendix A.1.1) whose lengths need two
/// bytes for the sequence and the modulus.
fn rsa_numbers(der: &[u8]) -> (&[u8], &[u8]) {
    let length = usize::from(u16::from_be_bytes([der[6], der[7]]));
    let modulus = &der[8..8 + length];
    let exponent = &der[8 + length + 2..];
    (modulus.strip_prefix(&[0]).unwrap_or(modulus), exponent)
}

fn base64url(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let number =
            chunk.iter().fold(0_u32, |number, byte| (number << 8) | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for at in 0..=chunk.len() {
            text.push(char::from(ALPHABET[(number >> (18 - 6 * at)) as usize & 63]));
        }
    }
    text
}

pub(super) fn key_set(pairs: &[&Pair]) -> String {
    json!({"keys": pairs.iter().map(|pair| pair.jwk()).collect::<Vec<_>>()}).to_string()
}

/// A gateway with one of the shipped filters, which may call `service` at `http://svc`.
pub(super) fn start(guest: &str, service: &Service, keys: &str) -> Result<Gateway> {
    let yaml = format!(
        "timeouts: {{filters: 5s}}\n\
         upstreams: {{echo: {{builtin: echo}}, svc: {{endpoints: [\"http://{}\"], timeout: 10s}}}}\n\
         filters:\n  f:\n    source: f.wasm\n    timeout: 4s\n    {keys}\n\
         routes: [{{filters: [f], upstream: echo}}]",
        service.address
    );
    Setup::new(&yaml)?.with_guest("f.wasm", guest)?.start()
}

pub(super) const HTTP: &str = "http: {origins: {\"http://svc\": {upstream: svc}}}";

#[test]
fn tokens_are_checked_with_the_keys_of_the_issuer_which_may_change() -> Result<()> {
    let (rsa, ec, next, foreign) = (Pair::rsa("a")?, Pair::ec("b")?, Pair::ec("c")?, Pair::rsa("a")?);
    for guest in ["typescript/jwt", "python/jwt"] {
        let issuer = Service::start(&key_set(&[&rsa, &ec]))?;
        let keys = format!(
            "capabilities: [keyvalue, http, crypto]\n    {HTTP}\n    config: {{jwks_url: \"http://svc/keys\", issuer: issuer, audience: api, refetch_seconds: 1}}"
        );
        let gateway = start(guest, &issuer, &keys)?;
        let send = |token: &str| gateway.get("/", &[&format!("authorization: Bearer {token}"), "x-user: root"]);
        for pair in [&rsa, &ec, &rsa] {
            let response = send(&pair.token()?)?;
            assert_eq!((response.status, response.echoed("x-user").as_deref()), (200, Some("ada")), "{guest}");
        }
        assert_eq!(issuer.bodies().len(), 1, "{guest}: the keys are kept");
        assert_eq!(gateway.get("/", &["x-user: root"])?.status, 401);
        assert_eq!(send(&foreign.token()?)?.status, 401, "{guest}: another key with the same id");
        issuer.set_answer(&key_set(&[&next]));
        let token = next.token()?;
        wait_until("the key that is not known is fetched", || send(&token).is_ok_and(|answer| answer.status == 200));
        for _ in 0..20 {
            assert_eq!(send(&Pair::ec("invented")?.token()?)?.status, 401);
        }
        let fetches = issuer.bodies().len();
        assert!((2..=4).contains(&fetches), "{guest}: invented ids cause no flood: {fetches} fetches");
    }
    Ok(())
}

#[test]
fn a_policy_service_decides_and_its_absence_refuses() -> Result<()> {
    let policy = Service::start(r#"{"result": {"allow": true, "headers": {"x-tenant": "t1"}}}"#)?;
    let keys = format!("capabilities: [http]\n    {HTTP}\n    config: {{url: \"http://svc/v1/data/authz\"}}");
    let gateway = start("typescript/policy-call", &policy, &keys)?;
    let response = gateway.get("/orders/7?a=1", &["authorization: Bearer t"])?;
    assert_eq!((response.status, response.echoed("x-tenant").as_deref()), (200, Some("t1")));
    let asked: Value = serde_json::from_str(&policy.bodies()[0])?;
    assert_eq!((&asked["input"]["path"], &asked["input"]["method"]), (&json!(["orders", "7"]), &json!("GET")));
    for (answer, status) in [(r#"{"result": false}"#, 403), ("{}", 403), ("no JSON", 503)] {
        policy.set_answer(answer);
        assert_eq!(gateway.get("/", &[])?.status, status, "{answer}");
    }
    Ok(())
}

#[test]
fn a_webhook_needs_the_signature_of_its_body() -> Result<()> {
    let service = Service::start("")?;
    let keys = "capabilities: [crypto]\n    crypto: {keys: {webhook: \"It's a Secret to Everybody\"}}";
    let gateway = start("typescript/webhook-signature", &service, keys)?;
    let field = "x-hub-signature-256: sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
    let send = |headers: &[&str], body: &[u8]| gateway.client()?.send("POST", "/", headers, body);
    let response = send(&[field], b"Hello, World!")?;
    assert_eq!((response.status, response.echoed("x-webhook-verified").as_deref()), (200, Some("true")));
    assert_eq!(send(&[field], b"Hello, World?")?.status, 401);
    assert_eq!(send(&[], b"Hello, World!")?.status, 401);
    Ok(())
}

#[test]
fn a_client_keeps_its_variant() -> Result<()> {
    let service = Service::start("")?;
    let gateway = start("typescript/ab-split", &service, "config: {variants: {a: 50, b: 50}}")?;
    let first = gateway.get("/", &[])?;
    let cookie = first.header("set-cookie").unwrap_or_default().to_owned();
    let variant = first.echoed("x-variant").unwrap_or_default();
    assert!(cookie.starts_with(&format!("variant={variant}; ")), "{cookie}");
    let again = gateway.get("/", &[&format!("cookie: x=1; variant={variant}")])?;
    assert_eq!((again.echoed("x-variant"), again.header("set-cookie")), (Some(variant), None));
    Ok(())
}
