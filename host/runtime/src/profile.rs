//! Samples of what a filter does: a call is ended at a tick of the clock, and its frames are read.
//!
//! An ended call leaves its frames and its memory, so a sample also has the author's line in an
//! interpreter. The tick is chosen at random for each call, so every part of a call is hit as often
//! as it takes time. A call that ends before its tick gives no sample. Guest code meets a tick when
//! it enters a function or repeats a loop, so time counts for the function that does so next.
//! Gain: no function of the guest is instrumented. Price: a call gives one sample at most.
//! This module does not know: how samples are shown.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use wasmtime::WasmBacktrace;

use crate::exchange::Exchange;
use crate::failure::Sampled;
use crate::filter::{CallState, Filter, Phase};
use crate::instance::Instance;

/// Where a call was at a tick.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// The functions of the component, the outermost first, as its name section calls them.
    pub functions: Vec<String>,
    /// The lines of the author's source that an interpreter was running, the outermost first.
    pub lines: Vec<String>,
    /// The interpreter, if one was found.
    pub interpreter: Option<&'static str>,
}

/// Calls a handler and ends the call at its tick number `ticks`. `None` if the call ended before
/// it.
///
/// # Errors
///
/// The filter cannot be called.
pub async fn sample(
    filter: &Arc<Filter>,
    phase: Phase,
    exchange: Box<Exchange>,
    config: &Arc<BTreeMap<String, String>>,
    ticks: u64,
) -> Result<Option<Sample>, String> {
    let _active = filter.calls.enter();
    // Ticks of a millisecond.
    filter.calls.request_fast_ticks();
    let deadline = Instant::now() + filter.settings.timeout;
    let mut state = CallState::new(filter, phase, exchange, config, deadline);
    state.sampled_at = Some(ticks);
    let mut instance = Instance::new(filter, state);
    let Err(error) = instance.run(filter, phase).await else { return Ok(None) };
    if !error.is::<Sampled>() {
        return Err(format!("the call failed, so it cannot be measured: {error:#}"));
    }
    let name = |frame: &wasmtime::FrameInfo| match frame.func_name() {
        Some(name) => name.to_owned(),
        None => format!("function {}", frame.func_index()),
    };
    let frames = error.downcast_ref::<WasmBacktrace>().map_or(&[][..], WasmBacktrace::frames);
    let functions = frames.iter().map(name).rev().collect();
    let (interpreter, mut lines) = instance.author_lines(filter, &error).unwrap_or_default();
    lines.reverse();
    Ok(Some(Sample { functions, lines, interpreter }))
}
