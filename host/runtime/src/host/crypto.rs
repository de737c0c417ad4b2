//! `crypto`: finds the key and calls the algorithm.
//!
//! All functions but `derive` take at most some milliseconds, since data and keys are bounded. A
//! long derivation runs on a thread of its own; so that filters cannot use up all processors, few
//! of them run concurrently. Each filter has one at a time, so that a filter with many calls does
//! not keep others waiting. This module does not know: algorithms.

use std::sync::{Arc, LazyLock};

use tokio::sync::Semaphore;
use wasmtime::Result;

use crate::bindings::witgate::gateway::crypto as wit;
use crate::crypto::{self, CryptoError, Hash, SecretKey, SignatureAlgorithm, SigningKey, VerifyingKey};
use crate::filter::CallState;

/// The most bytes of data.
const DATA_BYTES_MAX: usize = 8 << 20;
/// Derivations with more iterations run on a thread of their own. These take about a millisecond.
const ITERATIONS_INLINE_MAX: u32 = 2000;
/// Concurrent derivations, over all filters.
const DERIVATIONS_MAX: usize = 2;

static DERIVATIONS: LazyLock<Arc<Semaphore>> = LazyLock::new(|| Arc::new(Semaphore::new(DERIVATIONS_MAX)));

type Answer<T> = Result<std::result::Result<T, wit::Error>>;

impl wit::Host for CallState {
    fn digest(&mut self, hash: wit::Hash, data: Vec<u8>) -> Answer<Vec<u8>> {
        Ok(check_data(&data).map(|()| crypto::digest(hash.into(), &data)))
    }

    fn hmac(&mut self, hash: wit::Hash, key: wit::Key, data: Vec<u8>) -> Answer<Vec<u8>> {
        Ok(check_data(&data).and_then(|()| self.shared_key(&key, |key| Ok(crypto::hmac(hash.into(), key, &data)))))
    }

    fn equal(&mut self, a: Vec<u8>, b: Vec<u8>) -> Result<bool> {
        Ok(crypto::are_equal(&a, &b))
    }

    fn verify(&mut self, algorithm: wit::Algorithm, key: wit::Key, data: Vec<u8>, signature: Vec<u8>) -> Answer<bool> {
        let algorithm = SignatureAlgorithm::from(algorithm);
        let verify = |key: &VerifyingKey| {
            if !key.fits(algorithm) {
                return Err(wit::Error::InvalidKey(format!("the key is not one for {algorithm}")));
            }
            Ok(key.verify(algorithm, &data, &signature))
        };
        Ok(check_data(&data).and_then(|()| match &key {
            wit::Key::Jwk(text) | wit::Key::Pem(text) => verify(&VerifyingKey::from_text(text).map_err(invalid_key)?),
            wit::Key::Secret(name) => verify(self.secret(name)?.verifying().map_err(invalid_key)?),
            wit::Key::Raw(_) => Err(not_a_pair()),
        }))
    }

    fn sign(&mut self, algorithm: wit::Algorithm, key: wit::Key, data: Vec<u8>) -> Answer<Vec<u8>> {
        let sign = |key: &SigningKey| key.sign(algorithm.into(), &data).map_err(invalid_key);
        Ok(check_data(&data).and_then(|()| match &key {
            wit::Key::Jwk(text) | wit::Key::Pem(text) => sign(&SigningKey::from_text(text).map_err(invalid_key)?),
            wit::Key::Secret(name) => sign(self.secret(name)?.signing().map_err(invalid_key)?),
            wit::Key::Raw(_) => Err(not_a_pair()),
        }))
    }

    fn encrypt(&mut self, key: wit::Key, nonce: Vec<u8>, data: Vec<u8>, additional: Vec<u8>) -> Answer<Vec<u8>> {
        Ok(check_data(&data).and_then(|()| {
            self.shared_key(&key, |key| crypto::encrypt(key, &nonce, data, &additional).map_err(invalid))
        }))
    }

    fn decrypt(
        &mut self,
        key: wit::Key,
        nonce: Vec<u8>,
        data: Vec<u8>,
        additional: Vec<u8>,
    ) -> Answer<Option<Vec<u8>>> {
        Ok(check_data(&data).and_then(|()| {
            self.shared_key(&key, |key| crypto::decrypt(key, &nonce, data, &additional).map_err(invalid))
        }))
    }

    async fn derive(
        &mut self,
        hash: wit::Hash,
        password: wit::Key,
        salt: Vec<u8>,
        iterations: u32,
        length: u32,
    ) -> Answer<Vec<u8>> {
        let password = match self.shared_key(&password, |key| Ok(key.to_vec())) {
            Ok(password) => password,
            Err(error) => return Ok(Err(error)),
        };
        let derive =
            move || crypto::derive(hash.into(), &password, &salt, iterations, length as usize).map_err(invalid);
        if !(ITERATIONS_INLINE_MAX..=crypto::ITERATIONS_MAX).contains(&iterations) {
            return Ok(derive());
        }
        // The semaphores are never closed. The permits go along, because the work goes on if the
        // call ends meanwhile. Only the call that has the filter's permit waits for the shared one.
        let own = self.filter.derivation.clone().acquire_owned().await.ok();
        let shared = DERIVATIONS.clone().acquire_owned().await.ok();
        let derived = tokio::task::spawn_blocking(move || {
            let _permits = (own, shared);
            derive()
        });
        derived.await.map_err(wasmtime::Error::new)
    }
}

impl CallState {
    fn secret(&self, name: &str) -> std::result::Result<&SecretKey, wit::Error> {
        self.filter.settings.keys.get(name).ok_or_else(|| {
            let filter = &self.filter.settings.name;
            wit::Error::Denied(witgate_http::text::bounded(format_args!(
                "there is no key {}: add it to filters.{filter}.crypto.keys in gateway.yaml",
                witgate_http::text::quoted(name)
            )))
        })
    }

    /// Calls `work` with the bytes of a shared key.
    fn shared_key<T>(
        &self,
        key: &wit::Key,
        work: impl FnOnce(&[u8]) -> std::result::Result<T, wit::Error>,
    ) -> std::result::Result<T, wit::Error> {
        match key {
            wit::Key::Raw(bytes) if bytes.len() > crypto::KEY_BYTES_MAX => Err(wit::Error::InvalidKey(format!(
                "the key has {} bytes; at most {}",
                bytes.len(),
                crypto::KEY_BYTES_MAX
            ))),
            wit::Key::Raw(bytes) => work(bytes),
            wit::Key::Secret(name) => work(self.secret(name)?.bytes()),
            wit::Key::Jwk(_) | wit::Key::Pem(_) => {
                Err(wit::Error::InvalidKey("a shared key is raw bytes or a secret, not a key pair".into()))
            }
        }
    }
}

fn check_data(data: &[u8]) -> std::result::Result<(), wit::Error> {
    if data.len() <= DATA_BYTES_MAX {
        return Ok(());
    }
    Err(wit::Error::Invalid(format!("the data has {} bytes; at most {DATA_BYTES_MAX}", data.len())))
}

fn not_a_pair() -> wit::Error {
    wit::Error::InvalidKey("a signature needs a JSON Web Key, a PEM text or a secret that is one of them".into())
}

fn invalid_key(error: impl std::borrow::Borrow<CryptoError>) -> wit::Error {
    wit::Error::InvalidKey(error.borrow().to_string())
}

fn invalid(error: CryptoError) -> wit::Error {
    wit::Error::Invalid(error.to_string())
}

impl From<wit::Hash> for Hash {
    fn from(hash: wit::Hash) -> Self {
        match hash {
            wit::Hash::Sha1 => Self::Sha1,
            wit::Hash::Sha256 => Self::Sha256,
            wit::Hash::Sha384 => Self::Sha384,
            wit::Hash::Sha512 => Self::Sha512,
        }
    }
}

impl From<wit::Algorithm> for SignatureAlgorithm {
    fn from(algorithm: wit::Algorithm) -> Self {
        match algorithm {
            wit::Algorithm::Rs256 => Self::Rs256,
            wit::Algorithm::Ps256 => Self::Ps256,
            wit::Algorithm::Es256 => Self::Es256,
            wit::Algorithm::Es384 => Self::Es384,
            wit::Algorithm::Eddsa => Self::EdDsa,
        }
    }
}
