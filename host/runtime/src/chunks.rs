//! Long copies and hashes in chunks.
//!
//! Gain: a serving thread that waits for the core gets it within a fraction of a millisecond, not
//! after a copy of many megabytes. Price: one `sched_yield` per chunk, which costs nothing
//! measurable if no thread waits. This module does not know: what the bytes are.

use std::io::{self, Read};

/// The bytes that are read, copied or hashed without a yield.
pub const CHUNK_BYTES: usize = 64 << 10;

/// Passes `bytes` to `each` chunk by chunk, and yields after each.
pub fn for_each_chunk(bytes: &[u8], mut each: impl FnMut(&[u8])) {
    for chunk in bytes.chunks(CHUNK_BYTES) {
        each(chunk);
        std::thread::yield_now();
    }
}

/// Passes everything that a reader returns to `each`, chunk by chunk, and yields after each.
/// Returns the number of bytes.
///
/// # Errors
///
/// The reader or `each` failed.
pub fn read_chunks(mut from: impl Read, mut each: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<usize> {
    let (mut buffer, mut total) = (vec![0; CHUNK_BYTES], 0);
    loop {
        let length = match from.read(&mut buffer) {
            Ok(0) => return Ok(total),
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        each(&buffer[..length])?;
        total += length;
        std::thread::yield_now();
    }
}
