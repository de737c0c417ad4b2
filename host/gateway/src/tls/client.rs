//! The rustls configuration of connections to upstreams.
//!
//! Each connection adds the protocol that it offers (ALPN). Commands of the same binary connect to
//! the admin listener of a gateway, with files that their options name. This module does not know:
//! upstreams, when files change.

use std::path::Path;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::sign::SingleCertAndKey;

use super::pem::{Authorities, KeyPair};
use super::provider::{provider, versions};
use crate::process::regular_file::read_regular;
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

const FILE_BYTES_MAX: u64 = 1 << 20;

/// A configuration for a command: it trusts the authorities in `ca`, or those of the system, and
/// presents the certificate and key of `identity`.
///
/// # Errors
/// A file cannot be used: its name, and why.
pub fn command_client_config(ca: Option<&Path>, identity: Option<(&Path, &Path)>) -> Result<Arc<ClientConfig>, String> {
    let read = |path: &Path| read_regular(path, FILE_BYTES_MAX).map_err(|error| format!("{}: {error}", path.display()));
    let trusted = match ca {
        Some(path) => {
            Authorities::read(&read(path)?).map_err(|error| format!("{}: {}", path.display(), error.message))?
        }
        None => Authorities::from_system(rustls_native_certs::load_native_certs().certs)
            .ok_or("the system has no root certificates: name the authority with --admin-ca")?,
    };
    let identity = identity.map(|(certificate, key)| {
        let pair = KeyPair::read(&read(certificate)?, &read(key)?);
        pair.map_err(|error| format!("{}: {}", [certificate, key][error.file.min(1)].display(), error.message))
    });
    client_config(TlsVersion::V12, &trusted, identity.transpose()?.as_ref())
}
