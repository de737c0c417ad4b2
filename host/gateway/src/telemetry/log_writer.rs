//! The writer of a log, or of spans: a bounded buffer and a thread that writes it to a stream, a
//! file or a receiver.
//!
//! A thread that logs only copies its line into the buffer, so a reader that does not empty the
//! pipe never stalls it. Lines above the bound are dropped and counted. The bound is in bytes and
//! not in lines (as in `tracing-appender`), because lines differ by three orders of magnitude.
//! This module does not know: what is logged, the format of a line.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use prometheus_client::metrics::counter::Counter;

/// Bytes of lines that wait to be written. As many may be in the hands of the writing thread.
const BUFFER_BYTES_MAX: usize = 1 << 20;
/// The writer of the gateway's own log waits this long after it was woken, so that it writes many
/// lines at once. Price: a line appears that much later.
pub(super) const GATHER_TIME: Duration = Duration::from_millis(2);
/// The writer waits no longer if so many bytes wait.
const GATHER_BYTES: usize = BUFFER_BYTES_MAX / 4;
/// The pause if standard error is a full pipe in non-blocking mode, which its other users may set.
const RETRY_PAUSE: Duration = Duration::from_millis(10);

/// A writer for log lines that never blocks. Clones share the buffer.
#[derive(Clone, Default)]
pub(super) struct LogWriter(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// Notified when the thread that writes has a reason to go on: the first line, many bytes, a
    /// flush, the end.
    filled: Condvar,
    /// Notified when everything has been written.
    written: Condvar,
    dropped: Counter,
    /// Dropped lines that no line of the log has reported.
    unreported: AtomicU64,
}

#[derive(Default)]
struct State {
    buffer: Vec<u8>,
    is_writing: bool,
    /// Somebody waits for the lines to be written.
    is_urgent: bool,
    is_closed: bool,
}

impl LogWriter {
    /// Starts the thread that writes to `output`. Lines that do not fit are counted in `dropped`.
    /// After some were dropped, the thread passes their number to `report`, which may log. Lines
    /// are gathered for the time `gather` before they are written.
    pub(super) fn start(
        dropped: Counter,
        gather: Duration,
        output: impl Write + Send + 'static,
        report: fn(u64),
    ) -> io::Result<Self> {
        let writer = Self(Arc::new(Shared { dropped, ..Shared::default() }));
        let own = writer.clone();
        std::thread::Builder::new().name("log".into()).spawn(move || own.write_until_closed(output, gather, report))?;
        Ok(writer)
    }

    /// Waits until everything is written, at most for `limit`.
    pub(super) fn flush(&self, limit: Duration) {
        let deadline = Instant::now() + limit;
        let mut state = self.state();
        state.is_urgent = true;
        self.0.filled.notify_one();
        while state.is_writing || !state.buffer.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            state = self.0.written.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Ends the thread after it wrote what waits.
    pub(super) fn close(&self) {
        self.state().is_closed = true;
        self.0.filled.notify_one();
    }

    fn write_until_closed(&self, mut output: impl Write, gather: Duration, report: fn(u64)) {
        let mut lines = vec![];
        loop {
            if !self.wait_for_lines(gather, &mut lines) {
                return;
            }
            write_all(&mut output, &lines);
            lines.clear();
            lines.shrink_to(2 * GATHER_BYTES);
            let unreported = self.0.unreported.swap(0, Ordering::Relaxed);
            if unreported > 0 {
                report(unreported);
            }
        }
    }

    /// Takes lines that were gathered. False after the last one.
    fn wait_for_lines(&self, gather: Duration, lines: &mut Vec<u8>) -> bool {
        let mut state = self.state();
        state.is_writing = false;
        while state.buffer.is_empty() {
            state.is_urgent = false;
            self.0.written.notify_all();
            if state.is_closed {
                return false;
            }
            state = self.0.filled.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let until = Instant::now() + gather;
        while !state.is_closed && !state.is_urgent && state.buffer.len() < GATHER_BYTES {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            state = self.0.filled.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        state.is_writing = true;
        std::mem::swap(&mut state.buffer, lines);
        true
    }

    /// Adds `lines` lines, or counts all of them as dropped.
    pub(super) fn append(&self, bytes: &[u8], lines: u64) {
        let mut state = self.state();
        let (before, after) = (state.buffer.len(), state.buffer.len() + bytes.len());
        if after <= BUFFER_BYTES_MAX {
            state.buffer.extend_from_slice(bytes);
            if before == 0 || before < GATHER_BYTES && after >= GATHER_BYTES {
                // Outside of the lock, which the woken thread takes.
                drop(state);
                self.0.filled.notify_one();
            }
        } else {
            self.0.dropped.inc_by(lines);
            self.0.unreported.fetch_add(lines, Ordering::Relaxed);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One call of `write` is one line: `tracing-subscriber` formats a line before it writes it.
impl Write for LogWriter {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.append(line, 1);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes all bytes, or gives up if the reader has closed its end.
fn write_all(output: &mut impl Write, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        match output.write(bytes) {
            Ok(0) => return,
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => std::thread::sleep(RETRY_PAUSE),
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// Passes on what is written, and accepts no more until the other side takes it.
    struct Slow(mpsc::SyncSender<Vec<u8>>);

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.send(bytes.to_owned()).map_err(io::Error::other)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_reads_nothing_stalls_no_writer() -> io::Result<()> {
        let (sender, receiver) = mpsc::sync_channel(0);
        let counter = Counter::default();
        let mut writer = LogWriter::start(counter.clone(), GATHER_TIME, Slow(sender), |_| {})?;
        let line = [b'x'; 1 << 10];
        for _ in 0..4096 {
            assert_eq!(writer.write(&line)?, line.len());
        }
        let dropped = counter.get();
        assert!((2000..4096).contains(&dropped), "{dropped} lines of 1 KiB of 4 MiB");
        let began = Instant::now();
        writer.flush(Duration::from_millis(50));
        assert!(began.elapsed() >= Duration::from_millis(50), "a flush has a deadline");
        let mut received = 0;
        let reader = std::thread::spawn(move || {
            while received < (4096 - dropped) << 10 {
                received += receiver.recv().map_or(u64::MAX >> 1, |bytes| bytes.len() as u64);
            }
            received
        });
        writer.flush(Duration::from_secs(10));
        assert_eq!(reader.join().ok(), Some((4096 - dropped) << 10), "what was not dropped is written");
        Ok(())
    }

    #[test]
    fn dropped_lines_are_reported() -> io::Result<()> {
        static REPORTED: AtomicU64 = AtomicU64::new(0);
        let counter = Counter::default();
        let mut writer = LogWriter::start(counter.clone(), GATHER_TIME, io::sink(), |lines| {
            REPORTED.fetch_add(lines, Ordering::Relaxed);
        })?;
        writer.write_all(&vec![b'x'; BUFFER_BYTES_MAX + 1])?;
        writer.write_all(b"next\n")?;
        writer.flush(Duration::from_secs(10));
        assert_eq!((counter.get(), REPORTED.load(Ordering::Relaxed)), (1, 1));
        Ok(())
    }
}
