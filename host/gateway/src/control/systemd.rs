//! Status messages for the service manager (sd_notify(3)). Without NOTIFY_SOCKET nothing is sent.
//!
//! This module does not know: when the status changes.

use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Sends `READY=1`, `RELOADING=1` or `STOPPING=1`. A failure is logged, because the gateway can
/// serve without a service manager.
pub fn notify(status: &str) {
    let Some(name) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let address = match name.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(&name),
    };
    let sent =
        address.and_then(|address| UnixDatagram::unbound()?.send_to_addr(status.as_bytes(), &address).map(|_| ()));
    if let Err(error) = sent {
        tracing::warn!(%error, status, "the service manager cannot be notified (NOTIFY_SOCKET)");
    }
}
