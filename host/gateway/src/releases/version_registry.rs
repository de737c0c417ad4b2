//! The versions of all filters, with a record of them in the state directory.
//!
//! The record (`releases.json`) survives a restart: a release goes on at its step, and a version
//! that was rolled back stays out of service. It names compiled code by hash, and the cache checks
//! that code, so the record is not a secret. This module does not know: traffic, snapshots.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::cache_retention::{RECORD, RECORD_BYTES_MAX};
use super::commands::Command;
use super::content_hash::ContentHash;
use super::decision::{Decision, Who};
use super::entry::{Change, Entry};
use super::history::History;
use super::shared::{GatewayNotice, SharedDecision, SharedKind, SharedState};
use super::step_traffic::StepTraffic;
use super::versions::{Version, Versions};
use witgate_config::{Config, Share};
use witgate_runtime::filter::Filter;

/// Filters that are remembered after the configuration ceased to name them.
const REMOVED_MAX: usize = 20;

/// The versions of all filters.
pub struct Releases {
    entries: Entries,
    /// Filters that were in an earlier configuration. One that comes back still has its quarantine.
    removed: Entries,
    versions: Versions,
    /// Where they are recorded.
    record: PathBuf,
    history: Arc<History>,
}

/// The versions of each filter, by the filter's name.
pub type Entries = BTreeMap<String, Entry>;

/// A new version that serves a share of the exchanges.
#[derive(Clone)]
pub struct Canary {
    /// The version.
    pub filter: Arc<Filter>,
    /// Which exchanges it serves, and how it does.
    pub traffic: Arc<StepTraffic>,
}

/// Why a command has no effect.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// No filter has this name.
    #[error("no filter has this name; the filters are {0}")]
    NoSuchFilter(String),
    /// The filter's state does not allow it.
    #[error("{0}")]
    Impossible(String),
}

#[derive(Deserialize, Default)]
struct Record {
    filters: Entries,
    #[serde(default)]
    removed: Entries,
}

impl Releases {
    /// Reads the record of a state directory. Without a readable one, every loaded version is the
    /// first.
    pub(super) fn open(versions: Versions, state_dir: &Path) -> Self {
        let record = state_dir.join(RECORD);
        let Record { filters: entries, removed } = read(&record).unwrap_or_else(|error| {
            if error.kind() != io::ErrorKind::NotFound {
                tracing::warn!(file = %record.display(), %error, "the record of releases cannot be read: earlier versions and quarantined ones are forgotten");
            }
            Record::default()
        });
        Self { entries, removed, versions, record, history: Arc::new(History::new(state_dir)) }
    }

    /// What was decided until now. It is read without the lock of the releases.
    pub fn history(&self) -> Arc<History> {
        self.history.clone()
    }

    /// The state of each filter.
    pub fn entries(&self) -> &Entries {
        &self.entries
    }

    /// Puts back what [`entries`](Self::entries) returned.
    pub fn restore(&mut self, entries: Entries) {
        self.entries = entries;
    }

    /// Takes the filters that were loaded for a configuration, and sets those aside that it does
    /// not contain. `settings_changed`: versions in memory have the settings of an earlier
    /// configuration.
    pub fn admit(
        &mut self,
        config: &Config,
        loaded: &HashMap<String, Arc<Filter>>,
        content: impl Fn(&str) -> Option<ContentHash>,
        settings_changed: bool,
    ) -> Vec<Decision> {
        let Self { entries, removed, versions, .. } = self;
        for (name, mut entry) in entries.extract_if(.., |name, _| !config.filters.contains_key(name)) {
            entry.leave_memory();
            removed.insert(name, entry);
        }
        while removed.len() > REMOVED_MAX {
            removed.pop_first();
        }
        let mut decisions = vec![];
        for (name, settings) in &config.filters {
            let (Some(filter), Some(content)) = (loaded.get(name), content(name)) else { continue };
            let version = Version::new(filter.clone(), content);
            let release = settings.release.as_ref();
            if let Some(entry) = removed.remove(name).filter(|_| !entries.contains_key(name)) {
                entries.insert(name.clone(), entry);
            }
            match entries.get_mut(name) {
                Some(entry) => {
                    let change = entry.admit(version, release, settings_changed, versions);
                    decisions.extend(change.map(|change| decision(name, entry, change, Who::Source)));
                }
                None => {
                    let (entry, first) = Entry::new(version, release);
                    decisions.push(decision(name, &entry, first, Who::Source));
                    entries.insert(name.clone(), entry);
                }
            }
        }
        decisions
    }

    /// Judges the steps that run.
    pub fn tick(&mut self, now: Instant) -> Vec<Decision> {
        let judge = |(name, entry): (&String, &mut Entry)| {
            let change = entry.tick(now)?;
            Some(decision(name, entry, change, Who::Gates))
        };
        self.entries.iter_mut().filter_map(judge).collect()
    }

    /// Carries out an operator's command.
    ///
    /// # Errors
    /// Why it has no effect.
    pub fn command(&mut self, name: &str, command: Command, who: Who) -> Result<Decision, CommandError> {
        let Self { entries, versions, .. } = self;
        let names = || entries.keys().cloned().collect::<Vec<_>>().join(", ");
        if !entries.contains_key(name) {
            return Err(CommandError::NoSuchFilter(names()));
        }
        let entry = entries.get_mut(name).ok_or_else(|| CommandError::NoSuchFilter(String::new()))?;
        let change = entry.command(command, versions, Instant::now()).map_err(CommandError::Impossible)?;
        Ok(decision(name, entry, change, who))
    }

    /// What this gateway tells about a filter, and which decisions the others do not know yet.
    pub fn shared_state(&self, filter: &str) -> Option<(GatewayNotice, SharedState)> {
        let entry = self.entries.get(filter)?;
        let mut verdict = entry.verdict.clone();
        verdict.truncate(verdict.floor_char_boundary(1000));
        let notice = GatewayNotice {
            gateway: String::new(),
            state: entry.state().to_owned(),
            digest: entry.stable.digest.clone(),
            step: entry.running.as_ref().map_or(0, |running| running.step + 1),
            verdict,
            at: 0,
        };
        Some((notice, entry.shared.clone()))
    }

    /// Notes a decision that holds for all gateways, until the store has taken it.
    fn tell(&mut self, decision: &Decision, gateway: &str) {
        let is_operators = matches!(decision.who, Who::Operator { .. });
        let Some(entry) = self.entries.get_mut(&decision.filter) else { return };
        let is_shared = entry.release.as_ref().is_some_and(|release| release.store.is_some());
        if is_shared
            && !matches!(decision.who, Who::Gateway { .. } | Who::Source)
            && let Some(told) = SharedDecision::of(decision, gateway, is_operators)
        {
            entry.shared.pending = Some(told);
        }
    }

    /// Takes what the decision store of a filter has: the number of its last decision, and whether
    /// it took the pending one. A pending decision that came too late gives way, unless it rolled
    /// the same version back.
    pub fn hear(
        &mut self,
        filter: &str,
        number: u64,
        taken: bool,
        decision: Option<&SharedDecision>,
        gateway: &str,
    ) -> Vec<Decision> {
        let Self { entries, versions, .. } = self;
        let Some(entry) = entries.get_mut(filter) else { return vec![] };
        entry.shared.known = number;
        if taken {
            entry.shared.pending = None;
            return vec![];
        }
        let Some(decision) = decision else { return vec![] };
        if let Some(pending) = entry.shared.pending.take_if(|pending| pending.digest == decision.digest)
            && pending.kind == SharedKind::RolledBack
        {
            entry.shared.pending = Some(pending);
            return vec![];
        }
        if decision.gateway == gateway {
            return vec![];
        }
        let change = entry.follow(decision, versions);
        let who = Who::Gateway { name: decision.gateway.clone(), who: decision.who.clone() };
        change.map(|change| self::decision(filter, entry, change, who)).into_iter().collect()
    }

    /// Whether a release runs.
    pub fn is_active(&self) -> bool {
        self.entries.values().any(|entry| entry.running.is_some())
    }

    /// The versions in service, by filter.
    pub fn in_service(&self) -> HashMap<String, Arc<Filter>> {
        let serving = |(name, entry): (&String, &Entry)| Some((name.clone(), entry.stable.filter.clone()?));
        self.entries.iter().filter_map(serving).collect()
    }

    /// The versions that are released, by filter.
    pub fn canaries(&self) -> HashMap<String, Canary> {
        let canary = |(name, entry): (&String, &Entry)| {
            let running = entry.running.as_ref()?;
            Some((name.clone(), Canary { filter: running.version.filter.clone()?, traffic: running.traffic.clone() }))
        };
        self.entries.iter().filter_map(canary).collect()
    }

    /// Writes the record and adds the decisions to the history. A failure is logged: the releases
    /// go on without it.
    pub fn save(&mut self, decisions: &[Decision], gateway: &str) {
        for decision in decisions {
            self.tell(decision, gateway);
        }
        for entry in self.entries.values_mut() {
            entry.prepare_save();
        }
        if let Err(error) = write(&self.record, &self.entries, &self.removed) {
            tracing::warn!(file = %self.record.display(), %error, "the record of releases cannot be written: a restart forgets what was decided");
        }
        if let Err(why) = self.history.append(decisions) {
            tracing::warn!(why, "the history of releases cannot be written: these decisions are not in it");
        }
    }
}

fn decision(name: &str, entry: &Entry, change: Change, who: Who) -> Decision {
    let Change { kind, version, other, why, figures } = change;
    let share = match &entry.running {
        Some(running) => running.share(),
        None if version.digest == entry.stable.digest => Share::ALL,
        None => Share(0),
    };
    Decision { filter: name.to_owned(), kind, version, other, share, why, figures, who }
}

fn read(path: &Path) -> io::Result<Record> {
    let length = fs::metadata(path)?.len();
    if length > RECORD_BYTES_MAX {
        return Err(io::Error::other(format!("{length} bytes are above the limit of {RECORD_BYTES_MAX}")));
    }
    serde_json::from_slice(&fs::read(path)?).map_err(io::Error::other)
}

/// Replaces the file as a whole, so that a crash leaves the old or the new one.
fn write(path: &Path, filters: &Entries, removed: &Entries) -> io::Result<()> {
    #[derive(Serialize)]
    struct Written<'a> {
        filters: &'a Entries,
        removed: &'a Entries,
    }
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new().prefix(".releases").tempfile_in(folder)?;
    serde_json::to_writer_pretty(&mut file, &Written { filters, removed }).map_err(io::Error::other)?;
    file.flush()?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}
