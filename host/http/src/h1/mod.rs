//! HTTP/1.1 messages as bytes: heads, framing, chunks, and receiving and sending them.
//!
//! The gateway has its own implementation for three reasons. It must forward exactly the message
//! that it checked: a parser that drops fields hides conflicts between them. Interim responses must
//! pass. And one connection must be one task without channels. A message that two parsers could
//! read differently is rejected, never repaired. This module does not know: sockets, routes, who
//! the peer is.

pub mod chunked;
pub mod encode;
mod framing;
pub mod head;
pub mod incoming;
pub mod io;
mod large_buffer;
pub mod outgoing;

pub use framing::Framing;
