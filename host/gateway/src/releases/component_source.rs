//! The component of a filter, from a file or from a server, and the checks that depend on that.
//!
//! This module does not know: how components are fetched, how they are compiled.

use super::content_hash::ContentHash;
use super::remote::{MirroredSource, RemoteSources};
use super::source::{FileSource, Revision, Source};
use super::trust::{check_downgrade, check_signatures};
use witgate_config::{Filter, FilterSource, Signatures};
use witgate_runtime::component::ComponentInfo;
use witgate_runtime::load_error::{LoadError, LoadErrorReason};

/// The source of a filter.
pub enum ComponentSource {
    /// A file.
    File(FileSource),
    /// A version of a location on a server.
    Remote(Box<MirroredSource>),
}

impl ComponentSource {
    /// The file, or the newest version of the location.
    pub fn new(source: &FilterSource, remote: &RemoteSources) -> Self {
        match source {
            FilterSource::File(path) => Self::File(FileSource::new(path)),
            FilterSource::Remote(location) => Self::Remote(Box::new(remote.latest(location))),
        }
    }

    /// What the loader reads.
    pub fn get(&self) -> &dyn Source {
        match self {
            Self::File(file) => file,
            Self::Remote(remote) => &**remote,
        }
    }

    /// Checks what holds for a location on a server: its bytes are those that were fetched, and its
    /// version is not below the one before.
    pub(super) fn check(&self, filter: &Filter, info: &ComponentInfo) -> Result<(), LoadError> {
        let Self::Remote(remote) = self else { return Ok(()) };
        if remote.sha256().is_some_and(|sha256| sha256 != info.digest) {
            return Err(LoadError::new(
                LoadErrorReason::Unreadable,
                "a file in the folder `sources` of the state directory was changed: delete that folder, and the gateway fetches its files again",
            ));
        }
        check_downgrade(filter, remote.earlier_version(), manifest_version(info))
    }
}

/// The version in a component's manifest.
pub(super) fn manifest_version(info: &ComponentInfo) -> Option<&str> {
    info.manifest.as_ref().map(|manifest| manifest.version.as_str())
}

/// Checks the signatures of a source, if its settings ask for it. Returns the hash of the bytes
/// that were checked.
pub(super) fn check_source(
    name: &str,
    filter: &Filter,
    source: &dyn Source,
    revision: &Revision,
) -> Result<Option<ContentHash>, LoadError> {
    if filter.source_settings.signatures == Signatures::Off {
        return Ok(None);
    }
    let evidence = source.evidence()?;
    let copy = source.copy(revision)?;
    if let Some(signer) = check_signatures(name, filter, &evidence, copy.bytes())? {
        tracing::info!(filter = name, signer, "the signature is valid");
    }
    Ok(Some(ContentHash::of(copy.bytes())))
}

pub(super) fn changed_meanwhile() -> LoadError {
    LoadError::new(LoadErrorReason::Unreadable, "the file changed after its signature was checked: it is read again")
}
