//! What a handler answers with.

/// What becomes of a request or response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Go on, with the edits made.
    Proceed,
    /// In the request phase: answer with this, the upstream sees nothing. In the response phase: put this in the place of the whole
    /// response. Edits of this call are dropped.
    Reply(Reply),
}

/// An answer made by the filter.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reply {
    /// 200 to 599.
    pub status: u16,
    /// Name and value. Without `content-length` and the connection's fields: those are the gateway's.
    pub headers: Vec<(String, String)>,
    /// At most 8 MiB; empty with 204 and 304.
    pub body: Vec<u8>,
}

impl Reply {
    /// An answer without fields and body.
    pub fn new(status: u16) -> Self {
        Self { status, ..Self::default() }
    }

    /// With one more field.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// With this body.
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

/// A plain-text answer.
pub fn reply(status: u16, text: &str) -> Action {
    Reply::new(status).header("content-type", "text/plain; charset=utf-8").body(text).into()
}

/// A JSON answer; `json` is its text.
pub fn reply_json(status: u16, json: &str) -> Action {
    Reply::new(status).header("content-type", "application/json").body(json).into()
}
