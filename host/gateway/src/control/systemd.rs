//! Tells the service manager how the gateway is doing (sd_notify(3)), where it asked for that by NOTIFY_SOCKET; else does nothing.

use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Sends `READY=1`, `RELOADING=1` or `STOPPING=1`. A manager that cannot be reached is no reason to stop serving.
pub fn notify(state: &str) {
    let Some(name) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let address = match name.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(&name),
    };
    let sent =
        address.and_then(|address| UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address).map(|_| ()));
    if let Err(error) = sent {
        tracing::warn!(%error, state, "the service manager cannot be told");
    }
}
