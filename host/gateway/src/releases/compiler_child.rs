//! `witgate compile`: the child process that compiles one component.
//!
//! A component can make the compiler use much time and memory. So the compiler runs in a process
//! with limits on address space and CPU time, without core dumps and new privileges, at a low
//! priority, and it ends with the thread that started it. It reads the component from standard
//! input, writes the result into the cache, and a [`ChildReply`] to standard output.
//!
//! This module does not know: the parent's deadline.

use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

use rustix::process::{Resource, Rlimit, Signal, set_parent_process_death_signal, setrlimit};
use serde::{Deserialize, Serialize};

use super::artifact_cache::ArtifactCache;
use super::content_hash::ContentHash;
use super::function_cache::FunctionCache;
use super::state_key::StateKey;
use crate::process::memory::allow_huge_pages;
use crate::process::priority::Priority;
use witgate_runtime::chunks::read_chunks;
use witgate_runtime::compiler::Compiler;
use witgate_runtime::component::{FILE_BYTES_MAX, describe};
use witgate_runtime::load_error::{LoadError, LoadErrorReason};

/// The number of functions of a compilation.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Compiled {
    /// Functions that came from the cache.
    pub found: usize,
    /// Functions that were compiled.
    pub compiled: usize,
}

/// The child's reply, one JSON text on standard output.
#[derive(Serialize, Deserialize)]
pub(super) enum ChildReply {
    /// The machine code is in the cache.
    Compiled(Compiled),
    /// Reason and message of a [`LoadError`].
    Refused(LoadErrorReason, String),
}

/// Compiles the component on standard input into the cache of a state directory.
///
/// # Errors
/// A message if the limits cannot be set, or standard input or output fails. A refused component is
/// no error: it is a reply.
pub fn run(state: &Path, memory_bytes: u64, seconds: u64, priority: Priority) -> Result<(), String> {
    // The limits come before the first byte of the component, and before a second thread, to which
    // some of them would not apply.
    restrict(memory_bytes, seconds, priority)
        .map_err(|error| format!("the compiler's limits cannot be set: {error}"))?;
    let mut component = vec![];
    // One system call for all of the input would occupy the core for its whole duration.
    let input = read_chunks(std::io::stdin().lock().take(FILE_BYTES_MAX + 1), |chunk| {
        component.extend_from_slice(chunk);
        Ok(())
    });
    input.map_err(|error| format!("standard input: {error}"))?;
    let reply = match compile(&component, state) {
        Ok(compiled) => ChildReply::Compiled(compiled),
        Err(error) => ChildReply::Refused(error.reason, error.message),
    };
    println!("{}", serde_json::to_string(&reply).map_err(|error| error.to_string())?);
    Ok(())
}

fn restrict(memory_bytes: u64, seconds: u64, priority: Priority) -> std::io::Result<()> {
    let at_most = |limit: u64| Rlimit { current: Some(limit), maximum: Some(limit) };
    set_parent_process_death_signal(Some(Signal::KILL))?;
    priority.apply()?;
    allow_huge_pages(true)?;
    rustix::thread::set_no_new_privs(true)?;
    setrlimit(Resource::Core, at_most(0))?;
    setrlimit(Resource::As, at_most(memory_bytes))?;
    // SIGXCPU comes one second before SIGKILL.
    setrlimit(Resource::Cpu, Rlimit { current: Some(seconds), maximum: Some(seconds + 1) })?;
    Ok(())
}

fn compile(component: &[u8], state: &Path) -> Result<Compiled, LoadError> {
    let fail = |why: String| LoadError::new(LoadErrorReason::Compile, why);
    let info = describe(component)?;
    let fingerprint = Compiler::fingerprint().map_err(fail)?;
    let key = StateKey::open(state).map_err(fail)?;
    let functions = Arc::new(FunctionCache::open(state, key, &fingerprint).map_err(fail)?);
    let compiler = Compiler::new(functions.clone()).map_err(fail)?;
    let code = compiler.compile(component).map_err(|error| {
        fail(format!("the component is not valid: {error}; build it again with `componentize build`"))
    })?;
    ArtifactCache::open(state, &fingerprint)
        .and_then(|cache| cache.put(&ContentHash::of(component), info, &code))
        .map_err(fail)?;
    if let Err(error) = functions.save() {
        eprintln!("compiled functions cannot be saved: {error}");
    }
    let (found, compiled) = functions.counts();
    Ok(Compiled { found, compiled })
}
