//! The request and the response of an exchange.
//!
//! This module does not know: what a filter may edit, when edits are applied.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::uri::PathAndQuery;
use http::{HeaderMap, Method, StatusCode};

use witgate_http::body_budget::Budget;

use super::checked::{Refusal, Reply};
use super::client::Client;
use super::passed::Passed;
use crate::outbound::sender::HttpSender;

/// A request and, later, its response.
pub struct Exchange {
    /// Identifies the exchange in logs.
    pub id: u128,
    /// The client that sent the request.
    pub client: Arc<Client>,
    /// The name of the route.
    pub route: Arc<str>,
    /// The request as the upstream will see it.
    pub request: Request,
    /// The response as the client will see it. `None` in the request phase.
    pub response: Option<Response>,
    /// The notes that filters attached.
    pub notes: Vec<ExchangeNote>,
    /// What the exchanges of the route may hold in memory. `None` if nothing is counted.
    pub budget: Option<Arc<Budget>>,
    /// Fields that filters removed or set in the message of this phase, which must not come back
    /// as trailers. `None` if the message can have no trailers.
    pub edited_fields: Option<Vec<HeaderName>>,
    /// What the request had passed when it arrived.
    pub passed: Passed,
    /// Collects the filter's log lines, which then do not go to the log. `None` in the gateway;
    /// examples are compared with what a filter logs.
    pub captured_log: Option<Vec<LogLine>>,
    /// Sends the calls of filters in this exchange instead of the sender of their grants.
    pub sender: Option<Arc<dyn HttpSender>>,
}

/// A line that a filter logged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// `trace`, `debug`, `info`, `warn` or `error`.
    pub level: &'static str,
    /// The message, bounded.
    pub text: String,
}

/// A named string that a filter attached to an exchange.
#[derive(Clone)]
pub struct ExchangeNote {
    /// 1 to 64 bytes.
    pub name: String,
    /// At most 4 KiB.
    pub value: String,
    /// The filter that attached it first. The note counts among that filter's.
    pub owner: Arc<str>,
}

/// The head of a request and, if a filter needs it, the body.
pub struct Request {
    /// The method as sent.
    pub method: Method,
    /// Whether the client uses TLS.
    pub tls: bool,
    /// The path and query as the upstream will see them.
    pub target: PathAndQuery,
    /// All fields, `host` among them in every version of HTTP.
    pub headers: HeaderMap,
    /// The whole body, if it was buffered or a filter set it.
    pub body: Option<Bytes>,
    /// The protocol that the client asks to change to.
    pub upgrade: Option<Upgrade>,
}

/// The protocol that a client asks to change to (RFC 9110, section 7.8; RFC 8441).
///
/// It travels with the request as an extension. The request's body is then what the client sends
/// after the upstream agreed.
#[derive(Debug, Clone)]
pub struct Upgrade(pub HeaderValue);

/// The head of a response and, if a filter needs it, the body.
pub struct Response {
    /// 200 to 599.
    pub status: StatusCode,
    /// All fields.
    pub headers: HeaderMap,
    /// Whether a filter or the gateway made the response.
    pub local: bool,
    /// The whole body, if it was buffered or a filter made it.
    pub body: Option<Bytes>,
}

impl Exchange {
    /// The exchange of an instance that is in no call: an empty request of an unknown client.
    pub fn blank() -> Self {
        let request = Request {
            method: Method::GET,
            tls: false,
            target: PathAndQuery::from_static("/"),
            headers: HeaderMap::new(),
            body: None,
            upgrade: None,
        };
        let client = Arc::new(Client::new(SocketAddr::from(([0, 0, 0, 0], 0))));
        Self {
            id: 0,
            client,
            route: "-".into(),
            request,
            response: None,
            notes: vec![],
            budget: None,
            edited_fields: None,
            passed: Passed::default(),
            captured_log: None,
            sender: None,
        }
    }

    /// A copy for another version of a filter. It shares the bodies.
    pub fn copy(&self) -> Box<Self> {
        let Request { method, tls, target, headers, body, upgrade } = &self.request;
        let request = Request {
            method: method.clone(),
            tls: *tls,
            target: target.clone(),
            headers: headers.clone(),
            body: body.clone(),
            upgrade: upgrade.clone(),
        };
        let response = self.response.as_ref().map(|Response { status, headers, local, body }| Response {
            status: *status,
            headers: headers.clone(),
            local: *local,
            body: body.clone(),
        });
        Box::new(Self {
            id: self.id,
            client: self.client.clone(),
            route: self.route.clone(),
            request,
            response,
            notes: self.notes.clone(),
            budget: self.budget.clone(),
            edited_fields: None,
            passed: self.passed.clone(),
            captured_log: None,
            sender: None,
        })
    }

    /// Replaces the response by one that a filter made.
    pub fn answer(&mut self, reply: Reply) {
        self.response =
            Some(Response { status: reply.status, headers: reply.headers, local: true, body: Some(reply.body) });
    }

    /// A body that a filter made. It counts in the budget until it was sent or dropped.
    pub(crate) fn hold(&self, body: Bytes) -> Result<Bytes, Refusal> {
        match &self.budget {
            Some(budget) => {
                let held = budget.hold(self.client.address.ip(), body);
                held.map_err(|exceeded| Refusal::Saturated(exceeded.to_string()))
            }
            None => Ok(body),
        }
    }

    /// The id as 32 hexadecimal digits.
    pub fn id_text(&self) -> String {
        id_text(self.id)
    }

    /// The fields that a call in the current phase edits.
    pub(super) fn edited_headers(&self) -> &HeaderMap {
        self.response.as_ref().map_or(&self.request.headers, |response| &response.headers)
    }
}

/// The id of an exchange as 32 hexadecimal digits.
pub fn id_text(id: u128) -> String {
    id_digits(id).map(char::from).iter().collect()
}

/// The 32 hexadecimal digits of an exchange's id.
pub fn id_digits(id: u128) -> [u8; 32] {
    let bytes = id.to_be_bytes();
    let digit = |index: usize| bytes[index / 2] >> (4 * (1 - index % 2)) & 15;
    std::array::from_fn(|index| b"0123456789abcdef"[usize::from(digit(index))])
}

impl Request {
    /// Host and port. Empty if the client sent none.
    #[inline]
    pub fn authority(&self) -> &str {
        self.headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default()
    }
}
