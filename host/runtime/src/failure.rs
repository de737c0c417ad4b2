//! How a call fails: the trap that a host function raises, and the failure that the gateway sees.
//!
//! This module does not know: what a failure does to the exchange.

use std::fmt::{self, Write as _};

use wasmtime::{PoolConcurrencyLimitError, Trap, WasmBacktrace, WasmCoreDump};
use witgate_http::error::FilterFailure;
use witgate_http::text::{BoundedText, MESSAGE_BYTES_MAX, bounded};

use crate::exchange::Refusal;

/// The most frames of the guest's stack that a failure's detail shows, innermost first.
const FRAMES_MAX: usize = 16;
/// The same for a trap whose place in the author's source is known.
const FRAMES_WITH_PLACES: usize = 4;
/// The most bytes of one function's name in it.
const FUNCTION_NAME_BYTES_MAX: usize = 128;

/// How a call failed. The exchange is then as it was before the call.
#[derive(Debug)]
pub struct Failure {
    /// For status and metrics.
    pub kind: FilterFailure,
    /// For the log: the guest's message, or the trap with the guest's stack.
    pub detail: String,
}

impl Failure {
    /// The deadline passed while the call waited.
    pub(crate) fn deadline() -> Self {
        Self { kind: FilterFailure::Deadline, detail: "its time was up while it waited".into() }
    }
}

impl Failure {
    /// The filter has as many calls as the operator allows.
    pub(crate) fn concurrency(filter: &str, max: impl std::fmt::Display) -> Self {
        let detail = format!("{max} concurrent calls, the limit is filters.{filter}.concurrency");
        Self { kind: FilterFailure::Saturated, detail }
    }
}

impl Failure {
    /// A call that ended with `error`. `places` are the lines of the author's source that ran then.
    pub(crate) fn at(error: &wasmtime::Error, places: Option<&str>) -> Self {
        let kind = if let Some(trap) = error.downcast_ref::<HostTrap>() {
            trap.kind
        } else if error.is::<PoolConcurrencyLimitError>() {
            FilterFailure::Saturated
        } else if is_hostcall_limit(error) {
            FilterFailure::Limit
        } else {
            FilterFailure::Trap
        };
        Self { kind, detail: describe(error, kind, places) }
    }
}

impl From<wasmtime::Error> for Failure {
    fn from(error: wasmtime::Error) -> Self {
        Self::at(&error, None)
    }
}

impl From<HostTrap> for Failure {
    fn from(trap: HostTrap) -> Self {
        Self { kind: trap.kind, detail: trap.message }
    }
}

/// The cause, the author's lines, and the guest's stack where the error has one:
/// `wasm trap: … (filter.py:12 in find) in inner < outer`.
///
/// With the author's lines, the functions of an interpreter say something only about a trap.
/// Function names are as long as the filter's file makes them, and a serving thread formats them.
/// So each name is cut, each stack has few frames, and names stay as the compiler wrote them:
/// demangling one hostile name can take seconds.
fn describe(error: &wasmtime::Error, kind: FilterFailure, places: Option<&str>) -> String {
    let stack = error.downcast_ref::<WasmBacktrace>();
    if stack.is_none() && !error.is::<WasmCoreDump>() {
        return bounded(format_args!("{error:#}"));
    }
    let mut text = BoundedText::new(MESSAGE_BYTES_MAX);
    // A write fails when the text is full; then it says so at its end.
    let _ = write!(text, "{}", error.root_cause());
    if let Some(places) = places {
        let _ = write!(text, " ({places})");
    }
    let frames = match places {
        None => FRAMES_MAX,
        Some(_) if kind == FilterFailure::Trap => FRAMES_WITH_PLACES,
        Some(_) => 0,
    };
    for (depth, frame) in stack.map_or(&[][..], WasmBacktrace::frames).iter().take(frames).enumerate() {
        let _ = text.write_str(if depth == 0 { " in " } else { " < " });
        let _ = match frame.func_name() {
            Some(name) => text.write_str(&name[..name.floor_char_boundary(FUNCTION_NAME_BYTES_MAX)]),
            None => write!(text, "function {}", frame.func_index()),
        };
    }
    text.finish()
}

/// Whether the guest passed more bytes to a host function than `set_hostcall_fuel` permits.
///
/// wasmtime has a type for this error, but it is private, so only its text identifies it.
fn is_hostcall_limit(error: &wasmtime::Error) -> bool {
    error.downcast_ref::<Trap>().is_none() && error.root_cause().to_string().contains("fuel allocated for hostcalls")
}

/// An error with which the host ends a call, and the kind of failure that the gateway reports.
#[derive(Debug)]
pub(crate) struct HostTrap {
    pub(crate) kind: FilterFailure,
    pub(crate) message: String,
}

impl HostTrap {
    pub(crate) fn new(kind: FilterFailure, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }
}

impl From<Refusal> for HostTrap {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Invalid(message) => Self::new(FilterFailure::InvalidOutput, message),
            Refusal::Limit(message) => Self::new(FilterFailure::Limit, message),
            Refusal::Saturated(message) => Self::new(FilterFailure::Saturated, message),
        }
    }
}

impl fmt::Display for HostTrap {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)
    }
}

impl std::error::Error for HostTrap {}

/// Ends a call to take a sample of it.
#[derive(Debug)]
pub(crate) struct Sampled;

impl fmt::Display for Sampled {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a sample was taken")
    }
}

impl std::error::Error for Sampled {}
