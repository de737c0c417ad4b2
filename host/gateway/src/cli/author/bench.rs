//! `witgate bench`: what each example of a component costs: time, page faults, memory.
//!
//! A round of calls warms up the caches first. The time is that of the filter's calls, without
//! HTTP. With `--profile`, further calls are sampled for a flame graph.
//! This module does not know: how an example is run.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::json;
use witgate_examples::Example;

use super::build::build_one;
use super::flame_graph::FlameGraph;
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
    /// A component, or the folder of a filter, which is built first
    #[arg(default_value = ".", value_name = "FOLDER|FILE")]
    target: PathBuf,
    /// How long each example is measured
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Use the limits and capabilities that this gateway.yaml gives the filter
    #[arg(long, short, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Write a flame graph of the filter's functions, or of its source lines, into this file
    #[arg(long, value_name = "FILE.svg")]
    profile: Option<PathBuf>,
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
    let loader = if options.profile.is_some() { ComponentLoader::for_profiles() } else { ComponentLoader::new() }?;
    let is_file = options.target.is_file();
    let component = if is_file { options.target.clone() } else { build_one(&options.target, options.json)?.file };
    let loaded = loader.load(&component, options.config.as_deref())?;
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
    let mut graph = FlameGraph::default();
    for example in &examples {
        let cost = block_on(measure(&loaded, example, length))??;
        if options.profile.is_some() {
            block_on(profile(&loaded, example, length, &cost, &mut graph))??;
        }
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
    if options.json {
        print(json!(all))?;
    }
    options.profile.as_ref().map_or(Ok(()), |file| write_profile(file, &graph, &component, options.json))
}

/// Samples calls of an example for as long as it was measured.
async fn profile(
    loaded: &Loaded,
    example: &Example,
    length: Duration,
    cost: &Cost,
    graph: &mut FlameGraph,
) -> Result<(), String> {
    // Each part of a call must be hit: a tick after the end of a call costs nothing but that call.
    let ticks_max = 1 + (percentile(&cost.times, 0.9) / 1000.0).ceil() as u64;
    let began = Instant::now();
    while began.elapsed() < length {
        let samples = loaded.runner.sample(example, fastrand::u64(1..=ticks_max)).await;
        let samples = samples.map_err(|problem| format!("example {:?}: {problem}", example.name))?;
        samples.iter().for_each(|sample| graph.add(sample));
    }
    Ok(())
}

fn write_profile(file: &Path, graph: &FlameGraph, component: &Path, is_quiet: bool) -> Result<(), String> {
    if graph.samples() == 0 {
        return Err("no call was sampled: raise --seconds, because the calls are short".into());
    }
    let name = component.file_name().unwrap_or_default().to_string_lossy();
    std::fs::write(file, graph.svg(&name)).map_err(|error| format!("{}: {error}", file.display()))?;
    if is_quiet {
        return Ok(());
    }
    print("")?;
    print(format_args!("{} samples in {}; in most of them:", graph.samples(), file.display()))?;
    graph.top(10).iter().try_for_each(|(share, name)| print(format_args!("  {:>5.1}%  {name}", share * 100.0)))
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
