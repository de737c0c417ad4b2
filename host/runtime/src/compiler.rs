//! The compiler: from a component's bytes to machine code for [`super::engine::Engine`], in a process that runs nothing.
//!
//! Its engine has the code settings of the running one but no pool: that would reserve address space which the compiling process must not have. Functions that
//! were compiled before, for whatever component, come from a [`Functions`]. Must not know: processes, files.

use std::borrow::Cow;
use std::sync::Arc;

use super::engine::{code_config, fingerprint};

/// Remembers compiled functions by a key of 32 bytes that names all they depend on.
pub trait Functions: Send + Sync + std::fmt::Debug {
    /// What was inserted under this key.
    fn get(&self, key: &[u8]) -> Option<Vec<u8>>;
    /// Keeps a function that was just compiled.
    fn insert(&self, key: &[u8], code: Vec<u8>);
}

/// Compiles components.
pub struct Compiler(wasmtime::Engine);

impl Compiler {
    /// A compiler that asks `functions` first.
    pub fn new(functions: Arc<dyn Functions>) -> Result<Self, String> {
        let mut config = code_config();
        config.enable_incremental_compilation(Arc::new(Store(functions))).map_err(|error| format!("{error:#}"))?;
        wasmtime::Engine::new(&config).map(Self).map_err(|error| format!("{error:#}"))
    }

    /// The fingerprint of engines that can run what any compiler of this program compiles.
    pub fn fingerprint() -> Result<[u8; 32], String> {
        let engine = wasmtime::Engine::new(&code_config()).map_err(|error| format!("{error:#}"))?;
        Ok(fingerprint(&engine))
    }

    /// Machine code and metadata. An error says why the component is not valid.
    pub fn compile(&self, component: &[u8]) -> Result<Vec<u8>, String> {
        self.0.precompile_component(component).map_err(|error| format!("{error:#}"))
    }
}

#[derive(Debug)]
struct Store(Arc<dyn Functions>);

impl wasmtime::CacheStore for Store {
    fn get(&self, key: &[u8]) -> Option<Cow<'_, [u8]>> {
        self.0.get(key).map(Cow::Owned)
    }

    fn insert(&self, key: &[u8], code: Vec<u8>) -> bool {
        self.0.insert(key, code);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Engine;

    #[test]
    fn what_it_compiles_runs_in_the_engine_with_the_pool() -> Result<(), String> {
        assert_eq!(Compiler::fingerprint()?, Engine::new(2)?.fingerprint());
        Ok(())
    }
}
