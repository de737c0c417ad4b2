//! Counts the DATA and HEADERS frames in the bytes that the gateway sends.
//!
//! This module does not know: budgets, streams.

use super::frame::{DATA, END_STREAM, FRAME_HEAD_BYTES, HEADERS};

/// Finds frame heads in a stream of bytes that arrives in pieces.
#[derive(Default)]
pub(super) struct SentFrames {
    count: SentCount,
    /// The head of the current frame, of which `head_bytes` have passed.
    head: [u8; FRAME_HEAD_BYTES],
    head_bytes: usize,
    payload_left: usize,
}

/// What was sent since it was last taken.
#[derive(Default, Clone, Copy)]
pub(super) struct SentCount {
    pub(super) bytes: u64,
    /// DATA and HEADERS frames.
    pub(super) frames: u64,
    /// HEADERS frames that do not end their stream: responses with a body.
    pub(super) heads: u64,
}

impl SentFrames {
    /// Counts the next bytes.
    pub(super) fn scan(&mut self, mut bytes: &[u8]) {
        self.count.bytes += bytes.len() as u64;
        loop {
            let skipped = self.payload_left.min(bytes.len());
            self.payload_left -= skipped;
            bytes = &bytes[skipped..];
            if bytes.is_empty() {
                return;
            }
            let taken = (FRAME_HEAD_BYTES - self.head_bytes).min(bytes.len());
            self.head[self.head_bytes..self.head_bytes + taken].copy_from_slice(&bytes[..taken]);
            self.head_bytes += taken;
            bytes = &bytes[taken..];
            if self.head_bytes == FRAME_HEAD_BYTES {
                self.head_bytes = 0;
                let [high, middle, low, kind, flags, ..] = self.head;
                self.payload_left = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
                self.count.frames += u64::from(matches!(kind, DATA | HEADERS));
                self.count.heads += u64::from(kind == HEADERS && flags & END_STREAM == 0);
            }
        }
    }

    /// The count since the last call.
    pub(super) fn take(&mut self) -> SentCount {
        std::mem::take(&mut self.count)
    }
}
