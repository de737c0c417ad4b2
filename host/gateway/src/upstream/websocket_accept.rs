//! The proof that a server speaks WebSocket: `Sec-WebSocket-Accept` (RFC 6455, section 4.2.2).
//!
//! RFC 6455 requires SHA-1, which protects nothing here and only identifies the protocol. This
//! module does not know: connections.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Returns the value that answers a `Sec-WebSocket-Key`.
pub(super) fn accept_value(key: &[u8]) -> String {
    const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    STANDARD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, &[key, GUID].concat()))
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_example_of_rfc_6455_gives_its_accept_value() {
        assert_eq!(super::accept_value(b"dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }
}
