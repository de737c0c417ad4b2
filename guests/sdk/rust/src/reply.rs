//! The decision that a handler returns, and the response that it may make.
//!
//! This module does not know the exchange.

/// The decision of a handler.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Continue. The gateway applies the edits of this call.
    Proceed,
    /// In the request phase: answer the client; the upstream does not see the request. In the
    /// response phase: replace the whole response. The gateway discards the edits of this call.
    Reply(Reply),
}

/// A complete response that the filter makes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reply {
    /// The status code, 200 to 599.
    pub status: u16,
    /// Names and values; a name may appear several times. The gateway adds `content-length`, and
    /// does not accept the fields that only it writes (`wit/request.wit` has the list).
    pub headers: Vec<(String, String)>,
    /// At most 8 MiB. Empty with status 204 and 304.
    pub body: Vec<u8>,
}

impl Reply {
    /// Makes a response without header fields and without a body.
    pub fn new(status: u16) -> Self {
        Self { status, ..Self::default() }
    }

    /// Adds a header field.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Sets the body.
    #[must_use]
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }
}

impl From<Reply> for Action {
    fn from(reply: Reply) -> Self {
        Self::Reply(reply)
    }
}

/// Makes a plain-text response: `return Ok(reply(401, "no key"))`.
pub fn reply(status: u16, text: &str) -> Action {
    Reply::new(status).header("content-type", "text/plain; charset=utf-8").body(text).into()
}

/// Makes a JSON response. `json` is sent as it is.
pub fn reply_json(status: u16, json: &str) -> Action {
    Reply::new(status).header("content-type", "application/json").body(json).into()
}
