//! Loads a component as the gateway does, to run its examples.
//!
//! The limits are the defaults of gateway.yaml, or those that a configuration gives the filter. The
//! machine code is kept in the user's folder, so the second run compiles nothing. This module does
//! not know: examples of a filter's folder.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::json;
use witgate_config::{Config, Filter as FilterSettings, FilterConfig, FilterSource};
use witgate_examples::{Example, Runner};
use witgate_runtime::component::{self, ComponentInfo, FILE_BYTES_MAX, Manifest};
use witgate_runtime::engine::Engine;
use witgate_runtime::filter::Filter;

use crate::control::config_source::ConfigSource;
use crate::process::regular_file::read_regular;
use crate::releases::loader::Loader;

/// Concurrent instances: examples run one after the other, and a dropped instance may wait to be
/// cleaned up.
const INSTANCES: u32 = 8;

/// A loaded component.
pub(super) struct Loaded {
    pub(super) runner: Runner,
    pub(super) filter: Arc<Filter>,
    /// The examples that the component carries.
    pub(super) examples: Vec<Example>,
    /// What gateway.yaml configures for the filter. Empty without one.
    pub(super) config: FilterConfig,
}

/// Loads the components of one command with one engine.
pub(super) struct ComponentLoader {
    engine: Engine,
    /// Where machine code is kept.
    state: PathBuf,
}

impl ComponentLoader {
    /// A loader that keeps machine code in the user's folder.
    pub(super) fn new() -> Result<Self, String> {
        Self::with_state(user_state()?)
    }

    /// The same; its samples of calls have the whole stack.
    pub(super) fn for_profiles() -> Result<Self, String> {
        Ok(Self { engine: Engine::for_profiles(INSTANCES)?, state: user_state()? })
    }

    /// A loader that shares machine code with a gateway that has this state directory.
    pub(super) fn with_state(state: PathBuf) -> Result<Self, String> {
        Ok(Self { engine: Engine::new(INSTANCES)?, state })
    }

    /// Loads the component in `file` under the limits that `config` gives it, else under the
    /// defaults.
    pub(super) fn load(&self, file: &Path, config: Option<&Path>) -> Result<Loaded, String> {
        let shown = file.display();
        let bytes = read_regular(file, FILE_BYTES_MAX).map_err(|error| format!("{shown}: {error}"))?;
        let info = component::describe(&bytes).map_err(|error| format!("{shown}: {error}"))?;
        let examples = component::examples(&bytes).map_err(|error| format!("{shown}: {error}"))?;
        drop(bytes);
        let (config, filter) = match config {
            Some(config) => configured(config, file, &info)?,
            None => defaults(file, &info, &self.state)?,
        };
        let settings = filter;
        let loaded = Loader::new(self.engine.clone(), &config).load(name_of(info.manifest.as_ref()), &settings);
        let filter = loaded.map_err(|error| format!("{shown}: {error}"))?;
        let runner = Runner::new(&self.engine, &filter).map_err(|error| format!("{shown}: {error}"))?;
        Ok(Loaded { runner, filter, examples, config: settings.config })
    }
}

/// The name of a filter in the gateway.yaml of its author's commands, which messages show: that of
/// the manifest, unless gateway.yaml refuses it.
pub(super) fn name_of(manifest: Option<&Manifest>) -> &str {
    let name = manifest.map(|manifest| manifest.name.as_str());
    name.filter(|name| !name.starts_with('-')).unwrap_or("filter")
}

fn user_state() -> Result<PathBuf, String> {
    Ok(componentize::user_folder().map_err(|error| format!("{error:#}"))?.join("state"))
}

/// A configuration in which the filter has what its manifest asks for, and default limits.
fn defaults(file: &Path, info: &ComponentInfo, state: &Path) -> Result<(Config, FilterSettings), String> {
    let file = std::path::absolute(file).map_err(|error| format!("{}: {error}", file.display()))?;
    let parent = state.parent().unwrap_or(state);
    std::fs::create_dir_all(parent).map_err(|error| format!("{}: {error}", parent.display()))?;
    let services = info.manifest.as_ref().map(|manifest| manifest.services.clone()).unwrap_or_default();
    let name = name_of(info.manifest.as_ref());
    // JSON is YAML.
    let text = json!({
        "state": { "directory": state },
        "upstreams": { "echo": { "builtin": "echo" } },
        "filters": { name: { "source": file, "capabilities": services } },
        "routes": [{ "filters": [name], "upstream": "echo" }],
    });
    let source = ConfigSource::text(&text.to_string(), parent.to_owned());
    let config = source.parse(&source.read()?)?;
    let filter = config.filters.get(name).cloned().ok_or("the configuration has no filter")?;
    Ok((config, filter))
}

/// The filter of a gateway.yaml that has this file as its source, or the name of its manifest. The
/// file is loaded in place of the configured one.
fn configured(path: &Path, file: &Path, info: &ComponentInfo) -> Result<(Config, FilterSettings), String> {
    let source = ConfigSource::file(path.to_owned());
    let config = source.parse(&source.read()?)?;
    let absolute = file.canonicalize().map_err(|error| format!("{}: {error}", file.display()))?;
    let by_source = config
        .filters
        .values()
        .find(|filter| filter.source.path().and_then(|path| path.canonicalize().ok()).as_ref() == Some(&absolute));
    let name = name_of(info.manifest.as_ref());
    let found = by_source.or_else(|| config.filters.get(name)).cloned();
    let mut filter = found.ok_or_else(|| {
        format!("{}: no filter has the source {} or the name {name:?}", path.display(), file.display())
    })?;
    // A new version is tested before gateway.yaml names it.
    (filter.source, filter.version, filter.sha256) = (FilterSource::File(absolute), None, None);
    Ok((config, filter))
}

/// Awaits a future on this thread.
pub(super) fn block_on<F: Future>(future: F) -> Result<F::Output, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    Ok(runtime.map_err(|error| format!("the system provides no runtime: {error}"))?.block_on(future))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_gateway_yaml_refuses_is_replaced() -> Result<(), serde_json::Error> {
        for (name, expected) in [("greeter", "greeter"), ("-a", "filter")] {
            let manifest: Manifest = serde_json::from_value(json!({ "name": name, "version": "0.1.0" }))?;
            assert_eq!(name_of(Some(&manifest)), expected);
        }
        assert_eq!(name_of(None), "filter");
        Ok(())
    }
}
