//! HTTP/1.1 messages as bytes: heads, framing, chunks. Strict where RFC 9112 leaves two parsers room to differ.
//!
//! Our own rather than a library's, for three reasons: what is forwarded must be what was judged (a parser that drops a field before anybody sees it hides a
//! conflict), interim responses must pass, and one connection must be one task without channels inside. A message that could be read in two ways is refused,
//! never repaired. Bytes in, values out. Must not know: sockets, routes, who the peer is.

pub mod chunked;
pub mod encode;
pub mod head;
pub mod outgoing;

/// Where a message's body ends (RFC 9112, section 6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// There is none.
    None,
    /// After so many bytes.
    Length(u64),
    /// At the last chunk.
    Chunked,
    /// With the connection: responses only.
    UntilClose,
}
