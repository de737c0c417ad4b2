//! The versions of one filter: in service, being released, earlier, and quarantined.
//!
//! Each change moves a version from one of these places to another: the file watcher brings a new
//! version, the clock judges a step, and `commands` does what operators want. This module does not
//! know: traffic, snapshots, files.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use serde::{Deserialize, Serialize};

use super::decision::{Comparison, DecisionKind};
use super::shadow::ShadowTraffic;
use super::shared::SharedState;
use super::split::Split;
use super::step_traffic::{StepTraffic, Sums};
use super::verdict::{self, Verdict, judge};
use super::versions::{Version, Versions};
use witgate_config::{Release, Share, Step};

/// Earlier versions of a filter that are remembered.
const PREVIOUS_MAX: usize = 10;
/// Quarantined versions of a filter that are remembered.
const QUARANTINED_MAX: usize = 16;

/// One filter.
#[derive(Clone, Serialize, Deserialize)]
pub struct Entry {
    /// Serves all exchanges, or those that a release leaves to it.
    pub stable: Version,
    /// Versions that served before, newest first.
    pub previous: Vec<Version>,
    /// Versions that were rolled back, oldest first. Only an operator brings them back.
    pub quarantined: Vec<Quarantined>,
    /// The digest of the file that was loaded last.
    pub file: String,
    /// The reason for the last decision.
    pub verdict: String,
    /// The release that ran when this was saved.
    saved: Option<Saved>,
    /// What this gateway knows of the decisions of others.
    #[serde(default)]
    pub(super) shared: SharedState,
    /// The release that runs.
    #[serde(skip)]
    pub running: Option<Running>,
    /// How new versions take over. `None`: immediately.
    #[serde(skip)]
    pub release: Option<Release>,
}

/// A version that was rolled back.
#[derive(Clone, Serialize, Deserialize)]
pub struct Quarantined {
    /// The version.
    pub version: Version,
    /// Why, with the figures that decided.
    pub why: String,
    /// When, as Unix time.
    pub at: u64,
}

#[derive(Clone, Serialize, Deserialize)]
struct Saved {
    digest: String,
    step: usize,
    paused: bool,
}

/// A release that runs.
#[derive(Clone)]
pub struct Running {
    /// The new version.
    pub version: Version,
    /// The index of its step.
    pub step: usize,
    /// Whether an operator stopped the steps.
    pub paused: bool,
    /// The step's split and figures.
    pub traffic: Arc<StepTraffic>,
    /// When the hold began.
    pub began: Instant,
    slow_holds: u32,
    /// What the old version did in the step before.
    baseline: Sums,
    waits_for_requests: bool,
}

/// What changed, and why.
pub(super) struct Change {
    pub(super) kind: DecisionKind,
    /// The version that it is about.
    pub(super) version: Version,
    /// The version that serves the rest, or that served before.
    pub(super) other: Option<Version>,
    pub(super) why: String,
    /// The figures of the step, if it was judged.
    pub(super) figures: Option<Comparison>,
}

impl Running {
    /// The new version's share.
    pub fn share(&self) -> Share {
        self.traffic.split.share()
    }

    /// What the old version did in this step, or in the one before if it gets no requests.
    pub fn old_sums(&self) -> Sums {
        let sums = self.traffic.old.sums();
        if sums.requests == 0 { self.baseline } else { sums }
    }

    /// What both versions did in this step.
    pub fn figures(&self) -> Comparison {
        Comparison { old: self.old_sums(), new: self.traffic.new.sums() }
    }
}

impl Entry {
    /// A filter whose first version is loaded.
    pub(super) fn new(loaded: Version, release: Option<&Release>) -> (Self, Change) {
        let first = Change {
            kind: DecisionKind::First,
            version: loaded.clone(),
            other: None,
            why: "the first version that the gateway loaded".into(),
            figures: None,
        };
        let entry = Self {
            file: loaded.digest.clone(),
            verdict: "in service since the gateway first loaded it".into(),
            stable: loaded,
            previous: vec![],
            quarantined: vec![],
            saved: None,
            shared: SharedState::default(),
            running: None,
            release: release.cloned(),
        };
        (entry, first)
    }

    /// `steady`, `releasing`, `paused` or `rolled_back`.
    pub fn state(&self) -> &'static str {
        match &self.running {
            Some(running) if running.paused => "paused",
            Some(_) => "releasing",
            None if self.is_rolled_back() => "rolled_back",
            None => "steady",
        }
    }

    /// Whether the file's version is quarantined.
    fn is_rolled_back(&self) -> bool {
        self.file != self.stable.digest && self.is_quarantined(&self.file)
    }

    fn is_quarantined(&self, digest: &str) -> bool {
        self.quarantined.iter().any(|one| one.version.digest == digest)
    }

    /// Notes the release that runs, for a later start.
    pub(super) fn prepare_save(&mut self) {
        self.saved = self.running.as_ref().map(|running| Saved {
            digest: running.version.digest.clone(),
            step: running.step,
            paused: running.paused,
        });
    }

    /// Takes a version that was loaded from the filter's source. `settings_changed`: the versions
    /// in memory have old settings.
    pub(super) fn admit(
        &mut self,
        loaded: Version,
        release: Option<&Release>,
        settings_changed: bool,
        versions: &Versions,
    ) -> Option<Change> {
        let release_changed = self.release.as_ref() != release;
        self.release = release.cloned();
        self.file.clone_from(&loaded.digest);
        if settings_changed {
            self.forget_memory();
        }
        if loaded.digest == self.stable.digest {
            self.stable = loaded;
            let cancelled = self.running.take()?;
            return self.decide(DecisionKind::Cancelled, &cancelled.version, "the file has the old version");
        }
        let is_quarantined = self.is_quarantined(&loaded.digest);
        let release = match release {
            None if !is_quarantined => {
                if self.running.is_some() {
                    return self.complete(loaded, "the filter has no `release` any more", None);
                }
                return self.replace_at_once(loaded);
            }
            release => release,
        };
        if settings_changed || self.stable.filter.is_none() {
            let settings = loaded.filter.as_ref().map(|filter| &filter.settings)?;
            match versions.load(&self.stable, settings) {
                Ok(filter) => self.stable.filter = Some(filter),
                Err(why) => {
                    let why = format!("the version before it cannot be used: {why}");
                    return self.complete(loaded, &why, None);
                }
            }
        }
        let Some(release) = release.filter(|_| !is_quarantined) else {
            self.running = None;
            let why = "it was rolled back before: change the file, or promote it";
            return self.decide(DecisionKind::Quarantined, &loaded, why);
        };
        let last = release.all_steps().count().saturating_sub(1);
        if let Some(running) = &mut self.running
            && running.version.digest == loaded.digest
        {
            running.version = loaded.clone();
            if release_changed {
                let (step, paused, baseline) = (running.step.min(last), running.paused, running.old_sums());
                self.enter_step(loaded, step, paused, baseline);
            }
            return None;
        }
        let saved = self.saved.take().filter(|saved| saved.digest == loaded.digest);
        let (step, paused) = saved.map_or((0, false), |saved| (saved.step.min(last), saved.paused));
        self.enter_step(loaded.clone(), step, paused, Sums::default());
        let name = release.all_steps().nth(step).map(|step| step.to_string()).unwrap_or_default();
        let why = format!("step {} of {} ({name}); {} serves the rest", step + 1, last + 1, self.stable.label());
        self.decide(DecisionKind::Started, &loaded, &why)
    }

    /// Judges the step that runs.
    pub(super) fn tick(&mut self, now: Instant) -> Option<Change> {
        let release = self.release.as_ref()?;
        let running = self.running.as_mut()?;
        let hold = release.hold_of(release.all_steps().nth(running.step));
        let hold_ended = !running.paused && now.saturating_duration_since(running.began) >= hold;
        let Comparison { old, new } = running.figures();
        let shadow = running.traffic.shadow.as_ref().map(ShadowTraffic::counts);
        let step = verdict::Step { old, new, shadow, hold_ended, slow_holds: running.slow_holds };
        let verdict = judge(&release.gates, &step);
        let version = running.version.clone();
        let figures = Some(Comparison { old, new });
        let change = match verdict {
            Verdict::Wait(why) => {
                self.verdict = why;
                None
            }
            Verdict::TooFew(why) => {
                let is_reported = std::mem::replace(&mut running.waits_for_requests, true);
                if is_reported {
                    self.verdict = why;
                    return None;
                }
                self.decide(DecisionKind::Held, &version, &why)
            }
            Verdict::Slow(why) => {
                let (step, slow_holds) = (running.step, running.slow_holds + 1);
                self.enter_step(version.clone(), step, false, old);
                if let Some(running) = &mut self.running {
                    running.slow_holds = slow_holds;
                }
                self.decide(DecisionKind::Held, &version, &why)
            }
            Verdict::Advance(why) => {
                let next = running.step + 1;
                if next >= release.all_steps().count() {
                    return self.complete(version, &why, figures);
                }
                self.enter_step(version.clone(), next, false, old);
                self.decide(DecisionKind::Advanced, &version, &why)
            }
            Verdict::RollBack(why) => {
                let example = running.traffic.shadow.as_ref().and_then(ShadowTraffic::example);
                let example = example.map(|example| format!("; such as: {example}")).unwrap_or_default();
                self.end_release(&(why + &example))
            }
        };
        change.map(|change| Change { figures, ..change })
    }

    fn enter_step(&mut self, version: Version, step: usize, paused: bool, baseline: Sums) {
        let Some(release) = &self.release else { return };
        let (share, shadow) = match release.all_steps().nth(step) {
            Some(Step::Shadow(shadow)) => (Share(0), Some(ShadowTraffic::new(shadow.share))),
            Some(Step::Serve(share)) => (share, None),
            None => (Share::ALL, None),
        };
        let split = Split::new(share, release.sticky.clone(), &version.digest);
        self.running = Some(Running {
            version,
            step,
            paused,
            traffic: Arc::new(StepTraffic::new(split, shadow)),
            began: Instant::now(),
            slow_holds: 0,
            baseline,
            waits_for_requests: false,
        });
    }

    /// Puts a version into service for all exchanges.
    pub(super) fn complete(&mut self, version: Version, why: &str, figures: Option<Comparison>) -> Option<Change> {
        let before = self.stable.clone();
        self.running = None;
        self.replace(version.clone());
        let change = self.decide(DecisionKind::Completed, &version, why);
        change.map(|change| Change { figures, other: Some(before), ..change })
    }

    /// Puts a version into service without a release.
    fn replace_at_once(&mut self, version: Version) -> Option<Change> {
        const WHY: &str = "in service immediately, because the filter has no `release`";
        let before = self.stable.clone();
        self.replace(version.clone());
        self.verdict = WHY.into();
        let (kind, other) = (DecisionKind::Replaced, Some(before));
        Some(Change { kind, version, other, why: WHY.into(), figures: None })
    }

    pub(super) fn end_release(&mut self, why: &str) -> Option<Change> {
        let running = self.running.take()?;
        let figures = Some(running.figures());
        self.quarantine(running.version.clone(), why);
        let change = self.decide(DecisionKind::RolledBack, &running.version, why);
        change.map(|change| Change { figures, ..change })
    }

    /// The version before stays in memory if releases are on, so that a way back takes no time.
    fn replace(&mut self, version: Version) {
        self.quarantined.retain(|one| one.version.digest != version.digest);
        let mut old = std::mem::replace(&mut self.stable, version);
        if self.release.is_none() {
            old.filter = None;
        }
        self.previous.retain(|one| one.digest != old.digest && one.digest != self.stable.digest);
        for older in &mut self.previous {
            older.filter = None;
        }
        self.previous.insert(0, old);
        self.previous.truncate(PREVIOUS_MAX);
    }

    pub(super) fn quarantine(&mut self, mut version: Version, why: &str) {
        if self.release.is_none() {
            version.filter = None;
        }
        for older in &mut self.quarantined {
            older.version.filter = None;
        }
        self.quarantined.retain(|one| one.version.digest != version.digest);
        let at = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
        self.quarantined.push(Quarantined { version, why: why.to_owned(), at });
        if self.quarantined.len() > QUARANTINED_MAX {
            self.quarantined.remove(0);
        }
    }

    /// Ends the release and drops all versions in memory, because the filter is not used any more.
    pub(super) fn leave_memory(&mut self) {
        (self.running, self.saved, self.stable.filter) = (None, None, None);
        self.forget_memory();
    }

    /// Drops the versions in memory that no exchange needs.
    fn forget_memory(&mut self) {
        for version in &mut self.previous {
            version.filter = None;
        }
        for one in &mut self.quarantined {
            one.version.filter = None;
        }
    }

    pub(super) fn decide(&mut self, kind: DecisionKind, version: &Version, why: &str) -> Option<Change> {
        self.verdict = format!("{} {}: {why}", kind.label().replace('_', " "), version.label());
        let other = Some(self.stable.clone()).filter(|stable| stable.digest != version.digest);
        Some(Change { kind, version: version.clone(), other, why: why.to_owned(), figures: None })
    }
}
