//! The messages of a takeover: JSON, in the order of [`Message`].
//!
//! The fuzz target `takeover` includes this file, so it imports nothing of the gateway. This module
//! does not know: sockets, descriptors.

use serde::{Deserialize, Serialize};

/// The version of the protocol.
pub(super) const PROTOCOL: u32 = 1;
/// The largest message, in bytes.
pub(super) const MESSAGE_BYTES_MAX: usize = 128 << 10;

/// The messages, in their order.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "say", rename_all = "kebab-case")]
pub(super) enum Message {
    /// From the new process: asks for the sockets.
    Ask {
        /// The version of the protocol.
        protocol: u32,
    },
    /// From the running gateway: its listeners. Their sockets follow in [`Sockets`](Self::Sockets).
    Offer { protocol: u32, listeners: Vec<OfferedListener>, admin: Option<OfferedListener> },
    /// From the running gateway, repeated: the next sockets, in the order of the listeners. The
    /// admin listener is the last.
    Sockets,
    /// From the new process: it serves, and the running gateway must drain.
    Take,
    /// From the running gateway: it drains.
    Draining,
}

/// A listener and the number of its sockets.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct OfferedListener {
    pub(super) name: String,
    /// An IP address and a port, or `unix:` and a path.
    pub(super) configured: String,
    pub(super) address: String,
    pub(super) sockets: usize,
}

impl Message {
    /// Reads a message.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, String> {
        serde_json::from_slice(bytes).map_err(|error| format!("an invalid message: {error}"))
    }

    /// Writes a message.
    pub(super) fn to_bytes(&self) -> Result<Vec<u8>, String> {
        let bytes = serde_json::to_vec(self).map_err(|error| error.to_string())?;
        if bytes.len() > MESSAGE_BYTES_MAX {
            return Err(format!("the message has {} bytes, above the limit of {MESSAGE_BYTES_MAX}", bytes.len()));
        }
        Ok(bytes)
    }
}
