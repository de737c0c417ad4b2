//! One check of a location: asks for a new version and fetches it with its signatures.
//!
//! This module does not know: when a check happens, where the result is kept.

use reqwest::{StatusCode, Url};
use tempfile::NamedTempFile;

use super::download::{Download, Object};
use super::fetch_error::FetchError;
use super::http::{Client, Get, basic, entity_tag, expect_success, read, save};
use super::mirror::{Fetched, Mirror};
use super::{bucket, oci};
use crate::releases::evidence::{Evidence, MINISIGN_BYTES_MAX};
use witgate_config::{RemoteKind, RemoteLocation, Signatures, SourceSettings};

/// A new version. There is a file unless only the signatures are new.
pub(super) struct New {
    pub(super) fetched: Fetched,
    pub(super) file: Option<NamedTempFile>,
}

/// Asks for a version other than `known`. `None` if there is none.
pub(super) async fn check(
    location: &RemoteLocation,
    settings: &SourceSettings,
    known: Option<&Fetched>,
    mirror: &Mirror,
) -> Result<Option<New>, FetchError> {
    let tag = known.and_then(|known| known.tag.as_deref());
    let wants_signatures = settings.signatures != Signatures::Off;
    let (object, evidence) = match &location.kind {
        RemoteKind::Http => {
            let object = get_http(location, settings, tag, mirror).await?;
            let minisign = if wants_signatures { minisign_of_http(location, settings).await? } else { None };
            (object, Evidence { minisign, ..Evidence::default() })
        }
        RemoteKind::Bucket(place) => {
            let bucket = bucket::Bucket::open(place, settings)?;
            let object = bucket.get(tag, mirror).await?;
            let minisign = if wants_signatures { bucket.minisign().await? } else { None };
            (object, Evidence { minisign, ..Evidence::default() })
        }
        RemoteKind::Oci(reference) => {
            let known = known.map(|known| (tag, &known.evidence));
            oci::check(reference, settings, known, mirror).await?
        }
    };
    let at = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let Some(Object { download, tag }) = object else {
        let renewed = known.filter(|known| known.evidence != evidence).cloned();
        return Ok(renewed.map(|known| New { fetched: Fetched { evidence, at, ..known }, file: None }));
    };
    let (sha256, _, file) = download.finish();
    let version = known.filter(|known| known.sha256 == sha256).and_then(|known| known.version.clone());
    Ok(Some(New { fetched: Fetched { sha256, tag, evidence, at, version }, file: Some(file) }))
}

async fn get_http(
    location: &RemoteLocation,
    settings: &SourceSettings,
    tag: Option<&str>,
    mirror: &Mirror,
) -> Result<Option<Object>, FetchError> {
    let authorization = settings.login.as_ref().and_then(|(name, password)| basic(name, password.expose()));
    let get = Get { if_none_match: tag, ..Get::new(url_of(location)?).with(authorization.as_ref()) };
    let response = Client::new(settings)?.get(get).await?;
    if response.status() == StatusCode::NOT_MODIFIED {
        return if tag.is_some() { Ok(None) } else { Err(FetchError::unchanged()) };
    }
    let response = expect_success(response)?;
    let (mut download, tag) = (Download::new(mirror)?, entity_tag(&response));
    save(response, &mut download).await?;
    Ok(Some(Object { download, tag }))
}

/// The signature beside an object: the same path with `.minisig` at its end.
async fn minisign_of_http(location: &RemoteLocation, settings: &SourceSettings) -> Result<Option<String>, FetchError> {
    let authorization = settings.login.as_ref().and_then(|(name, password)| basic(name, password.expose()));
    let mut url = url_of(location)?;
    url.set_path(&format!("{}.minisig", url.path()));
    let response = Client::new(settings)?.get(Get::new(url).with(authorization.as_ref())).await?;
    if response.status() == StatusCode::NOT_FOUND {
        return Ok(None);
    }
    let bytes = read(expect_success(response)?, MINISIGN_BYTES_MAX, "the signature").await?;
    Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
}

fn url_of(location: &RemoteLocation) -> Result<Url, FetchError> {
    Url::parse(&location.text).map_err(|error| FetchError::new(format_args!("{location}: {error}")))
}
