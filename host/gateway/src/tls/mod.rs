//! TLS: certificates and keys from their files, the configuration of handshakes, reload of changed
//! files.
//!
//! The order of the files: [`certificate_info`] (the content of a certificate), [`pem`] (parsed
//! files), [`names`] (selection by server name), [`candidates`] (between certificates of one name),
//! [`server`] and [`client`] (rustls configurations), [`watched_files`] (one certificate's files),
//! [`reload`] (all of them).
//!
//! This module does not know: sockets, deadlines, requests.

mod candidates;
mod certificate_info;
mod client;
mod list;
mod names;
mod pem;
mod provider;
pub mod reload;
mod report;
mod server;
mod watched_files;

pub use self::client::command_client_config;
pub use self::list::{CertificateList, ListedCertificate};
pub use self::pem::CERTIFICATE_REASONS;
pub use self::server::{ServerTls, covers_authority};
