//! Makes an example of each call of a filter that somebody records (`/tap?filter=NAME`).
//!
//! The example has what the filter got and what it did: the request, the notes and the values of
//! keys before the call, the response of the upstream, and as expectation each thing that the
//! filter changed. Values of secret fields are replaced as in the stream of exchanges, and the
//! filter's configuration, which may hold secrets, is left out. This module does not know: who
//! reads, how many lines wait.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::HeaderMap;
use serde_json::Value;

use super::shadow::Recording;
use crate::telemetry::{Taps, is_secret_name};
use witgate_examples::{
    Action as Outcome, Example, ExampleClient, ExampleRequest, ExampleResponse, Expectation, ExpectedRequest,
    ExpectedResponse, FieldLines, Pattern,
};
use witgate_http::error::Error;
use witgate_runtime::call::Action;
use witgate_runtime::exchange::{Exchange, Reply, id_text};
use witgate_runtime::filter::Phase;

/// Stands for the value of a secret field.
const REDACTED: &str = "redacted";

/// The examples of one exchange, which are complete when its response phase has ended.
pub(super) struct Recorder {
    taps: Arc<Taps>,
    examples: Vec<(usize, Arc<str>, Example)>,
}

impl Recorder {
    /// `None` if nobody records.
    pub(super) fn new(taps: &Arc<Taps>) -> Option<Self> {
        taps.has_recordings().then(|| Self { taps: taps.clone(), examples: vec![] })
    }

    /// Whether somebody records this filter.
    pub(super) fn wants(&self, filter: &str) -> bool {
        self.taps.records(filter)
    }

    /// Whether the request phase of this entry was recorded.
    pub(super) fn has(&self, index: usize) -> bool {
        self.examples.iter().any(|(own, ..)| *own == index)
    }

    /// Adds a call. Entries of one exchange are told apart by their place in the chain.
    pub(super) fn add(
        &mut self,
        (index, filter): (usize, &Arc<str>),
        recording: &Recording,
        phase: Phase,
        after: &Exchange,
        result: &Result<Action, Error>,
    ) {
        let before = recording.input();
        if phase == Phase::Request {
            self.examples.push((index, filter.clone(), begin(before)));
        }
        let Some((_, _, example)) = self.examples.iter_mut().find(|(own, ..)| *own == index) else { return };
        for (key, value) in recording.values() {
            // The request phase comes first: what it found is the state before the exchange.
            let value = || store_value(key, value);
            example.keyvalue.entry(key.to_owned()).or_insert_with(value);
        }
        if phase == Phase::Response {
            example.upstream = before.response.as_ref().map(|response| ExampleResponse {
                status: Some(response.status.as_u16()),
                headers: fields(&response.headers),
                body: text(response.body.as_ref()),
                json: None,
                base64: base64(response.body.as_ref()),
            });
        }
        expect(&mut example.expect, before, after, phase, result);
    }

    /// Passes the examples on.
    pub(super) fn send(self) {
        for (_, filter, example) in self.examples {
            self.taps.send_example(&filter, &example);
        }
    }
}

/// The request and the state before the request phase.
fn begin(before: &Exchange) -> Example {
    let request = &before.request;
    Example {
        name: format!("exchange {}", id_text(before.id)),
        notes: before.notes.iter().map(|note| (note.name.clone(), shown(&note.name, &note.value))).collect(),
        client: Some(ExampleClient { ip: Some(before.client.address.ip()), tls: request.tls }),
        repeat: 1,
        request: ExampleRequest {
            method: Some(request.method.to_string()),
            path: Some(path(before)),
            headers: fields(&request.headers),
            body: text(request.body.as_ref()),
            json: None,
            base64: base64(request.body.as_ref()),
        },
        ..Example::default()
    }
}

/// What a call did.
fn expect(expect: &mut Expectation, before: &Exchange, after: &Exchange, phase: Phase, result: &Result<Action, Error>) {
    match (result, phase) {
        (Err(error), _) => {
            expect.action = Some(Outcome::Fail);
            expect.failure = Some(error.kind.label().to_owned());
        }
        (Ok(Action::Answer(reply)), _) => {
            expect.action = Some(if phase == Phase::Request { Outcome::Respond } else { Outcome::Replace });
            expect.response = Some(reply_of(reply));
        }
        (Ok(Action::Proceed), Phase::Request) => {
            expect.action = Some(Outcome::Proceed);
            let (old, new) = (&before.request, &after.request);
            let changed = ExpectedRequest {
                path: (old.target != new.target).then(|| Pattern::Text(path(after))),
                headers: changed_fields(&old.headers, &new.headers),
                body: changed_body(old.body.as_ref(), new.body.as_ref()),
                json: None,
            };
            expect.request = (changed != ExpectedRequest::default()).then_some(changed);
        }
        (Ok(Action::Proceed), Phase::Response) => {
            let (Some(old), Some(new)) = (&before.response, &after.response) else { return };
            expect.response = Some(ExpectedResponse {
                status: Some(new.status.as_u16()),
                headers: changed_fields(&old.headers, &new.headers),
                body: changed_body(old.body.as_ref(), new.body.as_ref()),
                json: None,
            });
        }
    }
    for note in &after.notes {
        if !before.notes.iter().any(|old| old.name == note.name && old.value == note.value) {
            expect.notes.insert(note.name.clone(), pattern(&note.name, &[note.value.as_bytes()]));
        }
    }
}

fn reply_of(reply: &Reply) -> ExpectedResponse {
    ExpectedResponse {
        status: Some(reply.status.as_u16()),
        headers: changed_fields(&HeaderMap::new(), &reply.headers),
        body: changed_body(None, Some(&reply.body)),
        json: None,
    }
}

fn changed_fields(old: &HeaderMap, new: &HeaderMap) -> BTreeMap<String, Pattern> {
    let names = new.keys().chain(old.keys().filter(|name| !new.contains_key(*name)));
    let changed = names.filter(|name| !new.get_all(*name).iter().eq(old.get_all(*name)));
    let pattern = |name: &http::HeaderName| {
        let values: Vec<&[u8]> = new.get_all(name).iter().map(http::HeaderValue::as_bytes).collect();
        (name.as_str().to_owned(), pattern(name.as_str(), &values))
    };
    changed.map(pattern).collect()
}

/// The lines of a field; of a secret one, that there are some.
fn pattern(name: &str, lines: &[&[u8]]) -> Pattern {
    let text = |line: &&[u8]| String::from_utf8_lossy(line).into_owned();
    match lines {
        [] => Pattern::Absent,
        _ if is_secret_name(name) => Pattern::Contains(String::new()),
        [line] => Pattern::Text(text(line)),
        lines => Pattern::Lines(lines.iter().map(text).collect()),
    }
}

/// A body that was changed, if it is text.
fn changed_body(old: Option<&Bytes>, new: Option<&Bytes>) -> Option<Pattern> {
    text(new.filter(|new| old != Some(*new))).map(Pattern::Text)
}

fn fields(headers: &HeaderMap) -> BTreeMap<String, FieldLines> {
    let lines = |name: &http::HeaderName| {
        let values = headers.get_all(name).iter();
        let mut lines: Vec<String> =
            values.map(|value| shown(name.as_str(), &String::from_utf8_lossy(value.as_bytes()))).collect();
        let lines = if lines.len() == 1 { FieldLines::One(lines.remove(0)) } else { FieldLines::Several(lines) };
        (name.as_str().to_owned(), lines)
    };
    headers.keys().map(lines).collect()
}

/// The path, and the query without the values of secret parameters.
fn path(exchange: &Exchange) -> String {
    let target = &exchange.request.target;
    let Some(query) = target.query() else { return target.path().to_owned() };
    let pair = |pair: &str| match pair.split_once('=') {
        Some((name, _)) if is_secret_name(&name.to_ascii_lowercase()) => format!("{name}={REDACTED}"),
        _ => pair.to_owned(),
    };
    format!("{}?{}", target.path(), query.split('&').map(pair).collect::<Vec<_>>().join("&"))
}

fn shown(name: &str, value: &str) -> String {
    if is_secret_name(&name.to_ascii_lowercase()) { REDACTED.to_owned() } else { value.to_owned() }
}

/// An entry of the key-value store. The record does not tell counters from texts with digits.
fn store_value(key: &str, value: &[u8]) -> Value {
    let text = shown(key, &String::from_utf8_lossy(value));
    match text.parse::<i32>() {
        Ok(number) if number.to_string() == text => number.into(),
        _ => text.into(),
    }
}

fn text(body: Option<&Bytes>) -> Option<String> {
    let body = body.filter(|body| !body.is_empty())?;
    std::str::from_utf8(body).ok().map(str::to_owned)
}

fn base64(body: Option<&Bytes>) -> Option<String> {
    body.filter(|body| std::str::from_utf8(body).is_err()).map(|body| BASE64_STANDARD.encode(body))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn exchange() -> Box<Exchange> {
        let mut exchange = Exchange::blank();
        exchange.request.target = http::uri::PathAndQuery::from_static("/a?token=s3cret&b=1");
        exchange.request.headers.insert("x-api-key", HeaderValue::from_static("s3cret"));
        exchange.request.headers.insert("x-name", HeaderValue::from_static("Ann"));
        Box::new(exchange)
    }

    #[test]
    fn an_example_has_what_the_filter_changed_and_no_secrets() {
        let before = exchange();
        let mut example = begin(&before);
        let mut after = before.copy();
        after.request.headers.insert("x-greeting", HeaderValue::from_static("hello, Ann"));
        after.request.headers.insert("authorization", HeaderValue::from_static("Bearer s3cret"));
        after.request.headers.remove("x-name");
        expect(&mut example.expect, &before, &after, Phase::Request, &Ok(Action::Proceed));
        let json = serde_json::to_value(&example).unwrap_or_default();
        assert_eq!(json["request"]["path"], "/a?token=redacted&b=1");
        assert_eq!(json["request"]["headers"], serde_json::json!({"x-api-key": "redacted", "x-name": "Ann"}));
        assert_eq!(
            json["expect"],
            serde_json::json!({"action": "proceed", "request": {"headers":
                {"authorization": {"contains": ""}, "x-greeting": "hello, Ann", "x-name": null}}})
        );
        assert!(!json.to_string().contains("s3cret"));
        assert!(example.problems().is_empty(), "{:?}", example.problems());
    }
}
