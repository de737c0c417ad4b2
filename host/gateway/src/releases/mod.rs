//! From a filter's file to code that can be called: source, cache, compiler, loader.
//!
//! This module does not know: routes, requests, when a reload happens (`control::reload`).

pub mod cache;
pub mod compiler;
pub mod function_cache;
pub mod loader;
pub mod sealed;
