//! `request-edit`: records edits of the request, in the request phase only.
//!
//! This module does not know: when edits are applied.

use wasmtime::Result;

use crate::bindings::witgate::gateway::request_edit;
use crate::exchange::{Edit, checked_body, checked_name, checked_target, checked_value};
use crate::filter::{CallState, Phase};

impl request_edit::Host for CallState {
    fn set_header(&mut self, name: String, value: String) -> Result<()> {
        self.edit(Phase::Request, |_| {
            let name = checked_name(&name)?;
            let value = checked_value(&name, &value)?;
            Ok(Edit::SetHeader(name, value))
        })
    }

    fn append_header(&mut self, name: String, value: String) -> Result<()> {
        self.edit(Phase::Request, |_| {
            let name = checked_name(&name)?;
            let value = checked_value(&name, &value)?;
            Ok(Edit::AppendHeader(name, value))
        })
    }

    fn remove_header(&mut self, name: String) -> Result<()> {
        self.edit(Phase::Request, |_| Ok(Edit::RemoveHeader(checked_name(&name)?)))
    }

    fn set_path(&mut self, path: String) -> Result<()> {
        self.edit(Phase::Request, |state| {
            let query = state.journal.target(&state.exchange).query();
            Ok(Edit::SetTarget(checked_target(&path, query)?))
        })
    }

    fn set_query(&mut self, query: Option<String>) -> Result<()> {
        self.edit(Phase::Request, |state| {
            let path = state.journal.target(&state.exchange).path();
            Ok(Edit::SetTarget(checked_target(path, query.as_deref())?))
        })
    }

    fn set_body(&mut self, body: Vec<u8>) -> Result<()> {
        self.edit(Phase::Request, |state| {
            let body = checked_body(body, state.filter.settings.body_bytes)?;
            Ok(Edit::SetBody(state.exchange.hold(body)?))
        })
    }
}
