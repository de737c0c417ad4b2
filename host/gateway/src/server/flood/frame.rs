//! Frame types and flags of HTTP/2 (RFC 9113, sections 4.1 and 6).
//!
//! This module does not know: budgets, streams.

/// The bytes of a frame before its payload.
pub(super) const FRAME_HEAD_BYTES: usize = 9;

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const PRIORITY: u8 = 2;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PING: u8 = 6;
pub(super) const WINDOW_UPDATE: u8 = 8;
pub(super) const CONTINUATION: u8 = 9;
pub(super) const END_STREAM: u8 = 1;
pub(super) const ACK: u8 = 1;
pub(super) const END_HEADERS: u8 = 4;
pub(super) const PADDED: u8 = 8;
/// The highest bit of a stream's number is reserved.
pub(super) const STREAM_MASK: u32 = 0x7fff_ffff;
