//! Passes exchanges on to those who watch them live (`/tap` of the admin listener).
//!
//! A reader gets exchanges as in the access log, or the calls of one filter as examples
//! (`witgate test --record`), which the pipeline makes. Each reader has a bounded queue. A thread
//! that serves traffic formats a line only if a reader selects the exchange and has room; otherwise
//! it counts the line as lost, and the reader is told how many it missed. Without readers an
//! exchange pays one load, and one more if its route has filters. The values of secret fields are
//! left out, and of exchanges also queries and notes.
//! This module does not know: who may read, what an example contains.

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderName;
use http_body::{Body, Frame};
use tokio::sync::mpsc;
use tokio::time::{Interval, Sleep};

use super::access::describe_with_headers;
use super::explain::explanation;
use super::record::{End, ExchangeRecord};

/// Concurrent readers.
const READERS_MAX: usize = 8;
/// Lines that wait for one reader. Lines are bounded, so a reader holds 16 MiB at most.
const QUEUE_MAX: usize = 256;
/// The longest example. Calls with larger bodies are lost for the reader.
const EXAMPLE_BYTES_MAX: usize = 64 << 10;
/// An empty line at this interval finds out that a reader has gone.
const ALIVE_INTERVAL: Duration = Duration::from_secs(15);
/// Fields of a request that a line contains.
const HEADERS_MAX: usize = 64;
/// A field whose name contains one of these words has a secret value.
const SECRET_WORDS: [&str; 10] =
    ["auth", "cookie", "credential", "key", "pass", "secret", "session", "sign", "token", "jwt"];

/// All readers.
#[derive(Default)]
pub struct Taps {
    /// The readers of exchanges, so that an exchange without readers takes no lock.
    count: AtomicUsize,
    /// The readers of examples.
    recordings: AtomicUsize,
    taps: Mutex<Vec<Arc<Tap>>>,
}

/// Which exchanges a reader wants. The default is all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TapFilter {
    /// The route's name.
    pub route: Option<String>,
    /// Ranges of statuses, both ends included. Empty: any status, and none.
    pub status: Vec<(u16, u16)>,
    /// At least this duration.
    pub slower: Option<Duration>,
    /// The calls of this filter as examples, instead of exchanges.
    pub recorded: Option<String>,
    /// The stream ends after so many lines.
    pub count: Option<u64>,
    /// The stream ends after this time.
    pub time: Option<Duration>,
}

struct Tap {
    filter: TapFilter,
    queue: mpsc::Sender<Bytes>,
    lost: AtomicU64,
}

/// The lines for one reader, as the body of a response. Its drop ends the tap.
pub struct TapReader {
    taps: Arc<Taps>,
    tap: Arc<Tap>,
    lines: mpsc::Receiver<Bytes>,
    alive: Interval,
    /// The lines that are left, if their number is bounded.
    left: Option<u64>,
    end: Option<Pin<Box<Sleep>>>,
}

impl TapFilter {
    fn selects(&self, record: &ExchangeRecord, end: &End) -> bool {
        let status = record.status.map_or(0, |status| status.as_u16());
        self.recorded.is_none()
            && self.route.as_ref().is_none_or(|route| route == record.route_name())
            && (self.status.is_empty() || self.status.iter().any(|(from, to)| (*from..=*to).contains(&status)))
            && self.slower.is_none_or(|slower| end.duration >= slower)
    }
}

impl Taps {
    /// Adds a reader. `None` if there are as many as there may be.
    pub fn add(self: &Arc<Self>, filter: TapFilter) -> Option<TapReader> {
        let mut taps = self.lock();
        if taps.len() >= READERS_MAX {
            return None;
        }
        let (queue, lines) = mpsc::channel(QUEUE_MAX);
        let (left, end) = (filter.count, filter.time.map(|time| Box::pin(tokio::time::sleep(time))));
        let tap = Arc::new(Tap { filter, queue, lost: AtomicU64::new(0) });
        taps.push(tap.clone());
        self.count_readers(&taps);
        let alive = tokio::time::interval(ALIVE_INTERVAL);
        Some(TapReader { taps: self.clone(), tap, lines, alive, left, end })
    }

    fn count_readers(&self, taps: &[Arc<Tap>]) {
        let recordings = taps.iter().filter(|tap| tap.filter.recorded.is_some()).count();
        self.recordings.store(recordings, Relaxed);
        self.count.store(taps.len() - recordings, Relaxed);
    }

    /// Whether somebody records the calls of a filter.
    #[inline]
    pub fn has_recordings(&self) -> bool {
        self.recordings.load(Relaxed) > 0
    }

    /// Whether somebody records this filter.
    pub fn records(&self, filter: &str) -> bool {
        self.lock().iter().any(|tap| tap.filter.recorded.as_deref() == Some(filter))
    }

    /// Passes an example of this filter on to those who record it.
    pub fn send_example(&self, filter: &str, example: &impl serde::Serialize) {
        let line = serde_json::to_vec(example).ok().filter(|line| line.len() < EXAMPLE_BYTES_MAX);
        let line = line.map(|mut line| {
            line.push(b'\n');
            Bytes::from(line)
        });
        for tap in self.lock().iter().filter(|tap| tap.filter.recorded.as_deref() == Some(filter)) {
            match (&line, tap.queue.try_reserve()) {
                (Some(line), Ok(permit)) => permit.send(line.clone()),
                _ => drop(tap.lost.fetch_add(1, Relaxed)),
            }
        }
    }

    /// Whether somebody reads exchanges.
    #[inline]
    pub(super) fn has_readers(&self) -> bool {
        self.count.load(Relaxed) > 0
    }

    /// Passes an exchange that ended to the readers that select it.
    pub(super) fn send(&self, record: &ExchangeRecord, end: &End) {
        let mut line = None;
        for tap in self.lock().iter().filter(|tap| tap.filter.selects(record, end)) {
            match tap.queue.try_reserve() {
                Ok(permit) => permit.send(line.get_or_insert_with(|| format_line(record, end)).clone()),
                Err(_) => drop(tap.lost.fetch_add(1, Relaxed)),
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Tap>>> {
        self.taps.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn format_line(record: &ExchangeRecord, end: &End) -> Bytes {
    let headers = record.tapped_headers.as_deref();
    let headers = headers.into_iter().flatten().take(HEADERS_MAX).map(|(name, value)| {
        let shown: &[u8] = if is_secret(name) || value.is_sensitive() { b"redacted" } else { value.as_bytes() };
        (name.as_str(), shown)
    });
    let what = (record.failure.is_some() || record.is_failed()).then(|| explanation(record));
    let mut line = describe_with_headers(record, end, headers, what.as_deref());
    line.push(b'\n');
    line.into()
}

fn is_secret(name: &HeaderName) -> bool {
    is_secret_name(name.as_str())
}

/// Whether what has this name, in lower case, is a secret.
pub fn is_secret_name(name: &str) -> bool {
    SECRET_WORDS.iter().any(|word| name.contains(word))
}

impl Body for TapReader {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let reader = self.get_mut();
        let line = |line: Bytes| Poll::Ready(Some(Ok(Frame::data(line))));
        let is_late = reader.end.as_mut().is_some_and(|end| end.as_mut().poll(context).is_ready());
        if is_late || reader.left == Some(0) {
            return Poll::Ready(None);
        }
        if let Poll::Ready(received) = reader.lines.poll_recv(context) {
            reader.left = reader.left.map(|left| left - 1);
            return received.map_or(Poll::Ready(None), line);
        }
        let lost = reader.tap.lost.swap(0, Relaxed);
        if lost > 0 {
            return line(format!("{{\"lost\":{lost}}}\n").into());
        }
        ready!(reader.alive.poll_tick(context));
        line(Bytes::from_static(b"\n"))
    }
}

impl Drop for TapReader {
    fn drop(&mut self) {
        let mut taps = self.taps.lock();
        taps.retain(|tap| !Arc::ptr_eq(tap, &self.tap));
        self.taps.count_readers(&taps);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_readers_is_bounded() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.unwrap_or_else(|error| panic!("{error}"));
        let _inside = runtime.enter();
        let taps = Arc::new(Taps::default());
        let mut readers: Vec<_> = (0..READERS_MAX).filter_map(|_| taps.add(TapFilter::default())).collect();
        assert_eq!(readers.len(), READERS_MAX);
        assert!(taps.add(TapFilter::default()).is_none());
        readers.clear();
        assert!(!taps.has_readers());
        let recording = TapFilter { recorded: Some("f".into()), count: Some(1), ..TapFilter::default() };
        let reader = taps.add(recording);
        assert!(reader.is_some() && !taps.has_readers() && taps.records("f") && !taps.records("g"));
        drop(reader);
        assert!(!taps.has_recordings());
    }

    #[test]
    fn names_of_secrets_are_known() {
        for name in ["authorization", "cookie", "set-cookie", "x-api-key", "x-amz-security-token", "x-csrf-token"] {
            assert!(is_secret(&HeaderName::from_static(name)), "{name}");
        }
        assert!(!is_secret(&http::header::USER_AGENT));
    }
}
