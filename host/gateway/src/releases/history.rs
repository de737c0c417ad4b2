//! The history of releases: who released which version when, and why it stayed or went, with the
//! figures that decided.
//!
//! It is a redb database in the state directory. A decision is on disk when its command returns, so
//! `kill -9` loses none. The file is open only while it is read or written, because two gateways
//! use the same state directory during a takeover. The oldest decisions above a limit are removed.
//! This module does not know: how a release is judged, who asks.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use redb::{Builder, Database, DatabaseError, ReadableDatabase as _, ReadableTable as _, TableDefinition, TableError};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::decision::{Comparison, Decision};
use super::difference::difference;
use super::step_traffic::Sums;
use super::versions::Version;
use witgate_http::text::bounded;

/// Decisions that are kept.
const DECISIONS_MAX: u64 = 1000;
/// The largest description of a version. A larger one is kept without its manifest.
const DESCRIPTION_BYTES_MAX: usize = 32 << 10;
/// Memory of the open database.
const CACHE_BYTES: usize = 1 << 20;
/// How long another process may have the file open.
const WAIT_MAX: Duration = Duration::from_secs(2);
const WAIT_STEP: Duration = Duration::from_millis(5);

/// Decisions by their number, as JSON.
const DECISIONS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("decisions");
/// What versions declare, by their digest, as JSON.
const VERSIONS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("versions");

/// Any error of the database.
type Failure = Box<dyn std::error::Error>;

/// The history of one state directory.
#[derive(Debug)]
pub struct History {
    path: PathBuf,
    /// Held while the file is open.
    open: Mutex<()>,
}

/// A decision of the past.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PastDecision {
    /// Counts up from 1. Numbers are not used again.
    pub number: u64,
    /// Unix time in milliseconds.
    pub at: u64,
    /// The filter's name.
    pub filter: String,
    /// Such as `started`, `advanced`, `completed`, `rolled_back`.
    pub decision: String,
    /// The version that it is about.
    pub version: PastVersion,
    /// The version that served the rest of the exchanges, or that served before.
    pub other: Option<PastVersion>,
    /// The version's share of the exchanges from then on: 0 to 1.
    pub share: f64,
    /// Who decided: `gates`, `source`, or an operator with the address.
    pub who: String,
    /// The reason for the decision.
    pub why: String,
    /// What both versions had done in the step, if a step was judged.
    pub figures: Option<PastFigures>,
    /// What differs between `other` and `version`, a line for each field.
    #[serde(default)]
    pub differences: Vec<String>,
}

/// A version of the past.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PastVersion {
    /// The version of the manifest, `-` without one.
    pub version: String,
    /// The SHA-256 of the component.
    pub digest: String,
}

/// The figures of a step that was judged.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PastFigures {
    /// The version in service.
    pub old: ShownSums,
    /// The version that was released.
    pub new: ShownSums,
}

/// What a version did.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ShownSums {
    /// Requests that reached the version.
    pub requests: u64,
    /// Requests with a failed call.
    pub failures: u64,
    /// The mean time of a request in its calls.
    pub mean_milliseconds: Option<f64>,
    /// 95% of the calls took no longer.
    pub p95_milliseconds: Option<f64>,
}

impl From<Sums> for ShownSums {
    fn from(sums: Sums) -> Self {
        let milliseconds = |time: Duration| time.as_secs_f64() * 1000.0;
        Self {
            requests: sums.requests,
            failures: sums.failures,
            mean_milliseconds: sums.mean().map(milliseconds),
            p95_milliseconds: sums.p95.map(milliseconds),
        }
    }
}

impl From<&Version> for PastVersion {
    fn from(version: &Version) -> Self {
        Self { version: version.version.clone(), digest: version.digest.clone() }
    }
}

impl History {
    /// The history of a state directory. It is created by the first decision.
    pub fn new(state_dir: &Path) -> Self {
        Self { path: state_dir.join("history.redb"), open: Mutex::new(()) }
    }

    /// Adds decisions. They are on disk when this returns.
    ///
    /// # Errors
    /// A message for the operator.
    pub fn append(&self, decisions: &[Decision]) -> Result<(), String> {
        if decisions.is_empty() {
            return Ok(());
        }
        let _open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let database = self.database()?;
        write(&database, decisions).map_err(|error| self.message(error))
    }

    /// The last decisions, newest first, of one filter or of all.
    ///
    /// # Errors
    /// A message for the operator.
    pub fn last(&self, filter: Option<&str>, most: usize) -> Result<Vec<PastDecision>, String> {
        if !self.path.exists() {
            return Ok(vec![]);
        }
        let _open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let database = self.database()?;
        read(&database, filter, most).map_err(|error| self.message(error))
    }

    /// Opens the file, after another process has closed it. A damaged file is put aside.
    fn database(&self) -> Result<Database, String> {
        let began = Instant::now();
        loop {
            match Builder::new().set_cache_size(CACHE_BYTES).create(&self.path) {
                Ok(database) => return Ok(database),
                Err(DatabaseError::DatabaseAlreadyOpen) if began.elapsed() < WAIT_MAX => {
                    std::thread::sleep(WAIT_STEP);
                }
                Err(DatabaseError::Storage(redb::StorageError::Corrupted(why))) => {
                    let aside = self.path.with_extension("redb.damaged");
                    fs::rename(&self.path, &aside).map_err(|error| self.message(error))?;
                    tracing::error!(why = bounded(why), aside = %aside.display(), "the history of releases is damaged: a new one begins");
                }
                Err(error) => return Err(self.message(error)),
            }
        }
    }

    fn message(&self, error: impl std::fmt::Display) -> String {
        bounded(format_args!("{}: {error}", self.path.display()))
    }
}

fn write(database: &Database, decisions: &[Decision]) -> Result<(), Failure> {
    let transaction = database.begin_write()?;
    {
        let mut table = transaction.open_table(DECISIONS)?;
        let mut versions = transaction.open_table(VERSIONS)?;
        let last = table.last()?.map_or(0, |(number, _)| number.value());
        for (number, decision) in (last + 1..).zip(decisions) {
            let json = serde_json::to_vec(&past(number, decision)).unwrap_or_default();
            table.insert(number, json.as_slice())?;
            for version in [Some(&decision.version), decision.other.as_ref()].into_iter().flatten() {
                if let Some(description) = describe(version) {
                    versions.insert(version.digest.as_str(), description.as_slice())?;
                }
            }
        }
        let oldest = (last + decisions.len() as u64).saturating_sub(DECISIONS_MAX);
        if oldest > 0 {
            table.retain_in(..=oldest, |_, _| false)?;
            let mut used = HashSet::new();
            for entry in table.iter()? {
                used.extend(parse(entry?.1.value()).into_iter().flat_map(digests));
            }
            versions.retain(|digest, _| used.contains(digest))?;
        }
    }
    transaction.commit()?;
    Ok(())
}

fn read(database: &Database, filter: Option<&str>, most: usize) -> Result<Vec<PastDecision>, Failure> {
    let transaction = database.begin_read()?;
    let (table, versions) = match (transaction.open_table(DECISIONS), transaction.open_table(VERSIONS)) {
        (Ok(table), Ok(versions)) => (table, versions),
        (Err(TableError::TableDoesNotExist(_)), _) | (_, Err(TableError::TableDoesNotExist(_))) => return Ok(vec![]),
        (Err(error), _) | (_, Err(error)) => return Err(error.into()),
    };
    let describe = |version: &PastVersion| -> Result<Option<Value>, Failure> {
        let description = versions.get(version.digest.as_str())?;
        Ok(description.and_then(|description| serde_json::from_slice(description.value()).ok()))
    };
    let mut found = vec![];
    for entry in table.iter()?.rev() {
        let Some(mut decision) = parse(entry?.1.value()) else { continue };
        if filter.is_some_and(|filter| filter != decision.filter) {
            continue;
        }
        if let Some(other) = &decision.other
            && let (Some(old), Some(new)) = (describe(other)?, describe(&decision.version)?)
        {
            decision.differences = difference(&old, &new);
        }
        found.push(decision);
        if found.len() >= most {
            break;
        }
    }
    Ok(found)
}

fn parse(json: &[u8]) -> Option<PastDecision> {
    serde_json::from_slice(json).ok()
}

fn digests(decision: PastDecision) -> impl Iterator<Item = String> {
    [Some(decision.version), decision.other].into_iter().flatten().map(|version| version.digest)
}

fn past(number: u64, decision: &Decision) -> PastDecision {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let figures = |Comparison { old, new }: Comparison| PastFigures { old: old.into(), new: new.into() };
    PastDecision {
        number,
        at: u64::try_from(now.as_millis()).unwrap_or(u64::MAX),
        filter: decision.filter.clone(),
        decision: decision.kind.label().into(),
        version: (&decision.version).into(),
        other: decision.other.as_ref().map(PastVersion::from),
        share: decision.share.ratio(),
        who: bounded(&decision.who),
        why: bounded(&decision.why),
        figures: decision.figures.map(figures),
        differences: vec![],
    }
}

/// What a version declares. `None` if it is not in memory: then it was described before.
fn describe(version: &Version) -> Option<Vec<u8>> {
    let info = &version.filter.as_ref()?.info;
    let mut value = serde_json::to_value(info).ok()?;
    let json = serde_json::to_vec(&value).ok()?;
    if json.len() <= DESCRIPTION_BYTES_MAX {
        return Some(json);
    }
    value.as_object_mut()?.remove("manifest");
    serde_json::to_vec(&value).ok().filter(|json| json.len() <= DESCRIPTION_BYTES_MAX)
}

#[cfg(test)]
mod tests {
    use super::super::decision::{DecisionKind, Who};
    use super::*;
    use witgate_config::Share;

    fn decision(filter: &str, why: &str) -> anyhow::Result<Decision> {
        let version = |digest: &str| {
            serde_json::from_value(serde_json::json!({"digest": digest, "version": "1", "content": "c"}))
        };
        Ok(Decision {
            filter: filter.into(),
            kind: DecisionKind::RolledBack,
            version: version("b")?,
            other: Some(version("a")?),
            share: Share(0),
            why: why.into(),
            figures: Some(Comparison {
                old: Sums::default(),
                new: Sums { requests: 7, failures: 3, ..Sums::default() },
            }),
            who: Who::Gates,
        })
    }

    #[test]
    fn decisions_are_kept_newest_first_and_bounded() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let history = History::new(folder.path());
        let last = |filter, most| history.last(filter, most).map_err(anyhow::Error::msg);
        assert_eq!(last(None, 10)?, []);
        history.append(&[decision("f", "one")?, decision("g", "two")?]).map_err(anyhow::Error::msg)?;
        let all = last(None, 10)?;
        assert_eq!(all.iter().map(|one| (one.number, one.why.as_str())).collect::<Vec<_>>(), [(2, "two"), (1, "one")]);
        assert_eq!(all[0].figures.map(|figures| figures.new.failures), Some(3));
        assert_eq!(last(Some("f"), 10)?.len(), 1);
        assert_eq!(last(None, 1)?.len(), 1);
        let many: Vec<Decision> = (0..DECISIONS_MAX + 5).map(|_| decision("f", "x")).collect::<Result<_, _>>()?;
        history.append(&many).map_err(anyhow::Error::msg)?;
        let kept = last(None, usize::MAX)?;
        assert_eq!((kept.len() as u64, kept[0].number), (DECISIONS_MAX, DECISIONS_MAX + 7));
        Ok(())
    }

    #[test]
    fn a_file_that_is_no_database_is_an_error_and_no_panic() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        fs::write(folder.path().join("history.redb"), "x".repeat(5000))?;
        let history = History::new(folder.path());
        assert!(history.append(&[decision("f", "one")?]).is_err() || history.last(None, 1).is_ok());
        Ok(())
    }
}
