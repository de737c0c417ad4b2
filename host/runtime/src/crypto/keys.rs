//! Public keys that verify signatures, and private keys that make them.
//!
//! A key fits the algorithms of its type only, and only the one that its JSON Web Key names. So the
//! header of a token cannot make a key work in a way that it was not meant for.
//! This module does not know: tokens, where keys come from.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPairComponents, PublicKeyComponents};
use aws_lc_rs::signature::{
    self, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, ParsedPublicKey, RsaKeyPair, RsaPublicKeyComponents,
    VerificationAlgorithm,
};
use rustls_pki_types::pem::{PemObject as _, SectionKind};
use serde_json::Value;

use super::algorithm::SignatureAlgorithm;
use super::error::CryptoError;
use super::jwk::{Jwk, Members};

/// The longest text of a key, in bytes.
pub const KEY_BYTES_MAX: usize = 16 << 10;
/// The longest modulus of an RSA key that signs: 4,096 bits. A signature with 8,192 bits takes tens
/// of milliseconds.
const SIGNING_MODULUS_BYTES_MAX: usize = 512;
/// The longest modulus of an RSA key that verifies.
const MODULUS_BYTES_MAX: usize = 1024;

/// A public key.
#[derive(Debug)]
pub struct VerifyingKey {
    material: Public,
    /// The only algorithm that the key is meant for, if it names one.
    algorithm: Option<SignatureAlgorithm>,
}

/// A key with the algorithm that it is used with.
#[derive(Debug)]
enum Public {
    Rsa { pkcs1: ParsedPublicKey, pss: ParsedPublicKey },
    Other(SignatureAlgorithm, ParsedPublicKey),
}

impl VerifyingKey {
    /// A key from a JSON Web Key or from a PEM text, whichever the text is.
    ///
    /// # Errors
    ///
    /// The text is neither, or the key is not supported.
    pub fn from_text(text: &str) -> Result<Self, CryptoError> {
        match json(text)? {
            Some(value) => Self::from_jwk(&value),
            None => Self::from_pem(text),
        }
    }

    /// A key from a JSON Web Key. Private members are ignored.
    ///
    /// # Errors
    ///
    /// The key is not supported, or lacks a member.
    pub fn from_jwk(value: &Value) -> Result<Self, CryptoError> {
        let jwk = Jwk::new(value)?;
        let algorithm = jwk.algorithm()?;
        let material = match jwk.members()? {
            Members::Rsa { n, e, .. } => {
                check_modulus(n.len(), MODULUS_BYTES_MAX)?;
                let components = RsaPublicKeyComponents { n, e };
                let parse = |parameters| components.to_parsed_public_key(parameters).map_err(|_| refused("RSA"));
                Public::Rsa {
                    pkcs1: parse(&signature::RSA_PKCS1_2048_8192_SHA256)?,
                    pss: parse(&signature::RSA_PSS_2048_8192_SHA256)?,
                }
            }
            Members::Ec { algorithm, point, .. } => Public::other(algorithm, &point).ok_or_else(|| refused("EC"))?,
            Members::Ed25519 { public, .. } => {
                Public::other(SignatureAlgorithm::EdDsa, &public).ok_or_else(|| refused("Ed25519"))?
            }
        };
        let key = Self { material, algorithm: None };
        if let Some(algorithm) = algorithm.filter(|algorithm| !key.fits(*algorithm)) {
            return Err(CryptoError::new(format!("the key's alg is {algorithm}, which does not fit its kty and crv")));
        }
        Ok(Self { algorithm, ..key })
    }

    /// A key from a PEM text that contains one `PUBLIC KEY` (SubjectPublicKeyInfo).
    ///
    /// # Errors
    ///
    /// There is no such section, or the key is not supported.
    pub fn from_pem(text: &str) -> Result<Self, CryptoError> {
        let (kind, der) = section(text)?;
        if kind != SectionKind::PublicKey {
            return Err(CryptoError::new(
                "the PEM text does not begin with a PUBLIC KEY: openssl pkey -in KEY -pubout makes one of a private key",
            ));
        }
        use SignatureAlgorithm::{EdDsa, Es256, Es384, Ps256, Rs256};
        let other = [EdDsa, Es256, Es384].into_iter().find_map(|algorithm| Public::other(algorithm, &der));
        let material = match other {
            Some(other) => other,
            None => match (parse(Rs256, &der), parse(Ps256, &der)) {
                (Some(pkcs1), Some(pss)) => Public::Rsa { pkcs1, pss },
                _ => return Err(unsupported()),
            },
        };
        Ok(Self { material, algorithm: None })
    }

    /// Whether the key can be used with an algorithm.
    pub fn fits(&self, algorithm: SignatureAlgorithm) -> bool {
        self.algorithm.is_none_or(|only| only == algorithm) && self.parsed(algorithm).is_some()
    }

    /// Whether `signature` is the signature of `data` under an algorithm that the key fits.
    pub fn verify(&self, algorithm: SignatureAlgorithm, data: &[u8], signature: &[u8]) -> bool {
        self.fits(algorithm) && self.parsed(algorithm).is_some_and(|key| key.verify_sig(data, signature).is_ok())
    }

    fn parsed(&self, algorithm: SignatureAlgorithm) -> Option<&ParsedPublicKey> {
        match (&self.material, algorithm) {
            (Public::Rsa { pkcs1, .. }, SignatureAlgorithm::Rs256) => Some(pkcs1),
            (Public::Rsa { pss, .. }, SignatureAlgorithm::Ps256) => Some(pss),
            (Public::Other(own, key), _) if *own == algorithm => Some(key),
            _ => None,
        }
    }
}

impl Public {
    fn other(algorithm: SignatureAlgorithm, bytes: &[u8]) -> Option<Self> {
        parse(algorithm, bytes).map(|key| Self::Other(algorithm, key))
    }
}

/// A private key.
#[derive(Debug)]
pub struct SigningKey {
    material: Private,
    /// The only algorithm that the key is meant for, if it names one.
    algorithm: Option<SignatureAlgorithm>,
}

#[derive(Debug)]
enum Private {
    Rsa(Box<RsaKeyPair>),
    Ec(SignatureAlgorithm, EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

impl SigningKey {
    /// A key from a JSON Web Key or from a PEM text, whichever the text is.
    ///
    /// # Errors
    ///
    /// The text is neither, or the key is not supported.
    pub fn from_text(text: &str) -> Result<Self, CryptoError> {
        match json(text)? {
            Some(value) => Self::from_jwk(&value),
            None => Self::from_pem(text),
        }
    }

    /// A key from a JSON Web Key with its private members.
    ///
    /// # Errors
    ///
    /// The key is not supported, or lacks a member.
    pub fn from_jwk(value: &Value) -> Result<Self, CryptoError> {
        const PUBLIC: &str = "the key has no private part (d), so it cannot sign";
        let jwk = Jwk::new(value)?;
        let algorithm = jwk.algorithm()?;
        let material = match jwk.members()? {
            Members::Rsa { n, e, private: Some([d, p, q, dp, dq, qi]) } => {
                check_modulus(n.len(), SIGNING_MODULUS_BYTES_MAX)?;
                let public_key = PublicKeyComponents { n, e };
                let components = KeyPairComponents { public_key, d, p, q, dP: dp, dQ: dq, qInv: qi };
                Private::Rsa(Box::new(RsaKeyPair::from_components(&components).map_err(|_| refused("RSA"))?))
            }
            Members::Ec { algorithm, point, private: Some(private) } => {
                let pair = EcdsaKeyPair::from_private_key_and_public_key(curve(algorithm), &private, &point);
                Private::Ec(algorithm, pair.map_err(|_| refused("EC"))?)
            }
            Members::Ed25519 { public, private: Some(seed) } => {
                let pair = Ed25519KeyPair::from_seed_and_public_key(&seed, &public);
                Private::Ed25519(pair.map_err(|_| refused("Ed25519"))?)
            }
            _ => return Err(CryptoError::new(PUBLIC)),
        };
        let key = Self { material, algorithm: None };
        if let Some(algorithm) = algorithm.filter(|algorithm| !key.fits(*algorithm)) {
            return Err(CryptoError::new(format!("the key's alg is {algorithm}, which does not fit its kty and crv")));
        }
        Ok(Self { algorithm, ..key })
    }

    /// A key from a PEM text that contains one private key: PKCS #8, PKCS #1 or SEC 1, not
    /// encrypted.
    ///
    /// # Errors
    ///
    /// There is no such section, or the key is not supported.
    pub fn from_pem(text: &str) -> Result<Self, CryptoError> {
        let (kind, der) = section(text)?;
        let ec = || {
            [SignatureAlgorithm::Es256, SignatureAlgorithm::Es384].into_iter().find_map(|algorithm| {
                let pair = EcdsaKeyPair::from_private_key_der(curve(algorithm), &der).ok()?;
                Some(Private::Ec(algorithm, pair))
            })
        };
        let rsa = |pair: Result<RsaKeyPair, _>| pair.ok().map(|pair| Private::Rsa(Box::new(pair)));
        let material = match kind {
            SectionKind::EcPrivateKey => ec(),
            SectionKind::RsaPrivateKey => rsa(RsaKeyPair::from_der(&der)),
            SectionKind::PrivateKey => Ed25519KeyPair::from_pkcs8(&der)
                .ok()
                .map(Private::Ed25519)
                .or_else(ec)
                .or_else(|| rsa(RsaKeyPair::from_pkcs8(&der))),
            _ => {
                return Err(CryptoError::new("the PEM text does not begin with a PRIVATE KEY that is not encrypted"));
            }
        };
        let material = material.ok_or_else(unsupported)?;
        if let Private::Rsa(pair) = &material {
            check_modulus(pair.public_modulus_len(), SIGNING_MODULUS_BYTES_MAX)?;
        }
        Ok(Self { material, algorithm: None })
    }

    /// Whether the key can be used with an algorithm.
    pub fn fits(&self, algorithm: SignatureAlgorithm) -> bool {
        use SignatureAlgorithm::{EdDsa, Ps256, Rs256};
        self.algorithm.is_none_or(|only| only == algorithm)
            && match &self.material {
                Private::Rsa(_) => matches!(algorithm, Rs256 | Ps256),
                Private::Ec(own, _) => *own == algorithm,
                Private::Ed25519(_) => algorithm == EdDsa,
            }
    }

    /// The signature of `data`.
    ///
    /// # Errors
    ///
    /// The key does not fit the algorithm.
    pub fn sign(&self, algorithm: SignatureAlgorithm, data: &[u8]) -> Result<Vec<u8>, CryptoError> {
        if !self.fits(algorithm) {
            return Err(CryptoError::new(format!("the key is not one for {algorithm}")));
        }
        let failed = |_| CryptoError::new("the signature could not be made");
        let random = SystemRandom::new();
        match &self.material {
            Private::Rsa(pair) => {
                let mut signed = vec![0; pair.public_modulus_len()];
                let padding = match algorithm {
                    SignatureAlgorithm::Ps256 => &signature::RSA_PSS_SHA256,
                    _ => &signature::RSA_PKCS1_SHA256,
                };
                pair.sign(padding, &random, data, &mut signed).map_err(failed)?;
                Ok(signed)
            }
            Private::Ec(_, pair) => Ok(pair.sign(&random, data).map_err(failed)?.as_ref().to_vec()),
            Private::Ed25519(pair) => Ok(pair.try_sign(data).map_err(failed)?.as_ref().to_vec()),
        }
    }

    /// The key that verifies what this one signs.
    ///
    /// # Errors
    ///
    /// The library refuses its own key.
    pub fn verifying_key(&self) -> Result<VerifyingKey, CryptoError> {
        use SignatureAlgorithm::{EdDsa, Ps256, Rs256};
        let material = match &self.material {
            Private::Rsa(pair) => {
                let bytes = pair.public_key().as_ref();
                parse(Rs256, bytes).zip(parse(Ps256, bytes)).map(|(pkcs1, pss)| Public::Rsa { pkcs1, pss })
            }
            Private::Ec(algorithm, pair) => Public::other(*algorithm, pair.public_key().as_ref()),
            Private::Ed25519(pair) => Public::other(EdDsa, pair.public_key().as_ref()),
        };
        Ok(VerifyingKey { material: material.ok_or_else(unsupported)?, algorithm: self.algorithm })
    }
}

/// The key of an algorithm in DER, or in the raw form that its curve has.
fn parse(algorithm: SignatureAlgorithm, bytes: &[u8]) -> Option<ParsedPublicKey> {
    let verification: &'static dyn VerificationAlgorithm = match algorithm {
        SignatureAlgorithm::Rs256 => &signature::RSA_PKCS1_2048_8192_SHA256,
        SignatureAlgorithm::Ps256 => &signature::RSA_PSS_2048_8192_SHA256,
        SignatureAlgorithm::Es256 => &signature::ECDSA_P256_SHA256_FIXED,
        SignatureAlgorithm::Es384 => &signature::ECDSA_P384_SHA384_FIXED,
        SignatureAlgorithm::EdDsa => &signature::ED25519,
    };
    ParsedPublicKey::new(verification, bytes).ok()
}

fn curve(algorithm: SignatureAlgorithm) -> &'static signature::EcdsaSigningAlgorithm {
    match algorithm {
        SignatureAlgorithm::Es384 => &signature::ECDSA_P384_SHA384_FIXED_SIGNING,
        _ => &signature::ECDSA_P256_SHA256_FIXED_SIGNING,
    }
}

/// The JSON value of a text that begins like an object. `None` if it begins otherwise.
fn json(text: &str) -> Result<Option<Value>, CryptoError> {
    if text.len() > KEY_BYTES_MAX {
        return Err(CryptoError::new(format!("the key has {} bytes; at most {KEY_BYTES_MAX}", text.len())));
    }
    if !text.trim_start().starts_with('{') {
        return Ok(None);
    }
    // The library's message could show a part of the key.
    serde_json::from_str(text).map(Some).map_err(|_| CryptoError::new("the key is not valid JSON"))
}

/// The first section of a PEM text.
fn section(text: &str) -> Result<(SectionKind, Vec<u8>), CryptoError> {
    if text.len() > KEY_BYTES_MAX {
        return Err(CryptoError::new(format!("the key has {} bytes; at most {KEY_BYTES_MAX}", text.len())));
    }
    <(SectionKind, Vec<u8>)>::from_pem_slice(text.as_bytes()).map_err(|_| {
        CryptoError::new(
            "the key is neither a JSON Web Key nor a PEM text of a kind that is supported, or it is cut off",
        )
    })
}

fn check_modulus(bytes: usize, max: usize) -> Result<(), CryptoError> {
    if (256..=max).contains(&bytes) {
        return Ok(());
    }
    Err(CryptoError::new(format!("an RSA key of {} bits is not between 2048 and {} bits", bytes * 8, max * 8)))
}

fn refused(kind: &str) -> CryptoError {
    CryptoError::new(format!("the numbers of the {kind} key do not belong together or are out of range"))
}

fn unsupported() -> CryptoError {
    CryptoError::new("the key is not RSA (2048 bits or more), EC (P-256 or P-384) or Ed25519")
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::encoding::AsDer as _;
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use serde_json::json;

    use super::*;

    /// RFC 8037, appendix A: a key, a message and its signature.
    const ED25519_D: &str = "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A";
    const ED25519_X: &str = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
    /// RFC 7515, appendix A.3: a key on P-256.
    const P256: [&str; 3] = [
        "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
        "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
        "jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI",
    ];

    fn pem(kind: &str, der: &[u8]) -> String {
        format!("-----BEGIN {kind}-----\n{}\n-----END {kind}-----\n", STANDARD.encode(der))
    }

    #[test]
    fn the_example_of_the_rfc_for_ed25519_verifies() -> Result<(), CryptoError> {
        let jwk = json!({"kty": "OKP", "crv": "Ed25519", "d": ED25519_D, "x": ED25519_X});
        let data = b"eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc";
        let signature = "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";
        let signed = SigningKey::from_jwk(&jwk)?.sign(SignatureAlgorithm::EdDsa, data)?;
        assert_eq!(base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(&signed), signature);
        assert!(VerifyingKey::from_text(&jwk.to_string())?.verify(SignatureAlgorithm::EdDsa, data, &signed));
        Ok(())
    }

    #[test]
    fn the_example_of_the_rfc_for_p256_verifies() -> Result<(), CryptoError> {
        let [x, y, d] = P256;
        let jwk = json!({"kty": "EC", "crv": "P-256", "x": x, "y": y, "d": d});
        let data = b"eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
        let signature = base64::engine::general_purpose::URL_SAFE_NO_PAD
            .decode("DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q")
            .unwrap_or_default();
        let key = VerifyingKey::from_jwk(&jwk)?;
        assert!(key.verify(SignatureAlgorithm::Es256, data, &signature));
        assert!(!key.verify(SignatureAlgorithm::Es384, data, &signature));
        assert!(!key.verify(SignatureAlgorithm::Es256, b"other", &signature));
        assert!(!key.verify(SignatureAlgorithm::Es256, data, &signature[..63]));
        Ok(())
    }

    #[test]
    fn keys_of_each_type_sign_and_verify_from_pem() -> Result<(), Box<dyn std::error::Error>> {
        let random = SystemRandom::new();
        let rsa = RsaKeyPair::generate(aws_lc_rs::rsa::KeySize::Rsa2048)?;
        let rsa: aws_lc_rs::encoding::Pkcs8V1Der<'_> = rsa.as_der()?;
        let p256 = EcdsaKeyPair::generate_pkcs8(&signature::ECDSA_P256_SHA256_FIXED_SIGNING, &random)?;
        let p384 = EcdsaKeyPair::generate_pkcs8(&signature::ECDSA_P384_SHA384_FIXED_SIGNING, &random)?;
        let ed = Ed25519KeyPair::generate_pkcs8v1(&random)?;
        use SignatureAlgorithm::{EdDsa, Es256, Es384, Ps256, Rs256};
        for (der, algorithms) in [
            (rsa.as_ref(), &[Rs256, Ps256][..]),
            (p256.as_ref(), &[Es256]),
            (p384.as_ref(), &[Es384]),
            (ed.as_ref(), &[EdDsa]),
        ] {
            let key = SigningKey::from_text(&pem("PRIVATE KEY", der))?;
            let public = key.verifying_key()?;
            for algorithm in SignatureAlgorithm::ALL {
                assert_eq!(key.fits(algorithm), algorithms.contains(&algorithm), "{algorithm}");
                assert_eq!(public.fits(algorithm), algorithms.contains(&algorithm), "{algorithm}");
                match key.sign(algorithm, b"data") {
                    Ok(signed) => {
                        assert!(public.verify(algorithm, b"data", &signed), "{algorithm}");
                        assert!(!public.verify(algorithm, b"date", &signed), "{algorithm}");
                    }
                    Err(_) => assert!(!algorithms.contains(&algorithm), "{algorithm}"),
                }
            }
        }
        Ok(())
    }

    #[test]
    fn public_keys_in_pem_are_recognized() -> Result<(), Box<dyn std::error::Error>> {
        let rsa = RsaKeyPair::generate(aws_lc_rs::rsa::KeySize::Rsa2048)?;
        let rsa: aws_lc_rs::encoding::PublicKeyX509Der<'_> = rsa.public_key().as_der()?;
        let ec = EcdsaKeyPair::generate(&signature::ECDSA_P384_SHA384_FIXED_SIGNING)?;
        let ec: aws_lc_rs::encoding::PublicKeyX509Der<'_> = ec.public_key().as_der()?;
        let ed = Ed25519KeyPair::generate()?;
        let ed: aws_lc_rs::encoding::PublicKeyX509Der<'_> = ed.public_key().as_der()?;
        for (der, algorithm) in [
            (rsa.as_ref(), SignatureAlgorithm::Ps256),
            (ec.as_ref(), SignatureAlgorithm::Es384),
            (ed.as_ref(), SignatureAlgorithm::EdDsa),
        ] {
            assert!(VerifyingKey::from_text(&pem("PUBLIC KEY", der))?.fits(algorithm), "{algorithm}");
        }
        Ok(())
    }

    #[test]
    fn a_key_is_used_with_the_algorithm_that_it_names() {
        let [x, y, d] = P256;
        let jwk = |alg: &str| json!({"kty": "EC", "crv": "P-256", "x": x, "y": y, "d": d, "alg": alg});
        assert!(VerifyingKey::from_jwk(&jwk("ES256")).is_ok_and(|key| key.fits(SignatureAlgorithm::Es256)));
        for wrong in ["ES384", "RS256", "HS256", "none"] {
            assert!(VerifyingKey::from_jwk(&jwk(wrong)).is_err(), "{wrong}");
            assert!(SigningKey::from_jwk(&jwk(wrong)).is_err(), "{wrong}");
        }
    }

    #[test]
    fn refusals_say_why_and_show_nothing_of_the_key() {
        let secret = "c2VjcmV0LXNlY3JldC1zZWNyZXQ";
        let [x, _, _] = P256;
        for (text, expected) in [
            ("hello", "neither a JSON Web Key nor a PEM"),
            ("{", "not valid JSON"),
            (r#"{"kty":"EC","crv":"P-521"}"#, "P-256 or P-384"),
            (r#"{"kty":"oct","k":"c2VjcmV0LXNlY3JldC1zZWNyZXQ"}"#, "shared"),
            (r#"{"kty":"RSA","n":"c2VjcmV0LXNlY3JldC1zZWNyZXQ","e":"AQAB"}"#, "between 2048 and"),
            (r#"{"kty":"OKP","crv":"Ed25519","x":"c2VjcmV0LXNlY3JldC1zZWNyZXQ"}"#, "has 20 bytes, not 32"),
            (&format!(r#"{{"kty":"EC","crv":"P-256","x":"{x}","y":"{x}"}}"#), "do not belong together"),
            ("-----BEGIN PUBLIC KEY-----\nc2VjcmV0\n-----END PUBLIC KEY-----\n", "not RSA"),
            (&" ".repeat(KEY_BYTES_MAX + 1), "at most 16384"),
        ] {
            let Err(why) = VerifyingKey::from_text(text) else { panic!("{text} is a key") };
            let why = why.to_string();
            assert!(why.contains(expected), "{why}");
            assert!(!why.contains(secret) && !why.contains(x), "{why}");
        }
    }
}
