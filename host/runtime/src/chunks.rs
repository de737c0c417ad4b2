//! Long copies and hashes in chunks, so that a serving thread that waits for the core gets it soon.
//!
//! This module does not know: what the bytes are.

use std::io::{self, Read};

/// How much is read, copied or hashed at once where serving threads may wait for the core: a fraction of a millisecond.
pub const CHUNK_BYTES: usize = 64 << 10;

/// Goes over bytes in pieces, with a chance between them for whoever waits for the core.
pub fn for_each_chunk(bytes: &[u8], mut each: impl FnMut(&[u8])) {
    for piece in bytes.chunks(CHUNK_BYTES) {
        each(piece);
        std::thread::yield_now();
    }
}

/// The same with what a reader gives, up to its end. Returns how many bytes it was.
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
