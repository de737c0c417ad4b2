//! The certificates that fit one server name, and the choice between them by the client's signature
//! algorithms.
//!
//! A name can have an RSA and an ECDSA certificate: old clients need the first, and the second
//! costs less in each handshake. So of the certificates that the client can verify, an ECDSA
//! certificate precedes an RSA certificate, and of equal ones the first in the configuration. This
//! module does not know: how a name is found.

use std::cmp::Reverse;
use std::sync::Arc;

use rustls::sign::{CertifiedKey, SigningKey};
use rustls::{SignatureAlgorithm, SignatureScheme};

use super::pem::KeyPair;

/// Every scheme that a key of the gateway can have.
const SCHEMES: [SignatureScheme; 10] = [
    SignatureScheme::ECDSA_NISTP256_SHA256,
    SignatureScheme::ECDSA_NISTP384_SHA384,
    SignatureScheme::ECDSA_NISTP521_SHA512,
    SignatureScheme::ED25519,
    SignatureScheme::RSA_PSS_SHA256,
    SignatureScheme::RSA_PSS_SHA384,
    SignatureScheme::RSA_PSS_SHA512,
    SignatureScheme::RSA_PKCS1_SHA256,
    SignatureScheme::RSA_PKCS1_SHA384,
    SignatureScheme::RSA_PKCS1_SHA512,
];

/// Certificates for the same server name. At least one.
#[derive(Debug, Clone)]
pub(super) struct Candidates {
    /// In the order of preference.
    key_pairs: Vec<Arc<KeyPair>>,
    /// The hosts that all of them cover: which one a client got is not known after the handshake.
    pub(super) hosts: Arc<[String]>,
}

impl Candidates {
    /// `key_pairs` are in the order of the configuration. `None` if there are none.
    pub(super) fn new(mut key_pairs: Vec<Arc<KeyPair>>) -> Option<Self> {
        key_pairs.sort_by_key(|pair| Reverse(preference(&*pair.key.key)));
        let (first, others) = key_pairs.split_first()?;
        let is_common = |host: &&String| others.iter().all(|other| other.hosts.contains(host));
        let hosts = if others.is_empty() {
            first.hosts.clone()
        } else {
            first.hosts.iter().filter(is_common).cloned().collect()
        };
        Some(Self { hosts, key_pairs })
    }

    /// The certificate for a client with these signature algorithms. If none fits, the handshake
    /// fails whatever is returned.
    pub(super) fn choose(&self, schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let fits = |pair: &&Arc<KeyPair>| pair.key.key.choose_scheme(schemes).is_some();
        let chosen = match &self.key_pairs[..] {
            [one] => Some(one),
            many => many.iter().find(fits).or(many.first()),
        };
        chosen.map(|pair| pair.key.clone())
    }
}

fn preference(key: &dyn SigningKey) -> u8 {
    match key.algorithm() {
        SignatureAlgorithm::ECDSA => 2,
        // Few clients can verify it, so it does not matter much.
        SignatureAlgorithm::ED25519 => 1,
        _ => 0,
    }
}

/// Whether any client could choose `pair` rather than the earlier ones for the same name.
pub(super) fn adds_a_choice(pair: &KeyPair, earlier: &[&KeyPair]) -> bool {
    let can_sign = |pair: &KeyPair, scheme| pair.key.key.choose_scheme(&[scheme]).is_some();
    SCHEMES.into_iter().any(|scheme| can_sign(pair, scheme) && !earlier.iter().any(|own| can_sign(own, scheme)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{
        CertificateParams, KeyPair as RcgenKeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519,
    };

    fn pair(names: &[&str], algorithm: &'static rcgen::SignatureAlgorithm) -> anyhow::Result<Arc<KeyPair>> {
        let key = RcgenKeyPair::generate_for(algorithm)?;
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let certificate = CertificateParams::new(names)?.self_signed(&key)?;
        let read = KeyPair::read(certificate.pem().as_bytes(), key.serialize_pem().as_bytes());
        Ok(Arc::new(read.map_err(|error| anyhow::anyhow!(error.message))?))
    }

    #[test]
    fn the_clients_algorithms_choose() -> anyhow::Result<()> {
        let ed25519 = pair(&["a.test", "b.test"], &PKCS_ED25519)?;
        let ecdsa = pair(&["a.test"], &PKCS_ECDSA_P256_SHA256)?;
        let candidates = Candidates::new(vec![ed25519.clone(), ecdsa.clone()]);
        let candidates = candidates.ok_or_else(|| anyhow::anyhow!("there are two"))?;
        let (p256, ed) = (SignatureScheme::ECDSA_NISTP256_SHA256, SignatureScheme::ED25519);
        for (schemes, expected) in
            [(vec![ed, p256], &ecdsa), (vec![p256], &ecdsa), (vec![ed], &ed25519), (vec![], &ecdsa)]
        {
            let chosen = candidates.choose(&schemes);
            assert!(chosen.is_some_and(|key| Arc::ptr_eq(&key, &expected.key)), "{schemes:?}");
        }
        assert_eq!(*candidates.hosts, ["a.test".to_owned()], "only what both cover");
        Ok(())
    }

    #[test]
    fn a_second_key_of_the_same_kind_adds_nothing() -> anyhow::Result<()> {
        let (first, second) =
            (pair(&["a.test"], &PKCS_ECDSA_P256_SHA256)?, pair(&["a.test"], &PKCS_ECDSA_P256_SHA256)?);
        let other = pair(&["a.test"], &PKCS_ECDSA_P384_SHA384)?;
        assert!(!adds_a_choice(&second, &[&first]));
        assert!(adds_a_choice(&other, &[&first, &second]));
        assert!(adds_a_choice(&first, &[]));
        Ok(())
    }
}
