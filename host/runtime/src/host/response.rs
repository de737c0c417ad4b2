//! `response`: reads and edits the response, in the response phase only.
//!
//! This module does not know: when edits are applied.

use http::header::{HeaderName, HeaderValue};
use wasmtime::Result;
use witgate_http::error::FilterFailure;

use super::access::undeclared_body;
use super::fields::{self, Field};
use crate::bindings::witgate::gateway::response;
use crate::exchange::{Edit, Response, checked_body, checked_name, checked_status, checked_value};
use crate::failure::HostTrap;
use crate::filter::{CallState, Phase};

impl response::Host for CallState {
    fn status(&mut self) -> Result<u16> {
        let edited = self.journal.status();
        Ok(edited.unwrap_or(self.response()?.status).as_u16())
    }

    fn local(&mut self) -> Result<bool> {
        Ok(self.response()?.local)
    }

    fn header(&mut self, name: String) -> Result<Option<String>> {
        self.response_lines(&name, fields::joined)
    }

    fn header_values(&mut self, name: String) -> Result<Vec<String>> {
        Ok(self.response_lines(&name, fields::separate)?.unwrap_or_default())
    }

    fn header_bytes(&mut self, name: String) -> Result<Option<Vec<u8>>> {
        self.response_lines(&name, fields::joined_bytes)
    }

    fn headers(&mut self) -> Result<Vec<Field>> {
        let response = self.response()?;
        let edited = self.journal.touches_headers().then(|| self.journal.headers(&self.exchange));
        Ok(fields::all(edited.as_ref().unwrap_or(&response.headers)))
    }

    fn body(&mut self) -> Result<Vec<u8>> {
        let response = self.response()?;
        if self.filter.response_body_limit().is_none() {
            return Err(undeclared_body(Phase::Response));
        }
        let body = self.journal.body().or(response.body.as_ref());
        Ok(body.map(|body| body.to_vec()).unwrap_or_default())
    }

    fn set_status(&mut self, status: u16) -> Result<()> {
        self.edit(Phase::Response, |_| Ok(Edit::SetStatus(checked_status(status)?)))
    }

    fn set_header(&mut self, name: String, value: String) -> Result<()> {
        self.edit(Phase::Response, |_| {
            let name = checked_name(&name)?;
            let value = checked_value(&name, &value)?;
            Ok(Edit::SetHeader(name, value))
        })
    }

    fn append_header(&mut self, name: String, value: String) -> Result<()> {
        self.edit(Phase::Response, |_| {
            let name = checked_name(&name)?;
            let value = checked_value(&name, &value)?;
            Ok(Edit::AppendHeader(name, value))
        })
    }

    fn remove_header(&mut self, name: String) -> Result<()> {
        self.edit(Phase::Response, |_| Ok(Edit::RemoveHeader(checked_name(&name)?)))
    }

    fn set_body(&mut self, body: Vec<u8>) -> Result<()> {
        self.edit(Phase::Response, |state| {
            let body = checked_body(body, state.filter.settings.body_bytes)?;
            Ok(Edit::SetBody(state.exchange.hold(body)?))
        })
    }
}

impl CallState {
    /// The response. Traps in the request phase.
    fn response(&self) -> Result<&Response> {
        match &self.exchange.response {
            Some(response) if self.phase == Phase::Response => Ok(response),
            _ => {
                let message = "it asks for the response in the request phase";
                Err(HostTrap::new(FilterFailure::InvalidOutput, message).into())
            }
        }
    }

    /// Passes the lines of one response header to `read`. `None` if the name is invalid.
    fn response_lines<T>(
        &self,
        name: &str,
        read: impl FnOnce(&[&HeaderValue], &HeaderName) -> Option<T>,
    ) -> Result<Option<T>> {
        self.response()?;
        let Ok(name) = HeaderName::from_bytes(name.as_bytes()) else { return Ok(None) };
        Ok(read(&self.journal.header_lines(&self.exchange, &name), &name))
    }
}
