//! `witgate bench`: what each example of a component costs: time, page faults, memory.
//!
//! A round of calls warms up the caches first. The time is that of the filter's calls, without
//! HTTP.
//! This module does not know: how an example is run.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::json;
use witgate_examples::Example;

use super::load::{ComponentLoader, Loaded, block_on};
use super::report::mebibytes;
use crate::cli::output::print;

/// Calls before the measurement.
const WARM_UP: usize = 20;
/// The most calls of an example. More do not change a percentile, and each needs memory.
const CALLS_MAX: usize = 1_000_000;

/// The options of `witgate bench`.
#[derive(clap::Args)]
pub(in crate::cli) struct Options {
    /// The component
    #[arg(value_name = "FILE.wasm")]
    component: PathBuf,
    /// How long each example is measured
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Use the limits and capabilities that this gateway.yaml gives the filter
    #[arg(long, short, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// The cost of one example.
struct Cost {
    /// Sorted, in microseconds.
    times: Vec<f64>,
    faults_per_call: f64,
    memory_bytes: usize,
    action: &'static str,
}

pub(super) fn bench(options: &Options) -> Result<(), String> {
    let loaded = ComponentLoader::new()?.load(&options.component, options.config.as_deref())?;
    let mut examples = loaded.examples.clone();
    if examples.is_empty() {
        examples.push(Example { name: "GET /".into(), repeat: 1, ..Example::default() });
    }
    let length = Duration::from_secs(options.seconds);
    let width = examples.iter().map(|example| example.name.chars().count()).max().unwrap_or(0).clamp(7, 60);
    if !options.json {
        print(format_args!(
            "{:<width$}  {:>8} {:>8} {:>8} {:>8}  {:>11}  {:>10}  action",
            "example", "p50 us", "p90 us", "p99 us", "max us", "page faults", "memory"
        ))?;
    }
    let mut all = vec![];
    for example in &examples {
        let cost = block_on(measure(&loaded, example, length))??;
        let [p50, p90, p99, max] = [0.5, 0.9, 0.99, 1.0].map(|share| percentile(&cost.times, share));
        if options.json {
            all.push(json!({
                "name": example.name, "action": cost.action, "calls": cost.times.len(),
                "microseconds": { "p50": p50, "p90": p90, "p99": p99, "max": max },
                "page_faults_per_call": cost.faults_per_call, "memory_bytes": cost.memory_bytes,
            }));
        } else {
            print(format_args!(
                "{:<width$}  {p50:>8.1} {p90:>8.1} {p99:>8.1} {max:>8.1}  {:>11.2}  {:>10}  {}",
                example.name,
                cost.faults_per_call,
                mebibytes(cost.memory_bytes),
                cost.action
            ))?;
        }
    }
    if options.json { print(json!(all)) } else { Ok(()) }
}

async fn measure(loaded: &Loaded, example: &Example, length: Duration) -> Result<Cost, String> {
    let example = Example { repeat: 1, ..example.clone() };
    let run =
        async || loaded.runner.run(&example).await.map_err(|problem| format!("example {:?}: {problem}", example.name));
    for _ in 0..WARM_UP {
        run().await?;
    }
    let (began, faults) = (Instant::now(), page_faults());
    let mut cost = Cost { times: vec![], faults_per_call: 0.0, memory_bytes: 0, action: "" };
    while began.elapsed() < length && cost.times.len() < CALLS_MAX {
        let outcome = run().await?;
        cost.times.push(outcome.took.as_secs_f64() * 1e6);
        cost.memory_bytes = cost.memory_bytes.max(outcome.memory_bytes);
        cost.action = outcome.action.label();
    }
    cost.faults_per_call = (page_faults() - faults) / cost.times.len().max(1) as f64;
    cost.times.sort_by(f64::total_cmp);
    Ok(cost)
}

/// The value below which this share of the sorted values is. 0 without values.
fn percentile(sorted: &[f64], share: f64) -> f64 {
    let index = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(index.saturating_sub(1)).copied().unwrap_or(0.0)
}

/// Minor page faults of this thread so far (minflt of proc_pid_stat(5)).
fn page_faults() -> f64 {
    let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap_or_default();
    let numbers = stat.rsplit(')').next().unwrap_or_default();
    numbers.split_whitespace().nth(7).and_then(|text| text.parse().ok()).unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::percentile;

    #[test]
    fn percentiles_are_values_of_the_list() {
        let values: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!([0.5, 0.9, 0.99, 1.0].map(|share| percentile(&values, share)), [50.0, 90.0, 99.0, 100.0]);
        assert_eq!((percentile(&[7.0], 0.5), percentile(&[], 0.5)), (7.0, 0.0));
    }
}
