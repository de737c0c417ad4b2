//! Compiling in a process of its own: what a component can make the compiler do, it does to a child with limits and a low priority.
//!
//! The gateway starts its own binary (`witgate compile`, the very one that runs, even if its file was replaced), gives it the component on standard input, and finds the result in the
//! cache. The child's limits: address space, processor time, no core dumps, no new privileges; a deadline on the wall clock is held by the parent; and it ends with the thread
//! that started it. Must not know: what is done with a compiled filter.

use std::io::Read as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, mpsc};
use std::time::Instant;

use rustix::process::{Resource, Rlimit, Signal};
use serde::{Deserialize, Serialize};

use super::cache::{Cache, Content, Key};
use super::functions::FunctionStore;
use super::sealed::Sealed;
use crate::config::Compile as Limits;
use crate::wasm::compiler::Compiler;
use crate::wasm::component::{FILE_BYTES_MAX, LoadError, describe};

/// Who goes first where compiler and traffic want the same core.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Priority {
    /// The compiler is waited for: nobody is served yet.
    Equal,
    /// Traffic. On a busy machine a compilation still comes to its end.
    Low,
}

impl Priority {
    /// Of nice(2).
    const fn nice(self) -> i32 {
        match self {
            Self::Equal => 0,
            Self::Low => 5,
        }
    }
}

const ALLOCATOR_RESERVE_KIB: &str = "65536";
/// What the child may say.
const WORDS_BYTES_MAX: u64 = 64 << 10;
/// Beyond the processor time of one core: the parent waits this much longer than that for a child that gets less than a core.
const PATIENCE: u32 = 4;

/// What a compilation did.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Compiled {
    /// Functions that an earlier compilation had compiled.
    pub found: usize,
    /// Functions that it compiled.
    pub compiled: usize,
}

/// What the child says, as one JSON text on standard output.
#[derive(Serialize, Deserialize)]
enum Word {
    Done(Compiled),
    /// Reason and message of a [`LoadError`].
    Refused(String, String),
}

/// Compiles a component into the cache of a state directory, and waits for it. The error names the limit where one was met.
pub fn compile(component: &Sealed, state: &Path, limits: &Limits, priority: Priority) -> Result<Compiled, LoadError> {
    let began = Instant::now();
    let mut child = spawn(component, state, limits, priority)
        .map_err(|error| LoadError::new("compile", format!("the compiler's process cannot be started: {error}")))?;
    let heard = listen(&mut child);
    let deadline = limits.time * PATIENCE;
    let words = heard.recv_timeout(deadline.saturating_sub(began.elapsed()));
    if words.is_err() {
        // It may have ended just now: then there is nothing to kill.
        let _ = child.kill();
    }
    let status = child.wait().map_err(|error| LoadError::new("compile", format!("the compiler's process: {error}")))?;
    let (said, complaint) = words.unwrap_or_default();
    match serde_json::from_slice(&said) {
        Ok(Word::Done(compiled)) if status.success() => Ok(compiled),
        Ok(Word::Refused(reason, message)) => Err(LoadError::new(reason_of(&reason), message)),
        _ => Err(died(status, began.elapsed() >= deadline, &complaint, limits)),
    }
}

fn spawn(component: &Sealed, state: &Path, limits: &Limits, priority: Priority) -> std::io::Result<Child> {
    // The binary that runs, not the one that is installed by now: their engines may differ.
    Command::new("/proc/self/exe")
        .arg("compile")
        .arg("--state")
        .arg(state)
        .arg(format!("--memory={}", limits.memory_bytes))
        .arg(format!("--seconds={}", limits.time.as_secs().max(1)))
        .arg(format!("--nice={}", priority.nice()))
        // Nothing of what the gateway was started with is a compiler's business.
        .env_clear()
        // The allocator would reserve more address space than it may have.
        .env("MIMALLOC_ARENA_RESERVE", ALLOCATOR_RESERVE_KIB)
        .stdin(component.reader()?)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
}

/// What it says on standard output and standard error, when it has said all.
fn listen(child: &mut Child) -> mpsc::Receiver<(Vec<u8>, String)> {
    let (sender, receiver) = mpsc::channel();
    let (out, err) = (child.stdout.take(), child.stderr.take());
    std::thread::spawn(move || {
        let complaining = std::thread::spawn(move || read(err));
        let said = read(out);
        let complaint = complaining.join().unwrap_or_default();
        // After the deadline nobody listens any more.
        let _ = sender.send((said, String::from_utf8_lossy(&complaint).trim().to_owned()));
    });
    receiver
}

fn read(pipe: Option<impl std::io::Read>) -> Vec<u8> {
    let mut bytes = vec![];
    if let Some(pipe) = pipe {
        // What cannot be read was not said.
        let _ = pipe.take(WORDS_BYTES_MAX).read_to_end(&mut bytes);
    }
    bytes
}

/// Why a child ended without a word.
fn died(status: ExitStatus, is_late: bool, complaint: &str, limits: &Limits) -> LoadError {
    let seconds = limits.time.as_secs().max(1);
    if is_late {
        let waited = seconds * u64::from(PATIENCE);
        return LoadError::new("limits", format!("compiling was not done after {waited} s: {} (compile.time)", HINT));
    }
    let signal = status.signal().and_then(Signal::from_named_raw);
    if matches!(signal, Some(Signal::XCPU | Signal::KILL)) {
        return LoadError::new(
            "limits",
            format!("compiling took more than {seconds} s of processor time: {HINT} (compile.time)"),
        );
    }
    // Of an allocation, of a mapping, of a thread.
    let lacks_memory = ["memory allocation of", "Cannot allocate memory", "Resource temporarily unavailable"];
    if lacks_memory.iter().any(|words| complaint.contains(words)) {
        let memory = limits.memory_bytes >> 20;
        return LoadError::new(
            "limits",
            format!("compiling needs more than {memory} MiB of memory: {HINT} (compile.memory)"),
        );
    }
    let last = complaint.lines().rfind(|line| !line.starts_with("note:")).unwrap_or("it said nothing");
    LoadError::new("compile", format!("the compiler ended by itself ({status}): {last}"))
}

const HINT: &str = "make the filter smaller, or raise the limit";

/// The reasons that a child gives are this program's own words.
fn reason_of(reason: &str) -> &'static str {
    ["not-wasm", "core-module", "malformed", "wrong-world", "limits"]
        .into_iter()
        .find(|known| *known == reason)
        .unwrap_or("compile")
}

/// The child's side: compiles what is on standard input into the cache, under limits, and says how that went on standard output.
pub fn child(state: &Path, memory_bytes: u64, seconds: u64, nice: i32) -> Result<(), String> {
    // Before a byte of the component is looked at.
    restrict(memory_bytes, seconds, nice).map_err(|error| format!("the compiler's limits cannot be set: {error}"))?;
    let mut component = vec![];
    let input = std::io::stdin().lock().take(FILE_BYTES_MAX + 1).read_to_end(&mut component);
    input.map_err(|error| format!("standard input: {error}"))?;
    let word = match work(&component, state) {
        Ok(compiled) => Word::Done(compiled),
        Err(error) => Word::Refused(error.reason.to_owned(), error.message),
    };
    println!("{}", serde_json::to_string(&word).map_err(|error| error.to_string())?);
    Ok(())
}

fn work(component: &[u8], state: &Path) -> Result<Compiled, LoadError> {
    let fail = |why: String| LoadError::new("compile", why);
    let description = describe(component)?;
    let fingerprint = Compiler::fingerprint().map_err(fail)?;
    let functions = Arc::new(FunctionStore::open(state, Key::of(state).map_err(fail)?, &fingerprint).map_err(fail)?);
    let compiler = Compiler::new(functions.clone()).map_err(fail)?;
    let code = compiler.compile(component).map_err(|error| {
        LoadError::new(
            "compile",
            format!("the component is not valid: {error}; build it anew with `componentize build`"),
        )
    })?;
    Cache::open(state, &fingerprint)
        .and_then(|cache| cache.put(&Content::of(component), description, &code))
        .map_err(fail)?;
    if let Err(error) = functions.save() {
        eprintln!("compiled functions cannot be kept: {error}");
    }
    let (found, compiled) = functions.counts();
    Ok(Compiled { found, compiled })
}

fn restrict(memory_bytes: u64, seconds: u64, nice: i32) -> rustix::io::Result<()> {
    use rustix::process::{set_parent_process_death_signal, setrlimit};
    let at_most = |limit: u64| Rlimit { current: Some(limit), maximum: Some(limit) };
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // Added to the gateway's own.
    rustix::process::nice(nice)?;
    rustix::thread::set_no_new_privs(true)?;
    setrlimit(Resource::Core, at_most(0))?;
    setrlimit(Resource::As, at_most(memory_bytes))?;
    // One second between the word and the end.
    setrlimit(Resource::Cpu, Rlimit { current: Some(seconds), maximum: Some(seconds + 1) })
}
