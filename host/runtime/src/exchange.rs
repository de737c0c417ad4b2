//! An exchange (a request and its response) as filters see and edit it.
//!
//! Edits are data: a filter's call writes them into a [`Journal`], reads go through it, and [`Exchange::apply`] carries them
//! out only when the call ended well. So a filter that fails half-way has changed nothing. Pure: no I/O, no clock. Must not know: wasm,
//! routes' matching, sockets.

mod checked;
mod journal;

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::uri::PathAndQuery;
use http::{HeaderMap, Method, StatusCode};

pub use checked::{
    BODY_BYTES_MAX, Refusal, Reply, checked_name, checked_reply, checked_status, checked_target, checked_value,
    is_hop_by_hop, is_owned,
};
pub use journal::{Edit, Journal};
use journal::{apply_to, drop_stale_fields};

/// A request and, later, its response.
pub struct Exchange {
    /// For logs.
    pub id: u128,
    /// Who sent the request.
    pub client: Arc<Client>,
    /// The route's name.
    pub route: Arc<str>,
    /// As the upstream will see it.
    pub request: Request,
    /// As the client will see it; none in the request phase.
    pub response: Option<Response>,
    /// What filters attached.
    pub notes: Vec<(String, String)>,
}

/// Who sent a request: the peer of the connection, or whom a trusted proxy names.
#[derive(Debug, Clone)]
pub struct Client {
    /// Its address; port 0 where only a proxy's word for the address is known.
    pub address: SocketAddr,
    /// Its IP address as a field's value: made once for a connection.
    pub ip_text: HeaderValue,
    /// What the handshake of the connection said; none on a plain one.
    pub tls: Option<Arc<TlsInfo>>,
}

/// A TLS connection, as filters and the log see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsInfo {
    /// `TLSv1.2` or `TLSv1.3`.
    pub version: &'static str,
    /// The name that the client asked for (SNI), lower case.
    pub server_name: Option<String>,
    /// `h2` or `http/1.1`, where it was negotiated.
    pub alpn: Option<&'static str>,
    /// Whether an earlier session went on.
    pub resumed: bool,
    /// The client's certificate, verified.
    pub peer: Option<Certificate>,
    /// The hosts that the gateway's certificate is good for, lower case.
    pub names: Arc<[String]>,
}

/// A verified client certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// RFC 4514 text.
    pub subject: String,
    /// Each with its kind: `dns:…`, `uri:…`, `email:…`, `ip:…`.
    pub alternative_names: Vec<String>,
    /// Of the DER, 64 lower-case hexadecimal digits.
    pub sha256: String,
}

impl Client {
    /// A client at this address.
    pub fn new(address: SocketAddr) -> Self {
        let ip = address.ip().to_canonical().to_string();
        // The text of an address is always a valid value.
        let ip_text = HeaderValue::try_from(ip).unwrap_or(HeaderValue::from_static("unknown"));
        Self { address, ip_text, tls: None }
    }
}

/// The protocol that a client wants to change to (RFC 9110, section 7.8; RFC 8441). Travels with the request as an extension; its body is then what the client sends once the
/// upstream agreed.
#[derive(Debug, Clone)]
pub struct Upgrade(pub HeaderValue);

/// A request's head and, where a filter asked for it, its body.
pub struct Request {
    /// As sent.
    pub method: Method,
    /// Whether the client came by TLS.
    pub tls: bool,
    /// The path and query, as the upstream shall see them.
    pub target: PathAndQuery,
    /// All fields; `host` among them, whatever the HTTP version.
    pub headers: HeaderMap,
    /// The whole body, where it was buffered or a filter set it.
    pub body: Option<Bytes>,
    /// Set where the client wants another protocol.
    pub upgrade: Option<Upgrade>,
}

/// A response's head and, where a filter asked for it, its body.
pub struct Response {
    /// 200 to 599.
    pub status: StatusCode,
    /// All fields.
    pub headers: HeaderMap,
    /// Made by a filter or the gateway.
    pub local: bool,
    /// The whole body, where it was buffered or a filter made it.
    pub body: Option<Bytes>,
}

impl Exchange {
    /// Nobody's: what an instance holds that waits for its next call.
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
        Self { id: 0, client, route: "-".into(), request, response: None, notes: vec![] }
    }

    /// Carries out a call's edits and keeps its notes.
    pub fn apply(&mut self, journal: Journal) {
        self.keep_notes(journal.notes);
        for edit in journal.edits {
            match (&mut self.response, edit) {
                (_, Edit::SetTarget(target)) => self.request.target = target,
                (Some(response), Edit::SetStatus(status)) => response.status = status,
                (None, Edit::SetStatus(_)) => {}
                (Some(response), Edit::SetBody(body)) => {
                    response.body = Some(body);
                    drop_stale_fields(&mut response.headers, &[header::ETAG]);
                }
                (None, Edit::SetBody(body)) => {
                    self.request.body = Some(body);
                    drop_stale_fields(&mut self.request.headers, &[]);
                }
                (Some(response), edit) => apply_to(&mut response.headers, edit),
                (None, edit) => apply_to(&mut self.request.headers, edit),
            }
        }
    }

    /// Keeps the notes of a call whose edits do not matter, since it answered itself.
    pub fn apply_notes(&mut self, journal: Journal) {
        self.keep_notes(journal.notes);
    }

    /// Puts a filter's answer in the place of the response.
    pub fn answer(&mut self, reply: Reply) {
        self.response =
            Some(Response { status: reply.status, headers: reply.headers, local: true, body: Some(reply.body) });
    }

    fn keep_notes(&mut self, notes: Vec<(String, String)>) {
        for (name, value) in notes {
            match self.notes.iter_mut().find(|note| note.0 == name) {
                Some(note) => note.1 = value,
                None => self.notes.push((name, value)),
            }
        }
    }

    /// The fields that a call in this phase edits.
    fn edited_headers(&self) -> &HeaderMap {
        self.response.as_ref().map_or(&self.request.headers, |response| &response.headers)
    }

    /// The id as 32 hexadecimal digits.
    pub fn id_text(&self) -> String {
        id_text(self.id)
    }
}

/// An exchange's id as 32 hexadecimal digits.
pub fn id_text(id: u128) -> String {
    hex::encode(id.to_be_bytes())
}

impl Request {
    /// Host and port; empty where none was sent.
    pub fn authority(&self) -> &str {
        self.headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default()
    }
}
