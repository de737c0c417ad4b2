//! Artifacts of registries: a tag becomes a digest, a manifest names a layer, the layer is the
//! component.
//!
//! The library oci-client pushes (`publish.rs`). It has no bound on manifests and no say in
//! redirects, so pulls use the bounded HTTP client. This module does not know: policies.

pub(super) mod digest;
mod layer;
pub(super) mod login;
mod manifest;
mod registry;

use self::digest::digest_of;
use self::layer::unpack;
use self::manifest::{Layer, Manifest, Packing, entry_of_index};
use self::registry::Registry;
use super::download::{Download, Object};
use super::fetch_error::FetchError;
use super::mirror::Mirror;
use crate::releases::evidence::{CosignSignature, Evidence, Image};
use witgate_config::{OciReference, Signatures, SourceSettings};

/// The annotation of a manifest with a minisign signature of the component.
pub(super) const MINISIGN_ANNOTATION: &str = "witgate.minisig";
const COSIGN_ANNOTATION: &str = "dev.cosignproject.cosign/signature";
/// The annotations of a signature with a certificate of Sigstore.
const CERTIFICATE_ANNOTATION: &str = "dev.sigstore.cosign/certificate";
const LOG_ENTRY_ANNOTATION: &str = "dev.sigstore.cosign/bundle";
const COSIGN_SIGNATURES_MAX: usize = 16;
const COSIGN_PAYLOAD_BYTES_MAX: u64 = 64 << 10;
/// Longer annotations of a signature are ignored.
const COSIGN_ANNOTATION_BYTES_MAX: usize = 64 << 10;

/// Asks for another manifest than the known one, and fetches its component. The evidence is
/// returned in either case.
pub(super) async fn check(
    reference: &OciReference,
    settings: &SourceSettings,
    known: Option<(Option<&str>, &Evidence)>,
    mirror: &Mirror,
) -> Result<(Option<Object>, Evidence), FetchError> {
    let mut registry = Registry::new(reference, settings)?;
    let wanted = reference.digest.as_deref().or(reference.tag.as_deref()).unwrap_or("latest");
    let tag = known.and_then(|(tag, _)| tag);
    let (object, mut evidence) = match registry.manifest(wanted, tag).await? {
        None => (None, known.map(|(_, evidence)| evidence.clone()).unwrap_or_default()),
        Some(bytes) => {
            let (object, evidence) = fetch(&mut registry, reference, wanted, bytes, mirror).await?;
            (Some(object), evidence)
        }
    };
    evidence.cosign = match &evidence.image {
        Some(image) if settings.signatures != Signatures::Off => cosign_signatures(&mut registry, image).await?,
        _ => vec![],
    };
    Ok((object, evidence))
}

/// Whether a tag exists.
pub(super) async fn exists(reference: &OciReference, settings: &SourceSettings) -> Result<bool, FetchError> {
    let tag = reference.tag.as_deref().unwrap_or("latest");
    Registry::new(reference, settings)?.find_manifest(tag).await.map(|found| found.is_some())
}

async fn fetch(
    registry: &mut Registry,
    reference: &OciReference,
    wanted: &str,
    bytes: Vec<u8>,
    mirror: &Mirror,
) -> Result<(Object, Evidence), FetchError> {
    let digest = digest_of(&bytes);
    if wanted.starts_with("sha256:") && digest != wanted {
        return Err(FetchError::new(format_args!(
            "the registry sent a manifest with the digest {digest} for {wanted}"
        )));
    }
    let mut digests = vec![digest.clone()];
    let bytes = match entry_of_index(&bytes).map_err(FetchError::new)? {
        None => bytes,
        Some(entry) => {
            let bytes = registry.manifest(&entry, None).await?.unwrap_or_default();
            if digest_of(&bytes) != entry {
                return Err(FetchError::new(format_args!("the registry sent another manifest than {entry}")));
            }
            digests.push(entry);
            bytes
        }
    };
    let manifest = Manifest::parse(&bytes).map_err(FetchError::new)?;
    let Layer { digest: layer, size, packing } = manifest.component().map_err(FetchError::new)?;
    Download::check_length(size)?;
    let mut download = Download::new(mirror)?;
    registry.blob(&layer, &mut download).await?;
    let file = download.verified(&layer)?;
    let mut component = Download::new(mirror)?;
    // On a thread of its own: other locations are fetched meanwhile.
    let unpacked = tokio::task::spawn_blocking(move || {
        match packing {
            Packing::None => component.copy(file),
            Packing::Tar => unpack(file, &mut component),
            Packing::TarGzip => unpack(flate2::read::MultiGzDecoder::new(file), &mut component),
        }?;
        Ok::<_, FetchError>(component)
    });
    let download = unpacked.await.map_err(|error| FetchError::new(format_args!("unpacking failed: {error}")))??;
    let minisign = manifest.annotation(MINISIGN_ANNOTATION).map(str::to_owned);
    let image = Some(Image { repository: reference.name(), digests });
    Ok((Object { download, tag: Some(digest) }, Evidence { minisign, image, cosign: vec![] }))
}

/// The signatures in cosign's own layout: an image with the tag `sha256-DIGEST.sig`, in which each
/// layer is a payload and an annotation of it the signature.
async fn cosign_signatures(registry: &mut Registry, image: &Image) -> Result<Vec<CosignSignature>, FetchError> {
    let mut signatures = vec![];
    for digest in &image.digests {
        let tag = format!("{}.sig", digest.replace(':', "-"));
        let Some(bytes) = registry.find_manifest(&tag).await? else { continue };
        let manifest = Manifest::parse(&bytes).map_err(FetchError::new)?;
        for layer in manifest.layers.iter().take(COSIGN_SIGNATURES_MAX) {
            let annotation = |name| {
                let text = layer.annotation(name).filter(|text| text.len() <= COSIGN_ANNOTATION_BYTES_MAX);
                text.map(str::to_owned)
            };
            let Some(signature) = annotation(COSIGN_ANNOTATION) else { continue };
            let bytes = registry.small_blob(&layer.digest, COSIGN_PAYLOAD_BYTES_MAX).await?;
            let payload = String::from_utf8_lossy(&bytes).into_owned();
            let (certificate, log_entry) = (annotation(CERTIFICATE_ANNOTATION), annotation(LOG_ENTRY_ANNOTATION));
            signatures.push(CosignSignature { payload, signature, certificate, log_entry });
        }
    }
    Ok(signatures)
}
