//! Interim responses (1xx) of an upstream on their way to the client: a bounded number of them, without the fields of one connection.
//!
//! `100` ends here: whether the gateway's client needs one is decided where its body is read. Must not know: how they arrive, whether a status belongs here (`101`).

use http::{HeaderMap, StatusCode};

use witgate_http::body::Interim;
use witgate_http::error::{Error, Kind};
use witgate_http::semantics::fields::strip_connection_fields;

/// Before one response: more is an attack or a defect.
const INTERIM_MAX: usize = 16;

/// Those of one exchange.
pub(super) struct Interims<'a> {
    client: Option<&'a Interim>,
    seen: usize,
}

impl<'a> Interims<'a> {
    /// None so far; `client` takes them, where it can.
    pub(super) fn new(client: Option<&'a Interim>) -> Self {
        Self { client, seen: 0 }
    }

    /// One more; an error where it is one too many.
    pub(super) fn pass(&mut self, status: StatusCode, mut headers: HeaderMap) -> Result<(), Error> {
        self.seen += 1;
        if self.seen > INTERIM_MAX {
            return Err(Error::new(Kind::UpstreamProtocol, "it sends interim responses without end"));
        }
        if let Some(client) = self.client.filter(|_| status != StatusCode::CONTINUE) {
            strip_connection_fields(&mut headers);
            client(status, &headers);
        }
        Ok(())
    }
}
