//! From a filter's source to code that can be called, and from one version to the next.
//!
//! The order of the files: [`source`] (where a filter comes from), [`remote`] (sources on servers),
//! `private_copy` (its bytes in memory), `candidate` (the checks before compiling), [`compiler`]
//! and `compiler_child` (the compilation in a process of its own), [`artifact_cache`] and
//! `function_cache` (compiled code on disk, authenticated with `state_key`), [`loader`] (all of
//! it).
//!
//! A loaded version then takes over step by step: [`shadow`] (compared without serving), [`split`]
//! (which exchanges use it), [`step_traffic`] (the figures of a step), [`verdict`] (how a step is
//! judged), [`versions`] (earlier versions), [`entry`] and [`commands`] (one filter),
//! [`version_registry`] (all filters, and their record), [`history`] (what was decided, with the
//! [`difference`] of versions), [`shared`] (what gateways tell each other), [`decision_store`]
//! (where they do).
//!
//! This module does not know: routes, requests, when a reload happens.

pub mod artifact_cache;
mod cache_retention;
pub mod candidate;
pub mod commands;
pub mod compiler;
pub mod compiler_child;
pub mod component_source;
mod content_hash;
pub mod decision;
pub mod decision_store;
pub mod difference;
pub mod entry;
pub mod evidence;
mod examples_gate;
mod function_cache;
pub mod history;
pub mod loader;
mod private_copy;
pub mod remote;
pub mod shadow;
pub mod shared;
pub mod source;
pub mod split;
mod state_key;
pub mod step_traffic;
pub mod trust;
pub mod verdict;
pub mod version_registry;
pub mod versions;
