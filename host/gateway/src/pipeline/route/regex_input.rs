//! Bounds the text that the configuration's regular expressions examine.
//!
//! The time of a match grows with the text and with the size of the expression. The configuration
//! bounds the size, and this module bounds the text: the gateway refuses a request in which an
//! expression would have to examine more. It does not skip the expression, because a condition that
//! does not hold for long text could be evaded. Price: the check covers the expressions of all
//! routes of a host, so it also refuses requests whose own route has none.
//! This module does not know: which route a request has.

use http::header::HeaderName;

use witgate_config::{Match, PathMatch, Pattern, Route, ValueMatch};
use witgate_http::error::{Error, Kind};
use witgate_runtime::exchange::Request;

/// The parts of a request that expressions examine.
#[derive(Debug, Default)]
pub(super) struct Examined {
    path: bool,
    query: bool,
    headers: Vec<HeaderName>,
}

impl Examined {
    /// Adds the expressions of a route and of the filters in it.
    pub(super) fn add(&mut self, route: &Route) {
        let filters = route.filters.iter().map(|entry| &entry.matches);
        for when in std::iter::once(&route.matches).chain(filters) {
            self.add_match(when);
        }
    }

    fn add_match(&mut self, when: &Match) {
        self.path |= matches!(when.path, Some(PathMatch::Regex(_)));
        self.query |= when.query.iter().any(|(_, value)| matches!(value, ValueMatch::Regex(_)));
        let examined = when.headers.iter().filter(|(_, value)| matches!(value, ValueMatch::Regex(_)));
        for (name, _) in examined {
            if !self.headers.contains(name) {
                self.headers.push(name.clone());
            }
        }
    }

    /// Refuses a request in which an expression would examine too much.
    pub(super) fn check(&self, request: &Request) -> Result<(), Error> {
        if self.path {
            check_length("the path", request.target.path().len(), Kind::UriTooLong)?;
        }
        if self.query {
            let query = request.target.query().unwrap_or_default();
            check_length("the query", query.len(), Kind::UriTooLong)?;
        }
        for name in &self.headers {
            for line in request.headers.get_all(name) {
                check_length(name.as_str(), line.len(), Kind::HeadTooLarge)?;
            }
        }
        Ok(())
    }
}

fn check_length(what: &str, bytes: usize, kind: Kind) -> Result<(), Error> {
    if bytes <= Pattern::TEXT_BYTES_MAX {
        return Ok(());
    }
    let max = Pattern::TEXT_BYTES_MAX;
    let detail =
        format!("{what} has {bytes} bytes, but a regular expression of the configuration examines at most {max}");
    Err(Error::new(kind, detail))
}
