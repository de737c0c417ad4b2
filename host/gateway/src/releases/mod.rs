//! From a filter's source to code that can be called.
//!
//! The order of the files: [`source`] (where a filter comes from), `private_copy` (its bytes in
//! memory), `candidate` (the checks before compiling), [`compiler`] and `compiler_child` (the
//! compilation in a process of its own), [`artifact_cache`] and `function_cache` (compiled code on
//! disk, authenticated with `state_key`), [`loader`] (all of it).
//!
//! This module does not know: routes, requests, when a reload happens.

pub mod artifact_cache;
pub mod candidate;
pub mod compiler;
pub mod compiler_child;
mod content_hash;
mod function_cache;
pub mod loader;
mod private_copy;
pub mod source;
mod state_key;
