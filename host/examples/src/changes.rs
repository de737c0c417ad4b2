//! Describes what differs between two outcomes of the same request.
//!
//! This module does not know: where the outcomes come from.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use http::HeaderMap;
use witgate_manifest::Action;

use crate::compare::field_lines;
use crate::run::Outcome;

/// The most characters of a value that are shown.
const SHOWN_CHARS_MAX: usize = 80;

/// A sentence for each thing that a client, an upstream or an operator would notice. Times and
/// memory are not compared. Empty if nothing differs.
pub fn changes(before: &Outcome, after: &Outcome) -> Vec<String> {
    let mut found = vec![];
    if before.action != after.action {
        found.push(format!("{} instead of {}", describe(after), describe(before)));
        return found;
    }
    if let (Some((old, _)), Some((new, detail))) = (&before.failure, &after.failure)
        && old != new
    {
        found.push(format!("the filter fails with {new} ({}) instead of {old}", shown(detail)));
    }
    if matches!(after.action, Action::Proceed | Action::Replace) {
        if before.request.path != after.request.path {
            found.push(format!(
                "the upstream gets the path {} instead of {}",
                shown(&after.request.path),
                shown(&before.request.path)
            ));
        }
        fields("the upstream", &before.request.headers, &after.request.headers, &mut found);
        body("the upstream", &before.request.body, &after.request.body, &mut found);
    }
    if let (Some(old), Some(new)) = (&before.response, &after.response) {
        if old.status != new.status {
            found.push(format!("the client gets status {} instead of {}", new.status.as_u16(), old.status.as_u16()));
        }
        fields("the client", &old.headers, &new.headers, &mut found);
        body("the client", &old.body, &new.body, &mut found);
    }
    texts("note", &before.notes, &after.notes, &mut found);
    texts("key", &before.keyvalue, &after.keyvalue, &mut found);
    if before.log != after.log {
        found.push(format!("the log has {} instead of {}", lines(&after.log), lines(&before.log)));
    }
    found
}

/// What happened, as the subject of a sentence.
fn describe(outcome: &Outcome) -> String {
    match (outcome.action, &outcome.response, &outcome.failure) {
        (Action::Respond, Some(response), _) => format!("the filter answers with {}", response.status.as_u16()),
        (Action::Replace, Some(response), _) => {
            format!("the filter replaces the response with {}", response.status.as_u16())
        }
        (Action::Fail, _, Some((kind, detail))) => format!("the filter fails with {kind} ({})", shown(detail)),
        (Action::Fail, ..) => "the filter fails".into(),
        _ => "the request goes to the upstream".into(),
    }
}

fn fields(who: &str, before: &HeaderMap, after: &HeaderMap, found: &mut Vec<String>) {
    let names: BTreeSet<&str> = before.keys().chain(after.keys()).map(http::HeaderName::as_str).collect();
    for name in names {
        let (old, new) = (field_lines(before, name), field_lines(after, name));
        if old == new {
            continue;
        }
        let (old, new) = (shown(&old.join(" | ")), shown(&new.join(" | ")));
        found.push(match (before.contains_key(name), after.contains_key(name)) {
            (false, true) => format!("{who} gets a new field {name}: {new}"),
            (true, false) => format!("{who} no longer gets the field {name}: {old}"),
            _ => format!("{who} gets {name}: {new} instead of {old}"),
        });
    }
}

fn body(who: &str, before: &Bytes, after: &Bytes, found: &mut Vec<String>) {
    if before != after {
        let text = |bytes: &Bytes| shown(&String::from_utf8_lossy(bytes));
        found.push(format!("{who} gets the body {} instead of {}", text(after), text(before)));
    }
}

fn texts(what: &str, before: &BTreeMap<String, String>, after: &BTreeMap<String, String>, found: &mut Vec<String>) {
    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    for name in names {
        match (before.get(name), after.get(name)) {
            (None, Some(new)) => found.push(format!("there is a new {what} {name}: {}", shown(new))),
            (Some(old), None) => found.push(format!("the {what} {name} is gone; it was {}", shown(old))),
            (Some(old), Some(new)) if old != new => {
                found.push(format!("the {what} {name} is {} instead of {}", shown(new), shown(old)));
            }
            _ => {}
        }
    }
}

fn lines(log: &[String]) -> String {
    if log.is_empty() { "no lines".into() } else { shown(&log.join(" | ")) }
}

/// A text in quotes and on one line, cut if it is long.
fn shown(text: &str) -> String {
    let mut cut: String = text.chars().take(SHOWN_CHARS_MAX).collect();
    if cut.len() < text.len() {
        cut.push('…');
    }
    format!("{cut:?}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::{SeenRequest, SeenResponse};
    use http::{HeaderValue, Method, StatusCode};

    fn outcome(action: Action, status: StatusCode, field: &'static str) -> Outcome {
        let headers: HeaderMap =
            [(http::HeaderName::from_static("x-a"), HeaderValue::from_static(field))].into_iter().collect();
        let request =
            SeenRequest { method: Method::GET, path: "/".into(), headers: headers.clone(), body: Bytes::new() };
        Outcome {
            action,
            failure: None,
            request,
            response: Some(SeenResponse { status, headers, body: Bytes::new() }),
            notes: BTreeMap::new(),
            log: vec![],
            keyvalue: BTreeMap::new(),
            took: std::time::Duration::ZERO,
            memory_bytes: 0,
        }
    }

    #[test]
    fn a_change_is_a_sentence() {
        let before = outcome(Action::Proceed, StatusCode::OK, "1");
        assert!(changes(&before, &before.clone()).is_empty());
        let answered = outcome(Action::Respond, StatusCode::UNAUTHORIZED, "1");
        assert_eq!(
            changes(&before, &answered),
            ["the filter answers with 401 instead of the request goes to the upstream"]
        );
        let mut edited = outcome(Action::Proceed, StatusCode::OK, "2");
        edited.log = vec!["info: x".into()];
        assert_eq!(
            changes(&before, &edited),
            [
                "the upstream gets x-a: \"2\" instead of \"1\"",
                "the client gets x-a: \"2\" instead of \"1\"",
                "the log has \"info: x\" instead of no lines",
            ]
        );
    }
}
