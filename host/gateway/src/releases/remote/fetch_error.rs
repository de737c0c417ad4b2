//! Why a location cannot be fetched, for the operator.
//!
//! This module does not know: when a fetch is tried again.

use std::error::Error;
use std::fmt;
use std::time::{Duration, SystemTime};

use reqwest::header::RETRY_AFTER;
use reqwest::{Response, StatusCode};

use witgate_http::text::bounded;

/// The longest delay that a server can ask for.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);

/// Why a location cannot be fetched. The message is bounded and escaped, because servers shape it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FetchError {
    /// What happened, and what to do.
    pub(super) message: String,
    /// When the server wants to be asked again.
    pub(super) retry_after: Option<Duration>,
}

impl FetchError {
    pub(super) fn new(message: impl fmt::Display) -> Self {
        Self { message: bounded(message), retry_after: None }
    }

    /// A response 304 to a request that named no version.
    pub(super) fn unchanged() -> Self {
        Self::new("the server says that nothing changed (304), but it was not asked about a version: is a cache wrong?")
    }

    /// What the status of a response says.
    pub(super) fn status(response: &Response) -> Self {
        let status = response.status();
        let host = response.url().host_str().unwrap_or_default();
        let advice = match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => ": check the credentials in `sources`",
            StatusCode::NOT_FOUND => ": there is no such object; publish it, or correct `source`",
            _ => "",
        };
        let value = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        let retry_after = value.and_then(|value| retry_after(value, SystemTime::now()));
        Self { retry_after, ..Self::new(format_args!("{host} answered {status}{advice}")) }
    }
}

/// How long to wait: seconds or a date (RFC 9110, section 10.2.3), with a bound.
fn retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    let seconds = value.parse().ok().map(Duration::from_secs);
    let until = || httpdate::parse_http_date(value).ok().map(|date| date.duration_since(now).unwrap_or_default());
    seconds.or_else(until).map(|delay| delay.min(RETRY_AFTER_MAX))
}

/// An error with its causes. The URL is left out, because its query may be a secret.
impl From<reqwest::Error> for FetchError {
    fn from(error: reqwest::Error) -> Self {
        let host = error.url().and_then(|url| url.host_str()).map(|host| format!("{host}: ")).unwrap_or_default();
        let error = error.without_url();
        let hint = if error.is_body() || error.is_decode() { "the response was cut off: " } else { "" };
        Self::new(format_args!("{host}{hint}{}", Chain(&error)))
    }
}

impl From<std::io::Error> for FetchError {
    fn from(error: std::io::Error) -> Self {
        Self::new(format_args!("the state directory cannot be written: {error}"))
    }
}

/// Shows an error and its causes, each text once.
pub(super) struct Chain<'a>(pub(super) &'a dyn Error);

impl fmt::Display for Chain<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = self.0.to_string();
        formatter.write_str(&shown)?;
        let mut next = self.0.source();
        while let Some(cause) = next {
            let text = cause.to_string();
            if !shown.contains(&text) {
                write!(formatter, ": {text}")?;
                shown = text;
            }
            next = cause.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_gives_seconds_or_a_date() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        let wait = |value| retry_after(value, now).map(|delay| delay.as_secs());
        assert_eq!((wait("120"), wait("Sun, 06 Nov 1994 08:50:37 GMT")), (Some(120), Some(60)));
        assert_eq!((wait("99999999"), wait("Fri, 31 Dec 1999 23:59:59 GMT")), (Some(3600), Some(3600)));
        assert_eq!((wait("Sun, 06 Nov 1994 08:00:00 GMT"), wait("soon"), wait("-1")), (Some(0), None, None));
    }
}
