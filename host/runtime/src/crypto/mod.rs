//! Cryptography for filters and for the gateway's own policies: digests, HMAC, signatures,
//! authenticated encryption and key derivation, all of them by aws-lc-rs.
//!
//! `algorithm` names what is supported, `jwk` and `keys` make keys of JSON Web Keys and PEM texts,
//! `key_set` reads the sets of public keys that issuers of tokens publish, and `symmetric` has
//! everything with a shared key. A `secret_key` is one that the operator gives by name. No text of an error contains a part of a key.
//! This module does not know: WebAssembly, where keys come from, tokens.

mod algorithm;
mod jwk;
mod key_set;
mod keys;
mod secret_key;
mod symmetric;

use std::fmt;

pub use algorithm::{Hash, SignatureAlgorithm};
pub use key_set::{KEYS_PER_SET_MAX, KeySet, SET_BYTES_MAX};
pub use keys::{KEY_BYTES_MAX, SigningKey, VerifyingKey};
pub use secret_key::SecretKey;
pub use symmetric::{
    DERIVED_BYTES_MAX, ITERATIONS_MAX, NONCE_BYTES, TAG_BYTES, are_equal, decrypt, derive, digest, encrypt, hmac,
};

/// Why a key or another argument is refused. The text says what is wrong with it and never shows
/// a part of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CryptoError(String);

impl CryptoError {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

impl fmt::Display for CryptoError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for CryptoError {}
