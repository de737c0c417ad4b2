//! `witgate compile` and `witgate precompile`: filters into the cache of a state directory, so that the gateway finds them there.
//!
//! `compile` is the child's side of `control/compile.rs`: one component on standard input, under limits. `precompile` is for people and builds: files, before they
//! are put where a gateway sees them.

use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::control::reload::Source;
use crate::process::priority::Priority;
use crate::releases::cache::{Cache, Content};
use crate::releases::compiler::{child, compile};
use crate::releases::sealed::Sealed;
use witgate_config::CompileLimits;
use witgate_runtime::compiler::Compiler;
use witgate_runtime::component::{FILE_BYTES_MAX, SizeLimits, describe};

pub(super) fn compile_child(state: &Path, memory_bytes: u64, seconds: u64, priority: Priority) -> Result<(), String> {
    child(state, memory_bytes, seconds, priority)
}

/// Compiles what the cache does not have: `files`, and the filters of a configuration. Its state directory goes before `state`.
pub(super) fn precompile(config: Option<PathBuf>, state: Option<PathBuf>, files: Vec<PathBuf>) -> Result<(), String> {
    let (mut state, mut files, mut limits) = (state, files, CompileLimits::default());
    if let Some(path) = config {
        let source = Source::File(path);
        let config = source.parse(&source.text()?)?;
        state.get_or_insert(config.state_dir);
        limits = config.compile;
        files.extend(config.filters.into_values().map(|filter| filter.source));
    }
    let state = state.ok_or("give --config gateway.yaml or --state DIR")?;
    files.sort();
    files.dedup();
    let cache = Cache::open(&state, &Compiler::fingerprint()?)?;
    let refusals: Vec<_> = files.iter().filter_map(|file| one(file, &state, &cache, &limits).err()).collect();
    if refusals.is_empty() { Ok(()) } else { Err(refusals.join("\n")) }
}

fn one(file: &Path, state: &Path, cache: &Cache, limits: &CompileLimits) -> Result<(), String> {
    let began = Instant::now();
    let shown = file.display();
    let sealed = Sealed::copy(file, FILE_BYTES_MAX).map_err(|error| format!("{shown}: {error}"))?;
    if sealed.bytes().len() as u64 > FILE_BYTES_MAX {
        return Err(format!("{shown} is larger than {} MiB", FILE_BYTES_MAX >> 20));
    }
    if cache.has(&Content::of(sealed.bytes())) {
        println!("{shown}: in the cache");
        return Ok(());
    }
    let sizes = SizeLimits { functions: limits.functions, function_bytes: limits.function_bytes };
    let compiled = describe(sealed.bytes())
        .and_then(|description| description.check_size(&sizes))
        .and_then(|()| compile(&sealed, state, limits, Priority::Equal))
        .map_err(|error| format!("{shown}: {error}"))?;
    println!(
        "{shown}: compiled in {} ms, {} functions new, {} known",
        began.elapsed().as_millis(),
        compiled.compiled,
        compiled.found
    );
    Ok(())
}
