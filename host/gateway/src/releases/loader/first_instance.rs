//! Creates one instance of a component that was loaded.
//!
//! A component without instances must be refused while its previous version serves. This module
//! does not know: where components come from.

use std::collections::BTreeMap;
use std::sync::Arc;

use witgate_http::error::FilterFailure;
use witgate_runtime::call::try_instantiate;
use witgate_runtime::filter::Filter;
use witgate_runtime::http_component::{self, HttpComponent};
use witgate_runtime::load_error::{LoadError, LoadErrorReason};

/// Creates one instance of a filter, because otherwise every request would fail.
pub(super) fn check_instantiates(filter: &Arc<Filter>, config: &BTreeMap<String, String>) -> Result<(), LoadError> {
    let refuse = |why: String| {
        let name = &filter.settings.name;
        LoadError::new(
            LoadErrorReason::Instantiate,
            format!(
                "an instance cannot be created: {why}; a start function must end well within filters.{name}.timeout and filters.{name}.memory"
            ),
        )
    };
    let runtime = new_runtime().map_err(|error| refuse(format!("the system provides no runtime: {error}")))?;
    let mut config = config.clone();
    if let Some(manifest) = &filter.info.manifest {
        manifest.add_defaults(&mut config);
    }
    match runtime.block_on(try_instantiate(filter, &Arc::new(config))) {
        // Traffic uses all instances of the pool. This says nothing about the filter.
        Err(failure) if failure.kind != FilterFailure::Saturated => {
            Err(refuse(format!("{}: {}", failure.kind.label(), failure.detail)))
        }
        _ => Ok(()),
    }
}

/// Creates one instance of an upstream's component, because otherwise every request would fail.
pub(super) fn check_starts(upstream: &str, component: &Arc<HttpComponent>) -> Result<(), LoadError> {
    let refuse = |why: String| {
        let message = format!(
            "an instance cannot be created: {why}; a start function must end well within a second and upstreams.{upstream}.component.memory"
        );
        LoadError::new(LoadErrorReason::Instantiate, message)
    };
    let runtime = new_runtime().map_err(|error| refuse(format!("the system provides no runtime: {error}")))?;
    match runtime.block_on(http_component::try_instantiate(component)) {
        // Traffic uses all instances of the pool. This says nothing about the component.
        Err(failure) if failure.kind != FilterFailure::Saturated => {
            Err(refuse(format!("{}: {}", failure.kind.label(), failure.detail)))
        }
        _ => Ok(()),
    }
}

fn new_runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_time().build()
}
