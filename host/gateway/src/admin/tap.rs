//! `/tap`: the exchanges that end from now on, a JSON object on each line, until the reader leaves.
//!
//! The query selects them: `route=NAME`, `status=5xx,404,200-299`, `slower=MILLISECONDS`. With
//! `filter=NAME` a line is a call of that filter, as an example that `witgate test` runs. `count=N`
//! and `seconds=N` end the stream. Lines
//! show what clients send, so a reader needs what a command needs (`access`). A line `{"lost":N}`
//! says that the reader was too slow for N others. This module does not know: how lines are made.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{Either, Full};

use super::access::{Access, Caller, authorize};
use super::reply::{Reply, text};
use crate::pipeline::snapshot::Shared;
use crate::telemetry::{TapFilter, TapReader};
use witgate_http::text::quoted;

/// A complete response, or one that goes on.
pub(super) type Streaming = Response<Either<Full<Bytes>, TapReader>>;

/// Whether a request is for this resource.
pub(super) fn is_tap<B>(request: &Request<B>) -> bool {
    request.uri().path() == "/tap"
}

/// Begins to stream, or says why not.
pub(super) fn respond<B>(shared: &Shared, caller: &Caller, request: &Request<B>) -> Streaming {
    begin(shared, caller, request).unwrap_or_else(|refusal| refusal.map(Either::Left))
}

fn begin<B>(shared: &Shared, caller: &Caller, request: &Request<B>) -> Result<Streaming, Box<Reply>> {
    if request.method() != Method::GET {
        return Err(Box::new(text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n")));
    }
    let config = shared.snapshot.load().config.clone();
    let actor = authorize(caller, Access::Command, &config.admin, request.headers());
    let actor = actor.map_err(|refusal| Box::new(refusal.reply()))?;
    let query = request.uri().query().unwrap_or_default();
    let filter = parse_filter(query).map_err(|why| Box::new(text(StatusCode::BAD_REQUEST, why + "\n")))?;
    if let Some(name) = filter.recorded.as_ref().filter(|name| !config.filters.contains_key(*name)) {
        let why = format!("{}: there is no filter of this name\n", quoted(name));
        return Err(Box::new(text(StatusCode::NOT_FOUND, why)));
    }
    let reader = shared.telemetry.taps.add(filter).ok_or_else(|| {
        Box::new(text(StatusCode::TOO_MANY_REQUESTS, "others read already: end one of their `witgate tap`\n"))
    })?;
    tracing::info!(
        who = actor.label(),
        from = caller.from,
        query = quoted(query),
        "audit: an operator reads exchanges"
    );
    let mut response = Response::new(Either::Right(reader));
    let content_type = http::HeaderValue::from_static("application/x-ndjson");
    response.headers_mut().insert(http::header::CONTENT_TYPE, content_type);
    Ok(response)
}

/// Reads the query. The error text is for the reader.
fn parse_filter(query: &str) -> Result<TapFilter, String> {
    let mut filter = TapFilter::default();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = decoded(value).ok_or_else(|| format!("{}: is not percent-encoded", quoted(key)))?;
        match key {
            "route" => filter.route = Some(value),
            "status" => filter.status = value.split(',').map(status_range).collect::<Result<_, _>>()?,
            "slower" => {
                let millis = value.parse().map_err(|_| "slower: write a number of milliseconds".to_owned())?;
                filter.slower = Some(Duration::from_millis(millis));
            }
            "filter" => filter.recorded = Some(value),
            "count" => filter.count = Some(number(key, &value)?),
            "seconds" => filter.time = Some(Duration::from_secs(number(key, &value)?)),
            _ => {
                let keys = "route, status, slower, filter, count and seconds";
                return Err(format!("{}: the keys are {keys}", quoted(key)));
            }
        }
    }
    let selects_exchanges = filter.route.is_some() || !filter.status.is_empty() || filter.slower.is_some();
    if filter.recorded.is_some() && selects_exchanges {
        return Err("filter: route, status and slower select exchanges, not calls of a filter".into());
    }
    Ok(filter)
}

/// A number from 1 to a million.
fn number(key: &str, text: &str) -> Result<u64, String> {
    let number = text.parse().ok().filter(|number| (1..=1_000_000).contains(number));
    number.ok_or_else(|| format!("{key}: write a number from 1 to 1000000"))
}

/// `5xx`, `404` or `200-299`.
fn status_range(text: &str) -> Result<(u16, u16), String> {
    let status = |text: &str| text.parse::<u16>().ok().filter(|status| (100..=599).contains(status));
    let class =
        text.strip_suffix("xx").and_then(|class| class.parse::<u16>().ok()).filter(|class| (1..=5).contains(class));
    let range = match (class, text.split_once('-')) {
        (Some(class), _) => Some((class * 100, class * 100 + 99)),
        (None, Some((from, to))) => status(from).zip(status(to)),
        (None, None) => status(text).map(|status| (status, status)),
    };
    range.ok_or_else(|| format!("status: {}: write 5xx, 404 or 500-599", quoted(text)))
}

/// Percent-decoded text.
fn decoded(text: &str) -> Option<String> {
    let (mut out, mut bytes) = (vec![], text.bytes());
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let digits = [bytes.next()?, bytes.next()?];
            out.extend(hex::decode(digits).ok()?);
        } else {
            out.push(byte);
        }
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_query_selects_exchanges() {
        let filter = parse_filter("route=a%20b&status=5xx,404,200-299&slower=100");
        let expected = TapFilter {
            route: Some("a b".into()),
            status: vec![(500, 599), (404, 404), (200, 299)],
            slower: Some(Duration::from_millis(100)),
            ..TapFilter::default()
        };
        assert_eq!(filter, Ok(expected));
        assert_eq!(parse_filter(""), Ok(TapFilter::default()));
        let recording = parse_filter("filter=a&count=5&seconds=2");
        let expected = TapFilter {
            recorded: Some("a".into()),
            count: Some(5),
            time: Some(Duration::from_secs(2)),
            ..TapFilter::default()
        };
        assert_eq!(recording, Ok(expected));
        for wrong in ["filter=a&route=b", "count=0", "seconds=x"] {
            assert!(parse_filter(wrong).is_err(), "{wrong}");
        }
        for wrong in ["status=6xx", "status=", "status=99", "slower=1s", "route=%4", "route=%zz", "path=/a"] {
            assert!(parse_filter(wrong).is_err(), "{wrong}");
        }
    }
}
