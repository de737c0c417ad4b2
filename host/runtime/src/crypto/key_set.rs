//! A JSON Web Key Set (RFC 7517, section 5): the public keys that an issuer of tokens publishes.
//!
//! Keys of types that are not supported, and keys for encryption, are left out, as the RFC says: an
//! issuer may add them at any time.
//! This module does not know: where sets come from, tokens.

use serde_json::Value;

use super::algorithm::SignatureAlgorithm;
use super::error::CryptoError;
use super::keys::VerifyingKey;

/// The longest text of a set, in bytes.
pub const SET_BYTES_MAX: usize = 256 << 10;
/// The most keys of a set.
pub const KEYS_PER_SET_MAX: usize = 100;

/// Public keys with their ids.
#[derive(Debug, Default)]
pub struct KeySet {
    keys: Vec<(Option<String>, VerifyingKey)>,
    /// The ids of keys that were left out, and why.
    left_out: Vec<(String, CryptoError)>,
}

impl KeySet {
    /// Reads a set.
    ///
    /// # Errors
    ///
    /// The text is not a set, is too large, or contains no key that verifies signatures.
    pub fn from_json(text: &[u8]) -> Result<Self, CryptoError> {
        if text.len() > SET_BYTES_MAX {
            return Err(CryptoError::new(format!("the key set has {} bytes; at most {SET_BYTES_MAX}", text.len())));
        }
        let set: Value = serde_json::from_slice(text)
            .map_err(|error| CryptoError::new(format!("the key set is not valid JSON (line {})", error.line())))?;
        let keys = set
            .get("keys")
            .and_then(Value::as_array)
            .ok_or_else(|| CryptoError::new("the key set has no array `keys`"))?;
        if keys.len() > KEYS_PER_SET_MAX {
            return Err(CryptoError::new(format!("the key set has {} keys; at most {KEYS_PER_SET_MAX}", keys.len())));
        }
        let text_of = |key: &Value, name: &str| key.get(name).and_then(Value::as_str).map(str::to_owned);
        let read = |key: &Value| match text_of(key, "use").as_deref() {
            None | Some("sig") if may_verify(key) => VerifyingKey::from_jwk(key),
            _ => Err(CryptoError::new("its use or its key_ops do not allow to verify signatures")),
        };
        let (mut usable, mut left_out) = (vec![], vec![]);
        for key in keys {
            match (read(key), text_of(key, "kid")) {
                (Ok(read), id) => usable.push((id, read)),
                (Err(why), Some(id)) => left_out.push((id, why)),
                (Err(_), None) => {}
            }
        }
        if usable.is_empty() {
            return Err(CryptoError::new("the key set has no key for RS256, PS256, ES256, ES384 or EdDSA signatures"));
        }
        Ok(Self { keys: usable, left_out })
    }

    /// A set of one key, which fits every key id.
    pub fn from_key(key: VerifyingKey) -> Self {
        Self { keys: vec![(None, key)], left_out: vec![] }
    }

    /// Whether the set has a key for this id; a key without an id fits every one. If not, the
    /// issuer may have changed its keys.
    pub fn contains(&self, id: &str) -> bool {
        self.keys.iter().any(|(own, _)| own.as_deref().is_none_or(|own| own == id))
    }

    /// Why a key of the set cannot be used.
    pub fn why_left_out(&self, id: &str) -> Option<&CryptoError> {
        self.left_out.iter().find(|(own, _)| own == id).map(|(_, why)| why)
    }

    /// The number of keys.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there are no keys.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The keys that a signature with this algorithm and key id may have been made with. A key
    /// without an id fits every id, and a signature without an id fits every key.
    pub fn candidates<'a>(
        &'a self,
        id: Option<&'a str>,
        algorithm: SignatureAlgorithm,
    ) -> impl Iterator<Item = &'a VerifyingKey> {
        let fits_id = move |own: &Option<String>| match (id, own) {
            (Some(id), Some(own)) => id == own,
            _ => true,
        };
        self.keys.iter().filter(move |(own, key)| fits_id(own) && key.fits(algorithm)).map(|(_, key)| key)
    }
}

/// Whether the operations of a key (RFC 7517, section 4.3) allow to verify, if it names them.
fn may_verify(key: &Value) -> bool {
    key.get("key_ops").and_then(Value::as_array).is_none_or(|list| list.iter().any(|one| one == "verify"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn ed25519(kid: &str) -> Value {
        json!({"kty": "OKP", "crv": "Ed25519", "kid": kid, "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"})
    }

    #[test]
    fn keys_are_found_by_id_and_algorithm() -> Result<(), CryptoError> {
        let mut encryption = ed25519("c");
        encryption["use"] = json!("enc");
        let (mut signing, mut verifying) = (ed25519("d"), ed25519("b"));
        (signing["key_ops"], verifying["key_ops"]) = (json!(["sign"]), json!(["verify"]));
        let set = json!({"keys": [ed25519("a"), {"kty": "new"}, encryption, signing, verifying]});
        let set = KeySet::from_json(set.to_string().as_bytes())?;
        assert_eq!((set.len(), set.contains("a"), set.contains("c"), set.contains("d")), (2, true, false, false));
        let count = |id, algorithm| set.candidates(id, algorithm).count();
        assert_eq!(count(Some("a"), SignatureAlgorithm::EdDsa), 1);
        assert_eq!(count(None, SignatureAlgorithm::EdDsa), 2);
        assert_eq!(count(Some("a"), SignatureAlgorithm::Rs256), 0);
        assert_eq!(count(Some("z"), SignatureAlgorithm::EdDsa), 0);
        assert!(set.why_left_out("c").is_some_and(|why| why.to_string().contains("use")));
        assert!(set.why_left_out("a").is_none());
        Ok(())
    }

    #[test]
    fn sets_are_bounded_and_refused_with_a_reason() {
        let many = json!({"keys": vec![ed25519("a"); KEYS_PER_SET_MAX + 1]}).to_string();
        for (text, expected) in [
            ("", "not valid JSON"),
            ("[]", "no array"),
            (r#"{"keys":[]}"#, "no key for"),
            (many.as_str(), "at most 100"),
            (&" ".repeat(SET_BYTES_MAX + 1), "at most 262144"),
        ] {
            let why = KeySet::from_json(text.as_bytes()).map(drop).map_err(|error| error.to_string());
            assert!(why.as_ref().is_err_and(|why| why.contains(expected)), "{why:?}");
        }
    }
}
