//! A fake of the gateway for unit tests: its functions over an exchange in memory.
//!
//! The modules have the names and signatures of `bindings`, and use its types. Each thread has its
//! own exchange, because tests run in parallel.
//!
//! This module does not know how a test makes and reads a fake (`testing`).

use std::cell::RefCell;
use std::collections::BTreeMap;

use crate::bindings::types::{ClientInfo, Field};

thread_local! {
    static FAKE: RefCell<Fake> = RefCell::default();
}

/// The exchange of a test.
#[derive(Debug, Clone)]
pub struct Fake {
    /// The method of the request.
    pub method: String,
    /// The path, without the query.
    pub path: String,
    /// The query, without the `?`.
    pub query: Option<String>,
    pub(crate) request: Fields,
    /// The body of the request. `None` if the manifest does not declare one.
    pub request_body: Option<Vec<u8>>,
    /// The status of the response.
    pub status: u16,
    pub(crate) response: Fields,
    /// The body of the response. `None` if the manifest does not declare one.
    pub response_body: Option<Vec<u8>>,
    /// The client that sent the request.
    pub client: ClientInfo,
    /// The configuration of the filter.
    pub config: BTreeMap<String, String>,
    /// The notes of the exchange.
    pub notes: BTreeMap<String, String>,
    /// The lines that the filter has logged, such as `info: hello`.
    pub log: Vec<String>,
    /// The time that the gateway's clock shows, in milliseconds since 1970.
    pub now_ms: u64,
    pub(crate) store: BTreeMap<String, Entry>,
    /// Units taken by key and policy, and when the window or the bucket began.
    pub(crate) counts: BTreeMap<String, (u64, f64)>,
    /// Responds to the calls of other services.
    pub(crate) http: Option<Service>,
}

/// Responds to a call of another service.
pub type Service = fn(&http::Request) -> Result<http::Response, http::Error>;

/// A value of the key-value store, and the time at which it expires.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    value: Vec<u8>,
    is_counter: bool,
    expires_ms: u64,
}

impl Default for Fake {
    fn default() -> Self {
        Self {
            method: "GET".into(),
            path: "/".into(),
            query: None,
            request: Fields::default(),
            request_body: None,
            status: 200,
            response: Fields::default(),
            response_body: None,
            client: ClientInfo { ip: "192.0.2.1".into(), port: 12345, tls: None },
            config: BTreeMap::new(),
            notes: BTreeMap::new(),
            log: vec![],
            now_ms: 1_700_000_000_000,
            store: BTreeMap::new(),
            counts: BTreeMap::new(),
            http: None,
        }
    }
}

/// Makes this the exchange that the functions below use.
pub(crate) fn enter(fake: Fake) {
    FAKE.set(fake);
}

/// Takes the exchange out again.
pub(crate) fn leave() -> Fake {
    FAKE.take()
}

fn with<T>(access: impl FnOnce(&mut Fake) -> T) -> T {
    FAKE.with_borrow_mut(access)
}

/// The header fields of a message: names in lower case, lines in order.
#[derive(Debug, Clone, Default)]
pub(crate) struct Fields(Vec<Field>);

/// Fields that only the gateway writes.
const OWNED: [&str; 11] = [
    "host",
    "content-length",
    "via",
    "connection",
    "http2-settings",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

impl Fields {
    pub(crate) fn append(&mut self, name: &str, value: &str) {
        self.0.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }

    pub(crate) fn joined(&self, name: &str) -> Option<String> {
        let values = self.values(name);
        let separator = if name.eq_ignore_ascii_case("cookie") { "; " } else { ", " };
        (!values.is_empty()).then(|| values.join(separator))
    }

    fn values(&self, name: &str) -> Vec<String> {
        self.0.iter().filter(|field| field.0.eq_ignore_ascii_case(name)).map(|field| field.1.clone()).collect()
    }

    fn remove(&mut self, name: &str) {
        self.0.retain(|field| !field.0.eq_ignore_ascii_case(name));
    }

    fn set(&mut self, name: &str, value: &str) {
        self.remove(name);
        self.append(name, value);
    }
}

/// Panics if the gateway would trap as `invalid-output`.
fn check_field(name: &str, value: &str) {
    let is_token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    let is_owned = OWNED.contains(&name.to_ascii_lowercase().as_str());
    assert!(
        !name.is_empty() && name.chars().all(is_token),
        "invalid-output: {name:?} is not a valid field name (RFC 9110, section 5.6.2)"
    );
    assert!(!is_owned, "invalid-output: only the gateway writes the field {name}: remove this call");
    assert!(!value.contains(['\r', '\n', '\0']), "invalid-output: field {name}: the value {value:?} has CR, LF or NUL");
}

/// Tells whether a path or query has a space, a control character or one of `delimiters`.
fn has_forbidden_char(text: &str, delimiters: &str) -> bool {
    text.contains(|c: char| c == ' ' || c.is_control() || delimiters.contains(c))
}

/// The readers and setters that the request and the response have in common.
macro_rules! fields {
    (read $fields:ident, $body:ident, $phase:literal) => {
        pub fn header(name: &str) -> Option<String> {
            with(|fake| fake.$fields.joined(name))
        }
        pub fn header_values(name: &str) -> Vec<String> {
            with(|fake| fake.$fields.values(name))
        }
        pub fn header_bytes(name: &str) -> Option<Vec<u8>> {
            header(name).map(String::into_bytes)
        }
        pub fn headers() -> Vec<Field> {
            with(|fake| fake.$fields.0.clone())
        }
        pub fn body() -> Vec<u8> {
            with(|fake| fake.$body.clone()).expect(concat!(
                "the fake has no ",
                $phase,
                " body: give it one, and set `body = \"buffer\"` under [",
                $phase,
                "] in filter.toml"
            ))
        }
    };
    (edit $fields:ident, $body:ident) => {
        pub fn set_header(name: &str, value: &str) {
            check_field(name, value);
            with(|fake| fake.$fields.set(name, value));
        }
        pub fn append_header(name: &str, value: &str) {
            check_field(name, value);
            with(|fake| fake.$fields.append(name, value));
        }
        pub fn remove_header(name: &str) {
            check_field(name, "");
            with(|fake| fake.$fields.remove(name));
        }
        pub fn set_body(body: &[u8]) {
            with(|fake| fake.$body = Some(body.to_vec()));
        }
    };
}

pub(crate) mod request {
    use super::*;

    pub fn method() -> String {
        with(|fake| fake.method.clone())
    }
    pub fn scheme() -> String {
        with(|fake| if fake.client.tls.is_some() { "https" } else { "http" }.to_owned())
    }
    pub fn authority() -> String {
        with(|fake| fake.request.joined("host").unwrap_or_default().to_lowercase())
    }
    pub fn path() -> String {
        with(|fake| fake.path.clone())
    }
    pub fn query() -> Option<String> {
        with(|fake| fake.query.clone())
    }
    fields!(read request, request_body, "request");
}

pub(crate) mod request_edit {
    use super::*;

    pub fn set_path(path: &str) {
        assert!(
            path.starts_with('/') && !has_forbidden_char(path, "?#"),
            "invalid-output: path {path:?}: must begin with / and have no ?, #, space or control character"
        );
        with(|fake| fake.path = path.to_owned());
    }
    pub fn set_query(query: Option<&str>) {
        assert!(
            !has_forbidden_char(query.unwrap_or_default(), "#"),
            "invalid-output: query {query:?}: must have no #, space or control character"
        );
        with(|fake| fake.query = query.map(str::to_owned));
    }
    fields!(edit request, request_body);
}

pub(crate) mod response {
    use super::*;

    pub fn status() -> u16 {
        with(|fake| fake.status)
    }
    pub fn local() -> bool {
        false
    }
    pub fn set_status(status: u16) {
        assert!((200..600).contains(&status), "invalid-output: status {status} is not between 200 and 599");
        with(|fake| fake.status = status);
    }
    fields!(read response, response_body, "response");
    fields!(edit response, response_body);
}

pub(crate) mod exchange {
    use super::*;

    pub fn client() -> ClientInfo {
        with(|fake| fake.client.clone())
    }
    pub fn route() -> String {
        "test".to_owned()
    }
    pub fn id() -> String {
        "0".repeat(32)
    }
    pub fn note(name: &str) -> Option<String> {
        with(|fake| fake.notes.get(name).cloned())
    }
    pub fn set_note(name: &str, value: &str) {
        with(|fake| fake.notes.insert(name.into(), value.into()));
    }
}

pub(crate) mod log {
    use super::with;
    use crate::bindings::log::Level;

    pub fn write(level: Level, message: &str) {
        let level = match level {
            Level::Trace => "trace",
            Level::Debug => "debug",
            Level::Info => "info",
            Level::Warn => "warn",
            Level::Error => "error",
        };
        with(|fake| fake.log.push(format!("{level}: {message}")));
    }
}

pub mod config {
    //! The configuration of the filter: the values under `config:` in gateway.yaml.
    use super::with;

    /// Returns the value of a key. `None` if the key is not set. A value that is not a string is
    /// returned as JSON text.
    pub fn get(key: &str) -> Option<String> {
        with(|fake| fake.config.get(key).cloned())
    }

    /// Returns all keys that are set, sorted.
    pub fn keys() -> Vec<String> {
        with(|fake| fake.config.keys().cloned().collect())
    }
}

pub mod clock {
    //! The clock of the gateway. In a test it does not advance.
    use super::with;
    pub use crate::bindings::clock::Datetime;

    /// Returns the wall-clock time.
    pub fn now() -> Datetime {
        let now = with(|fake| fake.now_ms);
        Datetime { seconds: (now / 1000) as u32, nanoseconds: (now % 1000) as u32 * 1_000_000 }
    }

    /// Returns microseconds since an arbitrary moment, for measuring durations within one call.
    /// Wraps to 0 after 2^32.
    pub fn ticks() -> u32 {
        with(|fake| fake.now_ms.wrapping_mul(1000) as u32)
    }
}

pub mod random {
    //! Unpredictable numbers from the operating system.
    use std::hash::{BuildHasher as _, RandomState};

    /// Returns `len` random bytes, at most 65,536. A larger value ends the call.
    pub fn bytes(len: u32) -> Vec<u8> {
        (0..len).map(|_| number() as u8).collect()
    }

    /// Returns a random number.
    pub fn number() -> u32 {
        RandomState::new().hash_one(0) as u32
    }
}

pub mod keyvalue {
    //! Values that outlive a call. Requires `services = ["keyvalue"]` in filter.toml and
    //! `capabilities: [keyvalue]` in gateway.yaml.
    //!
    //! All instances of the filter share one store; other filters cannot see it. Each function is
    //! atomic. A key has 1 to 256 bytes, a value at most 64 KiB.
    use super::{Entry, Fake, with};
    pub use crate::bindings::keyvalue::Error;

    /// Returns the value of a key. `None` if the key is absent or has expired.
    pub fn get(key: &str) -> Result<Option<Vec<u8>>, Error> {
        with_key(key, |fake| Ok(unexpired(fake, key).map(|entry| entry.value.clone())))
    }

    /// Sets a key. It expires after `ttl_ms` milliseconds; with 0 it does not expire.
    pub fn set(key: &str, value: &[u8], ttl_ms: u32) -> Result<(), Error> {
        if value.len() > 64 << 10 {
            return Err(Error::TooLarge);
        }
        with_key(key, |fake| {
            let entry = Entry { value: value.to_vec(), is_counter: false, expires_ms: expiry(fake, ttl_ms) };
            fake.store.insert(key.into(), entry);
            Ok(())
        })
    }

    /// Removes a key. Returns true if the key was there and had not expired.
    pub fn delete(key: &str) -> Result<bool, Error> {
        with_key(key, |fake| {
            let existed = unexpired(fake, key).is_some();
            fake.store.remove(key);
            Ok(existed)
        })
    }

    /// Adds `delta` to a counter and returns the sum.
    ///
    /// A new counter starts at 0 and expires after `ttl_ms` milliseconds (0: does not expire).
    /// Later increments do not prolong its life.
    pub fn increment(key: &str, delta: i32, ttl_ms: u32) -> Result<i32, Error> {
        with_key(key, |fake| {
            let (before, expires_ms) = match unexpired(fake, key) {
                Some(entry) if !entry.is_counter => return Err(Error::NotANumber),
                Some(entry) => (String::from_utf8_lossy(&entry.value).parse().unwrap_or(0), entry.expires_ms),
                None => (0, expiry(fake, ttl_ms)),
            };
            let sum: i32 = delta.checked_add(before).ok_or(Error::NotANumber)?;
            fake.store.insert(key.into(), Entry { value: sum.to_string().into(), is_counter: true, expires_ms });
            Ok(sum)
        })
    }

    /// Returns the values of at most 64 keys, in their order. `None` stands for a key that is
    /// absent or has expired.
    pub fn get_many(keys: &[String]) -> Result<Vec<Option<Vec<u8>>>, Error> {
        if keys.len() > 64 {
            return Err(Error::TooLarge);
        }
        keys.iter().map(|key| get(key)).collect()
    }

    /// Sets a key if its value is `expected`, or if the key is absent and `expected` is `None`.
    /// Returns true if it did; on false read the value again and decide anew.
    ///
    /// A counter has its decimal text as the value. The new value is not a counter. The key expires
    /// after `ttl_ms` milliseconds; with 0 it does not expire.
    pub fn compare_and_swap(key: &str, expected: Option<&[u8]>, value: &[u8], ttl_ms: u32) -> Result<bool, Error> {
        if get(key)?.as_deref() != expected {
            return Ok(false);
        }
        set(key, value, ttl_ms).map(|()| true)
    }

    fn with_key<T>(key: &str, access: impl FnOnce(&mut Fake) -> Result<T, Error>) -> Result<T, Error> {
        if (1..=256).contains(&key.len()) { with(access) } else { Err(Error::TooLarge) }
    }

    fn unexpired<'a>(fake: &'a Fake, key: &str) -> Option<&'a Entry> {
        fake.store.get(key).filter(|entry| entry.expires_ms > fake.now_ms)
    }

    fn expiry(fake: &Fake, ttl_ms: u32) -> u64 {
        if ttl_ms == 0 { u64::MAX } else { fake.now_ms + u64::from(ttl_ms) }
    }
}

pub mod limiter {
    //! Limits rates. Requires `services = ["limiter"]` in filter.toml and
    //! `capabilities: [limiter]` in gateway.yaml.
    //!
    //! All instances of the filter share the counts; other filters cannot see them. In a test a
    //! window begins with the first unit and does not slide.
    use super::with;
    pub use crate::bindings::limiter::{Algorithm, Decision, Error, Policy};

    /// Takes `cost` units of a key if the policy allows it. A cost of 0 takes nothing and shows
    /// what remains.
    ///
    /// The function is atomic: of simultaneous calls exactly as many succeed as the policy allows.
    /// A key has 1 to 256 bytes; each combination of key and policy has a count of its own.
    pub fn take(key: &str, cost: u32, policy: Policy) -> Result<Decision, Error> {
        if !(1..=256).contains(&key.len()) {
            return Err(Error::TooLarge);
        }
        let is_bucket = policy.algorithm == Algorithm::TokenBucket;
        let most = if is_bucket && policy.burst > 0 { policy.burst } else { policy.limit };
        if cost > most || policy.limit == 0 || policy.window_ms == 0 {
            return Err(Error::Invalid(format!("a cost of {cost} with {policy:?}")));
        }
        let (most, cost, limit, window) =
            (f64::from(most), f64::from(cost), f64::from(policy.limit), f64::from(policy.window_ms));
        with(|fake| {
            let now = fake.now_ms;
            let count = fake.counts.entry(format!("{key} {policy:?}")).or_insert((now, 0.0));
            let mut elapsed = (now - count.0) as f64;
            if is_bucket {
                *count = (now, (count.1 - elapsed * limit / window).max(0.0));
            } else if elapsed >= window {
                *count = (now, 0.0);
                elapsed = 0.0;
            }
            let allowed = count.1 + cost <= most;
            if allowed {
                count.1 += cost;
            }
            let reset = if is_bucket { count.1 * window / limit } else { window - elapsed };
            let retry = if is_bucket { (count.1 + cost - most) * window / limit } else { reset };
            Ok(Decision {
                allowed,
                remaining: (most - count.1) as u32,
                reset_ms: reset.ceil() as u32,
                retry_after_ms: if allowed { 0 } else { retry.ceil() as u32 },
            })
        })
    }
}

pub mod http {
    //! Sends requests to other services. In a test, the function of
    //! [`Fake::with_http`](crate::testing::Fake::with_http) answers.
    use super::with;
    pub use crate::bindings::http::{Error, Request, Response};

    /// Sends a request and waits for the whole response.
    pub fn send(request: &Request) -> Result<Response, Error> {
        match with(|fake| fake.http) {
            Some(service) => service(request),
            None => Err(Error::Denied("give the fake a function with with_http".into())),
        }
    }
}

pub mod crypto {
    //! Cryptography. A test has only `equal`: the other functions panic outside of a gateway.
    pub use crate::bindings::crypto::{Algorithm, Error, Hash, Key};

    const ABSENT: &str = "the fake has no cryptography: put the call behind a function that a test can replace";

    /// Compares two values in a time that depends on their lengths only.
    pub fn equal(a: &[u8], b: &[u8]) -> bool {
        a == b
    }
    /// Returns the digest of `data`.
    pub fn digest(_: Hash, _: &[u8]) -> Result<Vec<u8>, Error> {
        panic!("{ABSENT}")
    }
    /// Returns the message authentication code of `data`.
    pub fn hmac(_: Hash, _: &Key, _: &[u8]) -> Result<Vec<u8>, Error> {
        panic!("{ABSENT}")
    }
    /// Returns whether `signature` is the signature of `data`.
    pub fn verify(_: Algorithm, _: &Key, _: &[u8], _: &[u8]) -> Result<bool, Error> {
        panic!("{ABSENT}")
    }
    /// Returns the signature of `data`.
    pub fn sign(_: Algorithm, _: &Key, _: &[u8]) -> Result<Vec<u8>, Error> {
        panic!("{ABSENT}")
    }
    /// Encrypts with AES-GCM.
    pub fn encrypt(_: &Key, _: &[u8], _: &[u8], _: &[u8]) -> Result<Vec<u8>, Error> {
        panic!("{ABSENT}")
    }
    /// Decrypts what `encrypt` returned.
    pub fn decrypt(_: &Key, _: &[u8], _: &[u8], _: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        panic!("{ABSENT}")
    }
    /// Derives a key from a password.
    pub fn derive(_: Hash, _: &Key, _: &[u8], _: u32, _: u32) -> Result<Vec<u8>, Error> {
        panic!("{ABSENT}")
    }
}
