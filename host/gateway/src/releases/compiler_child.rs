//! `witgate compile`: the child process that compiles one component.
//!
//! A component can make the compiler use much time and memory. So the compiler runs in a process
//! with limits on address space and CPU time, without core dumps and new privileges, at a low
//! priority, and it ends with the thread that started it. It reads the key of the function cache
//! and the component from standard input, writes the machine code to a file of the gateway's, and a
//! [`ChildReply`] to standard output. Before the component it enters a sandbox without network and
//! with no files but the function cache. So a component that takes over its compiler gains nothing
//! beyond its own machine code and the functions in the cache.
//!
//! This module does not know: the parent's deadline.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::sync::Arc;

use rustix::process::{Resource, Rlimit, Signal, set_parent_process_death_signal, setrlimit};
use serde::{Deserialize, Serialize};

use super::artifact_cache::CODE_BYTES_MAX;
use super::function_cache::FunctionCache;
use super::state_key::{KEY_BYTES, StateKey};
use crate::process::memory::allow_huge_pages;
use crate::process::priority::Priority;
use crate::process::sandbox;
use witgate_runtime::chunks::read_chunks;
use witgate_runtime::compiler::Compiler;
use witgate_runtime::component::{FILE_BYTES_MAX, describe};
use witgate_runtime::load_error::{LoadError, LoadErrorReason};
use witgate_runtime::proposals;

/// The number of functions of a compilation.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Compiled {
    /// Functions that came from the cache.
    pub found: usize,
    /// Functions that were compiled.
    pub compiled: usize,
    /// What kept the compiler from files and the network.
    pub sandbox: String,
}

/// The child's reply, one JSON text on standard output.
#[derive(Serialize, Deserialize)]
pub(super) enum ChildReply {
    /// The machine code is in the output file.
    Compiled(Compiled),
    /// Reason and message of a [`LoadError`].
    Refused(LoadErrorReason, String),
}

/// Compiles the component on standard input into the file `output`.
///
/// # Errors
/// A message if the limits cannot be set, or standard input or output fails. A refused component is
/// no error: it is a reply.
pub fn run(state: &Path, output: &Path, memory_bytes: u64, seconds: u64, priority: Priority) -> Result<(), String> {
    // The limits come before the first byte of the component, and before a second thread, to which
    // some of them would not apply.
    restrict(memory_bytes, seconds, priority)
        .map_err(|error| format!("the compiler's limits cannot be set: {error}"))?;
    let mut output =
        File::options().write(true).open(output).map_err(|error| format!("{}: {error}", output.display()))?;
    let mut input = std::io::stdin().lock();
    let mut key = [0; KEY_BYTES];
    input.read_exact(&mut key).map_err(|error| format!("standard input: {error}"))?;
    // The files of the cache stay open in the sandbox.
    let functions = FunctionCache::open(state, StateKey::from_bytes(key), &Compiler::fingerprint()?)?;
    let sandbox = sandbox::enter(&[functions.folder()]).map_err(|why| format!("the compiler's sandbox: {why}"))?;
    let mut component = vec![];
    // One system call for all of the input would occupy the core for its whole duration.
    let read = read_chunks(input.take(FILE_BYTES_MAX + 1), |chunk| {
        component.extend_from_slice(chunk);
        Ok(())
    });
    read.map_err(|error| format!("standard input: {error}"))?;
    let reply = match compile(&component, functions, &mut output) {
        Ok((found, compiled)) => ChildReply::Compiled(Compiled { found, compiled, sandbox }),
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
    setrlimit(Resource::Fsize, at_most(CODE_BYTES_MAX))?;
    // SIGXCPU comes one second before SIGKILL.
    setrlimit(Resource::Cpu, Rlimit { current: Some(seconds), maximum: Some(seconds + 1) })?;
    Ok(())
}

/// Returns the numbers of functions that came from the cache and that were compiled.
fn compile(component: &[u8], functions: FunctionCache, output: &mut File) -> Result<(usize, usize), LoadError> {
    let fail = |why: String| LoadError::new(LoadErrorReason::Compile, why);
    describe(component)?;
    let functions = Arc::new(functions);
    let compiler = Compiler::new(functions.clone()).map_err(fail)?;
    let code = compiler.compile(component).map_err(|error| match proposals::check(component) {
        Err(refused) => refused,
        Ok(()) => fail(format!("the component cannot be compiled: {error}")),
    })?;
    // One system call with all of the code would occupy the core for its whole duration.
    let written = read_chunks(&code[..], |chunk| output.write_all(chunk));
    written.map_err(|error| fail(format!("the machine code cannot be written: {error}")))?;
    if let Err(error) = functions.save() {
        eprintln!(
            "{}: compiled functions cannot be saved: {error}; the next compilation takes longer",
            functions.folder().display()
        );
    }
    Ok(functions.counts())
}
