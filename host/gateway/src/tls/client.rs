//! The rustls configuration of connections to upstreams.
//!
//! Each connection adds the protocol that it offers (ALPN). This module does not know: files,
//! upstreams.

use std::sync::Arc;

use rustls::ClientConfig;
use rustls::sign::SingleCertAndKey;

use super::pem::{Authorities, KeyPair};
use super::provider::{provider, versions};
use witgate_config::TlsVersion;

/// A configuration that trusts `trusted` and, if asked, presents `identity`.
///
/// # Errors
/// The message of rustls.
pub(super) fn client_config(
    min_version: TlsVersion,
    trusted: &Authorities,
    identity: Option<&KeyPair>,
) -> Result<Arc<ClientConfig>, String> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(versions(min_version))
        .map_err(|error| error.to_string())?
        .with_root_certificates(trusted.roots.clone());
    Ok(Arc::new(match identity {
        Some(pair) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(pair.key.clone()))),
        None => builder.with_no_client_auth(),
    }))
}
