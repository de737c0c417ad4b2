//! The provenance of a component: its signatures and the registry image that it came from.
//!
//! A source collects it, and `trust` verifies it at every load, with the keys of the configuration
//! at that time. This module does not know: keys, policies.

use serde::{Deserialize, Serialize};

/// The longest minisign signature that is read, in bytes.
pub(super) const MINISIGN_BYTES_MAX: u64 = 8 << 10;

/// Unverified signatures and the image that they refer to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// The text of a minisign signature.
    pub minisign: Option<String>,
    /// The image that the component was taken from.
    pub image: Option<Image>,
    /// Signatures of that image by cosign.
    pub cosign: Vec<CosignSignature>,
}

impl Evidence {
    /// Whether there is a signature of any kind.
    pub fn has_signature(&self) -> bool {
        self.minisign.is_some() || !self.cosign.is_empty()
    }
}

/// An image of a registry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// Registry and repository, such as `registry.example.com/team/api-key`.
    pub repository: String,
    /// The digest of its manifest, and that of the index that led to it.
    pub digests: Vec<String>,
}

/// A signature over a payload that names an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CosignSignature {
    /// The signed JSON.
    pub payload: String,
    /// The signature in base64.
    pub signature: String,
    /// The certificate of the signer's key as PEM, if Sigstore certified an identity.
    #[serde(default)]
    pub certificate: Option<String>,
    /// The entry of the signature in a transparency log, as JSON.
    #[serde(default)]
    pub log_entry: Option<String>,
}
