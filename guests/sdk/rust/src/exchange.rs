//! The request and the response as objects. They hold no state: each method calls one function of
//! the gateway.
//!
//! This module does not know whether the functions are those of the gateway or of the fake.

use crate::bindings::types::ClientInfo;
use crate::host::{exchange, request, request_edit, response};

/// The request, for reading in both phases and for changing in the request phase.
///
/// A getter returns the new value as soon as it is set. The gateway applies the edits when the
/// handler returns [`Action::Proceed`](crate::Action::Proceed), and discards them otherwise.
///
/// A name or value that HTTP forbids ends the call, and so does a field that only the gateway
/// writes, such as `host` or `content-length` (`wit/request.wit` has the list).
#[derive(Debug)]
pub struct Request(());

/// The response, for reading and changing in the response phase.
///
/// A getter returns the new value as soon as it is set. The gateway applies the edits when the
/// handler returns [`Action::Proceed`](crate::Action::Proceed), and discards them otherwise.
///
/// A status, name or value that HTTP forbids ends the call, and so does a field that only the
/// gateway writes, such as `content-length` (`wit/request.wit` has the list).
#[derive(Debug)]
pub struct Response(());

impl Request {
    pub(crate) const CURRENT: Self = Self(());

    /// Returns the method, such as `GET`.
    pub fn method(&self) -> String {
        request::method()
    }

    /// Returns `https` if the client reached the gateway over TLS, otherwise `http`.
    pub fn scheme(&self) -> String {
        request::scheme()
    }

    /// Returns the host, and the port if the client gave one, in lower case. Empty if there is no
    /// host.
    pub fn authority(&self) -> String {
        request::authority()
    }

    /// Returns the path without the query, percent-encoded. It begins with `/`.
    pub fn path(&self) -> String {
        request::path()
    }

    /// Returns the query without the `?`. `None` if there is no `?`.
    pub fn query(&self) -> Option<String> {
        request::query()
    }

    /// Returns the value of a header field. `None` if the field is absent.
    ///
    /// The case of the name does not matter. Several lines are joined with `, ` (those of `cookie`
    /// with `; `).
    pub fn header(&self, name: &str) -> Option<String> {
        request::header(name)
    }

    /// Returns the value of each line of a header field, in order. Empty if the field is absent.
    pub fn header_values(&self, name: &str) -> Vec<String> {
        request::header_values(name)
    }

    /// Like [`header`](Self::header), but returns the bytes of the value, which need not be UTF-8.
    pub fn header_bytes(&self, name: &str) -> Option<Vec<u8>> {
        request::header_bytes(name)
    }

    /// Returns all header fields in order, names in lower case. Costs more than
    /// [`header`](Self::header).
    pub fn headers(&self) -> Vec<(String, String)> {
        request::headers()
    }

    /// Returns the whole body. Empty if the request has none.
    ///
    /// Ends the call unless filter.toml has `body = "buffer"` under `[request]`.
    pub fn body(&self) -> Vec<u8> {
        request::body()
    }

    /// Returns the client that sent the request.
    pub fn client(&self) -> ClientInfo {
        exchange::client()
    }

    /// Returns the name of the route in gateway.yaml.
    pub fn route(&self) -> String {
        exchange::route()
    }

    /// Returns the id of the exchange, 32 hexadecimal digits. The gateway's log has the same id.
    pub fn id(&self) -> String {
        exchange::id()
    }

    /// Returns the value of a note. `None` if no filter has set it.
    pub fn note(&self, name: &str) -> Option<String> {
        exchange::note(name)
    }

    /// Sets a note: a named string that later filters and the response phase of this filter can
    /// read. Neither the client nor the upstream sees it.
    ///
    /// A filter may add 32 notes to an exchange. A name has 1 to 64 bytes, a value at most 4 KiB;
    /// exceeding a bound ends the call. Begin the name with the name of your filter.
    pub fn set_note(&self, name: &str, value: &str) {
        exchange::set_note(name, value);
    }

    /// Sets a header field. Replaces all lines of the field.
    pub fn set_header(&mut self, name: &str, value: &str) {
        request_edit::set_header(name, value);
    }

    /// Adds a line to a header field. Keeps the lines that the field already has.
    pub fn append_header(&mut self, name: &str, value: &str) {
        request_edit::append_header(name, value);
    }

    /// Removes all lines of a header field. Does nothing if the field is absent.
    pub fn remove_header(&mut self, name: &str) {
        request_edit::remove_header(name);
    }

    /// Sets the path for the upstream: percent-encoded, begins with `/`, without the query.
    pub fn set_path(&mut self, path: &str) {
        request_edit::set_path(path);
    }

    /// Sets the query for the upstream, without the `?`. `None` removes the query.
    pub fn set_query(&mut self, query: Option<&str>) {
        request_edit::set_query(query);
    }

    /// Replaces the body, with at most 8 MiB.
    pub fn set_body(&mut self, body: &[u8]) {
        request_edit::set_body(body);
    }
}

impl Response {
    pub(crate) const CURRENT: Self = Self(());

    /// Returns the status code, 200 to 599.
    pub fn status(&self) -> u16 {
        response::status()
    }

    /// Returns whether a filter or the gateway made the response, rather than the upstream.
    pub fn local(&self) -> bool {
        response::local()
    }

    /// Returns the value of a header field. `None` if the field is absent.
    ///
    /// The case of the name does not matter. Several lines are joined with `, `; use
    /// [`header_values`](Self::header_values) for `set-cookie`.
    pub fn header(&self, name: &str) -> Option<String> {
        response::header(name)
    }

    /// Returns the value of each line of a header field, in order. Empty if the field is absent.
    pub fn header_values(&self, name: &str) -> Vec<String> {
        response::header_values(name)
    }

    /// Like [`header`](Self::header), but returns the bytes of the value, which need not be UTF-8.
    pub fn header_bytes(&self, name: &str) -> Option<Vec<u8>> {
        response::header_bytes(name)
    }

    /// Returns all header fields in order, names in lower case. Costs more than
    /// [`header`](Self::header).
    pub fn headers(&self) -> Vec<(String, String)> {
        response::headers()
    }

    /// Returns the whole body as the upstream sent it, still encoded if `content-encoding` is set.
    ///
    /// Ends the call unless filter.toml has `body = "buffer"` under `[response]`.
    pub fn body(&self) -> Vec<u8> {
        response::body()
    }

    /// Sets the status code, 200 to 599.
    pub fn set_status(&mut self, status: u16) {
        response::set_status(status);
    }

    /// Sets a header field. Replaces all lines of the field.
    pub fn set_header(&mut self, name: &str, value: &str) {
        response::set_header(name, value);
    }

    /// Adds a line to a header field. Keeps the lines that the field already has.
    pub fn append_header(&mut self, name: &str, value: &str) {
        response::append_header(name, value);
    }

    /// Removes all lines of a header field. Does nothing if the field is absent.
    pub fn remove_header(&mut self, name: &str) {
        response::remove_header(name);
    }

    /// Replaces the body, with at most 8 MiB.
    pub fn set_body(&mut self, body: &[u8]) {
        response::set_body(body);
    }
}
