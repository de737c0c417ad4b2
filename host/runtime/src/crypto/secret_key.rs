//! A key that the operator gives to a filter by name. The filter uses it without seeing it.
//!
//! The text is parsed once, when the filter is loaded: a private RSA key costs a millisecond.
//! This module does not know: where the text comes from.

use std::fmt;

use super::error::CryptoError;
use super::keys::{SigningKey, VerifyingKey};

/// A key of the operator.
pub struct SecretKey {
    bytes: Vec<u8>,
    signing: Result<SigningKey, CryptoError>,
    verifying: Result<VerifyingKey, CryptoError>,
}

impl SecretKey {
    /// A key of these bytes. As a text it may be a JSON Web Key or PEM, private or public.
    pub fn new(bytes: Vec<u8>) -> Self {
        let text = std::str::from_utf8(&bytes).unwrap_or_default();
        let signing = SigningKey::from_text(text);
        let verifying = match &signing {
            Ok(private) => private.verifying_key(),
            Err(_) => VerifyingKey::from_text(text),
        };
        Self { bytes, signing, verifying }
    }

    /// The key as a shared key.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The key as a private key.
    ///
    /// # Errors
    ///
    /// It is none.
    pub fn signing(&self) -> Result<&SigningKey, &CryptoError> {
        self.signing.as_ref()
    }

    /// The key as a public key, or the public part of a private key.
    ///
    /// # Errors
    ///
    /// It is none.
    pub fn verifying(&self) -> Result<&VerifyingKey, &CryptoError> {
        self.verifying.as_ref()
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("(secret)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::SignatureAlgorithm;

    #[test]
    fn a_private_key_signs_and_verifies_and_a_text_is_a_shared_key() -> Result<(), CryptoError> {
        let text = r#"{"kty":"OKP","crv":"Ed25519","d":"nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;
        let key = SecretKey::new(text.into());
        let signed = key.signing().map_err(Clone::clone)?.sign(SignatureAlgorithm::EdDsa, b"data")?;
        assert!(key.verifying().map_err(Clone::clone)?.verify(SignatureAlgorithm::EdDsa, b"data", &signed));
        let shared = SecretKey::new(vec![0xff; 32]);
        assert!(shared.signing().is_err() && shared.verifying().is_err());
        assert_eq!((shared.bytes().len(), format!("{shared:?}").as_str()), (32, "(secret)"));
        Ok(())
    }
}
