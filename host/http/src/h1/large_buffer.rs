//! Large buffers for long bodies: one read fills one, and the bytes are sent from where they are.
//!
//! Gain: a long body costs a tenth of the system calls, and is not copied inside the gateway.
//! Price: a peer that reads slowly holds up to [`LARGE_BYTES`]. So each thread has at most
//! [`BUFFERS_MAX`] in use. Without a free one, a body is read through the thread's small buffer.
//!
//! The buffers are counted and not the connections, so that the bound holds whoever keeps the
//! bytes. This module does not know: connections, bodies.

use std::cell::RefCell;

use bytes::{Bytes, BytesMut};

use super::io::READ_BYTES;
use crate::limiter::{Limiter, Permit};

/// The size of a large buffer.
pub(super) const LARGE_BYTES: usize = 256 << 10;
/// Large buffers of one thread whose bytes have not been sent.
const BUFFERS_MAX: usize = 16;
/// Unused buffers that a thread keeps.
const FREE_MAX: usize = 2;

/// The buffers of one thread.
#[derive(Default)]
struct Pool {
    in_use: Limiter,
    free: Vec<BytesMut>,
}

thread_local! {
    static POOL: RefCell<Pool> = RefCell::default();
}

/// An empty buffer of [`LARGE_BYTES`], which goes back to its thread when it is dropped.
#[derive(Debug)]
pub(super) struct LargeBuffer {
    pub(super) bytes: BytesMut,
    _permit: Permit,
}

impl LargeBuffer {
    /// Takes a buffer, if the thread may use one more.
    pub(super) fn take() -> Option<Self> {
        POOL.with_borrow_mut(|pool| {
            let permit = pool.in_use.try_acquire(BUFFERS_MAX).ok()?;
            let bytes = pool.free.pop().unwrap_or_else(|| BytesMut::with_capacity(LARGE_BYTES));
            Some(Self { bytes, _permit: permit })
        })
    }

    /// The bytes of the buffer. A few bytes are copied, so that they do not keep it in use.
    pub(super) fn into_bytes(self) -> Bytes {
        if self.bytes.len() <= READ_BYTES {
            return Bytes::copy_from_slice(&self.bytes);
        }
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for LargeBuffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for LargeBuffer {
    fn drop(&mut self) {
        let mut bytes = std::mem::take(&mut self.bytes);
        // The bytes may end their life on another thread, or after the thread's pool.
        let _ = POOL.try_with(|pool| {
            if let Ok(mut pool) = pool.try_borrow_mut()
                && pool.free.len() < FREE_MAX
            {
                bytes.clear();
                pool.free.push(bytes);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_has_a_bounded_number_of_buffers_and_uses_them_again() {
        let buffers: Vec<_> = std::iter::from_fn(LargeBuffer::take).collect();
        assert_eq!(buffers.len(), BUFFERS_MAX);
        drop(buffers);
        assert_eq!(POOL.with_borrow(|pool| pool.free.len()), FREE_MAX);
        let Some(mut buffer) = LargeBuffer::take() else { panic!("all buffers are free") };
        assert!(buffer.bytes.is_empty() && buffer.bytes.capacity() >= LARGE_BYTES);
        buffer.bytes.resize(READ_BYTES + 1, 1);
        let mut bytes = buffer.into_bytes();
        let kept = bytes.split_to(1);
        drop(bytes);
        assert_eq!(POOL.with_borrow(|pool| pool.in_use.in_use()), 1, "a part of the bytes keeps the buffer");
        drop(kept);
        assert_eq!(POOL.with_borrow(|pool| pool.in_use.in_use()), 0);
    }

    #[test]
    fn a_few_bytes_do_not_keep_a_buffer() {
        let Some(mut buffer) = LargeBuffer::take() else { panic!("all buffers are free") };
        buffer.bytes.extend_from_slice(b"few");
        assert_eq!(buffer.into_bytes(), &b"few"[..]);
        assert_eq!(POOL.with_borrow(|pool| pool.in_use.in_use()), 0);
    }
}
