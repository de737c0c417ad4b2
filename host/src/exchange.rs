//! An exchange (a request and its response) as filters see and edit it.
//!
//! Edits are data: a filter's call writes them into a [`Journal`], reads go through it, and [`Exchange::apply`] carries them
//! out only when the call ended well. So a filter that fails half-way has changed nothing. Pure: no I/O, no clock. Must not know: wasm,
//! routes' matching, sockets.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::uri::PathAndQuery;
use http::{HeaderMap, Method, StatusCode};

/// Notes on one exchange.
const NOTES_MAX: usize = 32;
const NOTE_NAME_BYTES_MAX: usize = 64;
const NOTE_VALUE_BYTES_MAX: usize = 4 << 10;
/// Edits by one call.
const EDITS_MAX: usize = 256;
const EDIT_BYTES_MAX: usize = 256 << 10;
/// A body made by a filter.
pub const BODY_BYTES_MAX: usize = 8 << 20;
const REPLY_FIELDS_MAX: usize = 128;
const REPLY_FIELD_BYTES_MAX: usize = 64 << 10;

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

/// One thing that a filter asked for.
#[derive(Debug, Clone, PartialEq)]
pub enum Edit {
    /// This one value in the place of all.
    SetHeader(HeaderName, HeaderValue),
    /// One more line.
    AppendHeader(HeaderName, HeaderValue),
    /// No line.
    RemoveHeader(HeaderName),
    /// Another path and query.
    SetTarget(PathAndQuery),
    /// Another body.
    SetBody(Bytes),
    /// Another status.
    SetStatus(StatusCode),
}

/// An answer made by a filter, checked.
#[derive(Debug, Clone)]
pub struct Reply {
    /// 200 to 599.
    pub status: StatusCode,
    /// Without `content-length` and the connection's fields.
    pub headers: HeaderMap,
    /// Empty for 204 and 304.
    pub body: Bytes,
}

/// What a filter must not do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// HTTP does not allow it, or the gateway owns it.
    Invalid(String),
    /// More than a bound.
    Limit(String),
}

/// What one call asked for, in order.
#[derive(Default)]
pub struct Journal {
    edits: Vec<Edit>,
    bytes: usize,
    notes: Vec<(String, String)>,
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

impl Journal {
    /// Notes an edit, within the bounds of one call.
    pub fn push(&mut self, edit: Edit) -> Result<(), Refusal> {
        self.bytes += match &edit {
            Edit::SetHeader(name, value) | Edit::AppendHeader(name, value) => name.as_str().len() + value.len(),
            Edit::RemoveHeader(name) => name.as_str().len(),
            Edit::SetTarget(target) => target.as_str().len(),
            Edit::SetBody(_) | Edit::SetStatus(_) => 0,
        };
        if self.edits.len() >= EDITS_MAX || self.bytes > EDIT_BYTES_MAX {
            return Err(Refusal::Limit(format!(
                "more than {EDITS_MAX} edits or {EDIT_BYTES_MAX} bytes of edits in one call"
            )));
        }
        self.edits.push(edit);
        Ok(())
    }

    /// Sets a note, within the bounds of one exchange.
    pub fn set_note(&mut self, exchange: &Exchange, name: String, value: String) -> Result<(), Refusal> {
        if name.is_empty() || name.len() > NOTE_NAME_BYTES_MAX || value.len() > NOTE_VALUE_BYTES_MAX {
            return Err(Refusal::Limit(format!(
                "note {}: names have 1 to {NOTE_NAME_BYTES_MAX} bytes, values at most {NOTE_VALUE_BYTES_MAX}",
                shown(&name)
            )));
        }
        if let Some(note) = self.notes.iter_mut().find(|note| note.0 == name) {
            note.1 = value;
            return Ok(());
        }
        let new = self.notes.iter().filter(|new| exchange.notes.iter().all(|old| old.0 != new.0)).count();
        if exchange.notes.iter().all(|old| old.0 != name) && exchange.notes.len() + new >= NOTES_MAX {
            return Err(Refusal::Limit(format!("more than {NOTES_MAX} notes on one exchange")));
        }
        self.notes.push((name, value));
        Ok(())
    }

    /// A note as this call sees it.
    pub fn note<'a>(&'a self, exchange: &'a Exchange, name: &str) -> Option<&'a str> {
        let find = |notes: &'a [(String, String)]| notes.iter().find(|note| note.0 == name).map(|note| note.1.as_str());
        find(&self.notes).or_else(|| find(&exchange.notes))
    }

    /// The lines of one field of the message that this phase edits, as this call sees them.
    pub fn header_lines<'a>(&'a self, exchange: &'a Exchange, name: &HeaderName) -> Vec<&'a HeaderValue> {
        let mut lines: Vec<&HeaderValue> = exchange.edited_headers().get_all(name).iter().collect();
        for edit in &self.edits {
            match edit {
                Edit::SetHeader(edited, value) if edited == name => {
                    lines.clear();
                    lines.push(value);
                }
                Edit::AppendHeader(edited, value) if edited == name => lines.push(value),
                Edit::RemoveHeader(edited) if edited == name => lines.clear(),
                _ => {}
            }
        }
        lines
    }

    /// Whether this call edited headers: where not, a reader may look at the exchange alone.
    pub fn touches_headers(&self) -> bool {
        self.edits
            .iter()
            .any(|edit| matches!(edit, Edit::SetHeader(..) | Edit::AppendHeader(..) | Edit::RemoveHeader(_)))
    }

    /// All fields of the message that this phase edits, as this call sees them.
    pub fn headers(&self, exchange: &Exchange) -> HeaderMap {
        let mut headers = exchange.edited_headers().clone();
        for edit in &self.edits {
            apply_to(&mut headers, edit.clone());
        }
        headers
    }

    /// The target as this call sees it.
    pub fn target<'a>(&'a self, exchange: &'a Exchange) -> &'a PathAndQuery {
        let edited = self.edits.iter().rev().find_map(|edit| match edit {
            Edit::SetTarget(target) => Some(target),
            _ => None,
        });
        edited.unwrap_or(&exchange.request.target)
    }

    /// The status that this call set.
    pub fn status(&self) -> Option<StatusCode> {
        self.edits.iter().rev().find_map(|edit| match edit {
            Edit::SetStatus(status) => Some(*status),
            _ => None,
        })
    }

    /// The body that this call set.
    pub fn body(&self) -> Option<&Bytes> {
        self.edits.iter().rev().find_map(|edit| match edit {
            Edit::SetBody(body) => Some(body),
            _ => None,
        })
    }
}

fn apply_to(headers: &mut HeaderMap, edit: Edit) {
    match edit {
        Edit::SetHeader(name, value) => {
            headers.insert(name, value);
        }
        Edit::AppendHeader(name, value) => {
            headers.append(name, value);
        }
        Edit::RemoveHeader(name) => {
            headers.remove(name);
        }
        Edit::SetTarget(_) | Edit::SetBody(_) | Edit::SetStatus(_) => {}
    }
}

/// What no longer holds once a body was replaced (RFC 9110, section 8; RFC 9530).
fn drop_stale_fields(headers: &mut HeaderMap, more: &[HeaderName]) {
    const STALE: [HeaderName; 3] = [header::CONTENT_LENGTH, header::CONTENT_ENCODING, header::TRANSFER_ENCODING];
    for name in STALE.iter().chain(more) {
        headers.remove(name);
    }
    for name in ["content-md5", "digest", "content-digest", "repr-digest"] {
        headers.remove(name);
    }
}

/// A field name that a filter may touch.
pub fn checked_name(name: &str) -> Result<HeaderName, Refusal> {
    let checked = HeaderName::from_bytes(name.as_bytes()).map_err(|_| {
        Refusal::Invalid(format!("header name {} is not a token (RFC 9110, section 5.6.2)", shown(name)))
    })?;
    if is_owned(&checked) {
        return Err(Refusal::Invalid(format!("header {checked} belongs to the gateway: a filter cannot change it")));
    }
    Ok(checked)
}

/// A field value that may be sent.
pub fn checked_value(name: &HeaderName, value: &str) -> Result<HeaderValue, Refusal> {
    let value = value.trim_matches([' ', '\t']);
    HeaderValue::from_bytes(value.as_bytes()).map_err(|_| {
        Refusal::Invalid(format!("header {name}: value {} has a control character (CR, LF, NUL, …)", shown(value)))
    })
}

/// A target with another path or query.
pub fn checked_target(path: &str, query: Option<&str>) -> Result<PathAndQuery, Refusal> {
    let bad =
        |what: &str, text: &str| Refusal::Invalid(format!("{what} {} is not allowed in a request target", shown(text)));
    let plain = |byte: u8| byte > b' ' && byte < 0x7f && byte != b'#';
    if !path.starts_with('/') || !path.bytes().all(|byte| plain(byte) && byte != b'?') {
        return Err(bad("path", path));
    }
    if let Some(query) = query.filter(|query| !query.bytes().all(plain)) {
        return Err(bad("query", query));
    }
    let text = query.map_or_else(|| path.to_owned(), |query| format!("{path}?{query}"));
    PathAndQuery::try_from(text).map_err(|_| bad("path or query", path))
}

/// A status that a filter may answer with.
pub fn checked_status(status: u16) -> Result<StatusCode, Refusal> {
    match StatusCode::from_u16(status) {
        Ok(code) if (200..600).contains(&status) => Ok(code),
        _ => Err(Refusal::Invalid(format!("status {status} is not between 200 and 599"))),
    }
}

/// An answer as a filter returned it, checked.
pub fn checked_reply(status: u16, fields: Vec<(String, String)>, body: Vec<u8>) -> Result<Reply, Refusal> {
    let status = checked_status(status)?;
    let bytes: usize = fields.iter().map(|(name, value)| name.len() + value.len()).sum();
    if fields.len() > REPLY_FIELDS_MAX || bytes > REPLY_FIELD_BYTES_MAX || body.len() > BODY_BYTES_MAX {
        return Err(Refusal::Limit(format!(
            "an answer has at most {REPLY_FIELDS_MAX} fields, {REPLY_FIELD_BYTES_MAX} bytes of fields and {BODY_BYTES_MAX} bytes of body"
        )));
    }
    if !body.is_empty() && matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
        return Err(Refusal::Invalid(format!("status {status} cannot have a body")));
    }
    let mut headers = HeaderMap::with_capacity(fields.len() + 4);
    for (name, value) in fields {
        let name = checked_name(&name)?;
        let value = checked_value(&name, &value)?;
        headers.append(name, value);
    }
    Ok(Reply { status, headers, body: body.into() })
}

/// The fields that only the gateway writes: the connection's (RFC 9110, section 7.6.1), framing and `host`.
pub fn is_owned(name: &HeaderName) -> bool {
    is_hop_by_hop(name) || *name == header::CONTENT_LENGTH || *name == header::HOST
}

/// Fields that concern one connection only (RFC 9110, section 7.6.1).
pub fn is_hop_by_hop(name: &HeaderName) -> bool {
    matches!(*name, header::CONNECTION | header::TE | header::TRAILER | header::TRANSFER_ENCODING | header::UPGRADE)
        || matches!(name.as_str(), "keep-alive" | "proxy-connection")
}

/// A guest's text in a message: short, quoted, control characters escaped.
pub fn shown(text: &str) -> String {
    let mut end = text.len().min(80);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{:?}{}", &text[..end], if end < text.len() { "…" } else { "" })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exchange() -> Exchange {
        let mut headers = HeaderMap::new();
        headers.append("x-a", HeaderValue::from_static("1"));
        headers.append("x-a", HeaderValue::from_static("2"));
        Exchange {
            id: 1,
            client: Arc::new(Client::new(SocketAddr::from(([127, 0, 0, 1], 1)))),
            route: "r".into(),
            request: Request {
                method: Method::GET,
                tls: false,
                target: PathAndQuery::from_static("/p?q"),
                headers,
                body: None,
                upgrade: None,
            },
            response: None,
            notes: vec![],
        }
    }

    #[test]
    fn a_call_reads_its_own_edits_and_nothing_happens_before_apply() {
        let mut exchange = exchange();
        let mut journal = Journal::default();
        let name = HeaderName::from_static("x-a");
        assert_eq!(journal.header_lines(&exchange, &name), ["1", "2"]);
        assert_eq!(journal.push(Edit::RemoveHeader(name.clone())), Ok(()));
        assert_eq!(journal.push(Edit::AppendHeader(name.clone(), HeaderValue::from_static("3"))), Ok(()));
        assert_eq!(journal.header_lines(&exchange, &name), ["3"]);
        assert_eq!(exchange.request.headers.get_all(&name).iter().count(), 2);
        exchange.apply(journal);
        assert_eq!(exchange.request.headers.get_all(&name).iter().collect::<Vec<_>>(), ["3"]);
    }

    #[test]
    fn what_the_gateway_owns_and_what_http_forbids_is_refused() {
        for name in
            ["connection", "Content-Length", "HOST", "te", "transfer-encoding", "upgrade", "keep-alive", "", "a b", "é"]
        {
            assert!(matches!(checked_name(name), Err(Refusal::Invalid(_))), "{name}");
        }
        let name = HeaderName::from_static("x-a");
        for value in ["a\r\nb: c", "a\0", "a\nb", "\x7f"] {
            assert!(checked_value(&name, value).is_err(), "{value:?}");
        }
        assert_eq!(checked_value(&name, "  a \t"), Ok(HeaderValue::from_static("a")));
        for status in [0, 99, 100, 101, 199, 600, 999] {
            assert!(checked_status(status).is_err(), "{status}");
        }
        for (path, query) in [
            ("", None),
            ("a", None),
            ("/a b", None),
            ("/a?b", None),
            ("/a#", None),
            ("/\r\n", None),
            ("/", Some("a b")),
            ("/é", None),
        ] {
            assert!(checked_target(path, query).is_err(), "{path} {query:?}");
        }
        assert_eq!(checked_target("/a%20b", Some("")).map(|target| target.to_string()), Ok("/a%20b?".into()));
        assert!(checked_reply(204, vec![], vec![1]).is_err());
        assert!(matches!(checked_reply(200, vec![("a".into(), "b".into()); 129], vec![]), Err(Refusal::Limit(_))));
    }

    #[test]
    fn a_new_body_takes_the_fields_that_described_the_old_one() {
        let mut exchange = exchange();
        for name in ["content-length", "content-encoding", "content-digest"] {
            exchange.request.headers.insert(HeaderName::from_static(name), HeaderValue::from_static("1"));
        }
        let mut journal = Journal::default();
        assert_eq!(journal.push(Edit::SetBody(Bytes::from_static(b"x"))), Ok(()));
        exchange.apply(journal);
        assert_eq!(exchange.request.headers.len(), 2);
    }

    #[test]
    fn notes_and_edits_are_bounded() {
        let exchange = exchange();
        let mut journal = Journal::default();
        for n in 0..NOTES_MAX {
            assert_eq!(journal.set_note(&exchange, n.to_string(), String::new()), Ok(()));
        }
        assert!(journal.set_note(&exchange, "more".into(), String::new()).is_err());
        assert_eq!(journal.set_note(&exchange, "0".into(), "again".into()), Ok(()));
        assert_eq!(journal.note(&exchange, "0"), Some("again"));
        let name = HeaderName::from_static("x");
        for _ in 0..EDITS_MAX {
            assert_eq!(journal.push(Edit::RemoveHeader(name.clone())), Ok(()));
        }
        assert!(journal.push(Edit::RemoveHeader(name)).is_err());
    }
}
