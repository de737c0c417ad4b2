//! HTTP/1.1 messages as bytes: heads, framing, chunks, and receiving and sending them.
//!
//! The gateway has its own implementation for three reasons. It must forward exactly the message
//! that it checked: a parser that drops fields hides conflicts between them. Interim responses must
//! pass. And one connection must be one task without channels. A message that two parsers could
//! read differently is rejected, never repaired. This module does not know: sockets, routes, who
//! the peer is.

pub mod chunked;
pub mod encode;
pub mod head;
pub mod incoming;
pub mod io;
pub mod outgoing;

/// How the end of a message's body is found (RFC 9112, section 6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// The message has no body.
    None,
    /// The body has this many bytes.
    Length(u64),
    /// The body has the chunked transfer coding.
    Chunked,
    /// The body ends when the peer closes the connection. Only a response can have it.
    UntilClose,
}
