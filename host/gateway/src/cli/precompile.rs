//! `witgate precompile`: compiles filters into the cache of a state directory, before a gateway
//! needs them.
//!
//! This module does not know: how to compile.

use std::path::{Path, PathBuf};
use std::time::Instant;

use super::output::print;
use crate::control::config_source::ConfigSource;
use crate::process::priority::Priority;
use crate::releases::artifact_cache::ArtifactCache;
use crate::releases::candidate::Candidate;
use crate::releases::compiler::{Job, compile};
use crate::releases::compiler_child::Compiled;
use crate::releases::component_source::ComponentSource;
use crate::releases::remote::RemoteSources;
use crate::releases::source::Source;
use witgate_config::{CompileLimits, FilterSource};
use witgate_runtime::compiler::Compiler;
use witgate_runtime::load_error::LoadError;

/// Compiles `files` and the filters of a configuration, unless the cache contains them. `state`
/// takes precedence over the configuration's state directory.
pub(super) fn precompile(config: Option<PathBuf>, state: Option<PathBuf>, files: Vec<PathBuf>) -> Result<(), String> {
    let (mut state, mut limits) = (state, CompileLimits::default());
    let mut sources: Vec<FilterSource> = files.into_iter().map(FilterSource::File).collect();
    let mut filters = vec![];
    if let Some(path) = config {
        let source = ConfigSource::file(path);
        let config = source.parse(&source.read()?)?;
        filters.extend(config.sourced().cloned());
        state.get_or_insert(config.state_dir);
        limits = config.compile;
        sources.extend(filters.iter().map(|filter| filter.source.clone()));
    }
    let state = state.ok_or("there is no state directory: give --config gateway.yaml or --state DIR")?;
    sources.sort_by_key(ToString::to_string);
    sources.dedup();
    let cache = ArtifactCache::open(&state, &Compiler::fingerprint()?)?;
    let remote = RemoteSources::new(&state);
    remote.follow(filters.iter());
    let mut errors = vec![];
    for shown in sources {
        let began = Instant::now();
        match compile_missing(ComponentSource::new(&shown, &remote).get(), &cache, &state, &limits) {
            Ok(None) => print(format_args!("{shown}: in the cache"))?,
            Ok(Some(compiled)) => print(format_args!(
                "{shown}: compiled in {} ms, {} functions new, {} known",
                began.elapsed().as_millis(),
                compiled.compiled,
                compiled.found
            ))?,
            Err(error) => errors.push(format!("{shown}: {error}")),
        }
    }
    if errors.is_empty() { Ok(()) } else { Err(errors.join("\n")) }
}

/// Returns `None` if the cache contains the component.
fn compile_missing(
    source: &dyn Source,
    cache: &ArtifactCache,
    state: &Path,
    limits: &CompileLimits,
) -> Result<Option<Compiled>, LoadError> {
    let revision = source.revision()?;
    if cache.contains(&source.hash(&revision)?) {
        return Ok(None);
    }
    let candidate = Candidate::read(source, &revision, None, limits)?;
    compile(&Job { candidate: &candidate, cache, state, limits }, Priority::Equal).map(Some)
}
