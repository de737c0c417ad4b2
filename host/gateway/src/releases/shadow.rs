//! The shadow step of a release: the new version gets the input of live calls, and its effect is
//! compared with theirs and described. It is never applied.
//!
//! An effect is what a call did to its message. Two versions that reach it with other edits are
//! equal. Values of secret fields and bodies are compared but not shown. This module does not know:
//! when a shadow runs, what the exchange does next.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use bytes::Bytes;
use http::header::SET_COOKIE;
use http::{HeaderMap, HeaderName};
use serde::Serialize;
use utoipa::ToSchema;

use crate::telemetry::SECRET_HEADERS;
use witgate_config::Share;
use witgate_http::text::quoted;
use witgate_runtime::call::Action;
use witgate_runtime::exchange::{Exchange, id_text};

/// Differences that are kept for people.
const SAMPLES_MAX: usize = 10;
/// Lines of one list of a sample.
const LINES_MAX: usize = 20;
/// Lines of one field that are compared. A message may have thousands.
const VALUES_MAX: usize = 8;

/// What the shadow of one release found.
#[derive(Debug)]
pub struct ShadowTraffic {
    share: Share,
    compared: AtomicU64,
    different: AtomicU64,
    dropped: AtomicU64,
    skipped: AtomicU64,
    samples: Mutex<VecDeque<Sample>>,
}

/// The counts of a shadow.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct ShadowCounts {
    /// Exchanges in which both versions were called.
    pub compared: u64,
    /// Those with a difference.
    pub different: u64,
    /// Exchanges that were chosen and not compared, because the thread was busy with others.
    pub dropped: u64,
    /// Exchanges that were not compared, because the new version needs a body that the gateway did
    /// not read for the live one.
    pub skipped: u64,
}

/// An exchange in which the versions differ.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Sample {
    /// Unix time in milliseconds.
    at: u64,
    /// The id of the exchange in the logs.
    exchange: String,
    /// The route.
    route: String,
    /// A description of what differs.
    differences: Vec<String>,
    /// What the version in service did, a line for each change.
    live: Vec<String>,
    /// What the new version did.
    shadow: Vec<String>,
}

/// What became of a chosen exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShadowResult {
    /// Both versions did the same.
    Equal,
    /// They did not.
    Different,
    /// The thread was busy.
    Dropped,
    /// The new version needs a body that was not read.
    Skipped,
}

impl ShadowResult {
    /// The value of the label `result`.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Equal => "equal",
            Self::Different => "different",
            Self::Dropped => "dropped",
            Self::Skipped => "skipped",
        }
    }
}

impl ShadowTraffic {
    /// Compares `share` of the exchanges.
    pub fn new(share: Share) -> Self {
        Self {
            share,
            compared: AtomicU64::new(0),
            different: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            skipped: AtomicU64::new(0),
            samples: Mutex::default(),
        }
    }

    /// Whether an exchange is compared, at random.
    pub fn picks(&self) -> bool {
        self.share >= Share::ALL || fastrand::u32(0..Share::ALL.0) < self.share.0
    }

    /// Counts a chosen exchange.
    pub fn count(&self, result: ShadowResult) {
        let add = |counter: &AtomicU64| counter.fetch_add(1, Ordering::Relaxed);
        match result {
            ShadowResult::Equal => add(&self.compared),
            ShadowResult::Different => {
                add(&self.different);
                add(&self.compared)
            }
            ShadowResult::Dropped => add(&self.dropped),
            ShadowResult::Skipped => add(&self.skipped),
        };
    }

    /// Keeps an exchange with differences, instead of the oldest one.
    pub fn keep(&self, sample: Sample) {
        let mut samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
        if samples.len() >= SAMPLES_MAX {
            samples.pop_front();
        }
        samples.push_back(sample);
    }

    /// The counts at this moment.
    pub fn counts(&self) -> ShadowCounts {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        ShadowCounts {
            compared: get(&self.compared),
            different: get(&self.different),
            dropped: get(&self.dropped),
            skipped: get(&self.skipped),
        }
    }

    /// The last exchanges with differences, newest first.
    pub fn samples(&self) -> Vec<Sample> {
        self.samples.lock().unwrap_or_else(PoisonError::into_inner).iter().rev().cloned().collect()
    }

    /// The first difference of the newest sample.
    pub fn example(&self) -> Option<String> {
        let samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
        samples.back()?.differences.first().cloned()
    }
}

impl Sample {
    /// An exchange with differences in one of its phases or in both.
    pub fn new(exchange: &Exchange, phases: &[Difference]) -> Self {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let lines = |list: fn(&Difference) -> &Vec<String>| phases.iter().flat_map(list).cloned().collect::<Vec<_>>();
        Self {
            at: u64::try_from(now.as_millis()).unwrap_or(u64::MAX),
            exchange: id_text(exchange.id),
            route: exchange.route.to_string(),
            differences: lines(|phase| &phase.differences),
            live: lines(|phase| &phase.live),
            shadow: lines(|phase| &phase.shadow),
        }
    }
}

/// What a call did, by what it changed: `header x-user`, `status`, `body`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Effect {
    changes: BTreeMap<String, Change>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Change {
    Text(String),
    /// A value that must not be shown.
    Secret(Vec<u8>),
    Body(Bytes),
    Removed,
}

/// The effects of two calls, if they differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    differences: Vec<String>,
    live: Vec<String>,
    shadow: Vec<String>,
}

impl Effect {
    /// What a call did that got `before` and left `after`. The error is the kind of a failure.
    pub fn of(before: &Exchange, after: &Exchange, outcome: Result<&Action, &'static str>) -> Self {
        let mut effect = Self::default();
        match outcome {
            Err(kind) => effect.set("outcome", Change::Text(format!("it failed: {kind}"))),
            Ok(Action::Proceed) => effect.add_edits(before, after),
            Ok(Action::Answer(reply)) => {
                effect.set("outcome", Change::Text("it answered".into()));
                effect.set("status", Change::Text(reply.status.as_str().into()));
                effect.add_fields(&HeaderMap::new(), &reply.headers);
                effect.set("body", Change::Body(reply.body.clone()));
            }
        }
        effect.add_notes(before, after);
        effect
    }

    fn set(&mut self, what: &str, change: Change) {
        self.changes.insert(what.to_owned(), change);
    }

    fn add_edits(&mut self, before: &Exchange, after: &Exchange) {
        if before.request.target != after.request.target {
            self.set("path", Change::Text(quoted(after.request.target.as_str())));
        }
        let (old_body, new_body) = match (&before.response, &after.response) {
            (Some(old), Some(new)) => {
                if old.status != new.status {
                    self.set("status", Change::Text(new.status.as_str().into()));
                }
                self.add_fields(&old.headers, &new.headers);
                (&old.body, &new.body)
            }
            _ => {
                self.add_fields(&before.request.headers, &after.request.headers);
                (&before.request.body, &after.request.body)
            }
        };
        if let Some(body) = new_body.as_ref().filter(|_| old_body != new_body) {
            self.set("body", Change::Body(body.clone()));
        }
    }

    fn add_fields(&mut self, old: &HeaderMap, new: &HeaderMap) {
        for name in new.keys().chain(old.keys().filter(|name| !new.contains_key(*name))) {
            if !new.get_all(name).iter().eq(old.get_all(name)) {
                self.set(&format!("header {name}"), field_change(name, new));
            }
        }
    }

    fn add_notes(&mut self, before: &Exchange, after: &Exchange) {
        for note in &after.notes {
            if !before.notes.iter().any(|old| old.name == note.name && old.value == note.value) {
                self.set(&format!("note {}", quoted(&note.name)), Change::Text(quoted(&note.value)));
            }
        }
    }

    /// The difference between what the live call did and what this one did. `None` if there is
    /// none.
    pub fn difference(live: &Self, shadow: &Self, phase: &str) -> Option<Difference> {
        let mut differences = vec![];
        let added = shadow.changes.keys().filter(|what| !live.changes.contains_key(*what));
        for what in live.changes.keys().chain(added) {
            let (old, new) = (live.changes.get(what), shadow.changes.get(what));
            if old != new {
                let both = [old, new].map(|change| change.map_or_else(|| "unchanged".to_owned(), Change::words));
                let [old, new] = both;
                differences.push(format!("{phase}: {what}: {old} in the version in service, {new} in the new one"));
            }
        }
        if differences.is_empty() {
            return None;
        }
        let journal = |effect: &Self| {
            let lines = effect.changes.iter().map(|(what, change)| format!("{phase}: {what}: {}", change.words()));
            lines.take(LINES_MAX).collect()
        };
        differences.truncate(LINES_MAX);
        Some(Difference { differences, live: journal(live), shadow: journal(shadow) })
    }
}

fn field_change(name: &HeaderName, fields: &HeaderMap) -> Change {
    let values: Vec<&[u8]> = fields.get_all(name).iter().map(http::HeaderValue::as_bytes).collect();
    if values.is_empty() {
        return Change::Removed;
    }
    if SECRET_HEADERS.contains(name) || *name == SET_COOKIE {
        return Change::Secret(values.join(&b"\n"[..]));
    }
    let shown = values.iter().take(VALUES_MAX).map(|value| quoted(&String::from_utf8_lossy(value)));
    let mut text = shown.collect::<Vec<_>>().join(", ");
    // A value that is cut, or one that is left out, must still count.
    if values.len() > VALUES_MAX || text.contains('…') {
        text = format!("{text} (in all {})", digest(&values.join(&b"\n"[..])));
    }
    Change::Text(text)
}

impl Change {
    fn words(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Secret(value) => format!("a secret value of {} bytes", value.len()),
            Self::Body(body) => digest(body),
            Self::Removed => "removed".into(),
        }
    }
}

/// Tells contents apart without showing them.
fn digest(bytes: &[u8]) -> String {
    format!("{} bytes, BLAKE3 {}", bytes.len(), &blake3::hash(bytes).to_hex()[..8])
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderValue, StatusCode};
    use witgate_runtime::exchange::Reply;

    fn edited(edit: impl FnOnce(&mut Exchange)) -> Effect {
        let before = Exchange::blank();
        let mut after = before.copy();
        edit(&mut after);
        Effect::of(&before, &after, Ok(&Action::Proceed))
    }

    fn words(live: &Effect, shadow: &Effect) -> String {
        Effect::difference(live, shadow, "request").map(|found| found.differences.join("\n")).unwrap_or_default()
    }

    #[test]
    fn a_difference_says_which_field_and_which_values() {
        let set = |name: &'static str, value: &'static str| {
            edited(|exchange| {
                exchange.request.headers.insert(name, HeaderValue::from_static(value));
            })
        };
        assert_eq!(words(&set("x-a", "1"), &set("x-a", "1")), "");
        assert_eq!(
            words(&set("x-a", "1"), &set("x-a", "2")),
            "request: header x-a: \"1\" in the version in service, \"2\" in the new one"
        );
        assert!(words(&set("x-a", "1"), &edited(|_| {})).contains("unchanged in the new one"));
        let secret = words(&set("authorization", "Basic abc"), &set("authorization", "Basic abd"));
        assert!(secret.contains("a secret value of 9 bytes") && !secret.contains("abc"), "{secret}");
        let long = |end: &str| {
            let value = HeaderValue::from_str(&("x".repeat(200) + end)).unwrap_or(HeaderValue::from_static("-"));
            edited(|exchange| {
                exchange.request.headers.insert("x-a", value);
            })
        };
        assert_ne!(words(&long("1"), &long("2")), "", "values differ although the shown parts are equal");
    }

    #[test]
    fn answers_failures_and_bodies_are_compared() {
        let before = Exchange::blank();
        let answer = |status, body: &'static str| {
            let reply = Reply { status, headers: HeaderMap::new(), body: Bytes::from_static(body.as_bytes()) };
            Effect::of(&before, &before, Ok(&Action::Answer(reply)))
        };
        let (ok, forbidden) = (answer(StatusCode::OK, "a"), answer(StatusCode::FORBIDDEN, "a"));
        assert_eq!(words(&ok, &forbidden), "request: status: 200 in the version in service, 403 in the new one");
        assert!(words(&ok, &answer(StatusCode::OK, "b")).contains("body: 1 bytes, BLAKE3 "));
        let failed = words(&ok, &Effect::of(&before, &before, Err("trap")));
        assert!(failed.contains("outcome: it answered in the version in service, it failed: trap in"), "{failed}");
    }

    #[test]
    fn samples_are_bounded() {
        let traffic = ShadowTraffic::new(Share::ALL);
        assert!(traffic.picks() && !ShadowTraffic::new(Share(0)).picks());
        let many = edited(|exchange| {
            for number in 0..500_u32 {
                exchange.request.headers.append("x-a", HeaderValue::from(number));
                let name = HeaderName::from_bytes(format!("x-{number}").as_bytes());
                exchange.request.headers.extend(name.map(|name| (name, HeaderValue::from(number))));
            }
        });
        let difference = Effect::difference(&edited(|_| {}), &many, "request");
        for _ in 0..SAMPLES_MAX + 5 {
            traffic.count(ShadowResult::Different);
            traffic.keep(Sample::new(&Exchange::blank(), difference.as_slice()));
        }
        let samples = traffic.samples();
        assert_eq!((samples.len(), samples[0].differences.len()), (SAMPLES_MAX, LINES_MAX));
        assert_eq!(traffic.counts(), ShadowCounts { compared: 15, different: 15, dropped: 0, skipped: 0 });
    }
}
