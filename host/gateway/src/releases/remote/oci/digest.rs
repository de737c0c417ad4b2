//! The digest of bytes as registries write it.
//!
//! This module does not know: whose bytes they are.

use sha2::{Digest as _, Sha256};

/// `sha256:` and 64 hexadecimal digits.
pub(in crate::releases::remote) fn digest_of(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}
