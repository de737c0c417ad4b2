//! Sends without end, and reads what comes back meanwhile, until the gateway has had enough.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use harness::frames::{End, Frame, Frames, kind};

/// The longest that a flood may go on before it is called unbounded.
pub(crate) const POUR_MAX: Duration = Duration::from_secs(5);

/// Nothing was taken for so long: what the gateway does about it shows in how the connection ends.
const STUCK: Duration = Duration::from_secs(3);

/// What came of it.
pub(crate) struct Poured {
    /// Bytes that the sockets took.
    pub(crate) sent: usize,
    /// `Open` where nobody stopped it.
    pub(crate) end: End,
    /// Bytes that came back on an HTTP/1 connection, at most 64 KiB.
    pub(crate) back: Vec<u8>,
}

impl Poured {
    pub(crate) fn shown(&self) -> String {
        format!("{:?} after {} KiB", self.end, self.sent >> 10)
    }
}

/// Writes pieces until the connection ends, or until `POUR_MAX`.
fn write(mut stream: &TcpStream, over: &AtomicBool, mut piece: impl FnMut(u32) -> Option<Vec<u8>>) -> Result<usize> {
    stream.set_write_timeout(Some(Duration::from_millis(50)))?;
    let (began, mut sent, mut pending, mut at) = (Instant::now(), 0, vec![], 0);
    let (mut number, mut moved) = (0, Instant::now());
    while began.elapsed() < POUR_MAX && moved.elapsed() < STUCK && !over.load(Ordering::Relaxed) {
        if at == pending.len() {
            let Some(next) = piece(number) else { break };
            (pending, at, number) = (next, 0, number + 1);
        }
        match stream.write(&pending[at..]) {
            Ok(wrote) => (at, sent, moved) = (at + wrote, sent + wrote, Instant::now()),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_) => break,
        }
    }
    Ok(sent)
}

/// A flood of frames after `opening`. `piece` gives the bytes of the n-th write, none for the last.
pub(crate) fn frames(mut frames: Frames, opening: &[u8], piece: impl FnMut(u32) -> Option<Vec<u8>>) -> Result<Poured> {
    let writer = frames.socket().try_clone()?;
    frames.send(opening)?;
    let over = Arc::new(AtomicBool::new(false));
    let reader_over = over.clone();
    let deadline = Instant::now() + POUR_MAX;
    let reader = std::thread::spawn(move || {
        let end = read_to_end(&mut frames, deadline);
        reader_over.store(true, Ordering::Relaxed);
        end
    });
    let sent = write(&writer, &over, piece)?;
    let end = reader.join().unwrap_or(End::Open);
    Ok(Poured { sent, end, back: vec![] })
}

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

/// A flood on an HTTP/1 connection that reads nothing until the sending is over (`reads`: all along).
pub(crate) fn bytes(mut stream: TcpStream, reads: bool, piece: impl FnMut(u32) -> Option<Vec<u8>>) -> Result<Poured> {
    let over = Arc::new(AtomicBool::new(false));
    let mut reading = stream.try_clone()?;
    let reader_over = over.clone();
    let deadline = Instant::now() + POUR_MAX;
    let reader = reads.then(|| {
        std::thread::spawn(move || {
            let read = until_closed(&mut reading, deadline);
            reader_over.store(true, Ordering::Relaxed);
            read
        })
    });
    let sent = write(&stream, &over, piece)?;
    let (end, back) = match reader {
        Some(reader) => reader.join().unwrap_or((End::Open, vec![])),
        None => until_closed(&mut stream, deadline + Duration::from_millis(500)),
    };
    Ok(Poured { sent, end, back })
}

fn until_closed(stream: &mut TcpStream, deadline: Instant) -> (End, Vec<u8>) {
    let (mut back, mut block) = (vec![], [0; 65536]);
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() || stream.set_read_timeout(Some(left)).is_err() {
            return (End::Open, back);
        }
        match stream.read(&mut block) {
            Ok(0) => return (End::Closed, back),
            Ok(read) if back.len() < 65536 => back.extend_from_slice(&block[..read]),
            Ok(_) => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_) => return (End::Closed, back),
        }
    }
}
