//! The manifest of an image: which layer is the component.
//!
//! Several tools store components, each with media types of its own: wkg and oras use
//! `application/wasm`, wasm-to-oci `application/vnd.wasm.content.layer.v1+wasm`, and image builders
//! a tar archive with one .wasm file. This module does not know: how a layer is fetched.

use std::collections::BTreeMap;

use serde::Deserialize;
use witgate_http::text::quoted;

const WASM_LAYERS: [&str; 2] = ["application/wasm", "application/vnd.wasm.content.layer.v1+wasm"];
const TAR_LAYERS: [&str; 2] =
    ["application/vnd.oci.image.layer.v1.tar", "application/vnd.docker.image.rootfs.diff.tar"];
const TITLE: &str = "org.opencontainers.image.title";

/// A manifest, as far as it is needed.
#[derive(Debug, Deserialize)]
pub(super) struct Manifest {
    #[serde(default)]
    pub(super) layers: Vec<Descriptor>,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Descriptor {
    #[serde(default)]
    media_type: String,
    pub(super) digest: String,
    #[serde(default)]
    size: u64,
    /// Some tools write null if there are none.
    annotations: Option<BTreeMap<String, String>>,
    platform: Option<Platform>,
}

#[derive(Debug, Deserialize)]
struct Platform {
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    os: String,
}

#[derive(Deserialize)]
struct Index {
    #[serde(default)]
    manifests: Vec<Descriptor>,
}

/// The layer with the component.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Layer {
    pub(super) digest: String,
    pub(super) size: u64,
    pub(super) packing: Packing,
}

/// How the component is stored in its layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Packing {
    None,
    Tar,
    TarGzip,
}

impl Manifest {
    /// # Errors
    /// The end of a message for the operator, as for the other functions here.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, String> {
        serde_json::from_slice(bytes).map_err(|error| format!("the manifest is not valid: {error}"))
    }

    pub(super) fn annotation(&self, name: &str) -> Option<&str> {
        self.annotations.as_ref()?.get(name).map(String::as_str)
    }

    /// The only layer that can be a component.
    pub(super) fn component(&self) -> Result<Layer, String> {
        let mut found = self.layers.iter().filter_map(|layer| Some((layer, layer.packing()?)));
        match (found.next(), found.next()) {
            (Some((layer, packing)), None) if is_digest(&layer.digest) => {
                Ok(Layer { digest: layer.digest.clone(), size: layer.size, packing })
            }
            (Some(_), None) => Err("the layer has no digest of the form sha256:…".into()),
            (Some(_), Some(_)) => Err("the image has more than one layer that can be a component".into()),
            (None, _) => {
                let types: Vec<_> = self.layers.iter().take(4).map(|layer| quoted(&layer.media_type)).collect();
                Err(format!(
                    "no layer is a component: the layers are {}; push the file as application/wasm (`witgate publish`)",
                    if types.is_empty() { "none".to_owned() } else { types.join(", ") }
                ))
            }
        }
    }
}

impl Descriptor {
    pub(super) fn annotation(&self, name: &str) -> Option<&str> {
        self.annotations.as_ref()?.get(name).map(String::as_str)
    }

    fn packing(&self) -> Option<Packing> {
        let media_type = self.media_type.as_str();
        let is_titled = self.annotation(TITLE).is_some_and(|title| title.ends_with(".wasm"));
        if WASM_LAYERS.contains(&media_type) || is_titled {
            return Some(Packing::None);
        }
        let gzip = media_type.strip_suffix("+gzip").or_else(|| media_type.strip_suffix(".gzip"));
        if gzip.is_some_and(|plain| TAR_LAYERS.contains(&plain)) {
            return Some(Packing::TarGzip);
        }
        TAR_LAYERS.contains(&media_type).then_some(Packing::Tar)
    }
}

/// If this is an index of images, the digest of the one for WebAssembly.
pub(super) fn entry_of_index(bytes: &[u8]) -> Result<Option<String>, String> {
    let index: Index = serde_json::from_slice(bytes).map_err(|error| format!("the manifest is not valid: {error}"))?;
    let is_wasm = |entry: &&Descriptor| {
        entry
            .platform
            .as_ref()
            .is_some_and(|platform| platform.architecture == "wasm" || platform.os.starts_with("wasi"))
    };
    let entry = match &index.manifests[..] {
        [] => return Ok(None),
        [only] => Some(only),
        several => several.iter().find(is_wasm),
    };
    match entry {
        Some(entry) if is_digest(&entry.digest) => Ok(Some(entry.digest.clone())),
        _ => Err(format!("none of the {} images of the index is for the platform wasm", index.manifests.len())),
    }
}

fn is_digest(text: &str) -> bool {
    let hex = text.strip_prefix("sha256:").unwrap_or_default();
    hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn component(layers: &str) -> Result<Packing, String> {
        Manifest::parse(format!("{{\"schemaVersion\": 2, \"layers\": [{layers}]}}").as_bytes())?
            .component()
            .map(|layer| layer.packing)
    }

    #[test]
    fn the_layouts_in_use_are_known() {
        let digest = format!("sha256:{}", "0".repeat(64));
        let layer = |media_type: &str, more: &str| {
            format!("{{\"mediaType\": \"{media_type}\", \"digest\": \"{digest}\", \"size\": 5{more}}}")
        };
        let title = ", \"annotations\": {\"org.opencontainers.image.title\": \"a.wasm\"}";
        for (layers, expected) in [
            (layer("application/wasm", ""), Packing::None),
            (layer("application/vnd.wasm.content.layer.v1+wasm", ""), Packing::None),
            (layer("application/octet-stream", title), Packing::None),
            (layer("application/wasm", ", \"annotations\": null, \"platform\": null"), Packing::None),
            (layer("application/vnd.oci.image.layer.v1.tar+gzip", ""), Packing::TarGzip),
            (layer("application/vnd.docker.image.rootfs.diff.tar.gzip", ""), Packing::TarGzip),
            (layer("application/vnd.oci.image.layer.v1.tar", ""), Packing::Tar),
            (format!("{},{}", layer("text/plain", ""), layer("application/wasm", "")), Packing::None),
        ] {
            assert_eq!(component(&layers), Ok(expected), "{layers}");
        }
        let wasm = layer("application/wasm", "");
        for (layers, why) in [
            (String::new(), "the layers are none"),
            (layer("text/plain", ""), "text/plain"),
            (format!("{wasm},{wasm}"), "more than one"),
            (wasm.replace("sha256:", "sha512:"), "no digest"),
        ] {
            let found = component(&layers).err().unwrap_or_default();
            assert!(found.contains(why), "{layers}: {found}");
        }
    }

    #[test]
    fn an_index_leads_to_the_image_for_webassembly() {
        let (one, two) = (format!("sha256:{}", "1".repeat(64)), format!("sha256:{}", "2".repeat(64)));
        let entry = |digest: &str, os: &str, architecture: &str| {
            format!(
                "{{\"digest\": \"{digest}\", \"platform\": {{\"os\": \"{os}\", \"architecture\": \"{architecture}\"}}}}"
            )
        };
        let index =
            |entries: &[String]| entry_of_index(format!("{{\"manifests\": [{}]}}", entries.join(",")).as_bytes());
        let (linux, wasm) = (entry(&one, "linux", "amd64"), entry(&two, "wasip2", "wasm"));
        assert_eq!(index(&[]), Ok(None));
        assert_eq!(index(std::slice::from_ref(&linux)), Ok(Some(one)));
        assert_eq!(index(&[linux.clone(), wasm]), Ok(Some(two)));
        assert!(index(&[linux.clone(), linux]).is_err());
    }
}
