//! The members of a JSON Web Key (RFC 7517), decoded and with their lengths checked.
//!
//! This module does not know: what a key is used for.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use super::algorithm::SignatureAlgorithm;
use super::error::CryptoError;

/// A JSON Web Key. Its members are read when a key is made of it.
pub(super) struct Jwk<'a>(&'a serde_json::Map<String, Value>);

/// The members of a type of key, in big-endian bytes.
pub(super) enum Members {
    /// The modulus and the exponent without leading zeros; with the private members `d`, `p`, `q`,
    /// `dp`, `dq` and `qi` if the key has them.
    Rsa { n: Vec<u8>, e: Vec<u8>, private: Option<[Vec<u8>; 6]> },
    /// The point in SEC 1 form, and the private number with the length of the curve.
    Ec { algorithm: SignatureAlgorithm, point: Vec<u8>, private: Option<Vec<u8>> },
    /// The public key of Ed25519, and its seed.
    Ed25519 { public: Vec<u8>, private: Option<Vec<u8>> },
}

impl<'a> Jwk<'a> {
    pub(super) fn new(value: &'a Value) -> Result<Self, CryptoError> {
        value.as_object().map(Self).ok_or_else(|| CryptoError::new("the key is not a JSON object"))
    }

    /// A member that is a string.
    pub(super) fn text(&self, name: &str) -> Option<&'a str> {
        self.0.get(name)?.as_str()
    }

    /// The algorithm that the key is meant for, if it names one.
    ///
    /// # Errors
    ///
    /// It names one that is not supported.
    pub(super) fn algorithm(&self) -> Result<Option<SignatureAlgorithm>, CryptoError> {
        let Some(name) = self.text("alg") else { return Ok(None) };
        match SignatureAlgorithm::from_name(name) {
            Some(algorithm) => Ok(Some(algorithm)),
            None => Err(CryptoError::new("the key's alg is not RS256, PS256, ES256, ES384 or EdDSA")),
        }
    }

    pub(super) fn members(&self) -> Result<Members, CryptoError> {
        match self.text("kty") {
            Some("RSA") => self.rsa(),
            Some("EC") => self.ec(),
            Some("OKP") if self.text("crv") == Some("Ed25519") => Ok(Members::Ed25519 {
                public: self.sized("x", 32)?,
                private: self.0.contains_key("d").then(|| self.sized("d", 32)).transpose()?,
            }),
            Some("OKP") => Err(CryptoError::new("the key's curve is not supported: use Ed25519")),
            Some("oct") => Err(CryptoError::new("the key is a shared one (kty oct), which has no public part")),
            _ => Err(CryptoError::new("the key's kty is not RSA, EC or OKP")),
        }
    }

    fn rsa(&self) -> Result<Members, CryptoError> {
        let number = |name: &str| {
            let bytes = self.bytes(name)?;
            let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
            Ok::<_, CryptoError>(bytes[zeros..].to_vec())
        };
        let private = if self.0.contains_key("d") {
            let [d, p, q, dp, dq, qi] = ["d", "p", "q", "dp", "dq", "qi"].map(|name| self.bytes(name));
            Some([d?, p?, q?, dp?, dq?, qi?])
        } else {
            None
        };
        Ok(Members::Rsa { n: number("n")?, e: number("e")?, private })
    }

    fn ec(&self) -> Result<Members, CryptoError> {
        let (algorithm, length) = match self.text("crv") {
            Some("P-256") => (SignatureAlgorithm::Es256, 32),
            Some("P-384") => (SignatureAlgorithm::Es384, 48),
            _ => return Err(CryptoError::new("the key's curve is not supported: use P-256 or P-384")),
        };
        let mut point = vec![4];
        point.extend(self.sized("x", length)?);
        point.extend(self.sized("y", length)?);
        let private = self.0.contains_key("d").then(|| self.sized("d", length)).transpose()?;
        Ok(Members::Ec { algorithm, point, private })
    }

    fn sized(&self, name: &str, length: usize) -> Result<Vec<u8>, CryptoError> {
        let bytes = self.bytes(name)?;
        if bytes.len() != length {
            return Err(CryptoError::new(format!("the key's {name} has {} bytes, not {length}", bytes.len())));
        }
        Ok(bytes)
    }

    fn bytes(&self, name: &str) -> Result<Vec<u8>, CryptoError> {
        let text = self.text(name).ok_or_else(|| CryptoError::new(format!("the key has no {name}")))?;
        URL_SAFE_NO_PAD
            .decode(text.trim_end_matches('='))
            .map_err(|_| CryptoError::new(format!("the key's {name} is not base64url")))
    }
}
