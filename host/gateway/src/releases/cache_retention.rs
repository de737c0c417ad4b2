//! The versions whose compiled code stays on disk: those that the record of releases names.
//!
//! Each process that deletes old entries of the cache reads the record, because another process may
//! run the releases. This module does not know: what the cache contains.

use std::collections::HashSet;
use std::fs;
use std::path::Path;

use serde_json::Value;

/// The name of the record in the state directory.
pub(super) const RECORD: &str = "releases.json";
/// The largest record that is read.
pub(super) const RECORD_BYTES_MAX: u64 = 4 << 20;

/// The content hashes that the record of a state directory names. Empty without a readable record.
pub(super) fn kept_contents(state_dir: &Path) -> HashSet<String> {
    let path = state_dir.join(RECORD);
    let mut kept = HashSet::new();
    if fs::metadata(&path).is_ok_and(|metadata| metadata.len() <= RECORD_BYTES_MAX)
        && let Ok(text) = fs::read(&path)
        && let Ok(record) = serde_json::from_slice(&text)
    {
        collect(&record, &mut kept);
    }
    kept
}

fn collect(value: &Value, kept: &mut HashSet<String>) {
    match value {
        Value::Object(fields) => {
            kept.extend(fields.get("content").and_then(Value::as_str).map(str::to_owned));
            fields.values().for_each(|value| collect(value, kept));
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, kept)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_version_of_the_record_is_kept() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        assert!(kept_contents(folder.path()).is_empty());
        let record = r#"{"filters": {"f": {"stable": {"content": "a"}, "previous": [{"content": "b"}],
            "quarantined": [{"version": {"content": "c"}}]}}}"#;
        fs::write(folder.path().join(RECORD), record)?;
        assert_eq!(kept_contents(folder.path()), ["a", "b", "c"].map(str::to_owned).into());
        Ok(())
    }
}
