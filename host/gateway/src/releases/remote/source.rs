//! A version of a location on disk, as a [`Source`] for the loader.
//!
//! It is one version from its creation on: a newer one that arrives meanwhile is the next load.
//! This module does not know: how the version came to the disk.

use std::sync::Arc;

use super::mirror::{Fetched, Mirror};
use super::poll::Tracked;
use crate::releases::content_hash::ContentHash;
use crate::releases::evidence::Evidence;
use crate::releases::private_copy::PrivateCopy;
use crate::releases::source::{FileSource, Revision, Source};
use witgate_config::RemoteLocation;
use witgate_runtime::load_error::{LoadError, LoadErrorReason};

/// One version of a location.
pub struct MirroredSource {
    location: String,
    version: Result<Version, String>,
    accepted_version: Option<String>,
}

struct Version {
    tracked: Arc<Tracked>,
    mirror: Arc<Mirror>,
    fetched: Fetched,
    is_good: bool,
}

impl MirroredSource {
    pub(super) fn latest(
        location: &RemoteLocation,
        tracked: Option<Arc<Tracked>>,
        mirror: Result<Arc<Mirror>, String>,
    ) -> Self {
        let (latest, good, failure) = tracked.as_ref().map(|tracked| tracked.versions()).unwrap_or_default();
        let is_good = good.as_ref().map(|good| &good.sha256) == latest.as_ref().map(|latest| &latest.sha256);
        let missing = || failure.unwrap_or_else(|| "it was not fetched yet".into());
        let version = mirror.and_then(|mirror| match (tracked, latest) {
            (Some(tracked), Some(fetched)) => Ok(Version { tracked, mirror, fetched, is_good }),
            _ => Err(format!("{}; no version of it is on disk", missing())),
        });
        Self { location: location.to_string(), version, accepted_version: good.and_then(|good| good.version) }
    }

    pub(super) fn last_good(
        location: &RemoteLocation,
        tracked: Arc<Tracked>,
        mirror: Result<Arc<Mirror>, String>,
    ) -> Option<Self> {
        let (latest, good, _) = tracked.versions();
        let fetched = good.filter(|good| Some(good) != latest.as_ref())?;
        let accepted_version = fetched.version.clone();
        let version = mirror.map(|mirror| Version { tracked, mirror, fetched, is_good: true });
        Some(Self { location: location.to_string(), version, accepted_version })
    }

    /// Records that this version was loaded.
    pub fn accept(&self, version: Option<&str>) {
        if let Ok(own) = &self.version {
            own.tracked.accept(&own.fetched, version, &own.mirror);
        }
    }

    /// The version in the manifest of the component that was loaded last, unless this is the same
    /// component.
    pub fn earlier_version(&self) -> Option<&str> {
        let is_same = self.version.as_ref().is_ok_and(|own| own.is_good);
        self.accepted_version.as_deref().filter(|_| !is_same)
    }

    /// The SHA-256 that the component was fetched with.
    pub fn sha256(&self) -> Option<&str> {
        self.version.as_ref().ok().map(|own| own.fetched.sha256.as_str())
    }

    fn own(&self) -> Result<(&Version, FileSource), LoadError> {
        let own = self.version.as_ref().map_err(|why| LoadError::new(LoadErrorReason::Unreadable, why))?;
        Ok((own, FileSource::new(&own.mirror.path(&own.fetched.sha256))))
    }
}

impl Source for MirroredSource {
    fn location(&self) -> String {
        self.location.clone()
    }

    /// The digest and the signatures: a signature that is added later is a reason to load again.
    fn revision(&self) -> Result<Revision, LoadError> {
        let (own, _) = self.own()?;
        let evidence = serde_json::to_vec(&own.fetched.evidence).unwrap_or_default();
        let evidence = blake3::hash(&evidence).to_hex();
        Ok(Revision::new(format!("{} {}", own.fetched.sha256, &evidence[..16])))
    }

    fn hash(&self, _: &Revision) -> Result<ContentHash, LoadError> {
        let (_, file) = self.own()?;
        file.hash(&file.revision()?)
    }

    fn copy(&self, _: &Revision) -> Result<PrivateCopy, LoadError> {
        let (_, file) = self.own()?;
        file.copy(&file.revision()?)
    }

    fn evidence(&self) -> Result<Evidence, LoadError> {
        Ok(self.own()?.0.fetched.evidence.clone())
    }
}
