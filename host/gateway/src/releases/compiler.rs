//! Compiles a component in a child process with limits.
//!
//! The gateway starts its own running binary as `witgate compile`, sends the component to standard
//! input, and adds the file that the child wrote to the cache. The parent enforces a deadline on
//! the wall clock, the child its other limits ([`super::compiler_child`]).
//!
//! A compilation beside traffic starts in the system's idle class. Gain: serving threads take the
//! core from the compiler at once. Price: on busy cores such a child starves. The parent then kills
//! it, which loses little because the child saves compiled functions, and starts one with a share
//! of the cores.
//!
//! This module does not know: what is done with a compiled filter.

use std::io::{Read as _, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::artifact_cache::ArtifactCache;
use super::candidate::Candidate;
use super::compiler_child::{ChildReply, Compiled};
use crate::process::priority::Priority;
use witgate_config::CompileLimits;
use witgate_runtime::chunks::CHUNK_BYTES;
use witgate_runtime::load_error::{LoadError, LoadErrorReason};

/// Address space that the child's allocator reserves in one piece. Its default is above the limit.
const ALLOCATOR_RESERVE_KIB: &str = "65536";
/// The maximum output of the child that is read.
const OUTPUT_BYTES_MAX: u64 = 64 << 10;
/// The deadline on the wall clock, as a multiple of the limit on CPU time. A child on busy cores
/// gets less than one of them.
const WALL_CLOCK_FACTOR: u32 = 4;
/// The deadline of a child in the idle class, and how often its CPU time is read.
const IDLE_TIMEOUT: Duration = Duration::from_secs(20);
const POLL_INTERVAL: Duration = Duration::from_millis(500);
/// A child starves if it gets less than this share of a core.
const CPU_SHARE_MIN: f64 = 0.2;
/// The unit of CPU time in proc_pid_stat(5), on all supported architectures.
const TICKS_PER_SECOND: f64 = 100.0;
const SIZE_HINT: &str = "make the filter smaller, or raise the limit";

/// What to compile, and where to.
pub struct Job<'a> {
    /// A component that passed every check that needs no compiler.
    pub candidate: &'a Candidate,
    /// Gets the machine code.
    pub cache: &'a ArtifactCache,
    /// The state directory of the cache.
    pub state: &'a Path,
    /// Bounds on the child.
    pub limits: &'a CompileLimits,
}

/// Compiles a component into a cache. Blocks until the child ends.
///
/// # Errors
/// `Limits` with the name of the exceeded limit, `Compile`, or the reason of an invalid component.
pub fn compile(job: &Job<'_>, priority: Priority) -> Result<Compiled, LoadError> {
    if priority == Priority::Idle {
        match run_child(job, priority, IDLE_TIMEOUT)? {
            Outcome::Finished(result) => return result,
            Outcome::Killed => {
                tracing::info!("traffic leaves the compiler too little CPU time: restarting it with low priority");
            }
        }
    }
    // The idle child cannot get a higher priority without a privilege, so a new one starts.
    let priority = if priority == Priority::Idle { Priority::Low } else { priority };
    let deadline = job.limits.time * WALL_CLOCK_FACTOR;
    match run_child(job, priority, deadline)? {
        Outcome::Finished(result) => result,
        Outcome::Killed => Err(LoadError::new(
            LoadErrorReason::Limits,
            format!("compiling took more than {} s: {SIZE_HINT} (compile.time)", deadline.as_secs().max(1)),
        )),
    }
}

/// How a child ended.
enum Outcome {
    /// It exited.
    Finished(Result<Compiled, LoadError>),
    /// The parent killed it because it was too slow.
    Killed,
}

fn run_child(job: &Job<'_>, priority: Priority, deadline: Duration) -> Result<Outcome, LoadError> {
    let fail = |why: String| LoadError::new(LoadErrorReason::Compile, why);
    let code = job.cache.new_file().map_err(fail)?;
    let mut child = spawn(job.state, code.path(), job.limits, priority)
        .map_err(|error| fail(format!("the compiler's process cannot be started: {error}")).with_source(error))?;
    let (key, bytes, input) = (job.cache.functions_key().to_bytes(), job.candidate.copy.bytes(), child.stdin.take());
    let outcome = std::thread::scope(|scope| {
        scope.spawn(move || write_input(&key, bytes, input));
        wait(&mut child, job.limits, priority, deadline)
    })?;
    if let Outcome::Finished(Ok(_)) = &outcome {
        // The child has ended, so nothing writes to the file any more.
        job.cache.put(&job.candidate.hash(), job.candidate.info.clone(), code).map_err(fail)?;
    }
    Ok(outcome)
}

fn spawn(state: &Path, code: &Path, limits: &CompileLimits, priority: Priority) -> std::io::Result<Child> {
    // The running binary and not the installed one, because their engines may differ.
    Command::new("/proc/self/exe")
        .arg("compile")
        .arg("--state")
        .arg(state)
        .arg("--output")
        .arg(code)
        .arg(format!("--memory={}", limits.memory_bytes))
        .arg(format!("--seconds={}", limits.time.as_secs().max(1)))
        .arg(format!("--priority={}", priority.name()))
        // The compiler needs nothing of the gateway's environment.
        .env_clear()
        .env("MIMALLOC_ARENA_RESERVE", ALLOCATOR_RESERVE_KIB)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
}

/// Writes the key and the component to the child, as long as the child reads.
fn write_input(key: &[u8], component: &[u8], input: Option<ChildStdin>) {
    let Some(mut input) = input else { return };
    // The child reports missing input itself.
    let _ = std::iter::once(key).chain(component.chunks(CHUNK_BYTES)).try_for_each(|chunk| input.write_all(chunk));
}

/// Waits for the child's end, and kills it if it is too slow.
fn wait(
    child: &mut Child,
    limits: &CompileLimits,
    priority: Priority,
    deadline: Duration,
) -> Result<Outcome, LoadError> {
    let output = read_output(child);
    let began = Instant::now();
    let received = loop {
        let left = deadline.saturating_sub(began.elapsed());
        match output.recv_timeout(if priority == Priority::Idle { left.min(POLL_INTERVAL) } else { left }) {
            Err(mpsc::RecvTimeoutError::Timeout)
                if began.elapsed() < deadline && !is_starving(child, began.elapsed()) => {}
            received => break received,
        }
    };
    if received.is_err() {
        // An error means that the child has just exited.
        let _ = child.kill();
    }
    let status = child.wait().map_err(|error| {
        LoadError::new(LoadErrorReason::Compile, format!("the compiler's process: {error}")).with_source(error)
    })?;
    let Ok((stdout, stderr)) = received else { return Ok(Outcome::Killed) };
    Ok(Outcome::Finished(match serde_json::from_slice(&stdout) {
        Ok(ChildReply::Compiled(compiled)) if status.success() => Ok(compiled),
        Ok(ChildReply::Refused(reason, message)) => Err(LoadError::new(reason, message)),
        _ => Err(exit_error(status, &stderr, limits)),
    }))
}

/// Whether a child gets too little CPU time. A child whose times cannot be read has just exited.
fn is_starving(child: &Child, elapsed: Duration) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap_or_default();
    // The third field follows the process name, which may contain anything. User and system time
    // are the 14th and the 15th.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks: Vec<f64> = fields.skip(11).take(2).filter_map(|field| field.parse().ok()).collect();
    ticks.len() == 2 && ticks.iter().sum::<f64>() / TICKS_PER_SECOND < CPU_SHARE_MIN * elapsed.as_secs_f64()
}

/// Reads standard output and standard error on a thread of their own. The receiver gets both when
/// the child closes them.
fn read_output(child: &mut Child) -> mpsc::Receiver<(Vec<u8>, String)> {
    let (sender, receiver) = mpsc::channel();
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    std::thread::spawn(move || {
        let errors = std::thread::spawn(move || read_pipe(stderr));
        let output = read_pipe(stdout);
        let errors = errors.join().unwrap_or_default();
        // The receiver is gone after the deadline.
        let _ = sender.send((output, String::from_utf8_lossy(&errors).trim().to_owned()));
    });
    receiver
}

fn read_pipe(pipe: Option<impl std::io::Read>) -> Vec<u8> {
    let mut bytes = vec![];
    if let Some(pipe) = pipe {
        // After an error the reply is incomplete, and the exit status explains it.
        let _ = pipe.take(OUTPUT_BYTES_MAX).read_to_end(&mut bytes);
    }
    bytes
}

/// Why a child exited without a reply.
fn exit_error(status: ExitStatus, stderr: &str, limits: &CompileLimits) -> LoadError {
    let seconds = limits.time.as_secs().max(1);
    let signal = status.signal().and_then(Signal::from_named_raw);
    if signal == Some(Signal::XFSZ) {
        return LoadError::new(LoadErrorReason::Limits, format!("its machine code is too large: {SIZE_HINT}"));
    }
    if matches!(signal, Some(Signal::XCPU | Signal::KILL)) {
        return LoadError::new(
            LoadErrorReason::Limits,
            format!("compiling took more than {seconds} s of processor time: {SIZE_HINT} (compile.time)"),
        );
    }
    // The process aborts on failed allocations, mappings and thread starts. The message of Rust's
    // standard library is the only sign of them.
    let lacks_memory = ["memory allocation of", "Cannot allocate memory", "Resource temporarily unavailable"];
    if lacks_memory.iter().any(|text| stderr.contains(text)) {
        let memory = limits.memory_bytes >> 20;
        return LoadError::new(
            LoadErrorReason::Limits,
            format!("compiling needs more than {memory} MiB of memory: {SIZE_HINT} (compile.memory)"),
        );
    }
    let last = stderr.lines().rfind(|line| !line.starts_with("note:")).unwrap_or("it wrote nothing");
    LoadError::new(LoadErrorReason::Compile, format!("the compiler exited with an error ({status}): {last}"))
}
