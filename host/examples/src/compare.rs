//! Compares what happened with what is expected.
//!
//! Only what the expectation names is compared. This module does not know: how a difference is
//! shown.

use bytes::Bytes;
use http::HeaderMap;
use serde_json::Value;
use witgate_manifest::{Action, Expectation, Pattern};

use crate::run::Outcome;

/// Something that is not as expected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The place in the example, such as `response.headers.x-a`.
    pub path: String,
    /// The expected text.
    pub expected: String,
    /// What was found.
    pub found: String,
}

/// What is not as expected. Empty if everything is.
pub fn compare(expect: &Expectation, outcome: &Outcome) -> Vec<Difference> {
    let mut found = vec![];
    compare_action(expect, outcome, &mut found);
    // After another action the rest differs because of it.
    if found.is_empty() {
        compare_messages(expect, outcome, &mut found);
    }
    for (name, pattern) in &expect.notes {
        text(format!("notes.{name}"), pattern, outcome.notes.get(name).map(String::as_str), &mut found);
    }
    for (key, pattern) in &expect.keyvalue {
        text(format!("keyvalue.{key}"), pattern, outcome.keyvalue.get(key).map(String::as_str), &mut found);
    }
    found.extend(log(&expect.log, &outcome.log));
    found
}

fn compare_action(expect: &Expectation, outcome: &Outcome, found: &mut Vec<Difference>) {
    let failure = outcome.failure.as_ref().map(|(kind, detail)| format!("{kind}: {detail}"));
    // A failure that nobody expects is always a difference.
    let expected = expect.action.or((outcome.action == Action::Fail).then_some(Action::Proceed));
    if let Some(expected) = expected.filter(|expected| *expected != outcome.action) {
        let mut shown = outcome.action.label().to_owned();
        match (&failure, &outcome.response) {
            (Some(failure), _) => shown = format!("{shown} ({failure})"),
            (None, Some(response)) if outcome.action != Action::Proceed => {
                shown = format!("{shown} (status {})", response.status.as_u16());
            }
            _ => {}
        }
        found.push(Difference { path: "action".into(), expected: expected.label().into(), found: shown });
    } else if let (Some(expected), Some((kind, _))) = (&expect.failure, &outcome.failure)
        && expected != kind
    {
        let shown = failure.unwrap_or_default();
        found.push(Difference { path: "failure".into(), expected: expected.clone(), found: shown });
    }
}

fn compare_messages(expect: &Expectation, outcome: &Outcome, found: &mut Vec<Difference>) {
    if let Some(request) = &expect.request {
        if matches!(outcome.action, Action::Respond | Action::Fail) {
            let shown = format!("no request, because the action is {}", outcome.action.label());
            found.push(Difference {
                path: "request".into(),
                expected: "a request at the upstream".into(),
                found: shown,
            });
        } else {
            if let Some(path) = &request.path {
                text("request.path".into(), path, Some(&outcome.request.path), found);
            }
            headers("request", &request.headers, &outcome.request.headers, found);
            bodies("request", request.body.as_ref(), request.json.as_ref(), &outcome.request.body, found);
        }
    }
    let Some(expected) = &expect.response else { return };
    let Some(response) = &outcome.response else {
        let (expected, shown) = ("a response".into(), "no response, because the filter failed".into());
        found.push(Difference { path: "response".into(), expected, found: shown });
        return;
    };
    if let Some(status) = expected.status.filter(|status| *status != response.status.as_u16()) {
        let (expected, shown) = (status.to_string(), response.status.as_u16().to_string());
        found.push(Difference { path: "response.status".into(), expected, found: shown });
    }
    headers("response", &expected.headers, &response.headers, found);
    bodies("response", expected.body.as_ref(), expected.json.as_ref(), &response.body, found);
}

fn headers(
    message: &str,
    expected: &std::collections::BTreeMap<String, Pattern>,
    headers: &HeaderMap,
    found: &mut Vec<Difference>,
) {
    for (name, pattern) in expected {
        let lines = field_lines(headers, name);
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        if !pattern.fits(&lines) {
            let shown = if lines.is_empty() { "(none)".into() } else { lines.join("\n") };
            found.push(Difference {
                path: format!("{message}.headers.{name}"),
                expected: pattern.to_string(),
                found: shown,
            });
        }
    }
}

/// The lines of a field as texts.
pub(crate) fn field_lines(headers: &HeaderMap, name: &str) -> Vec<String> {
    let lines = headers.get_all(name.to_ascii_lowercase()).iter();
    lines.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()).collect()
}

fn bodies(message: &str, body: Option<&Pattern>, json: Option<&Value>, seen: &Bytes, found: &mut Vec<Difference>) {
    let seen_text = String::from_utf8_lossy(seen);
    if let Some(pattern) = body {
        text(format!("{message}.body"), pattern, Some(&seen_text), found);
    }
    let Some(expected) = json else { return };
    let seen_json = serde_json::from_slice::<Value>(seen).ok();
    if seen_json.as_ref() != Some(expected) {
        let shown = match seen_json {
            Some(value) => pretty(&value),
            None if seen.is_empty() => "(no body)".into(),
            None => format!("(not JSON) {seen_text}"),
        };
        found.push(Difference { path: format!("{message}.json"), expected: pretty(expected), found: shown });
    }
}

fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).unwrap_or_else(|_| value.to_string())
}

fn text(path: String, pattern: &Pattern, seen: Option<&str>, found: &mut Vec<Difference>) {
    let lines: Vec<&str> = seen.into_iter().collect();
    if !pattern.fits(&lines) {
        let shown = seen.unwrap_or("(none)").to_owned();
        found.push(Difference { path, expected: pattern.to_string(), found: shown });
    }
}

/// Expected lines must occur in their order; others may stand between them.
fn log(expected: &[Pattern], seen: &[String]) -> Option<Difference> {
    let mut rest = seen.iter();
    let missing = expected.iter().find(|pattern| !rest.by_ref().any(|line| pattern.fits(&[line])))?;
    let shown = if seen.is_empty() { "(no lines)".to_owned() } else { seen.join("\n") };
    Some(Difference { path: "log".into(), expected: missing.to_string(), found: shown })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::{SeenRequest, SeenResponse};
    use http::{HeaderValue, Method, StatusCode};

    fn outcome() -> Outcome {
        let mut headers = HeaderMap::new();
        headers.insert("x-a", HeaderValue::from_static("1"));
        let body = Bytes::from_static(br#"{"a":1}"#);
        Outcome {
            action: Action::Proceed,
            failure: None,
            request: SeenRequest {
                method: Method::GET,
                path: "/p".into(),
                headers: headers.clone(),
                body: body.clone(),
            },
            response: Some(SeenResponse { status: StatusCode::OK, headers, body }),
            notes: [("n".to_owned(), "v".to_owned())].into(),
            log: vec!["info: one".into(), "warn: two".into()],
            keyvalue: [("k".to_owned(), "2".to_owned())].into(),
            took: std::time::Duration::ZERO,
            memory_bytes: 0,
        }
    }

    #[test]
    fn what_is_named_is_compared() -> Result<(), serde_json::Error> {
        for (expect, different) in [
            (r#"{"action": "proceed"}"#, vec![]),
            (r#"{"action": "respond"}"#, vec!["action"]),
            (r#"{"request": {"path": "/p", "headers": {"X-A": "1", "x-b": null}, "json": {"a": 1}}}"#, vec![]),
            (r#"{"request": {"path": "/q", "headers": {"x-a": null}}}"#, vec!["request.path", "request.headers.x-a"]),
            (r#"{"response": {"status": 404, "json": {"a": 2}}}"#, vec!["response.status", "response.json"]),
            (r#"{"response": {"body": {"contains": "a"}}}"#, vec![]),
            (r#"{"notes": {"n": "v"}, "keyvalue": {"k": 2}, "log": ["warn: two"]}"#, vec![]),
            (r#"{"notes": {"n": null}, "keyvalue": {"k": 3}}"#, vec!["notes.n", "keyvalue.k"]),
            (r#"{"log": ["warn: two", "info: one"]}"#, vec!["log"]),
        ] {
            let found = compare(&serde_json::from_str(expect)?, &outcome());
            let paths: Vec<&str> = found.iter().map(|difference| difference.path.as_str()).collect();
            assert_eq!(paths, different, "{expect}");
        }
        Ok(())
    }

    #[test]
    fn a_failure_that_is_not_expected_is_a_difference() -> Result<(), serde_json::Error> {
        let mut failed = outcome();
        failed.action = Action::Fail;
        failed.failure = Some(("trap".into(), "unreachable".into()));
        for (expect, count) in [
            (r#"{"notes": {"n": "v"}}"#, 1),
            (r#"{"action": "fail"}"#, 0),
            (r#"{"action": "fail", "failure": "trap"}"#, 0),
            (r#"{"action": "fail", "failure": "deadline"}"#, 1),
        ] {
            assert_eq!(compare(&serde_json::from_str(expect)?, &failed).len(), count, "{expect}");
        }
        Ok(())
    }
}
