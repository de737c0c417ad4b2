//! `jwt` of a route: signed tokens, and the key sets of issuers that behave badly.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use harness::{Gateway, Setup, wait_until};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519, PublicKeyData as _, SigningKey as _};
use serde_json::{Value, json};

/// A key of an issuer, with its id.
struct Key {
    id: &'static str,
    pair: KeyPair,
}

impl Key {
    fn new(id: &'static str) -> Result<Self> {
        Ok(Self { id, pair: KeyPair::generate_for(&PKCS_ED25519)? })
    }

    fn elliptic(id: &'static str) -> Result<Self> {
        Ok(Self { id, pair: KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)? })
    }

    fn jwk(&self) -> Value {
        let public = self.pair.der_bytes();
        if public.len() == 32 {
            return json!({"kty": "OKP", "crv": "Ed25519", "kid": self.id, "x": BASE64.encode(public)});
        }
        let (x, y) = (BASE64.encode(&public[1..33]), BASE64.encode(&public[33..65]));
        json!({"kty": "EC", "crv": "P-256", "kid": self.id, "x": x, "y": y})
    }

    fn sign(&self, header: &Value, claims: &Value) -> Result<String> {
        let signed = format!("{}.{}", BASE64.encode(header.to_string()), BASE64.encode(claims.to_string()));
        let signature = self.pair.sign(signed.as_bytes())?;
        let signature = if self.pair.der_bytes().len() == 32 { signature } else { fixed(&signature) };
        Ok(format!("authorization: Bearer {signed}.{}", BASE64.encode(signature)))
    }

    fn token(&self, claims: &Value) -> Result<String> {
        let algorithm = if self.pair.der_bytes().len() == 32 { "EdDSA" } else { "ES256" };
        self.sign(&json!({"alg": algorithm, "kid": self.id}), claims)
    }
}

/// The 64 bytes of an ECDSA signature in ASN.1 form.
fn fixed(der: &[u8]) -> Vec<u8> {
    let number = |at: usize| {
        let length = usize::from(der[at + 1]);
        let bytes = &der[at + 2..at + 2 + length];
        let bytes = &bytes[bytes.len().saturating_sub(32)..];
        ([vec![0; 32 - bytes.len()], bytes.to_vec()].concat(), at + 2 + length)
    };
    let (r, next) = number(2);
    [r, number(next).0].concat()
}

fn set(keys: &[&Key]) -> String {
    json!({ "keys": keys.iter().map(|key| key.jwk()).collect::<Vec<_>>() }).to_string()
}

fn claims(subject: &str) -> Value {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    json!({"iss": "https://id.test", "aud": "api", "sub": subject, "exp": now + 600, "realm": {"roles": ["a", "b"]}})
}

/// How an issuer answers.
#[derive(Clone)]
enum Answer {
    Keys(String),
    Status(u16),
    Nothing,
    /// A body without an end.
    Endless,
}

/// A server of a key set.
struct Issuer {
    address: SocketAddr,
    requests: Arc<AtomicUsize>,
    answer: Arc<Mutex<Answer>>,
}

impl Issuer {
    fn start(answer: Answer) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let (requests, answer) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(answer)));
        let (counted, current) = (requests.clone(), answer.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (counted, current) = (counted.clone(), current.clone());
                std::thread::spawn(move || drop(serve(&stream, &counted, &current)));
            }
        });
        Ok(Self { address, requests, answer })
    }

    fn set(&self, answer: Answer) {
        *self.answer.lock().unwrap() = answer;
    }

    fn requests(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }

    fn gateway(&self, jwks: &str, jwt: &str) -> Result<Gateway> {
        Setup::new(&format!(
            "upstreams: {{u: {{builtin: echo}}, id: {{endpoints: ['http://{}'], timeout: 1s, retries: {{attempts: 0}}}}}}\n\
             routes: [{{upstream: u, jwt: {{issuer: 'https://id.test', audience: api, jwks: {{upstream: id{jwks}}}{jwt}}}}}]",
            self.address
        ))?
        .start()
    }
}

fn serve(stream: &TcpStream, requests: &AtomicUsize, answer: &Mutex<Answer>) -> Result<()> {
    let (mut input, mut out) = (BufReader::new(stream), stream);
    loop {
        let mut line = String::new();
        while !line.ends_with("\r\n\r\n") {
            anyhow::ensure!(input.read_line(&mut line)? > 0, "closed");
        }
        assert!(
            line.starts_with("GET /.well-known/jwks.json HTTP/1.1\r\n") && line.contains("host: id.test\r\n"),
            "{line}"
        );
        requests.fetch_add(1, Ordering::Relaxed);
        let answer = answer.lock().unwrap().clone();
        match answer {
            Answer::Keys(text) => write!(out, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{text}", text.len())?,
            Answer::Status(status) => write!(out, "HTTP/1.1 {status} X\r\ncontent-length: 2\r\n\r\n{{}}")?,
            Answer::Nothing => drop(input.read_line(&mut String::new())?),
            Answer::Endless => {
                write!(out, "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{{\"keys\": [")?;
                loop {
                    out.write_all(&[b' '; 8192])?;
                }
            }
        }
    }
}

#[test]
fn a_valid_token_passes_with_its_claims_and_no_other_does() -> Result<()> {
    let (key, elliptic, stranger) = (Key::new("a")?, Key::elliptic("b")?, Key::new("a")?);
    let yaml = "upstreams: {u: {builtin: echo}}\nroutes: [{upstream: u, jwt: {issuer: 'https://id.test', audience: \
                [api, web], keys: {file: keys.json}, headers: {x-user: sub, x-roles: realm.roles}}}]";
    let gateway = Setup::new(yaml)?.with("keys.json", set(&[&key, &elliptic]))?.start()?;
    let mut client = gateway.client()?;
    for signer in [&key, &elliptic] {
        let token = signer.token(&claims("ada"))?;
        let response = client.get("/", &["x-user: root", "x-roles: admin", &token])?;
        assert_eq!((response.status, response.echoed("x-user").as_deref()), (200, Some("ada")), "{}", response.text());
        assert_eq!(response.echoed("x-roles").as_deref(), Some("a,b"));
        assert!(response.echoed("authorization").is_some());
    }
    let with = |name: &str, value: Value| {
        let mut all = claims("ada");
        all[name] = value;
        key.token(&all)
    };
    let huge = format!("authorization: Bearer {}.e30.AAAA", "a".repeat(20_000));
    let public = key.jwk()["x"].as_str().context("x")?.to_owned();
    let bad = [
        stranger.token(&claims("ada"))?,
        with("exp", json!(1000))?,
        with("exp", Value::Null)?,
        with("nbf", json!(99_999_999_999_u64))?,
        with("iss", json!("https://evil.test"))?,
        with("aud", json!("other"))?,
        with("sub", json!("ada\r\nx-admin: 1"))?,
        // The algorithm is another one than the key's, none, or one with a shared key.
        key.sign(&json!({"alg": "ES256", "kid": "a"}), &claims("ada"))?,
        elliptic.sign(&json!({"alg": "EdDSA", "kid": "b"}), &claims("ada"))?,
        key.sign(&json!({"alg": "none"}), &claims("ada"))?,
        key.sign(&json!({"alg": "HS256", "kid": "a", "k": public}), &claims("ada"))?,
        // A key that the token brings itself.
        stranger.sign(
            &json!({"alg": "EdDSA", "kid": "c", "jwk": stranger.jwk(), "jku": "https://evil.test"}),
            &claims("ada"),
        )?,
        key.sign(&json!({"alg": "EdDSA", "kid": "a", "crit": ["exp"]}), &claims("ada"))?,
        huge,
        "authorization: Bearer ..".into(),
        format!("{}A", key.token(&claims("ada"))?),
    ];
    for token in &bad {
        let response = gateway.get("/", &[token])?;
        assert_eq!(response.status, 401, "{token}");
        assert_eq!(response.header("www-authenticate"), Some("Bearer error=\"invalid_token\""));
    }
    let good = key.token(&claims("ada"))?;
    assert_eq!(gateway.get("/", &[&good, &good])?.status, 401, "two fields could be read differently");
    for fields in [&[][..], &["authorization: Basic YTpi"], &["x-user: ada"]] {
        let response = gateway.get("/", fields)?;
        assert_eq!((response.status, response.header("www-authenticate")), (401, Some("Bearer")));
    }
    Ok(())
}

#[test]
fn a_claim_is_the_key_of_a_rate_limit_and_tokens_may_be_optional() -> Result<()> {
    let key = Key::new("a")?;
    let yaml = "upstreams: {u: {builtin: echo}}\nroutes:\n- {match: {path: /cookie}, upstream: u, jwt: {issuer: 'https://id.test', \
                keys: {file: keys.json}, token: {cookie: session}, required: false, headers: {x-user: sub}}}\n\
                - {upstream: u, rate_limit: {key: {note: jwt.sub}, limit: 2, window: 10m}, jwt: {issuer: 'https://id.test', \
                audience: api, keys: {file: keys.json}, forward_token: false}}";
    let gateway = Setup::new(yaml)?.with("keys.json", key.jwk().to_string())?.start()?;
    for (subject, statuses) in [("ada", [200, 200, 429]), ("bob", [200, 200, 429])] {
        for status in statuses {
            // Each token is another text, but its subject counts.
            let mut all = claims(subject);
            all["jti"] = json!(status.to_string() + subject);
            let response = gateway.get("/", &[&key.token(&all)?])?;
            assert_eq!(response.status, status, "{subject}");
            assert!(status != 200 || response.echoed("authorization").is_none(), "the token is not forwarded");
        }
    }
    let token = key.token(&claims("ada"))?.replace("authorization: Bearer ", "cookie: session=");
    assert_eq!(gateway.get("/cookie", &[&token])?.echoed("x-user").as_deref(), Some("ada"));
    let anonymous = gateway.get("/cookie", &["x-user: root"])?;
    assert_eq!((anonymous.status, anonymous.echoed("x-user")), (200, None));
    assert_eq!(gateway.get("/cookie", &["cookie: session=a.b.c"])?.status, 401, "a bad token is worse than none");
    let several = format!("{token}; session=a.b.c");
    assert_eq!(gateway.get("/cookie", &[&several])?.status, 401, "the upstream could read the other cookie");
    Ok(())
}

#[test]
fn new_keys_of_the_issuer_are_found_and_old_ones_end() -> Result<()> {
    let (old, new) = (Key::new("old")?, Key::elliptic("new")?);
    let issuer = Issuer::start(Answer::Keys(set(&[&old])))?;
    let gateway = issuer.gateway(", min_interval: 100ms", "")?;
    let (of_old, of_new) = (old.token(&claims("ada"))?, new.token(&claims("ada"))?);
    for _ in 0..20 {
        assert_eq!(gateway.get("/", &[&of_old])?.status, 200);
    }
    assert_eq!(issuer.requests(), 1, "the key set is kept");
    issuer.set(Answer::Keys(set(&[&new])));
    wait_until("the new key is found", || gateway.get("/", &[&of_new]).is_ok_and(|response| response.status == 200));
    assert_eq!(gateway.get("/", &[&of_old])?.status, 401, "the issuer has withdrawn the old key");
    Ok(())
}

#[test]
fn invented_key_ids_cause_no_flood_of_fetches() -> Result<()> {
    let key = Key::new("a")?;
    let issuer = Issuer::start(Answer::Keys(set(&[&key])))?;
    let gateway = issuer.gateway("", "")?;
    let good = key.token(&claims("ada"))?;
    assert_eq!(gateway.get("/", &[&good])?.status, 200);
    let mut client = gateway.client()?;
    for number in 0..300 {
        let header = json!({"alg": "EdDSA", "kid": format!("{number}")});
        assert_eq!(client.get("/", &[&key.sign(&header, &claims("ada"))?])?.status, 401);
    }
    assert_eq!(gateway.get("/", &[&good])?.status, 200);
    assert_eq!(issuer.requests(), 1, "ten seconds have not passed");
    Ok(())
}

#[test]
fn an_issuer_that_is_slow_endless_or_wrong_costs_bounded_time_and_the_last_keys_stay() -> Result<()> {
    let key = Key::new("a")?;
    let good = key.token(&claims("ada"))?;
    for answer in [Answer::Nothing, Answer::Endless, Answer::Status(500), Answer::Keys("<html>".into())] {
        let issuer = Issuer::start(answer.clone())?;
        let gateway = issuer.gateway(", refresh: 1s, min_interval: 100ms", "")?;
        assert_eq!(gateway.get("/", &[&good])?.status, 503, "there are no keys");
        assert_eq!(gateway.get("/", &[])?.status, 401, "no token needs no keys");
        issuer.set(Answer::Keys(set(&[&key])));
        wait_until("the keys come", || gateway.get("/", &[&good]).is_ok_and(|response| response.status == 200));
        issuer.set(answer);
        let before = issuer.requests();
        wait_until("the keys are fetched again, in vain", || {
            let response = gateway.get("/", &[&good]);
            assert!(response.is_ok_and(|response| response.status == 200), "old keys are used");
            issuer.requests() > before && !gateway.logged("the last one stays in use").is_empty()
        });
    }
    Ok(())
}

#[test]
fn check_names_mistakes() -> Result<()> {
    let yaml = "upstreams: {u: {builtin: echo}}\nroutes:\n- {upstream: u, jwt: {issuer: a, algorithms: [none], keys: x, jwks: {upstream: ix}}}\n\
                - {match: {path: /b}, upstream: u, jwt: {issuer: a, jwks: {upstream: ux}}, basic_auth: {users: 'a:b'}}";
    let (_, text) = Setup::new(yaml)?.check()?;
    for expected in [
        "routes[0].jwt.algorithms: \"none\": write RS256",
        "routes[0].jwt.jwks: give either jwks",
        "jwks.upstream: ux: there is no such upstream: did you mean u?",
        "basic_auth and jwt both need the field authorization",
    ] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    let yaml = "routes: [{respond: {body: x}, jwt: {issuer: a, keys: secret-text}}]";
    let (code, text) = Setup::new(yaml)?.check()?;
    assert_eq!(code, Some(1));
    assert!(text.contains("jwt.keys: ") && !text.contains("secret-text"), "{text}");
    assert!(text.contains("without audience, a token that the issuer made for another service passes"), "{text}");
    Ok(())
}
