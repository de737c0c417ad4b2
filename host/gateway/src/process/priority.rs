//! Scheduling of compilations and reloads, which share their cores with serving threads.
//!
//! Gain: a serving thread that becomes ready runs at once instead of after the compiler's time
//! slice; a nice value alone does not achieve this, the system's idle class does. Price: on busy
//! cores a process of the idle class hardly runs, and it cannot leave that class without a
//! privilege, so `releases::compiler` starts such a compilation again with [`Priority::Low`].
//!
//! This module does not know: what is compiled or loaded.

use std::io;
use std::time::Duration;

/// The priority of a compiling process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Priority {
    /// The gateway's own priority, for use before there is traffic.
    Equal,
    /// Below traffic, with a share of a busy core.
    Low,
    /// Only time that traffic leaves idle.
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

    /// Applies this priority to the calling thread and its future children. It cannot be undone.
    ///
    /// # Errors
    /// The error of the system call that sets the priority.
    pub fn apply(self) -> io::Result<()> {
        match self {
            Self::Equal => Ok(()),
            // This value is added to the gateway's own nice value.
            Self::Low => rustix::process::nice(5).map(drop).map_err(io::Error::from),
            // A system call filter may forbid the idle class and allow a nice value.
            Self::Idle => enter_idle_class().or_else(|_| Self::Low.apply()),
        }
    }
}

#[allow(unsafe_code)]
fn enter_idle_class() -> io::Result<()> {
    let no_priority = libc::sched_param { sched_priority: 0 };
    // SAFETY: the pointer is to a value that lives through the call, which only reads it.
    match unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const no_priority) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The shortest time slice that Linux accepts.
const TIME_SLICE: Duration = Duration::from_micros(100);

/// Shortens the time slice of the calling thread and its future children to 100 µs. The system's
/// default is 1 to 3 ms. Linux before 6.12 ignores the value.
///
/// # Errors
/// The error of sched_getattr(2) or sched_setattr(2).
#[allow(unsafe_code)]
pub fn shorten_time_slice() -> io::Result<()> {
    // SAFETY: the type has only numbers, so all zeros are a value of it.
    let mut attributes: libc::sched_attr = unsafe { std::mem::zeroed() };
    let size = size_of::<libc::sched_attr>();
    // SAFETY: the kernel writes at most `size` bytes there.
    let got = unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attributes, size, 0) };
    if got != 0 {
        return Err(io::Error::last_os_error());
    }
    attributes.sched_runtime = TIME_SLICE.as_nanos() as u64;
    // SAFETY: the kernel reads as many bytes as the value's size field says.
    match unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
