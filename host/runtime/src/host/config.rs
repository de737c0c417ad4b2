//! `config`: the filter's configuration values of gateway.yaml.
//!
//! This module does not know: how the configuration is read or checked.

use wasmtime::Result;

use crate::bindings::witgate::gateway::config;
use crate::filter::CallState;

impl config::Host for CallState {
    fn get(&mut self, key: String) -> Result<Option<String>> {
        Ok(self.config.get(&key).cloned())
    }

    fn keys(&mut self) -> Result<Vec<String>> {
        Ok(self.config.keys().cloned().collect())
    }
}
