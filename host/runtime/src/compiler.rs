//! Compiles a component to machine code for [`crate::engine::Engine`], in a process that runs no
//! filters.
//!
//! Its engine has the code settings of the running one but no pool, because the compiling process
//! must not reserve that address space.
//!
//! Gain: functions that were compiled before, for any component, come from [`Functions`], so a
//! changed filter compiles in a fraction of the time. Price: wasmtime hashes each function to find
//! it. This module does not know: processes, files.

use std::borrow::Cow;
use std::sync::Arc;

use crate::engine::{code_config, fingerprint};

/// A store of compiled functions. A key of 32 bytes identifies everything that a function's code
/// depends on.
pub trait Functions: Send + Sync + std::fmt::Debug {
    /// The code that was inserted under this key.
    fn get(&self, key: &[u8]) -> Option<Vec<u8>>;
    /// Stores a function that was just compiled.
    fn insert(&self, key: &[u8], code: Vec<u8>);
}

/// Compiles components.
pub struct Compiler(wasmtime::Engine);

impl Compiler {
    /// A compiler that asks `functions` before it compiles a function.
    ///
    /// # Errors
    ///
    /// wasmtime does not support this processor.
    pub fn new(functions: Arc<dyn Functions>) -> Result<Self, String> {
        let mut config = code_config();
        config
            .enable_incremental_compilation(Arc::new(CacheAdapter(functions)))
            .map_err(|error| format!("{error:#}"))?;
        wasmtime::Engine::new(&config).map(Self).map_err(|error| format!("{error:#}"))
    }

    /// The fingerprint of engines that can run the code of this program's compilers.
    ///
    /// # Errors
    ///
    /// wasmtime does not support this processor.
    pub fn fingerprint() -> Result<[u8; 32], String> {
        let engine = wasmtime::Engine::new(&code_config()).map_err(|error| format!("{error:#}"))?;
        Ok(fingerprint(&engine))
    }

    /// Returns machine code and its metadata.
    ///
    /// # Errors
    ///
    /// Why the component is not valid.
    pub fn compile(&self, component: &[u8]) -> Result<Vec<u8>, String> {
        self.0.precompile_component(component).map_err(|error| format!("{error:#}"))
    }
}

/// [`Functions`] in the form that wasmtime expects.
#[derive(Debug)]
struct CacheAdapter(Arc<dyn Functions>);

impl wasmtime::CacheStore for CacheAdapter {
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
    fn the_compiler_and_the_engine_with_the_pool_have_the_same_fingerprint() -> Result<(), String> {
        assert_eq!(Compiler::fingerprint()?, Engine::new(2)?.fingerprint());
        Ok(())
    }
}
