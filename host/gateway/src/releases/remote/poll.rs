//! The checks of one location over time: at an interval with jitter, later after failures.
//!
//! A failure is logged when it begins and when it ends, not at each check. This module does not
//! know: how a location is checked.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::{Notify, watch};

use super::check::{New, check};
use super::fetch_error::FetchError;
use super::mirror::{Fetched, Mirror, Record};
use witgate_config::{Filter, RemoteLocation, Signatures, SourceSettings};

/// After failures, the interval grows up to this.
const BACK_OFF_MAX: Duration = Duration::from_secs(600);
/// Intervals vary by this share, so that many gateways do not ask at the same time.
const JITTER: f64 = 0.2;

/// A location that is checked.
pub(super) struct Tracked {
    pub(super) location: RemoteLocation,
    state: Mutex<State>,
    /// Ends waits for a check.
    checked: Condvar,
    wake: Notify,
}

struct State {
    settings: SourceSettings,
    record: Option<Record>,
    /// Checks that ended.
    checks: u64,
    /// Checks that failed in sequence.
    failures: u32,
    failure: Option<String>,
    checked_at: Option<SystemTime>,
    is_stopped: bool,
}

/// What is known of a location.
#[derive(Debug, Clone)]
pub struct Status {
    /// The SHA-256 of the component that was fetched last.
    pub sha256: Option<String>,
    /// The entity tag or the manifest's digest of it.
    pub tag: Option<String>,
    /// When the last check ended.
    pub checked_at: Option<SystemTime>,
    /// Why the last check failed.
    pub failure: Option<String>,
    /// Checks that failed in sequence.
    pub failures: u32,
}

impl Tracked {
    pub(super) fn new(location: RemoteLocation, settings: SourceSettings, record: Option<Record>) -> Self {
        let state =
            State { settings, record, checks: 0, failures: 0, failure: None, checked_at: None, is_stopped: false };
        Self { location, state: Mutex::new(state), checked: Condvar::new(), wake: Notify::new() }
    }

    /// Whether the version on disk has the digest and the version that a filter pins.
    pub(super) fn satisfies(&self, filter: &Filter) -> bool {
        let state = self.lock();
        let Some(record) = &state.record else { return false };
        let has_digest = filter.sha256.is_none_or(|pin| hex::encode(pin) == record.latest.sha256);
        let has_version = filter.version.is_none() || filter.version == record.latest.version;
        let is_signed = record.latest.evidence.has_signature();
        has_digest && has_version && (is_signed || state.settings.signatures == Signatures::Off)
    }

    /// Applies settings. If they differ, the location is checked with them at once.
    pub(super) fn set_settings(&self, settings: &SourceSettings) {
        let mut state = self.lock();
        if state.settings != *settings {
            state.settings = settings.clone();
            self.wake.notify_one();
        }
    }

    pub(super) fn check_now(&self) {
        self.wake.notify_one();
    }

    pub(super) fn stop(&self) {
        self.lock().is_stopped = true;
        self.wake.notify_one();
    }

    /// How many checks ended.
    pub(super) fn checks(&self) -> u64 {
        self.lock().checks
    }

    /// Waits until another check than the first `checks` ended.
    pub(super) fn wait_checked(&self, checks: u64, limit: Duration) {
        let waiting = |state: &mut State| state.checks <= checks && !state.is_stopped;
        drop(self.checked.wait_timeout_while(self.lock(), limit, waiting));
    }

    pub(super) fn status(&self) -> Status {
        let state = self.lock();
        let latest = state.record.as_ref().map(|record| &record.latest);
        Status {
            sha256: latest.map(|latest| latest.sha256.clone()),
            tag: latest.and_then(|latest| latest.tag.clone()),
            checked_at: state.checked_at,
            failure: state.failure.clone(),
            failures: state.failures,
        }
    }

    /// The version that was fetched last, the version that was loaded last, and the last failure.
    pub(super) fn versions(&self) -> (Option<Fetched>, Option<Fetched>, Option<String>) {
        let state = self.lock();
        let latest = state.record.as_ref().map(|record| record.latest.clone());
        let good = state.record.as_ref().and_then(|record| record.good.clone());
        (latest, good, state.failure.clone())
    }

    /// Records that a version was loaded.
    pub(super) fn accept(&self, loaded: &Fetched, version: Option<&str>, mirror: &Mirror) {
        let mut state = self.lock();
        let Some(record) = &mut state.record else { return };
        let loaded = Fetched { version: version.map(str::to_owned), ..loaded.clone() };
        if record.good.as_ref() == Some(&loaded) {
            return;
        }
        if record.latest.sha256 == loaded.sha256 {
            record.latest.version.clone_from(&loaded.version);
        }
        record.good = Some(loaded);
        if let Err(error) = mirror.store(record, None) {
            tracing::warn!(location = %self.location, %error, "the loaded version cannot be recorded");
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The settings of the next check and the version that is known, or `None` if there is nothing
    /// to ask.
    fn next_check(&self) -> Option<(SourceSettings, Option<Fetched>)> {
        let state = self.lock();
        let known = state.record.as_ref().map(|record| record.latest.clone());
        let is_final = self.location.is_immutable() && state.settings.signatures == Signatures::Off;
        if state.is_stopped || (is_final && known.is_some()) { None } else { Some((state.settings.clone(), known)) }
    }

    /// How long to wait for the next check. `None`: until somebody asks for it.
    fn delay(&self, retry_after: Option<Duration>) -> Option<Duration> {
        let state = self.lock();
        let interval = state.settings.poll?;
        let longest = interval.max(BACK_OFF_MAX);
        let grown = interval.saturating_mul(1 << state.failures.min(16)).min(longest);
        let varied = grown.mul_f64(1.0 + JITTER * (2.0 * fastrand::f64() - 1.0));
        Some(varied.max(retry_after.unwrap_or_default()))
    }

    /// Records the end of a check. Returns whether the location has a new version.
    fn finish(&self, result: Result<Option<New>, FetchError>, mirror: &Mirror) -> bool {
        let mut state = self.lock();
        state.checks += 1;
        state.checked_at = Some(SystemTime::now());
        let result = result.and_then(|new| match new {
            Some(new) => self.keep(&mut state, new, mirror).map_err(FetchError::from),
            None => Ok(false),
        });
        match &result {
            Ok(_) => {
                if state.failures > 0 {
                    tracing::info!(location = %self.location, "the source can be reached again");
                }
                (state.failures, state.failure) = (0, None);
            }
            Err(error) => {
                if state.failure.as_ref() != Some(&error.message) {
                    let kept = state.record.as_ref().map_or("none", |record| &record.latest.sha256[..12]);
                    tracing::warn!(location = %self.location, why = error.message, kept, "the source cannot be fetched; the version on disk stays");
                }
                (state.failures, state.failure) = (state.failures.saturating_add(1), Some(error.message.clone()));
            }
        }
        drop(state);
        self.checked.notify_all();
        result.unwrap_or(false)
    }

    /// Puts a new version on disk. Returns whether the loader should look at it.
    fn keep(&self, state: &mut State, new: New, mirror: &Mirror) -> std::io::Result<bool> {
        let New { fetched, file } = new;
        let before = state.record.as_ref().map(|record| record.latest.clone());
        let record = Record {
            location: self.location.text.clone(),
            latest: fetched,
            good: state.record.as_ref().and_then(|record| record.good.clone()),
        };
        mirror.store(&record, file)?;
        let latest = &record.latest;
        let is_other = before.as_ref().is_none_or(|before| before.sha256 != latest.sha256);
        if is_other {
            let tag = latest.tag.as_deref().unwrap_or("-");
            let before = before.as_ref().map_or("-", |before| &before.sha256[..12]);
            tracing::info!(location = %self.location, sha256 = &latest.sha256[..12], tag, before, "fetched");
        }
        let is_new = is_other || before.is_some_and(|before| before.evidence != latest.evidence);
        state.record = Some(record);
        Ok(is_new)
    }
}

/// Checks a location until it is stopped.
pub(super) async fn run(tracked: Arc<Tracked>, mirror: Arc<Mirror>, changed: watch::Sender<()>) {
    loop {
        let mut retry_after = None;
        if let Some((settings, known)) = tracked.next_check() {
            let began = Instant::now();
            let checking = check(&tracked.location, &settings, known.as_ref(), &mirror);
            let result = tokio::time::timeout(settings.timeout, checking).await;
            let result = result.unwrap_or_else(|_| {
                let limit = settings.timeout;
                Err(FetchError::new(format_args!(
                    "no complete response within {limit:?}: is the server slow? (`timeout` in `sources`)"
                )))
            });
            retry_after = result.as_ref().err().and_then(|error| error.retry_after);
            let is_new = tracked.finish(result, &mirror);
            tracing::debug!(location = %tracked.location, is_new, ms = began.elapsed().as_millis() as u64, "checked");
            if is_new {
                changed.send_replace(());
            }
        } else {
            tracked.lock().checks += 1;
            tracked.checked.notify_all();
        }
        if tracked.lock().is_stopped {
            return;
        }
        match tracked.delay(retry_after) {
            Some(delay) => drop(tokio::time::timeout(delay, tracked.wake.notified()).await),
            None => tracked.wake.notified().await,
        }
    }
}
