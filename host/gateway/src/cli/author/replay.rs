//! `witgate test --replay`: runs recorded exchanges, and describes what a new version changes.
//!
//! The old version is a component (`--against`), or the recording itself: then its expectations are
//! what happened. Changes of the same kind are counted together. This module does not know: how
//! exchanges are recorded.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::json;
use witgate_examples::{Example, changes, compare};

use super::load::{Loaded, block_on};
use crate::cli::output::print;

/// The names of exchanges that are shown for a kind of change.
const NAMES_SHOWN: usize = 3;

/// A kind of change: a sentence without its values.
struct Kind {
    /// The sentence of the first exchange.
    sentence: String,
    count: usize,
    names: Vec<String>,
}

/// Runs `exchanges` with the new version, and with the old one if there is one.
pub(super) fn replay(new: &Loaded, old: Option<&Loaded>, exchanges: &[Example], as_json: bool) -> Result<(), String> {
    let mut kinds: BTreeMap<String, Kind> = BTreeMap::new();
    let mut different = 0;
    for exchange in exchanges {
        let found = block_on(differences(new, old, exchange))?;
        different += usize::from(!found.is_empty());
        for sentence in found {
            let kind = kinds.entry(without_values(&sentence));
            let kind = kind.or_insert_with(|| Kind { sentence, count: 0, names: vec![] });
            kind.count += 1;
            if kind.names.len() < NAMES_SHOWN {
                kind.names.push(exchange.name.clone());
            }
        }
    }
    let mut kinds: Vec<Kind> = kinds.into_values().collect();
    kinds.sort_by_key(|kind| std::cmp::Reverse(kind.count));
    if as_json {
        let kind = |kind: &Kind| json!({"count": kind.count, "what": kind.sentence, "such_as": kind.names});
        let kinds: Vec<_> = kinds.iter().map(kind).collect();
        return print(json!({"exchanges": exchanges.len(), "different": different, "differences": kinds}));
    }
    print(format_args!("{different} of {} exchanges differ", exchanges.len()))?;
    for Kind { sentence, count, names } in kinds {
        print(format_args!("  {count:>6} x  {sentence}"))?;
        print(format_args!("            such as {}", names.join(", ")))?;
    }
    Ok(())
}

/// What differs in one exchange, as sentences.
async fn differences(new: &Loaded, old: Option<&Loaded>, exchange: &Example) -> Vec<String> {
    let after = match new.runner.run(exchange).await {
        Ok(outcome) => outcome,
        Err(problem) => return vec![format!("the exchange cannot be run: {problem}")],
    };
    match old {
        Some(old) => match old.runner.run(exchange).await {
            Ok(before) => changes(&before, &after),
            Err(problem) => vec![format!("the old version cannot run the exchange: {problem}")],
        },
        None => {
            let found = compare(&exchange.expect, &after);
            let words = |text: &str| format!("{:?}", text.chars().take(80).collect::<String>());
            found
                .iter()
                .map(|difference| {
                    format!(
                        "{} is {} instead of {}",
                        difference.path,
                        words(&difference.found),
                        words(&difference.expected)
                    )
                })
                .collect()
        }
    }
}

/// The sentence without the texts in quotes, which differ from exchange to exchange.
fn without_values(sentence: &str) -> String {
    sentence.split('"').step_by(2).collect::<Vec<_>>().join("\"\"")
}

/// Reads recorded exchanges: a file of examples, or one example in JSON on each line (`.jsonl`).
pub(super) fn read(path: &Path) -> Result<Vec<Example>, String> {
    let exchanges = read_file(path)?;
    // Without exchanges, every version would pass.
    let none = || format!("{}: there is no exchange in it: record some with `witgate test --record`", path.display());
    if exchanges.is_empty() { Err(none()) } else { Ok(exchanges) }
}

fn read_file(path: &Path) -> Result<Vec<Example>, String> {
    if path.extension().is_none_or(|extension| extension != "jsonl") {
        return componentize::read_example_file(path);
    }
    let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines
        .map(|(index, line)| {
            let read: Result<Example, _> = serde_json::from_str(line);
            let mut example = read.map_err(|error| format!("{}:{}: {error}", path.display(), index + 1))?;
            if example.name.is_empty() {
                example.name = format!("exchange {}", index + 1);
            }
            Ok(example)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences_of_one_kind_differ_in_values_only() {
        let [first, second] = ["1", "2"].map(|value| format!("the upstream gets x-a: \"{value}\" instead of \"0\""));
        assert_eq!(without_values(&first), without_values(&second));
        assert_ne!(without_values(&first), without_values("the client gets x-a: \"1\" instead of \"0\""));
    }
}
