//! Compiling in a process of its own: what a component can make the compiler do, it does to a child with limits and a low priority.
//!
//! The gateway starts its own binary (`witgate compile`, the very one that runs, even if its file was replaced), gives it the component on standard input, and finds the result in the
//! cache. The child's limits: address space, processor time, no core dumps, no new privileges; a deadline on the wall clock is held by the parent; and it ends with the thread
//! that started it. Must not know: what is done with a compiled filter.

use std::io::{Read as _, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, Signal};
use serde::{Deserialize, Serialize};

use super::cache::{Cache, Content, Key};
use super::function_cache::FunctionStore;
use super::sealed::Sealed;
use crate::process::priority::Priority;
use witgate_config::CompileLimits as Limits;
use witgate_runtime::chunks::CHUNK_BYTES;
use witgate_runtime::chunks::read_chunks;
use witgate_runtime::compiler::Compiler;
use witgate_runtime::component::{FILE_BYTES_MAX, describe};
use witgate_runtime::load_error::{LoadError, LoadErrorReason};

const ALLOCATOR_RESERVE_KIB: &str = "65536";
/// What the child may say.
const WORDS_BYTES_MAX: u64 = 64 << 10;
/// Beyond the processor time of one core: the parent waits this much longer than that for a child that gets less than a core.
const PATIENCE: u32 = 4;
/// How long a child may live on what all others leave of the cores, and how often it is looked at.
const LEISURE: Duration = Duration::from_secs(20);
const LOOK: Duration = Duration::from_millis(500);
/// One that got less than this part of a core starves: it is ended, which loses little, and the work begins again with a share of its own.
const SHARE_MIN: f64 = 0.2;
/// Of proc_pid_stat(5), on every architecture that this runs on.
const TICKS_PER_SECOND: f64 = 100.0;

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
    Refused(LoadErrorReason, String),
}

/// Compiles a component into the cache of a state directory, and waits for it. The error names the limit where one was met.
pub fn compile(component: &Sealed, state: &Path, limits: &Limits, priority: Priority) -> Result<Compiled, LoadError> {
    if priority == Priority::Idle {
        match run(component, state, limits, priority, LEISURE)? {
            Ended::Itself(outcome) => return outcome,
            Ended::Late => {
                tracing::info!("compiling gets too little of the busy cores: it goes on with a share of its own")
            }
        }
    }
    // An idle child cannot be raised without a right that few gateways have.
    let priority = if priority == Priority::Idle { Priority::Low } else { priority };
    let most = limits.time * PATIENCE;
    match run(component, state, limits, priority, most)? {
        Ended::Itself(outcome) => outcome,
        Ended::Late => Err(LoadError::new(
            LoadErrorReason::Limits,
            format!("compiling was not done after {} s: {HINT} (compile.time)", most.as_secs().max(1)),
        )),
    }
}

/// How a child ended.
enum Ended {
    Itself(Result<Compiled, LoadError>),
    /// By its parent, for it took too long.
    Late,
}

fn run(
    component: &Sealed,
    state: &Path,
    limits: &Limits,
    priority: Priority,
    most: Duration,
) -> Result<Ended, LoadError> {
    let mut child = spawn(state, limits, priority).map_err(|error| {
        LoadError::new(LoadErrorReason::Compile, format!("the compiler's process cannot be started: {error}"))
            .with_source(error)
    })?;
    let (bytes, input) = (component.bytes(), child.stdin.take());
    std::thread::scope(|scope| {
        scope.spawn(move || hand_over(bytes, input));
        wait(&mut child, limits, priority, most)
    })
}

/// Writes a component to the child. One that ended, or was ended, takes no more.
fn hand_over(component: &[u8], input: Option<ChildStdin>) {
    let Some(mut input) = input else { return };
    // It says itself what it misses.
    let _ = component.chunks(CHUNK_BYTES).try_for_each(|piece| input.write_all(piece));
}

/// Waits for the child's end, and sees to it where that takes too long.
fn wait(child: &mut Child, limits: &Limits, priority: Priority, most: Duration) -> Result<Ended, LoadError> {
    let heard = listen(child);
    let began = Instant::now();
    let words = loop {
        let left = most.saturating_sub(began.elapsed());
        match heard.recv_timeout(if priority == Priority::Idle { left.min(LOOK) } else { left }) {
            Err(mpsc::RecvTimeoutError::Timeout) if began.elapsed() < most && !starves(child, began.elapsed()) => {}
            words => break words,
        }
    };
    if words.is_err() {
        // It may have ended just now: then there is nothing to kill.
        let _ = child.kill();
    }
    let status = child.wait().map_err(|error| {
        LoadError::new(LoadErrorReason::Compile, format!("the compiler's process: {error}")).with_source(error)
    })?;
    let Ok((said, complaint)) = words else { return Ok(Ended::Late) };
    Ok(Ended::Itself(match serde_json::from_slice(&said) {
        Ok(Word::Done(compiled)) if status.success() => Ok(compiled),
        Ok(Word::Refused(reason, message)) => Err(LoadError::new(reason, message)),
        _ => Err(died(status, &complaint, limits)),
    }))
}

/// Whether a process got too little of the cores. One that cannot be read has just ended.
fn starves(child: &Child, lived: Duration) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap_or_default();
    // Behind the name, which may hold anything, the third field follows; user and system time are the 14th and 15th.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks: Vec<f64> = fields.skip(11).take(2).filter_map(|field| field.parse().ok()).collect();
    ticks.len() == 2 && ticks.iter().sum::<f64>() / TICKS_PER_SECOND < SHARE_MIN * lived.as_secs_f64()
}

fn spawn(state: &Path, limits: &Limits, priority: Priority) -> std::io::Result<Child> {
    // The binary that runs, not the one that is installed by now: their engines may differ.
    Command::new("/proc/self/exe")
        .arg("compile")
        .arg("--state")
        .arg(state)
        .arg(format!("--memory={}", limits.memory_bytes))
        .arg(format!("--seconds={}", limits.time.as_secs().max(1)))
        .arg(format!("--priority={}", priority.name()))
        // Nothing of what the gateway was started with is a compiler's business.
        .env_clear()
        // The allocator would reserve more address space than it may have.
        .env("MIMALLOC_ARENA_RESERVE", ALLOCATOR_RESERVE_KIB)
        .stdin(Stdio::piped())
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
fn died(status: ExitStatus, complaint: &str, limits: &Limits) -> LoadError {
    let seconds = limits.time.as_secs().max(1);
    let signal = status.signal().and_then(Signal::from_named_raw);
    if matches!(signal, Some(Signal::XCPU | Signal::KILL)) {
        return LoadError::new(
            LoadErrorReason::Limits,
            format!("compiling took more than {seconds} s of processor time: {HINT} (compile.time)"),
        );
    }
    // Of an allocation, of a mapping, of a thread.
    let lacks_memory = ["memory allocation of", "Cannot allocate memory", "Resource temporarily unavailable"];
    if lacks_memory.iter().any(|words| complaint.contains(words)) {
        let memory = limits.memory_bytes >> 20;
        return LoadError::new(
            LoadErrorReason::Limits,
            format!("compiling needs more than {memory} MiB of memory: {HINT} (compile.memory)"),
        );
    }
    let last = complaint.lines().rfind(|line| !line.starts_with("note:")).unwrap_or("it said nothing");
    LoadError::new(LoadErrorReason::Compile, format!("the compiler ended by itself ({status}): {last}"))
}

const HINT: &str = "make the filter smaller, or raise the limit";

/// The child's side: compiles what is on standard input into the cache, under limits, and says how that went on standard output.
pub fn child(state: &Path, memory_bytes: u64, seconds: u64, priority: Priority) -> Result<(), String> {
    // Before a byte of the component is looked at, and before there is a second thread, which would not be meant.
    restrict(memory_bytes, seconds, priority)
        .map_err(|error| format!("the compiler's limits cannot be set: {error}"))?;
    let mut component = vec![];
    // One system call with much of it would keep the core for so long.
    let input = read_chunks(std::io::stdin().lock().take(FILE_BYTES_MAX + 1), |piece| {
        component.extend_from_slice(piece);
        Ok(())
    });
    input.map_err(|error| format!("standard input: {error}"))?;
    let word = match work(&component, state) {
        Ok(compiled) => Word::Done(compiled),
        Err(error) => Word::Refused(error.reason, error.message),
    };
    println!("{}", serde_json::to_string(&word).map_err(|error| error.to_string())?);
    Ok(())
}

fn work(component: &[u8], state: &Path) -> Result<Compiled, LoadError> {
    let fail = |why: String| LoadError::new(LoadErrorReason::Compile, why);
    let description = describe(component)?;
    let fingerprint = Compiler::fingerprint().map_err(fail)?;
    let functions = Arc::new(FunctionStore::open(state, Key::of(state).map_err(fail)?, &fingerprint).map_err(fail)?);
    let compiler = Compiler::new(functions.clone()).map_err(fail)?;
    let code = compiler.compile(component).map_err(|error| {
        LoadError::new(
            LoadErrorReason::Compile,
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

fn restrict(memory_bytes: u64, seconds: u64, priority: Priority) -> std::io::Result<()> {
    use rustix::process::{set_parent_process_death_signal, setrlimit};
    let at_most = |limit: u64| Rlimit { current: Some(limit), maximum: Some(limit) };
    set_parent_process_death_signal(Some(Signal::KILL))?;
    priority.apply()?;
    crate::process::memory::allow_huge_pages(true)?;
    rustix::thread::set_no_new_privs(true)?;
    setrlimit(Resource::Core, at_most(0))?;
    setrlimit(Resource::As, at_most(memory_bytes))?;
    // One second between the word and the end.
    setrlimit(Resource::Cpu, Rlimit { current: Some(seconds), maximum: Some(seconds + 1) })?;
    Ok(())
}
