//! Digests, and everything with a shared key: HMAC, AES-GCM, PBKDF2, and a comparison that does
//! not tell by its duration where two values differ.
//!
//! This module does not know: where keys come from.

use std::num::NonZeroU32;

use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::{constant_time, digest as aws_digest, hmac as aws_hmac, pbkdf2};

use super::algorithm::Hash;
use super::error::CryptoError;

/// The length of a nonce of AES-GCM in bytes.
pub const NONCE_BYTES: usize = 12;
/// The length of the tag at the end of an encrypted text, in bytes.
pub const TAG_BYTES: usize = 16;
/// The most iterations of one derivation. With SHA-256 they take about a quarter of a second.
pub const ITERATIONS_MAX: u32 = 1_000_000;
/// The longest key that a derivation makes, in bytes. Each block of the hash costs all iterations
/// again, so this is the length of two blocks of SHA-256.
pub const DERIVED_BYTES_MAX: usize = 64;

/// The digest of `data`.
pub fn digest(hash: Hash, data: &[u8]) -> Vec<u8> {
    let algorithm = match hash {
        Hash::Sha1 => &aws_digest::SHA1_FOR_LEGACY_USE_ONLY,
        Hash::Sha256 => &aws_digest::SHA256,
        Hash::Sha384 => &aws_digest::SHA384,
        Hash::Sha512 => &aws_digest::SHA512,
    };
    aws_digest::digest(algorithm, data).as_ref().to_vec()
}

/// The message authentication code of `data` (RFC 2104). A key may have any length.
pub fn hmac(hash: Hash, key: &[u8], data: &[u8]) -> Vec<u8> {
    let algorithm = match hash {
        Hash::Sha1 => aws_hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
        Hash::Sha256 => aws_hmac::HMAC_SHA256,
        Hash::Sha384 => aws_hmac::HMAC_SHA384,
        Hash::Sha512 => aws_hmac::HMAC_SHA512,
    };
    aws_hmac::sign(&aws_hmac::Key::new(algorithm, key), data).as_ref().to_vec()
}

/// Whether two values are equal. The duration depends on their lengths only.
pub fn are_equal(a: &[u8], b: &[u8]) -> bool {
    constant_time::verify_slices_are_equal(a, b).is_ok()
}

/// Encrypts with AES-GCM: the encrypted text, followed by its tag of [`TAG_BYTES`].
///
/// # Errors
///
/// The key does not have 16 or 32 bytes, or the nonce not [`NONCE_BYTES`].
pub fn encrypt(key: &[u8], nonce: &[u8], mut data: Vec<u8>, additional: &[u8]) -> Result<Vec<u8>, CryptoError> {
    let (key, nonce) = (aes_key(key)?, aes_nonce(nonce)?);
    key.seal_in_place_append_tag(nonce, Aad::from(additional), &mut data)
        .map_err(|_| CryptoError::new("the text could not be encrypted"))?;
    Ok(data)
}

/// Decrypts what [`encrypt`] made. `None` if the text, the nonce, the additional data or the key is
/// another one.
///
/// # Errors
///
/// The key does not have 16 or 32 bytes, or the nonce not [`NONCE_BYTES`].
pub fn decrypt(key: &[u8], nonce: &[u8], mut data: Vec<u8>, additional: &[u8]) -> Result<Option<Vec<u8>>, CryptoError> {
    let (key, nonce) = (aes_key(key)?, aes_nonce(nonce)?);
    let Ok(length) = key.open_in_place(nonce, Aad::from(additional), &mut data).map(|text| text.len()) else {
        return Ok(None);
    };
    data.truncate(length);
    Ok(Some(data))
}

/// Derives a key from a password (PBKDF2, RFC 8018).
///
/// The duration is proportional to `iterations`, so a thread that serves connections must not call
/// this for many of them.
///
/// # Errors
///
/// The iterations are not between 1 and [`ITERATIONS_MAX`], or the length is not between 1 and
/// [`DERIVED_BYTES_MAX`].
pub fn derive(
    hash: Hash,
    password: &[u8],
    salt: &[u8],
    iterations: u32,
    length: usize,
) -> Result<Vec<u8>, CryptoError> {
    let algorithm = match hash {
        Hash::Sha1 => pbkdf2::PBKDF2_HMAC_SHA1,
        Hash::Sha256 => pbkdf2::PBKDF2_HMAC_SHA256,
        Hash::Sha384 => pbkdf2::PBKDF2_HMAC_SHA384,
        Hash::Sha512 => pbkdf2::PBKDF2_HMAC_SHA512,
    };
    let iterations = NonZeroU32::new(iterations)
        .filter(|iterations| iterations.get() <= ITERATIONS_MAX)
        .ok_or_else(|| CryptoError::new(format!("{iterations} iterations are not between 1 and {ITERATIONS_MAX}")))?;
    if !(1..=DERIVED_BYTES_MAX).contains(&length) {
        return Err(CryptoError::new(format!("a length of {length} bytes is not between 1 and {DERIVED_BYTES_MAX}")));
    }
    let mut derived = vec![0; length];
    pbkdf2::derive(algorithm, iterations, salt, password, &mut derived);
    Ok(derived)
}

fn aes_key(key: &[u8]) -> Result<LessSafeKey, CryptoError> {
    let algorithm = match key.len() {
        16 => &AES_128_GCM,
        32 => &AES_256_GCM,
        other => return Err(CryptoError::new(format!("a key of AES-GCM has 16 or 32 bytes, not {other}"))),
    };
    let key = UnboundKey::new(algorithm, key).map_err(|_| CryptoError::new("the key of AES-GCM is refused"))?;
    Ok(LessSafeKey::new(key))
}

fn aes_nonce(nonce: &[u8]) -> Result<Nonce, CryptoError> {
    Nonce::try_assume_unique_for_key(nonce)
        .map_err(|_| CryptoError::new(format!("a nonce has {NONCE_BYTES} bytes, not {}", nonce.len())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_and_codes_are_those_of_the_standards() {
        for (hash, expected) in [
            (Hash::Sha1, "a9993e364706816aba3e25717850c26c9cd0d89d"),
            (Hash::Sha256, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
        ] {
            assert_eq!(hex::encode(digest(hash, b"abc")), expected);
        }
        assert_eq!((digest(Hash::Sha384, b"").len(), digest(Hash::Sha512, b"").len()), (48, 64));
        // RFC 4231, test case 2.
        assert_eq!(
            hex::encode(hmac(Hash::Sha256, b"Jefe", b"what do ya want for nothing?")),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
        assert_eq!(hmac(Hash::Sha512, b"", b"").len(), 64);
        assert!(are_equal(b"ab", b"ab") && !are_equal(b"ab", b"ac") && !are_equal(b"ab", b"a"));
    }

    #[test]
    fn only_what_was_encrypted_is_decrypted() -> Result<(), CryptoError> {
        for key in [&[1; 16][..], &[2; 32]] {
            let text = encrypt(key, &[3; NONCE_BYTES], b"text".to_vec(), b"context")?;
            assert_eq!(text.len(), 4 + TAG_BYTES);
            let open = |nonce: u8, text: Vec<u8>, context: &[u8]| decrypt(key, &[nonce; NONCE_BYTES], text, context);
            assert_eq!(open(3, text.clone(), b"context")?.as_deref(), Some(&b"text"[..]));
            assert_eq!(open(4, text.clone(), b"context")?, None);
            assert_eq!(open(3, text.clone(), b"other")?, None);
            assert_eq!(open(3, text[..TAG_BYTES - 1].to_vec(), b"context")?, None);
        }
        assert!(encrypt(&[0; 24], &[0; NONCE_BYTES], vec![], b"").is_err());
        assert!(encrypt(&[0; 16], &[0; 16], vec![], b"").is_err());
        Ok(())
    }

    #[test]
    fn derived_keys_are_those_of_the_standard_and_bounded() -> Result<(), CryptoError> {
        // RFC 6070, test case 2; RFC 7914, section 11.
        assert_eq!(
            hex::encode(derive(Hash::Sha1, b"password", b"salt", 2, 20)?),
            "ea6c014dc72d6f8ccd1ed92ace1d41f0d8de8957"
        );
        assert_eq!(
            hex::encode(derive(Hash::Sha256, b"passwd", b"salt", 1, 32)?),
            "55ac046e56e3089fec1691c22544b605f94185216dde0465e68b9d57c20dacbc"
        );
        for (iterations, length) in [(0, 32), (ITERATIONS_MAX + 1, 32), (1, 0), (1, DERIVED_BYTES_MAX + 1)] {
            assert!(derive(Hash::Sha256, b"", b"", iterations, length).is_err(), "{iterations} {length}");
        }
        Ok(())
    }
}
