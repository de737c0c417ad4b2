//! `request`: reads the request. In the request phase, a call sees its own edits.
//!
//! This module does not know: how edits are checked or applied.

use http::header::{HeaderName, HeaderValue};
use wasmtime::Result;

use super::access::undeclared_body;
use super::fields::{self, Field};
use crate::bindings::witgate::gateway::request;
use crate::filter::{CallState, Phase};

impl request::Host for CallState {
    fn method(&mut self) -> Result<String> {
        Ok(self.exchange.request.method.as_str().to_owned())
    }

    fn scheme(&mut self) -> Result<String> {
        Ok(if self.exchange.request.tls { "https" } else { "http" }.to_owned())
    }

    fn authority(&mut self) -> Result<String> {
        Ok(self.exchange.request.authority().to_ascii_lowercase())
    }

    fn path(&mut self) -> Result<String> {
        Ok(self.journal.target(&self.exchange).path().to_owned())
    }

    fn query(&mut self) -> Result<Option<String>> {
        Ok(self.journal.target(&self.exchange).query().map(str::to_owned))
    }

    fn header(&mut self, name: String) -> Result<Option<String>> {
        Ok(self.request_lines(&name, fields::joined))
    }

    fn header_values(&mut self, name: String) -> Result<Vec<String>> {
        Ok(self.request_lines(&name, fields::separate).unwrap_or_default())
    }

    fn header_bytes(&mut self, name: String) -> Result<Option<Vec<u8>>> {
        Ok(self.request_lines(&name, fields::joined_bytes))
    }

    fn headers(&mut self) -> Result<Vec<Field>> {
        let edited = (self.phase == Phase::Request && self.journal.touches_headers())
            .then(|| self.journal.headers(&self.exchange));
        Ok(fields::all(edited.as_ref().unwrap_or(&self.exchange.request.headers)))
    }

    fn body(&mut self) -> Result<Vec<u8>> {
        if self.phase != Phase::Request || self.filter.request_body_limit().is_none() {
            return Err(undeclared_body(Phase::Request));
        }
        let body = self.journal.body().or(self.exchange.request.body.as_ref());
        Ok(body.map(|body| body.to_vec()).unwrap_or_default())
    }
}

impl CallState {
    /// Passes the lines of one request header to `read`. `None` if the name is invalid.
    fn request_lines<T>(&self, name: &str, read: impl FnOnce(&[&HeaderValue], &HeaderName) -> Option<T>) -> Option<T> {
        let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
        if self.phase == Phase::Request {
            return read(&self.journal.header_lines(&self.exchange, &name), &name);
        }
        let lines: Vec<_> = self.exchange.request.headers.get_all(&name).iter().collect();
        read(&lines, &name)
    }
}
