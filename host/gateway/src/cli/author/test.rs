//! `witgate test`: runs the unit tests and the examples of a filter.
//!
//! A folder is built first. A component is tested with the examples that it carries. This module
//! does not know: how results are shown.

use std::path::PathBuf;
use std::time::Duration;

use componentize::UnitTests;
use witgate_examples::{Example, Report, run_examples};

use super::build::build_one;
use super::fuzz::Fuzzed;
use super::load::{ComponentLoader, Loaded, block_on};
use super::report::{self, Results};
use super::{fuzz, record, replay};

/// The options of `witgate test`.
#[derive(clap::Args)]
pub(in crate::cli) struct Options {
    /// The folder of a filter, or a component
    #[arg(default_value = ".", value_name = "FOLDER|FILE")]
    target: PathBuf,
    /// Run the examples of this file, in place of those of the filter
    #[arg(long, value_name = "FILE")]
    examples: Option<PathBuf>,
    /// Run only what has this text in its name, and no unit tests
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// Use the limits and capabilities that this gateway.yaml gives the filter; with --replay also
    /// its config; with --record the gateway that runs with it
    #[arg(long, short, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Run no unit tests
    #[arg(long)]
    no_unit: bool,
    /// Run recorded exchanges in place of tests, and say what differs from the recording
    #[arg(long, value_name = "FILE")]
    replay: Option<PathBuf>,
    /// With --replay: say what differs from this version of the component
    #[arg(long, value_name = "FILE.wasm", requires = "replay")]
    against: Option<PathBuf>,
    #[command(flatten)]
    recording: record::Options,
    /// Send generated requests for so many seconds after the tests
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86400))]
    fuzz: Option<u64>,
    /// Write the results as JUnit XML
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Print failures only
    #[arg(long, short)]
    quiet: bool,
}

pub(super) fn test(options: &Options) -> Result<(), String> {
    if let Some(file) = options.recording.file() {
        return options.recording.record(file, &options.target, options.config.as_deref());
    }
    let recorded = options.replay.as_deref().map(replay::read).transpose()?;
    let (file, unit_tests) = prepare(options)?;
    let loader = ComponentLoader::new()?;
    let loaded = loader.load(&file, options.config.as_deref())?;
    if let Some(mut exchanges) = recorded {
        let load = |old: &PathBuf| loader.load(old, options.config.as_deref());
        let old = options.against.as_ref().map(load).transpose()?;
        exchanges.iter_mut().for_each(|exchange| add_config(exchange, &loaded));
        return replay::replay(&loaded, old.as_ref(), &exchanges, options.json);
    }
    let examples = selected(options, &loaded)?;
    let results = Results { unit_tests, reports: run(&loaded, &examples)? };
    if let Some(path) = &options.junit {
        let name = loaded.filter.info.manifest.as_ref().map_or("filter", |manifest| manifest.name.as_str());
        report::write_junit(path, name, &results)?;
    }
    if !options.json {
        report::print_text(&results, options.quiet)?;
    }
    let verdict = results.verdict();
    let length = options.fuzz.filter(|_| verdict.is_ok()).map(Duration::from_secs);
    let fuzzed = length.map(|length| fuzz::fuzz(&loaded, &examples, length)).transpose()?;
    if options.json {
        report::print_json(&results, fuzzed.as_ref().map(Fuzzed::to_json))?;
    } else if let Some(fuzzed) = &fuzzed {
        fuzzed.print_text(options.quiet)?;
    }
    verdict?;
    fuzzed.map_or(Ok(()), |fuzzed| fuzzed.verdict())
}

/// A recording has no configuration, because that may hold secrets.
fn add_config(exchange: &mut Example, loaded: &Loaded) {
    for (key, value) in loaded.config.iter() {
        exchange.config.entry(key.clone()).or_insert_with(|| value.as_str().into());
    }
}

/// The component, and the result of the unit tests if `target` is a folder.
fn prepare(options: &Options) -> Result<(PathBuf, Option<UnitTests>), String> {
    if options.target.is_file() {
        return Ok((options.target.clone(), None));
    }
    let component = build_one(&options.target, options.quiet || options.json)?;
    let has_unit_tests = !options.no_unit && options.only.is_none() && options.replay.is_none();
    let unit_tests = if has_unit_tests {
        let run = componentize::run_unit_tests(&component.source, component.language, &component.manifest.name);
        run.map_err(|error| format!("{error:#}"))?
    } else {
        None
    };
    Ok((component.file, unit_tests))
}

fn selected(options: &Options, loaded: &Loaded) -> Result<Vec<Example>, String> {
    let mut examples = match &options.examples {
        Some(file) => componentize::read_example_file(file)?,
        None => loaded.examples.clone(),
    };
    if let Some(part) = &options.only {
        examples.retain(|example| example.name.contains(part));
        if examples.is_empty() {
            return Err(format!("no example has {part:?} in its name"));
        }
    }
    Ok(examples)
}

/// Runs examples on a runtime of its own.
pub(super) fn run(loaded: &Loaded, examples: &[Example]) -> Result<Vec<Report>, String> {
    block_on(run_examples(&loaded.runner, examples))
}
