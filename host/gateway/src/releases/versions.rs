//! Earlier versions of a filter: in memory, or in the cache of compiled code.
//!
//! A version is named by the digest of its component, and the cache keeps its code when the file
//! has been replaced. So a rollback needs no file. This module does not know: which version serves.

use std::sync::Arc;

use arc_swap::ArcSwap;
use serde::{Deserialize, Serialize};

use super::artifact_cache::ArtifactCache;
use super::candidate::check_denied;
use super::content_hash::ContentHash;
use witgate_config::Denied;
use witgate_runtime::engine::Engine;
use witgate_runtime::filter::Filter;
use witgate_runtime::settings::FilterSettings;

/// A version of a filter.
#[derive(Clone, Serialize, Deserialize)]
pub struct Version {
    /// The SHA-256 of the component, as operators know it.
    pub digest: String,
    /// The version in its manifest, `-` without one.
    pub version: String,
    /// Its name in the cache of compiled code.
    content: String,
    /// The version in memory.
    #[serde(skip)]
    pub filter: Option<Arc<Filter>>,
}

/// Loads versions from the cache of compiled code.
pub struct Versions {
    engine: Engine,
    /// What no filter may use, as the configuration says now.
    denied: Arc<ArcSwap<Denied>>,
    cache: Result<ArtifactCache, String>,
}

impl Version {
    /// A loaded version.
    pub fn new(filter: Arc<Filter>, content: ContentHash) -> Self {
        Self {
            digest: filter.info.digest.clone(),
            version: filter.version.to_string(),
            content: content.to_hex(),
            filter: Some(filter),
        }
    }

    /// For people: the version and the first digits of the digest.
    pub fn label(&self) -> String {
        format!("{} ({})", self.version, self.digest.get(..12).unwrap_or(&self.digest))
    }
}

impl Versions {
    pub(super) fn new(engine: Engine, denied: Arc<ArcSwap<Denied>>, cache: Result<ArtifactCache, String>) -> Self {
        Self { engine, denied, cache }
    }

    /// Puts a version into memory with these settings.
    ///
    /// # Errors
    /// Why it cannot be used, for the operator.
    pub fn load(&self, version: &Version, settings: &FilterSettings) -> Result<Arc<Filter>, String> {
        let label = version.label();
        let content = ContentHash::from_hex(&version.content).ok_or_else(|| format!("{label} has no valid hash"))?;
        let cache = self.cache.as_ref().map_err(Clone::clone)?;
        let found = cache.get(&self.engine, &content).map_err(|error| format!("{label}: {error}"))?;
        let (info, artifact) = found
            .ok_or_else(|| format!("{label} is not among the compiled filters of the state directory any more"))?;
        check_denied(&self.denied.load(), &info).map_err(|error| format!("{label}: {error}"))?;
        let filter = Filter::new(&self.engine, &artifact, info, settings.clone());
        filter.map(Arc::new).map_err(|error| format!("{label}: {error}"))
    }
}
