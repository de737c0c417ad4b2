//! The host's functions over a fake exchange of this thread: what unit tests run on.

use std::cell::RefCell;
use std::collections::BTreeMap;

thread_local! {
    static FAKE: RefCell<Fake> = RefCell::default();
}

/// An exchange made by hand. Put it in place with [`Fake::enter`], look at what became of it with [`Fake::leave`].
#[derive(Debug, Clone, Default)]
pub struct Fake {
    /// Of the request; empty reads as `GET`.
    pub method: String,
    /// Of the request; empty reads as `/`.
    pub path: String,
    /// Of the request.
    pub query: Option<String>,
    /// Names in lower case.
    pub request_headers: Vec<(String, String)>,
    /// Of the request.
    pub request_body: Vec<u8>,
    /// Of the response.
    pub status: u16,
    /// Names in lower case.
    pub response_headers: Vec<(String, String)>,
    /// Of the response.
    pub response_body: Vec<u8>,
    /// The filter's configuration.
    pub config: BTreeMap<String, String>,
    /// Of the exchange.
    pub notes: BTreeMap<String, String>,
    /// What the filter logged.
    pub log: Vec<String>,
}

impl Fake {
    /// A request with these header fields.
    pub fn request(headers: &[(&str, &str)]) -> Self {
        Self { request_headers: owned(headers), ..Self::default() }
    }

    /// A 200 response with these header fields.
    pub fn response(headers: &[(&str, &str)]) -> Self {
        Self { status: 200, response_headers: owned(headers), ..Self::default() }
    }

    /// With a key of the filter's configuration.
    #[must_use]
    pub fn with_config(mut self, key: &str, value: &str) -> Self {
        self.config.insert(key.into(), value.into());
        self
    }

    /// Makes this the exchange that the filter sees.
    pub fn enter(self) {
        FAKE.with(|fake| *fake.borrow_mut() = self);
    }

    /// Takes the exchange out again, with the filter's edits.
    pub fn leave() -> Self {
        FAKE.with(RefCell::take)
    }

    /// A field of the request, lines joined.
    pub fn request_header(&self, name: &str) -> Option<String> {
        joined(&self.request_headers, name)
    }

    /// A field of the response, lines joined.
    pub fn response_header(&self, name: &str) -> Option<String> {
        joined(&self.response_headers, name)
    }
}

fn owned(headers: &[(&str, &str)]) -> Vec<(String, String)> {
    headers.iter().map(|(name, value)| (name.to_ascii_lowercase(), (*value).to_owned())).collect()
}

fn joined(headers: &[(String, String)], name: &str) -> Option<String> {
    let values: Vec<&str> =
        headers.iter().filter(|header| header.0.eq_ignore_ascii_case(name)).map(|header| header.1.as_str()).collect();
    (!values.is_empty()).then(|| values.join(", "))
}

fn remove(headers: &mut Vec<(String, String)>, name: &str) {
    headers.retain(|header| !header.0.eq_ignore_ascii_case(name));
}

fn append(headers: &mut Vec<(String, String)>, name: &str, value: &str) {
    headers.push((name.to_ascii_lowercase(), value.into()));
}

fn with<T>(look: impl FnOnce(&mut Fake) -> T) -> T {
    FAKE.with(|fake| look(&mut fake.borrow_mut()))
}

fn or(text: &str, default: &str) -> String {
    if text.is_empty() { default } else { text }.to_owned()
}

pub(crate) fn config(key: &str) -> Option<String> {
    with(|fake| fake.config.get(key).cloned())
}
pub(crate) fn log(message: &str) {
    with(|fake| fake.log.push(message.to_owned()));
}
pub(crate) fn note(name: &str) -> Option<String> {
    with(|fake| fake.notes.get(name).cloned())
}
pub(crate) fn set_note(name: &str, value: &str) {
    with(|fake| fake.notes.insert(name.into(), value.into()));
}
pub(crate) fn client_ip() -> String {
    "192.0.2.1".to_owned()
}
pub(crate) fn method() -> String {
    with(|fake| or(&fake.method, "GET"))
}
pub(crate) fn path() -> String {
    with(|fake| or(&fake.path, "/"))
}
pub(crate) fn query() -> Option<String> {
    with(|fake| fake.query.clone())
}
pub(crate) fn request_header(name: &str) -> Option<String> {
    with(|fake| fake.request_header(name))
}
pub(crate) fn request_headers() -> Vec<(String, String)> {
    with(|fake| fake.request_headers.clone())
}
pub(crate) fn request_body() -> Vec<u8> {
    with(|fake| fake.request_body.clone())
}
pub(crate) fn set_request_header(name: &str, value: &str) {
    with(|fake| {
        remove(&mut fake.request_headers, name);
        append(&mut fake.request_headers, name, value);
    });
}
pub(crate) fn append_request_header(name: &str, value: &str) {
    with(|fake| append(&mut fake.request_headers, name, value));
}
pub(crate) fn remove_request_header(name: &str) {
    with(|fake| remove(&mut fake.request_headers, name));
}
pub(crate) fn set_path(path: &str) {
    with(|fake| fake.path = path.to_owned());
}
pub(crate) fn set_request_body(body: &[u8]) {
    with(|fake| fake.request_body = body.to_vec());
}
pub(crate) fn status() -> u16 {
    with(|fake| fake.status)
}
pub(crate) fn response_header(name: &str) -> Option<String> {
    with(|fake| fake.response_header(name))
}
pub(crate) fn response_headers() -> Vec<(String, String)> {
    with(|fake| fake.response_headers.clone())
}
pub(crate) fn response_body() -> Vec<u8> {
    with(|fake| fake.response_body.clone())
}
pub(crate) fn set_status(status: u16) {
    with(|fake| fake.status = status);
}
pub(crate) fn set_response_header(name: &str, value: &str) {
    with(|fake| {
        remove(&mut fake.response_headers, name);
        append(&mut fake.response_headers, name, value);
    });
}
pub(crate) fn append_response_header(name: &str, value: &str) {
    with(|fake| append(&mut fake.response_headers, name, value));
}
pub(crate) fn remove_response_header(name: &str) {
    with(|fake| remove(&mut fake.response_headers, name));
}
pub(crate) fn set_response_body(body: &[u8]) {
    with(|fake| fake.response_body = body.to_vec());
}
