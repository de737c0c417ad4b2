//! Runs the examples that a component carries, before the component serves.
//!
//! They run as traffic does: in the same engine, under the filter's limits, with services of their
//! own. This module does not know: what an example is, when a version serves.

use std::sync::Arc;
use std::time::Duration;

use witgate_config::ExamplesGate;
use witgate_examples::{Report, Runner, run_examples};
use witgate_runtime::component::examples;
use witgate_runtime::engine::Engine;
use witgate_runtime::filter::Filter;
use witgate_runtime::load_error::{LoadError, LoadErrorReason};

/// How long all examples of a component may take together.
const TIME_MAX: Duration = Duration::from_secs(60);
/// Failed examples that a message names.
const SHOWN_MAX: usize = 5;

/// Runs the examples in `bytes`, the component of `filter`.
///
/// # Errors
/// `Examples`: one of them fails, or there is none, and the gate requires them.
pub(super) fn check(engine: &Engine, filter: &Arc<Filter>, bytes: &[u8], gate: ExamplesGate) -> Result<(), LoadError> {
    if gate == ExamplesGate::Off {
        return Ok(());
    }
    let why = match failures(engine, filter, bytes) {
        Ok(passed) => {
            let filter = &*filter.settings.name;
            tracing::info!(filter, passed, "the examples of the component pass");
            return Ok(());
        }
        Err(why) => why,
    };
    if gate == ExamplesGate::Require {
        return Err(LoadError::new(LoadErrorReason::Examples, why));
    }
    let (filter, version) = (&*filter.settings.name, &*filter.version);
    tracing::warn!(filter, version, why, "the version goes into service although its examples do not pass");
    Ok(())
}

/// How many examples passed. The error says what failed.
fn failures(engine: &Engine, filter: &Arc<Filter>, bytes: &[u8]) -> Result<usize, String> {
    let examples = examples(bytes).map_err(|error| error.to_string())?;
    if examples.is_empty() {
        return Err("the component carries no examples: add them to the folder examples/ of the filter".into());
    }
    let runner = Runner::new(engine, filter).map_err(|error| error.to_string())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    let runtime = runtime.map_err(|error| format!("the system provides no runtime: {error}"))?;
    let run = async { tokio::time::timeout(TIME_MAX, run_examples(&runner, &examples)).await };
    let reports = runtime.block_on(run).map_err(|_| format!("the examples take more than {TIME_MAX:?}"))?;
    let failed: Vec<&Report> = reports.iter().filter(|report| !report.passed()).collect();
    if failed.is_empty() {
        return Ok(reports.len());
    }
    let shown: Vec<String> = failed.iter().take(SHOWN_MAX).map(|report| describe(report)).collect();
    Err(format!("{} of {} examples fail: {}", failed.len(), reports.len(), shown.join("; ")))
}

fn describe(report: &Report) -> String {
    match (&report.outcome, report.differences.first()) {
        (Err(why), _) => format!("{}: {why}", report.name),
        (_, Some(first)) => {
            format!("{}: {}: expected {}, found {}", report.name, first.path, first.expected, first.found)
        }
        _ => report.name.clone(),
    }
}
