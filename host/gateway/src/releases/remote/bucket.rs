//! Objects of S3, Google Cloud Storage and Azure.
//!
//! Credentials come from gateway.yaml, the environment or the role of the machine, in this order.
//! This module does not know: when an object is fetched.

use std::ffi::OsString;

use futures_util::StreamExt as _;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey, S3ConditionalPut};
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::path::Path;
use object_store::{
    Error, GetOptions, ObjectStore, ObjectStoreExt as _, PutMode, PutOptions, RetryConfig, UpdateVersion,
};

use super::bucket_http::BoundedHttp;
use super::download::{Download, Object};
use super::fetch_error::{Chain, FetchError};
use super::mirror::Mirror;
use crate::releases::evidence::MINISIGN_BYTES_MAX;
use witgate_config::{BucketObject, BucketService, SourceSettings};

const RETRIES_MAX: usize = 2;

/// An object, and the store that has it.
pub(super) struct Bucket {
    store: Box<dyn ObjectStore>,
    object: Path,
}

/// A version of an object, for a write that must not replace another one.
pub(super) type ObjectVersion = UpdateVersion;

/// What a read of a small object found.
pub(super) enum Read {
    /// The version that is known.
    Unchanged,
    /// No object.
    Missing,
    /// Another version.
    Found(Vec<u8>, ObjectVersion),
}

impl Bucket {
    pub(super) fn open(place: &BucketObject, settings: &SourceSettings) -> Result<Self, FetchError> {
        let object = Path::parse(&place.key).map_err(|error| FetchError::new(Chain(&error)))?;
        let store = match place.service {
            BucketService::S3 => s3(place, settings),
            BucketService::Gcs => gcs(place, settings),
            BucketService::Azure => azure(place, settings),
        };
        Ok(Self { store: store?, object })
    }

    /// Downloads the object, unless it still has this entity tag.
    pub(super) async fn get(&self, tag: Option<&str>, mirror: &Mirror) -> Result<Option<Object>, FetchError> {
        let options = GetOptions { if_none_match: tag.map(str::to_owned), ..GetOptions::default() };
        let found = match self.store.get_opts(&self.object, options).await {
            Err(Error::NotModified { .. }) => return Ok(None),
            found => found.map_err(explain)?,
        };
        Download::check_length(found.meta.size)?;
        let tag = found.meta.e_tag.clone().filter(|tag| tag.len() <= 256);
        let mut download = Download::new(mirror)?;
        let mut chunks = found.into_stream();
        while let Some(chunk) = chunks.next().await {
            download.write(&chunk.map_err(explain)?)?;
        }
        Ok(Some(Object { download, tag }))
    }

    /// Reads the object into memory, unless it still has this version.
    pub(super) async fn read(&self, known: Option<&ObjectVersion>, bytes_max: u64) -> Result<Read, FetchError> {
        let if_none_match = known.and_then(|known| known.e_tag.clone());
        let found = match self.store.get_opts(&self.object, GetOptions { if_none_match, ..GetOptions::default() }).await
        {
            Err(Error::NotModified { .. }) => return Ok(Read::Unchanged),
            Err(Error::NotFound { .. }) => return Ok(Read::Missing),
            found => found.map_err(explain)?,
        };
        if found.meta.size > bytes_max {
            return Err(FetchError::new(format_args!("{} is larger than {bytes_max} bytes", self.object)));
        }
        let version = ObjectVersion { e_tag: found.meta.e_tag.clone(), version: found.meta.version.clone() };
        Ok(Read::Found(found.bytes().await.map_err(explain)?.into(), version))
    }

    /// Writes the object in the place of a known version, or creates it. Returns the new version,
    /// or `None` if the object is another one by then.
    pub(super) async fn replace(
        &self,
        bytes: Vec<u8>,
        known: Option<&ObjectVersion>,
    ) -> Result<Option<ObjectVersion>, FetchError> {
        let mode = known.map_or(PutMode::Create, |known| PutMode::Update(known.clone()));
        match self.store.put_opts(&self.object, bytes.into(), PutOptions { mode, ..PutOptions::default() }).await {
            Err(Error::AlreadyExists { .. } | Error::Precondition { .. } | Error::NotFound { .. })
                if known.is_some() =>
            {
                Ok(None)
            }
            Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => Ok(None),
            result => result.map(|put| Some(ObjectVersion { e_tag: put.e_tag, version: put.version })).map_err(explain),
        }
    }

    /// The signature beside the object.
    pub(super) async fn minisign(&self) -> Result<Option<String>, FetchError> {
        let found = match self.store.get(&self.minisign_path()?).await {
            Err(Error::NotFound { .. }) => return Ok(None),
            found => found.map_err(explain)?,
        };
        if found.meta.size > MINISIGN_BYTES_MAX {
            return Err(FetchError::new(format_args!("the signature is larger than {MINISIGN_BYTES_MAX} bytes")));
        }
        let bytes = found.bytes().await.map_err(explain)?;
        Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
    }

    /// Creates the object, with its signature first. Never replaces an object.
    pub(super) async fn publish(&self, bytes: Vec<u8>, minisign: Option<String>) -> Result<(), FetchError> {
        if self.store.head(&self.object).await.is_ok() {
            return Err(exists(&self.object));
        }
        let create = || PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        if let Some(minisign) = minisign {
            // A signature alone is left over from a publication that failed.
            self.store.put(&self.minisign_path()?, minisign.into()).await.map_err(explain)?;
        }
        match self.store.put_opts(&self.object, bytes.into(), create()).await {
            Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => Err(exists(&self.object)),
            result => result.map(drop).map_err(explain),
        }
    }

    fn minisign_path(&self) -> Result<Path, FetchError> {
        Path::parse(format!("{}.minisig", self.object)).map_err(|error| FetchError::new(Chain(&error)))
    }
}

fn exists(object: &Path) -> FetchError {
    FetchError::new(format_args!("{object} exists, and a published version never changes: publish under another name"))
}

fn s3(place: &BucketObject, settings: &SourceSettings) -> Result<Box<dyn ObjectStore>, FetchError> {
    let mut builder = s3_of_environment(settings, std::env::vars_os().filter_map(text_pair))
        .with_bucket_name(&place.bucket)
        .with_http_connector(BoundedHttp::new(settings)?)
        .with_retry(retry(settings))
        .with_conditional_put(S3ConditionalPut::ETagMatch);
    if let Some(endpoint) = &settings.endpoint {
        builder = builder.with_endpoint(endpoint).with_allow_http(true);
    }
    if let Some(region) = &settings.region {
        builder = builder.with_region(region);
    }
    if let Some((access_key, secret_key)) = &settings.access_key {
        builder = builder.with_access_key_id(access_key.expose()).with_secret_access_key(secret_key.expose());
    }
    Ok(Box::new(builder.with_skip_signature(settings.anonymous).build().map_err(explain)?))
}

/// The settings of the variables `AWS_*`. A session token belongs to the key beside it, so none is
/// used with a key of gateway.yaml.
fn s3_of_environment(settings: &SourceSettings, variables: impl Iterator<Item = (String, String)>) -> AmazonS3Builder {
    let mut builder = AmazonS3Builder::new();
    for (name, value) in variables.filter(|(name, _)| name.starts_with("AWS_")) {
        let Ok(key) = name.to_ascii_lowercase().parse::<AmazonS3ConfigKey>() else { continue };
        if key != AmazonS3ConfigKey::Token || settings.access_key.is_none() {
            builder = builder.with_config(key, value);
        }
    }
    builder
}

fn text_pair((name, value): (OsString, OsString)) -> Option<(String, String)> {
    Some((name.into_string().ok()?, value.into_string().ok()?))
}

fn gcs(place: &BucketObject, settings: &SourceSettings) -> Result<Box<dyn ObjectStore>, FetchError> {
    let mut builder = GoogleCloudStorageBuilder::from_env()
        .with_bucket_name(&place.bucket)
        .with_http_connector(BoundedHttp::new(settings)?)
        .with_retry(retry(settings));
    if let Some(endpoint) = &settings.endpoint {
        builder = builder.with_base_url(endpoint);
    }
    Ok(Box::new(builder.with_skip_signature(settings.anonymous).build().map_err(explain)?))
}

fn azure(place: &BucketObject, settings: &SourceSettings) -> Result<Box<dyn ObjectStore>, FetchError> {
    let mut builder = MicrosoftAzureBuilder::from_env()
        .with_container_name(&place.bucket)
        .with_http_connector(BoundedHttp::new(settings)?)
        .with_retry(retry(settings));
    if let Some(endpoint) = &settings.endpoint {
        builder = builder.with_endpoint(endpoint.clone());
    }
    Ok(Box::new(builder.with_skip_signature(settings.anonymous).build().map_err(explain)?))
}

fn retry(settings: &SourceSettings) -> RetryConfig {
    RetryConfig { max_retries: RETRIES_MAX, retry_timeout: settings.timeout, ..RetryConfig::default() }
}

fn explain(error: Error) -> FetchError {
    match error {
        Error::NotFound { path, .. } => FetchError::new(format_args!(
            "{path} is not in the bucket, or the bucket does not exist: publish it, or correct `source`"
        )),
        Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => FetchError::new(format_args!(
            "the object store refuses the credentials, or they do not allow this: check `sources` ({})",
            Chain(&error)
        )),
        error => FetchError::new(Chain(&error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path as FilePath;

    fn settings(keys: &str) -> Result<SourceSettings, String> {
        let text = format!(
            "filters: {{f: {{source: \"s3://b/f.wasm\"}}}}\nsources: [{{prefix: \"s3://b/\"{keys}}}]\nupstreams: {{a: {{builtin: echo}}}}\nroutes: [{{upstream: a}}]"
        );
        let config = witgate_config::Config::parse(&text, "f", FilePath::new("/"));
        let mut config = config.map_err(|errors| errors.to_string())?;
        config.filters.remove("f").map(|filter| filter.source_settings).ok_or_else(|| "no filter".into())
    }

    #[test]
    fn a_session_token_is_used_with_the_key_beside_it_only() -> Result<(), String> {
        let value = |keys: &str, key| -> Result<Option<String>, String> {
            let variables = [("AWS_SESSION_TOKEN", "t"), ("AWS_REGION", "eu-north-1"), ("HOME", "/")];
            let variables = variables.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
            Ok(s3_of_environment(&settings(keys)?, variables).get_config_value(&key))
        };
        let own = ", access_key: a, secret_key: b";
        assert_eq!(value("", AmazonS3ConfigKey::Token)?.as_deref(), Some("t"));
        assert_eq!(value(own, AmazonS3ConfigKey::Token)?, None);
        assert_eq!(value(own, AmazonS3ConfigKey::Region)?.as_deref(), Some("eu-north-1"));
        Ok(())
    }
}
