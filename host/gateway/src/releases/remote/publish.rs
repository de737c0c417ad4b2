//! Publishes a component under a name that does not exist yet.
//!
//! An object store creates the object only if there is none, in one step. A registry has no such
//! step, so the tag is looked up first; two publications at the same moment can both succeed, and
//! the later one stays. This module does not know: the command line.

use std::collections::BTreeMap;

use oci_client::client::{Certificate, CertificateEncoding, ClientConfig, ClientProtocol};
use oci_client::manifest::{OCI_IMAGE_MEDIA_TYPE, OciDescriptor, OciImageManifest, OciManifest};
use oci_client::secrets::RegistryAuth;
use oci_client::{Client, Reference, RegistryOperation};

use super::bucket::Bucket;
use super::fetch_error::{Chain, FetchError};
use super::http::certificates;
use super::oci;
use super::oci::digest::digest_of;
use super::oci::login::login;
use witgate_config::{OciReference, RemoteKind, RemoteLocation, SourceSettings};
use witgate_runtime::component::ComponentInfo;

const TITLE: &str = "org.opencontainers.image.title";
const WASM_LAYER: &str = "application/wasm";
const WASM_CONFIG: &str = "application/vnd.wasm.config.v0+json";

/// A component to publish.
pub struct Publication<'a> {
    /// The component.
    pub bytes: Vec<u8>,
    /// Its description.
    pub info: &'a ComponentInfo,
    /// The text of its minisign signature.
    pub minisign: Option<String>,
}

/// Uploads a component. Returns the digest of the manifest, if the server is a registry.
///
/// # Errors
/// The name exists, or the server refuses the upload.
pub fn publish(
    location: &RemoteLocation,
    settings: &SourceSettings,
    publication: Publication<'_>,
) -> Result<Option<String>, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| format!("the system provides no runtime: {error}"))?;
    let upload = async {
        match &location.kind {
            RemoteKind::Http => {
                Err(FetchError::new("an HTTP server takes no uploads: publish to s3://, gs://, az:// or oci://"))
            }
            RemoteKind::Bucket(place) => {
                Bucket::open(place, settings)?.publish(publication.bytes, publication.minisign).await.map(|()| None)
            }
            RemoteKind::Oci(reference) => push(reference, settings, publication).await.map(Some),
        }
    };
    let result = runtime.block_on(async { tokio::time::timeout(settings.timeout, upload).await });
    let result =
        result.unwrap_or_else(|_| Err(FetchError::new(format_args!("not complete within {:?}", settings.timeout))));
    result.map_err(|error| format!("{location}: {}", error.message))
}

async fn push(
    reference: &OciReference,
    settings: &SourceSettings,
    publication: Publication<'_>,
) -> Result<String, FetchError> {
    let Some(tag) = reference.tag.as_deref().filter(|_| reference.digest.is_none()) else {
        return Err(FetchError::new("publish to a tag: the registry computes the digest"));
    };
    if oci::exists(reference, settings).await? {
        let message = format!("the tag {tag} exists, and a published version never changes: publish under another tag");
        return Err(FetchError::new(message));
    }
    let fail = |error: oci_client::errors::OciDistributionError| FetchError::new(Chain(&error));
    let client = Client::try_from(client_config(settings)?).map_err(fail)?;
    let image = Reference::with_tag(reference.registry.clone(), reference.repository.clone(), tag.to_owned());
    let auth = match login(&reference.registry, settings)? {
        Some((username, password)) => RegistryAuth::Basic(username, password),
        None => RegistryAuth::Anonymous,
    };
    client.auth(&image, &auth, RegistryOperation::Push).await.map_err(fail)?;
    client.store_auth_if_needed(&reference.registry, &auth).await;
    let config = config_of(publication.info, &publication.bytes);
    let manifest = manifest_of(&publication, &config);
    for bytes in [config, publication.bytes] {
        let digest = digest_of(&bytes);
        client.push_blob(&image, bytes, &digest).await.map_err(fail)?;
    }
    let manifest = serde_json::to_vec(&OciManifest::Image(manifest)).map_err(|error| FetchError::new(Chain(&error)))?;
    let digest = digest_of(&manifest);
    let media_type = OCI_IMAGE_MEDIA_TYPE.parse().map_err(|_| FetchError::new("the media type is not valid"))?;
    client.push_manifest_raw(&image, manifest, media_type).await.map_err(fail)?;
    Ok(digest)
}

fn client_config(settings: &SourceSettings) -> Result<ClientConfig, FetchError> {
    let mut config = ClientConfig {
        protocol: if settings.plain_http { ClientProtocol::Http } else { ClientProtocol::Https },
        ..ClientConfig::default()
    };
    if let Some(file) = &settings.ca {
        // An invalid file is reported with its name.
        certificates(file)?;
        let data = std::fs::read(file)?;
        config.extra_root_certificates = vec![Certificate { encoding: CertificateEncoding::Pem, data }];
    }
    Ok(config)
}

/// The configuration that wkg writes: what the component exports and imports.
fn config_of(info: &ComponentInfo, bytes: &[u8]) -> Vec<u8> {
    let config = serde_json::json!({
        "created": "1970-01-01T00:00:00Z",
        "architecture": "wasm",
        "os": "wasip2",
        "layerDigests": [digest_of(bytes)],
        "component": { "exports": info.exports, "imports": info.imports },
    });
    config.to_string().into_bytes()
}

/// The layout of wkg: one layer of the type `application/wasm`. It has a file's name, because oras
/// pulls no layer without one.
fn manifest_of(publication: &Publication<'_>, config: &[u8]) -> OciImageManifest {
    let describe = |media_type: &str, bytes: &[u8]| OciDescriptor {
        media_type: media_type.into(),
        digest: digest_of(bytes),
        size: i64::try_from(bytes.len()).unwrap_or(i64::MAX),
        ..OciDescriptor::default()
    };
    let mut annotations = BTreeMap::new();
    let mut file = "component.wasm".to_owned();
    if let Some(manifest) = &publication.info.manifest {
        if manifest.name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte)) {
            file = format!("{}.wasm", manifest.name);
        }
        annotations.insert(TITLE.to_owned(), manifest.name.clone());
        annotations.insert("org.opencontainers.image.version".to_owned(), manifest.version.clone());
    }
    if let Some(minisign) = &publication.minisign {
        annotations.insert(oci::MINISIGN_ANNOTATION.to_owned(), minisign.clone());
    }
    OciImageManifest {
        config: describe(WASM_CONFIG, config),
        media_type: Some(OCI_IMAGE_MEDIA_TYPE.into()),
        layers: vec![OciDescriptor {
            annotations: Some(BTreeMap::from([(TITLE.to_owned(), file)])),
            ..describe(WASM_LAYER, &publication.bytes)
        }],
        annotations: Some(annotations),
        ..OciImageManifest::default()
    }
}
