//! Why a location cannot be fetched, for the operator.
//!
//! This module does not know: when a fetch is tried again.

use std::error::Error;
use std::fmt;
use std::time::Duration;

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

    /// What the status of a response says.
    pub(super) fn status(response: &Response) -> Self {
        let status = response.status();
        let host = response.url().host_str().unwrap_or_default();
        let advice = match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => ": check the credentials in `sources`",
            StatusCode::NOT_FOUND => ": there is no such object; publish it, or correct `source`",
            _ => "",
        };
        let seconds = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        let retry_after = seconds.map(|seconds| Duration::from_secs(seconds).min(RETRY_AFTER_MAX));
        Self { retry_after, ..Self::new(format_args!("{host} answered {status}{advice}")) }
    }
}

/// An error with its causes. The URL is left out, because its query may be a secret.
impl From<reqwest::Error> for FetchError {
    fn from(error: reqwest::Error) -> Self {
        let host = error.url().and_then(|url| url.host_str()).unwrap_or_default().to_owned();
        let error = error.without_url();
        Self::new(format_args!("{host}: {}", Chain(&error)))
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
