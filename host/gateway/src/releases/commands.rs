//! What operators command, here or at another gateway: promote, pause, resume, roll back.
//!
//! This module does not know: who may give commands, how they arrive.

use std::time::Instant;

use super::decision::DecisionKind;
use super::entry::{Change, Entry, Running};
use super::shared::{SharedDecision, SharedKind};
use super::versions::{Version, Versions};

/// What an operator asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Give all exchanges to the new version, or to the quarantined one.
    Promote,
    /// Stop the steps. The share stays, and failures still roll back.
    Pause,
    /// Let the steps go on, with a new hold.
    Resume,
    /// End the release, or go back to the version before the one in service.
    Rollback,
    /// Put an earlier version into service: its version, or the first digits of its digest.
    RollbackTo(String),
}

impl Entry {
    /// Carries out an operator's command. The error says why it is impossible.
    pub(super) fn command(&mut self, command: Command, versions: &Versions, now: Instant) -> Result<Change, String> {
        let change = match (command, self.running.as_mut()) {
            (Command::Promote, Some(running)) => {
                let (version, figures) = (running.version.clone(), running.figures());
                self.complete(version, "promoted by an operator", Some(figures))
            }
            (Command::Promote, None) => {
                let quarantined = self.quarantined.last().map(|one| one.version.clone());
                let version = quarantined.ok_or_else(|| {
                    format!("no release runs and no version is quarantined; {} is in service", self.stable.label())
                })?;
                let version = self.in_memory(version, versions)?;
                self.complete(version, "promoted by an operator, out of the quarantine", None)
            }
            (Command::Pause, Some(running)) if !running.paused => {
                running.paused = true;
                let (version, share) = (running.version.clone(), running.share());
                self.decide(DecisionKind::Paused, &version, &format!("paused by an operator at {share}"))
            }
            (Command::Resume, Some(running)) if running.paused => {
                (running.paused, running.began) = (false, now);
                let (version, share) = (running.version.clone(), running.share());
                self.decide(DecisionKind::Resumed, &version, &format!("resumed by an operator at {share}"))
            }
            (Command::Pause, Some(_)) => return Err("the release is paused already".into()),
            (Command::Resume, Some(_)) => return Err("the release is not paused".into()),
            (Command::Pause | Command::Resume, None) => {
                return Err(format!("no release runs; {} is in service", self.stable.label()));
            }
            (Command::Rollback, Some(_)) => self.end_release("rolled back by an operator"),
            (Command::Rollback, None) if self.previous.is_empty() => return Err("no earlier version is known".into()),
            (Command::Rollback, None) => self.go_back(0, "rolled back by an operator", versions)?,
            (Command::RollbackTo(to), _) => {
                let index = self.find_previous(&to)?;
                self.go_back(index, "rolled back by an operator", versions)?
            }
        };
        change.ok_or_else(|| "nothing changed".into())
    }

    /// Follows a decision of another gateway. `None` if it changes nothing here.
    pub(super) fn follow(&mut self, decision: &SharedDecision, versions: &Versions) -> Option<Change> {
        let SharedDecision { kind, digest, instead, gateway, why, .. } = decision;
        let why = format!("gateway {gateway}: {why}");
        let running = self.running.as_ref().filter(|running| running.version.digest == *digest);
        let (is_running, is_paused) = (running.is_some(), running.is_some_and(|running| running.paused));
        match kind {
            SharedKind::RolledBack if is_running => self.end_release(&why),
            SharedKind::RolledBack if self.stable.digest == *digest => {
                let index = self.previous.iter().position(|one| Some(&one.digest) == instead.as_ref())?;
                match self.go_back(index, &why, versions) {
                    Ok(change) => change,
                    Err(error) => {
                        self.verdict = format!("gateway {gateway} rolled back the version in service: {error}");
                        None
                    }
                }
            }
            SharedKind::Completed if is_running => {
                let running = self.running.as_ref()?;
                let (version, figures) = (running.version.clone(), running.figures());
                self.complete(version, &why, Some(figures))
            }
            SharedKind::Completed => {
                let quarantined = self.quarantined.iter().find(|one| one.version.digest == *digest)?;
                let version = self.in_memory(quarantined.version.clone(), versions).ok()?;
                self.complete(version, &why, None)
            }
            SharedKind::Paused if is_running && !is_paused => {
                let running = self.running.as_mut()?;
                running.paused = true;
                let version = running.version.clone();
                self.decide(DecisionKind::Paused, &version, &why)
            }
            SharedKind::Resumed if is_running && is_paused => {
                let running = self.running.as_mut()?;
                (running.paused, running.began) = (false, Instant::now());
                let version = running.version.clone();
                self.decide(DecisionKind::Resumed, &version, &why)
            }
            _ => None,
        }
    }

    /// The index of an earlier version that an operator names.
    fn find_previous(&self, name: &str) -> Result<usize, String> {
        const DIGITS_MIN: usize = 4;
        let is_named =
            |one: &Version| one.version == name || (name.len() >= DIGITS_MIN && one.digest.starts_with(name));
        if is_named(&self.stable) {
            return Err(format!("{} is in service", self.stable.label()));
        }
        let mut found = (0..self.previous.len()).filter(|index| is_named(&self.previous[*index]));
        match (found.next(), found.next()) {
            (Some(index), None) => Ok(index),
            (Some(_), Some(_)) => Err("more than one earlier version has this name: give its digest".into()),
            (None, _) => {
                let known: Vec<String> = self.previous.iter().map(Version::label).collect();
                if known.is_empty() {
                    return Err("there is no earlier version than the one in service".into());
                }
                Err(format!("no earlier version has this name; the earlier versions are {}", known.join(", ")))
            }
        }
    }

    /// Puts an earlier version into service. The version in service and the one that is released
    /// are quarantined.
    fn go_back(&mut self, index: usize, why: &str, versions: &Versions) -> Result<Option<Change>, String> {
        let previous = self.previous.get(index).cloned().ok_or("no earlier version is known")?;
        let previous = self.in_memory(previous, versions)?;
        let why = format!("{why}; {} is in service", previous.label());
        let figures = self.running.as_ref().map(Running::figures);
        if let Some(running) = self.running.take() {
            self.quarantine(running.version, &why);
        }
        self.previous.remove(index);
        let current = std::mem::replace(&mut self.stable, previous);
        self.quarantine(current.clone(), &why);
        let change = self.decide(DecisionKind::RolledBack, &current, &why);
        Ok(change.map(|change| Change { figures, other: Some(self.stable.clone()), ..change }))
    }

    /// Loads a version with the settings of the one in service, unless it is in memory.
    fn in_memory(&self, mut version: Version, versions: &Versions) -> Result<Version, String> {
        if version.filter.is_none() {
            let current = self.stable.filter.as_ref().ok_or("the filter is not loaded")?;
            version.filter = Some(versions.load(&version, &current.settings)?);
        }
        Ok(version)
    }
}
