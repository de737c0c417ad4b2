//! Writes a flood and reads the responses meanwhile, until the gateway ends the connection.
//!
//! This module does not know: what a flood consists of.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use harness::frames::{End, Frame, Frames, kind};

/// A flood that lasts longer counts as unbounded.
pub(crate) const FLOOD_MAX: Duration = Duration::from_secs(5);

/// The writer gives up after the socket accepted nothing for this time. The reader then sees how
/// the connection ends.
const STALL_MAX: Duration = Duration::from_secs(3);

/// How a flood ended.
pub(crate) struct FloodResult {
    /// The number of bytes that the socket accepted.
    pub(crate) sent: usize,
    /// How the connection ended. `Open` means that the gateway did not stop the flood.
    pub(crate) end: End,
    /// The response bytes of an HTTP/1 connection, at most 64 KiB.
    pub(crate) received: Vec<u8>,
}

impl FloodResult {
    /// The end and the amount, for a table.
    pub(crate) fn summary(&self) -> String {
        format!("{:?} after {} KiB", self.end, self.sent >> 10)
    }
}

/// Writes chunks until the connection ends, `over` is set or `FLOOD_MAX` is reached. Returns the
/// number of bytes that the socket accepted. `chunk` returns the bytes of the n-th write, `None`
/// after the last.
fn write(mut stream: &TcpStream, over: &AtomicBool, mut chunk: impl FnMut(u32) -> Option<Vec<u8>>) -> Result<usize> {
    stream.set_write_timeout(Some(Duration::from_millis(50)))?;
    let (began, mut sent, mut pending, mut at) = (Instant::now(), 0, vec![], 0);
    let (mut number, mut progressed) = (0, Instant::now());
    while began.elapsed() < FLOOD_MAX && progressed.elapsed() < STALL_MAX && !over.load(Ordering::Relaxed) {
        if at == pending.len() {
            let Some(next) = chunk(number) else { break };
            (pending, at, number) = (next, 0, number + 1);
        }
        match stream.write(&pending[at..]) {
            Ok(wrote) => (at, sent, progressed) = (at + wrote, sent + wrote, Instant::now()),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_) => break,
        }
    }
    Ok(sent)
}

/// Floods an HTTP/2 connection after `opening`.
pub(crate) fn frames(
    mut frames: Frames,
    opening: &[u8],
    chunk: impl FnMut(u32) -> Option<Vec<u8>>,
) -> Result<FloodResult> {
    let writer = frames.socket().try_clone()?;
    frames.send(opening)?;
    let over = Arc::new(AtomicBool::new(false));
    let reader_over = over.clone();
    let deadline = Instant::now() + FLOOD_MAX;
    let reader = std::thread::spawn(move || {
        let end = read_to_end(&mut frames, deadline);
        reader_over.store(true, Ordering::Relaxed);
        end
    });
    let sent = write(&writer, &over, chunk)?;
    let end = reader.join().unwrap_or(End::Open);
    Ok(FloodResult { sent, end, received: vec![] })
}

/// Reads frames until the connection ends.
fn read_to_end(frames: &mut Frames, deadline: Instant) -> End {
    loop {
        match frames.read(deadline) {
            Ok(Some(Frame { kind: kind::GOAWAY, payload, .. })) => {
                let code = payload.get(4..8).map_or(0, |code| u32::from(code[3]));
                if code != 0 {
                    return End::GoAway(code);
                }
            }
            Ok(Some(_)) => {}
            Ok(None) => return End::Closed,
            Err(_) => return End::Open,
        }
    }
}

/// Floods an HTTP/1 connection. With `reads` it reads meanwhile, without it only after the last
/// write.
pub(crate) fn bytes(
    mut stream: TcpStream,
    reads: bool,
    chunk: impl FnMut(u32) -> Option<Vec<u8>>,
) -> Result<FloodResult> {
    let over = Arc::new(AtomicBool::new(false));
    let mut reading = stream.try_clone()?;
    let reader_over = over.clone();
    let deadline = Instant::now() + FLOOD_MAX;
    let reader = reads.then(|| {
        std::thread::spawn(move || {
            let read = until_closed(&mut reading, deadline);
            reader_over.store(true, Ordering::Relaxed);
            read
        })
    });
    let sent = write(&stream, &over, chunk)?;
    let (end, received) = match reader {
        Some(reader) => reader.join().unwrap_or((End::Open, vec![])),
        None => until_closed(&mut stream, deadline + Duration::from_millis(500)),
    };
    Ok(FloodResult { sent, end, received })
}

/// Reads until the peer closes or the deadline. Keeps the first 64 KiB.
fn until_closed(stream: &mut TcpStream, deadline: Instant) -> (End, Vec<u8>) {
    let (mut received, mut block) = (vec![], [0; 65536]);
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() || stream.set_read_timeout(Some(left)).is_err() {
            return (End::Open, received);
        }
        match stream.read(&mut block) {
            Ok(0) => return (End::Closed, received),
            Ok(read) if received.len() < 65536 => received.extend_from_slice(&block[..read]),
            Ok(_) => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_) => return (End::Closed, received),
        }
    }
}
