//! Who goes first where compiler and traffic want the same core.
//!
//! A nice value alone shares a core out: a request that comes while a niced compiler runs still waits for its turn. In the system's idle class any thread of normal priority that
//! wakes goes first, at once. But there a compiler gets next to nothing of a busy core, and without a right nobody leaves that class: `compile.rs` sees to that. Must not know: what is compiled.

use std::io;

/// Of a process that compiles.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Priority {
    /// The compiler is waited for: nobody is served yet.
    Equal,
    /// Traffic goes first. On a busy machine a compilation still comes to its end.
    Low,
    /// Traffic goes first, always.
    Idle,
}

impl Priority {
    /// Its name on a command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Equal => "equal",
            Self::Low => "low",
            Self::Idle => "idle",
        }
    }

    /// For the calling thread and those that it starts. There is no way back.
    pub fn take(self) -> io::Result<()> {
        match self {
            Self::Equal => Ok(()),
            // Added to the gateway's own.
            Self::Low => rustix::process::nice(5).map(drop).map_err(io::Error::from),
            // A filter of system calls may forbid the one and allow the other.
            Self::Idle => idle().or_else(|_| Self::Low.take()),
        }
    }
}

#[allow(unsafe_code)]
fn idle() -> io::Result<()> {
    let none = libc::sched_param { sched_priority: 0 };
    // SAFETY: the pointer is to a value that lives through the call, which only reads it.
    match unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const none) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// How long a thread that prepares a reload runs at a time where a serving one waits for its core: the least that Linux knows.
const TURN: std::time::Duration = std::time::Duration::from_micros(100);

/// For the calling thread and what it starts: who waits for its core gets it after a [`TURN`], not after the system's usual one, which is 1 to 3 ms. Linux before 6.12 takes no notice.
#[allow(unsafe_code)]
pub fn take_short_turns() -> io::Result<()> {
    // SAFETY: all zeros are a value of this type, which has only numbers.
    let mut attributes: libc::sched_attr = unsafe { std::mem::zeroed() };
    let size = size_of::<libc::sched_attr>();
    // SAFETY: the kernel writes at most `size` bytes there.
    let got = unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attributes, size, 0) };
    if got != 0 {
        return Err(io::Error::last_os_error());
    }
    attributes.sched_runtime = TURN.as_nanos() as u64;
    // SAFETY: the kernel reads the bytes that the value says it has.
    match unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
