//! What one call of a filter asked for: bounded, read through by the call itself, carried out by [`Exchange::apply`].
//!
//! Must not know: what a filter may ask for (`checked.rs`).

use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::uri::PathAndQuery;
use http::{HeaderMap, StatusCode};

use super::Exchange;
use super::checked::Refusal;
use witgate_http::text::quoted;

/// Notes on one exchange.
const NOTES_MAX: usize = 32;
const NOTE_NAME_BYTES_MAX: usize = 64;
const NOTE_VALUE_BYTES_MAX: usize = 4 << 10;
/// Edits by one call.
const EDITS_MAX: usize = 256;
const EDIT_BYTES_MAX: usize = 256 << 10;
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

/// What one call asked for, in order.
#[derive(Default)]
pub struct Journal {
    pub(super) edits: Vec<Edit>,
    bytes: usize,
    pub(super) notes: Vec<(String, String)>,
}

impl Journal {
    /// Notes an edit, within the limits of one call.
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

    /// Sets a note, within the limits of one exchange.
    pub fn set_note(&mut self, exchange: &Exchange, name: String, value: String) -> Result<(), Refusal> {
        if name.is_empty() || name.len() > NOTE_NAME_BYTES_MAX || value.len() > NOTE_VALUE_BYTES_MAX {
            return Err(Refusal::Limit(format!(
                "note {}: names have 1 to {NOTE_NAME_BYTES_MAX} bytes, values at most {NOTE_VALUE_BYTES_MAX}",
                quoted(&name)
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

pub(super) fn apply_to(headers: &mut HeaderMap, edit: Edit) {
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
pub(super) fn drop_stale_fields(headers: &mut HeaderMap, more: &[HeaderName]) {
    const STALE: [HeaderName; 3] = [header::CONTENT_LENGTH, header::CONTENT_ENCODING, header::TRANSFER_ENCODING];
    for name in STALE.iter().chain(more) {
        headers.remove(name);
    }
    for name in ["content-md5", "digest", "content-digest", "repr-digest"] {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Client, Request};
    use super::*;
    use http::Method;
    use std::net::SocketAddr;
    use std::sync::Arc;

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
