//! Cryptography for filters and for the gateway's own policies: digests, HMAC, signatures,
//! authenticated encryption and key derivation, all of them by aws-lc-rs.
//!
//! `algorithm` names what is supported, `jwk` and `keys` make keys of JSON Web Keys and PEM texts,
//! `key_set` reads the sets of public keys that issuers of tokens publish, and `symmetric` has
//! everything with a shared key. A `secret_key` is one that the operator gives by name. No text of
//! an error contains a part of a key.
//! This module does not know: WebAssembly, where keys come from, tokens.

mod algorithm;
mod error;
mod jwk;
mod key_set;
mod keys;
mod secret_key;
mod symmetric;

pub use algorithm::{Hash, SignatureAlgorithm};
pub use error::CryptoError;
pub use key_set::{KEYS_PER_SET_MAX, KeySet, SET_BYTES_MAX};
pub use keys::{KEY_BYTES_MAX, SigningKey, VerifyingKey};
pub use secret_key::SecretKey;
pub use symmetric::{
    DERIVED_BYTES_MAX, ITERATIONS_MAX, NONCE_BYTES, TAG_BYTES, are_equal, decrypt, derive, digest, encrypt, hmac,
};
