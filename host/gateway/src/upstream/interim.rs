//! Passes interim responses (1xx) from an upstream to the client: a bounded number of them, without
//! connection-specific fields.
//!
//! `100` ends here, because the server side decides by itself whether its client needs one. This
//! module does not know: how interim responses arrive, whether a status is one (`101` is not).

use http::{HeaderMap, StatusCode};

use witgate_http::body::InterimSink;
use witgate_http::error::{Error, Kind};
use witgate_http::semantics::fields::strip_connection_fields;

/// Interim responses before one final response. More than that is an attack or a defect.
const INTERIM_MAX: usize = 16;

/// The interim responses of one exchange.
pub(super) struct InterimResponses<'a> {
    client: Option<&'a InterimSink>,
    seen: usize,
}

impl<'a> InterimResponses<'a> {
    /// Starts to count; `client` receives the responses, if the client can take any.
    pub(super) fn new(client: Option<&'a InterimSink>) -> Self {
        Self { client, seen: 0 }
    }

    /// Passes one response on. Fails if there were too many.
    pub(super) fn forward(&mut self, status: StatusCode, mut headers: HeaderMap) -> Result<(), Error> {
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
