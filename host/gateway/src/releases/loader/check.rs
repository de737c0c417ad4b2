//! The checks of a component that `witgate check` makes: those of a load, but nothing is compiled.
//!
//! This module does not know: how components are loaded into the gateway.

use super::settings::settings;
use crate::releases::candidate::{Candidate, Requirements};
use crate::releases::component_source::{ComponentSource, check_source};
use crate::releases::remote::RemoteSources;
use crate::state::Stores;
use witgate_config::{Config, UpstreamComponent};
use witgate_runtime::component::ComponentInfo;
use witgate_runtime::load_error::LoadError;
use witgate_runtime::proposals;

/// Checks a filter's component as the loader and the compiler do, but does not compile it.
/// The sources on servers are followed already.
///
/// # Errors
/// Why the component is refused.
pub fn check(
    name: &str,
    filter: &witgate_config::Filter,
    config: &Config,
    remote: &RemoteSources,
) -> Result<ComponentInfo, LoadError> {
    let source = ComponentSource::new(&filter.source, remote);
    let revision = source.get().revision()?;
    let state = Stores::default().filter(name, filter);
    let settings = settings(name, filter, state);
    let requirements = Requirements { filter, settings: Some(&settings), denied: &config.denied };
    check_source(name, filter, source.get(), &revision)?;
    let candidate = Candidate::read(source.get(), &revision, Some(&requirements), &config.compile)?;
    source.check(filter, &candidate.info)?;
    proposals::check(candidate.copy.bytes())?;
    Ok(candidate.info)
}

/// Checks the component of an upstream as the loader and the compiler do, but does
/// not compile it.
///
/// # Errors
/// Why the component is refused.
pub fn check_component(
    upstream: &str,
    component: &UpstreamComponent,
    config: &Config,
    remote: &RemoteSources,
) -> Result<ComponentInfo, LoadError> {
    let source = ComponentSource::new(&component.code.source, remote);
    let requirements = Requirements { filter: &component.code, settings: None, denied: &config.denied };
    let revision = source.get().revision()?;
    check_source(upstream, &component.code, source.get(), &revision)?;
    let candidate = Candidate::read(source.get(), &revision, Some(&requirements), &config.compile)?;
    source.check(&component.code, &candidate.info)?;
    proposals::check(candidate.copy.bytes())?;
    Ok(candidate.info)
}
