//! The versions of one filter: in service, being released, earlier, and quarantined.
//!
//! All changes of these are here, so that a version is always in one place: the file watcher
//! brings a new version, the clock judges a step, an operator gives a command. This module does not
//! know: traffic, snapshots, files.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use serde::{Deserialize, Serialize};

use super::decision::DecisionKind;
use super::split::Split;
use super::trial::{Sums, Trial};
use super::verdict::{Step, Verdict, judge};
use super::versions::{Version, Versions};
use witgate_config::{Release, Share};

/// Earlier versions of a filter that are remembered.
const PREVIOUS_MAX: usize = 5;
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
    /// The last decision, in words.
    pub verdict: String,
    /// The release that ran when this was saved.
    saved: Option<Saved>,
    /// The release that runs.
    #[serde(skip)]
    pub running: Option<Running>,
    /// How new versions take over. `None`: at once.
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
    pub trial: Arc<Trial>,
    /// When the hold began.
    pub began: Instant,
    slow_holds: u32,
    /// What the old version did in the step before.
    baseline: Sums,
    waits_for_requests: bool,
}

/// What an operator asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Give all exchanges to the new version, or to the quarantined one.
    Promote,
    /// Stop the steps. The share stays, and failures still roll back.
    Pause,
    /// Let the steps go on, with a new hold.
    Resume,
    /// End the release, or go back to the version before the one in service.
    Rollback,
}

/// What changed, about which version, and why.
pub(super) type Change = (DecisionKind, String, String);

impl Running {
    /// The new version's share.
    pub fn share(&self) -> Share {
        self.trial.split.share()
    }

    /// What the old version did in this step, or in the one before if it gets no requests.
    pub fn old_sums(&self) -> Sums {
        let sums = self.trial.old.sums();
        if sums.requests == 0 { self.baseline } else { sums }
    }
}

impl Entry {
    /// A filter whose first version is loaded.
    pub(super) fn new(loaded: Version, release: Option<&Release>) -> Self {
        Self {
            file: loaded.digest.clone(),
            verdict: "in service since the gateway first loaded it".into(),
            stable: loaded,
            previous: vec![],
            quarantined: vec![],
            saved: None,
            running: None,
            release: release.cloned(),
        }
    }

    /// Whether the file's version is quarantined.
    pub fn is_rolled_back(&self) -> bool {
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
            return self.decide(DecisionKind::Cancelled, &cancelled.version.label(), "the file has the old version");
        }
        let is_quarantined = self.is_quarantined(&loaded.digest);
        let release = match release {
            None if !is_quarantined => {
                if self.running.is_some() {
                    return self.complete(loaded, "the filter has no `release` any more");
                }
                self.replace(loaded);
                self.verdict = "in service at once, because the filter has no `release`".into();
                return None;
            }
            release => release,
        };
        if settings_changed || self.stable.filter.is_none() {
            let settings = loaded.filter.as_ref().map(|filter| &filter.settings)?;
            match versions.load(&self.stable, settings) {
                Ok(filter) => self.stable.filter = Some(filter),
                Err(why) => {
                    let why = format!("the version before it cannot be used: {why}");
                    return self.complete(loaded, &why);
                }
            }
        }
        let Some(release) = release.filter(|_| !is_quarantined) else {
            self.running = None;
            let why = "it was rolled back before: change the file, or promote it";
            return self.decide(DecisionKind::Quarantined, &loaded.label(), why);
        };
        let last = release.steps.len().saturating_sub(1);
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
        let label = loaded.label();
        self.enter_step(loaded, step, paused, Sums::default());
        let why = format!("step {} of {}; {} serves the rest", step + 1, last + 1, self.stable.label());
        self.decide(DecisionKind::Started, &label, &why)
    }

    /// Judges the step that runs.
    pub(super) fn tick(&mut self, now: Instant) -> Option<Change> {
        let release = self.release.as_ref()?;
        let running = self.running.as_mut()?;
        let hold_ended = !running.paused && now.saturating_duration_since(running.began) >= release.hold;
        let (old, new) = (running.old_sums(), running.trial.new.sums());
        let verdict = judge(&release.gates, &Step { old, new, hold_ended, slow_holds: running.slow_holds });
        let label = running.version.label();
        match verdict {
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
                self.decide(DecisionKind::Held, &label, &why)
            }
            Verdict::Slow(why) => {
                let (version, step, slow_holds) = (running.version.clone(), running.step, running.slow_holds + 1);
                self.enter_step(version, step, false, old);
                if let Some(running) = &mut self.running {
                    running.slow_holds = slow_holds;
                }
                self.decide(DecisionKind::Held, &label, &why)
            }
            Verdict::Advance(why) => {
                let (version, next) = (running.version.clone(), running.step + 1);
                if next >= release.steps.len() {
                    return self.complete(version, &why);
                }
                self.enter_step(version, next, false, old);
                self.decide(DecisionKind::Advanced, &label, &why)
            }
            Verdict::RollBack(why) => self.end_release(&why),
        }
    }

    /// Carries out an operator's command. The error says why it is impossible.
    pub(super) fn command(&mut self, command: Command, versions: &Versions, now: Instant) -> Result<Change, String> {
        let change = match (command, self.running.as_mut()) {
            (Command::Promote, Some(running)) => {
                let version = running.version.clone();
                self.complete(version, "promoted by an operator")
            }
            (Command::Promote, None) => {
                let quarantined = self.quarantined.last().map(|one| one.version.clone());
                let version = quarantined.ok_or_else(|| {
                    format!("no release runs and no version is quarantined; {} is in service", self.stable.label())
                })?;
                let version = self.in_memory(version, versions)?;
                self.complete(version, "promoted by an operator, out of the quarantine")
            }
            (Command::Pause, Some(running)) if !running.paused => {
                running.paused = true;
                let (label, share) = (running.version.label(), running.share());
                self.decide(DecisionKind::Paused, &label, &format!("paused by an operator at {share}"))
            }
            (Command::Resume, Some(running)) if running.paused => {
                (running.paused, running.began) = (false, now);
                let (label, share) = (running.version.label(), running.share());
                self.decide(DecisionKind::Resumed, &label, &format!("resumed by an operator at {share}"))
            }
            (Command::Pause, Some(_)) => return Err("the release is paused already".into()),
            (Command::Resume, Some(_)) => return Err("the release is not paused".into()),
            (Command::Pause | Command::Resume, None) => {
                return Err(format!("no release runs; {} is in service", self.stable.label()));
            }
            (Command::Rollback, Some(_)) => self.end_release("rolled back by an operator"),
            (Command::Rollback, None) => {
                let previous = self.previous.first().cloned().ok_or("no earlier version is known")?;
                let previous = self.in_memory(previous, versions)?;
                let why = format!("rolled back by an operator; {} is in service", previous.label());
                self.previous.remove(0);
                let current = std::mem::replace(&mut self.stable, previous);
                let label = current.label();
                self.quarantine(current, &why);
                self.decide(DecisionKind::RolledBack, &label, &why)
            }
        };
        change.ok_or_else(|| "nothing changed".into())
    }

    /// Loads a version with the settings of the one in service, unless it is in memory.
    fn in_memory(&self, mut version: Version, versions: &Versions) -> Result<Version, String> {
        if version.filter.is_none() {
            let current = self.stable.filter.as_ref().ok_or("the filter is not loaded")?;
            version.filter = Some(versions.load(&version, &current.settings)?);
        }
        Ok(version)
    }

    fn enter_step(&mut self, version: Version, step: usize, paused: bool, baseline: Sums) {
        let Some(release) = &self.release else { return };
        let share = release.steps.get(step).copied().unwrap_or(Share::ALL);
        let split = Split::new(share, release.sticky.clone(), &version.digest);
        self.running = Some(Running {
            version,
            step,
            paused,
            trial: Arc::new(Trial::new(split)),
            began: Instant::now(),
            slow_holds: 0,
            baseline,
            waits_for_requests: false,
        });
    }

    /// Puts a version into service for all exchanges.
    fn complete(&mut self, version: Version, why: &str) -> Option<Change> {
        let label = version.label();
        self.running = None;
        self.replace(version);
        self.decide(DecisionKind::Completed, &label, why)
    }

    fn end_release(&mut self, why: &str) -> Option<Change> {
        let running = self.running.take()?;
        let label = running.version.label();
        self.quarantine(running.version, why);
        self.decide(DecisionKind::RolledBack, &label, why)
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

    fn quarantine(&mut self, mut version: Version, why: &str) {
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

    /// Drops the versions in memory that no exchange needs.
    fn forget_memory(&mut self) {
        for version in &mut self.previous {
            version.filter = None;
        }
        for one in &mut self.quarantined {
            one.version.filter = None;
        }
    }

    fn decide(&mut self, kind: DecisionKind, label: &str, why: &str) -> Option<Change> {
        self.verdict = format!("{} {label}: {why}", kind.label().replace('_', " "));
        Some((kind, label.to_owned(), why.to_owned()))
    }
}
