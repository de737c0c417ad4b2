//! The request and the response as objects. They hold nothing: each method is one call of the gateway.

use crate::ClientInfo;
use crate::host::{exchange, request, request_edit, response};

/// The request: read in both phases, changed only in the request phase. What you set, you read. The rules are those of `wit/request.wit`.
#[derive(Debug)]
pub struct Request(());

/// The response; only in the response phase. The rules are those of `wit/response.wit`.
#[derive(Debug)]
pub struct Response(());

impl Request {
    pub(crate) const CURRENT: Self = Self(());

    /// `GET`, `POST`, …
    pub fn method(&self) -> String {
        request::method()
    }

    /// `http` or `https`.
    pub fn scheme(&self) -> String {
        request::scheme()
    }

    /// Host and, where given, port.
    pub fn authority(&self) -> String {
        request::authority()
    }

    /// The path, percent-encoded.
    pub fn path(&self) -> String {
        request::path()
    }

    /// What follows the `?`, none where there is none.
    pub fn query(&self) -> Option<String> {
        request::query()
    }

    /// One field, lines joined; none where it is absent. Case does not matter.
    pub fn header(&self, name: &str) -> Option<String> {
        request::header(name)
    }

    /// Each line of one field.
    pub fn header_values(&self, name: &str) -> Vec<String> {
        request::header_values(name)
    }

    /// One field as the bytes received: for values that are not UTF-8.
    pub fn header_bytes(&self, name: &str) -> Option<Vec<u8>> {
        request::header_bytes(name)
    }

    /// All fields in the order received, names in lower case. One [`header`](Self::header) costs less.
    pub fn headers(&self) -> Vec<(String, String)> {
        request::headers()
    }

    /// The whole body; traps without `body = "buffer"` under `[request]` in filter.toml.
    pub fn body(&self) -> Vec<u8> {
        request::body()
    }

    /// Who sent it.
    pub fn client(&self) -> ClientInfo {
        exchange::client()
    }

    /// The route's name in gateway.yaml.
    pub fn route(&self) -> String {
        exchange::route()
    }

    /// The exchange's id, 32 hexadecimal digits: the one in the gateway's log.
    pub fn id(&self) -> String {
        exchange::id()
    }

    /// A note that a filter left on the exchange.
    pub fn note(&self, name: &str) -> Option<String> {
        exchange::note(name)
    }

    /// Leaves a note for later filters, this filter's response phase and the access log. Begin the name with the filter's.
    pub fn set_note(&self, name: &str, value: &str) {
        exchange::set_note(name, value);
    }

    /// This one value in the place of all.
    pub fn set_header(&mut self, name: &str, value: &str) {
        request_edit::set_header(name, value);
    }

    /// One more line.
    pub fn append_header(&mut self, name: &str, value: &str) {
        request_edit::append_header(name, value);
    }

    /// No line.
    pub fn remove_header(&mut self, name: &str) {
        request_edit::remove_header(name);
    }

    /// Another path for the upstream, percent-encoded, without a query; the route stays.
    pub fn set_path(&mut self, path: &str) {
        request_edit::set_path(path);
    }

    /// Another query for the upstream, without `?`; none removes it.
    pub fn set_query(&mut self, query: Option<&str>) {
        request_edit::set_query(query);
    }

    /// Another body, at most 8 MiB.
    pub fn set_body(&mut self, body: &[u8]) {
        request_edit::set_body(body);
    }
}

impl Response {
    pub(crate) const CURRENT: Self = Self(());

    /// 200 to 599.
    pub fn status(&self) -> u16 {
        response::status()
    }

    /// Whether a filter or the gateway made it, not the upstream.
    pub fn local(&self) -> bool {
        response::local()
    }

    /// One field, lines joined; none where it is absent. For `set-cookie`, [`header_values`](Self::header_values).
    pub fn header(&self, name: &str) -> Option<String> {
        response::header(name)
    }

    /// Each line of one field.
    pub fn header_values(&self, name: &str) -> Vec<String> {
        response::header_values(name)
    }

    /// One field as the bytes received.
    pub fn header_bytes(&self, name: &str) -> Option<Vec<u8>> {
        response::header_bytes(name)
    }

    /// All fields in the order received, names in lower case.
    pub fn headers(&self) -> Vec<(String, String)> {
        response::headers()
    }

    /// The whole body, as the upstream encoded it; traps without `body = "buffer"` under `[response]` in filter.toml.
    pub fn body(&self) -> Vec<u8> {
        response::body()
    }

    /// Another status, 200 to 599.
    pub fn set_status(&mut self, status: u16) {
        response::set_status(status);
    }

    /// This one value in the place of all.
    pub fn set_header(&mut self, name: &str, value: &str) {
        response::set_header(name, value);
    }

    /// One more line.
    pub fn append_header(&mut self, name: &str, value: &str) {
        response::append_header(name, value);
    }

    /// No line.
    pub fn remove_header(&mut self, name: &str) {
        response::remove_header(name);
    }

    /// Another body, at most 8 MiB.
    pub fn set_body(&mut self, body: &[u8]) {
        response::set_body(body);
    }
}
