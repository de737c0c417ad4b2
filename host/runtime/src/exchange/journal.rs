//! The edits of one call: recorded within bounds, visible to the call's own reads, and applied by
//! [`Exchange::apply`].
//!
//! This module does not know: what a filter may ask for (`checked.rs`).

use std::sync::Arc;

use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::uri::PathAndQuery;
use http::{HeaderMap, StatusCode};
use witgate_http::text::quoted;

use super::checked::{BODY_BYTES_MAX, Refusal};
use super::message::{Exchange, ExchangeNote};

/// Notes of one filter on one exchange.
const NOTES_MAX: usize = 32;
const NOTE_NAME_BYTES_MAX: usize = 64;
const NOTE_VALUE_BYTES_MAX: usize = 4 << 10;
/// Edits of one call.
const EDITS_MAX: usize = 256;
const EDIT_BYTES_MAX: usize = 256 << 10;
/// What one call makes the gateway hold: its edits with one body, and its notes.
pub(crate) const HELD_BYTES_MAX: usize = 9 << 20;
const _: () = assert!(
    BODY_BYTES_MAX + EDIT_BYTES_MAX + NOTES_MAX * (NOTE_NAME_BYTES_MAX + NOTE_VALUE_BYTES_MAX) <= HELD_BYTES_MAX
);

/// One edit of a message.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Edit {
    /// Replaces all values of the header.
    SetHeader(HeaderName, HeaderValue),
    /// Adds a line.
    AppendHeader(HeaderName, HeaderValue),
    /// Removes all lines of the header.
    RemoveHeader(HeaderName),
    /// Replaces the path and query.
    SetTarget(PathAndQuery),
    /// Replaces the body.
    SetBody(Bytes),
    /// Replaces the status.
    SetStatus(StatusCode),
}

/// The edits and notes of one call, in order.
#[derive(Default)]
pub struct Journal {
    edits: Vec<Edit>,
    bytes: usize,
    notes: Vec<ExchangeNote>,
}

impl Journal {
    /// The number of edits.
    pub(crate) fn edits(&self) -> u32 {
        u32::try_from(self.edits.len()).unwrap_or(u32::MAX)
    }

    /// Records an edit, within the limits of one call.
    pub(crate) fn push(&mut self, edit: Edit) -> Result<(), Refusal> {
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
        if let Edit::SetBody(_) = edit {
            // The new body replaces those before it. Their edits stay, because they also removed
            // fields.
            for edit in &mut self.edits {
                if let Edit::SetBody(body) = edit {
                    *body = Bytes::new();
                }
            }
        }
        self.edits.push(edit);
        Ok(())
    }

    /// Sets a note, within the limits of one filter on one exchange. A filter that replaces another
    /// filter's note leaves it to that filter.
    pub(crate) fn set_note(
        &mut self,
        exchange: &Exchange,
        owner: &Arc<str>,
        name: String,
        value: String,
    ) -> Result<(), Refusal> {
        if name.is_empty() || name.len() > NOTE_NAME_BYTES_MAX || value.len() > NOTE_VALUE_BYTES_MAX {
            return Err(Refusal::Limit(format!(
                "note {}: names have 1 to {NOTE_NAME_BYTES_MAX} bytes, values at most {NOTE_VALUE_BYTES_MAX}",
                quoted(&name)
            )));
        }
        if let Some(note) = self.notes.iter_mut().find(|note| note.name == name) {
            note.value = value;
            return Ok(());
        }
        let is_known = |name: &str| exchange.notes.iter().any(|old| old.name == name);
        let new = self.notes.iter().filter(|new| !is_known(&new.name)).count();
        let own = exchange.notes.iter().filter(|old| old.owner == *owner).count();
        if !is_known(&name) && own + new >= NOTES_MAX {
            return Err(Refusal::Limit(format!("more than {NOTES_MAX} notes of one filter on one exchange")));
        }
        self.notes.push(ExchangeNote { name, value, owner: owner.clone() });
        Ok(())
    }

    /// A note, with the changes of this call.
    pub(crate) fn note<'a>(&'a self, exchange: &'a Exchange, name: &str) -> Option<&'a str> {
        let find =
            |notes: &'a [ExchangeNote]| notes.iter().find(|note| note.name == name).map(|note| note.value.as_str());
        find(&self.notes).or_else(|| find(&exchange.notes))
    }

    /// The lines of one header of the message that the phase edits, with the edits of this call.
    pub(crate) fn header_lines<'a>(&'a self, exchange: &'a Exchange, name: &HeaderName) -> Vec<&'a HeaderValue> {
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

    /// Whether this call edited headers. If not, the exchange alone has all of them.
    pub(crate) fn touches_headers(&self) -> bool {
        self.edits
            .iter()
            .any(|edit| matches!(edit, Edit::SetHeader(..) | Edit::AppendHeader(..) | Edit::RemoveHeader(_)))
    }

    /// All headers of the message that the phase edits, with the edits of this call.
    pub(crate) fn headers(&self, exchange: &Exchange) -> HeaderMap {
        let mut headers = exchange.edited_headers().clone();
        for edit in &self.edits {
            edit.clone().apply_to(&mut headers);
        }
        headers
    }

    /// The path and query, with the edits of this call.
    pub(crate) fn target<'a>(&'a self, exchange: &'a Exchange) -> &'a PathAndQuery {
        let edited = self.edits.iter().rev().find_map(|edit| match edit {
            Edit::SetTarget(target) => Some(target),
            _ => None,
        });
        edited.unwrap_or(&exchange.request.target)
    }

    /// The status that this call set.
    pub(crate) fn status(&self) -> Option<StatusCode> {
        self.edits.iter().rev().find_map(|edit| match edit {
            Edit::SetStatus(status) => Some(*status),
            _ => None,
        })
    }

    /// The body that this call set.
    pub(crate) fn body(&self) -> Option<&Bytes> {
        self.edits.iter().rev().find_map(|edit| match edit {
            Edit::SetBody(body) => Some(body),
            _ => None,
        })
    }
}

impl Exchange {
    /// Applies the edits of a call and keeps its notes.
    pub(crate) fn apply(&mut self, journal: Journal) {
        self.keep_notes(journal.notes);
        for edit in journal.edits {
            match (&mut self.response, edit) {
                (_, Edit::SetTarget(target)) => self.request.target = target,
                (Some(response), Edit::SetStatus(status)) => response.status = status,
                (None, Edit::SetStatus(_)) => {}
                (Some(response), Edit::SetBody(body)) => {
                    response.body = Some(body);
                    remove_stale_fields(&mut response.headers, &[header::ETAG]);
                }
                (None, Edit::SetBody(body)) => {
                    self.request.body = Some(body);
                    remove_stale_fields(&mut self.request.headers, &[]);
                }
                (response, edit) => {
                    if let (Some(edited), Edit::SetHeader(name, _) | Edit::RemoveHeader(name)) =
                        (&mut self.edited_fields, &edit)
                    {
                        edited.push(name.clone());
                    }
                    edit.apply_to(
                        response.as_mut().map_or(&mut self.request.headers, |response| &mut response.headers),
                    );
                }
            }
        }
    }

    /// Keeps the notes of a call and drops its edits, because the call made a response itself.
    pub(crate) fn apply_notes(&mut self, journal: Journal) {
        self.keep_notes(journal.notes);
    }

    fn keep_notes(&mut self, notes: Vec<ExchangeNote>) {
        for new in notes {
            match self.notes.iter_mut().find(|note| note.name == new.name) {
                Some(note) => note.value = new.value,
                None => self.notes.push(new),
            }
        }
    }
}

impl Edit {
    /// Applies an edit of headers. Other edits change nothing here.
    fn apply_to(self, headers: &mut HeaderMap) {
        match self {
            Self::SetHeader(name, value) => {
                headers.insert(name, value);
            }
            Self::AppendHeader(name, value) => {
                headers.append(name, value);
            }
            Self::RemoveHeader(name) => {
                headers.remove(name);
            }
            Self::SetTarget(_) | Self::SetBody(_) | Self::SetStatus(_) => {}
        }
    }
}

/// Removes fields that describe a body that was replaced (RFC 9110, section 8; RFC 9530).
fn remove_stale_fields(headers: &mut HeaderMap, more: &[HeaderName]) {
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
    use std::net::SocketAddr;
    use std::sync::Arc;

    use http::Method;

    use super::super::client::Client;
    use super::super::message::Request;
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
            budget: None,
            edited_fields: None,
            passed: super::super::passed::Passed::default(),
            captured_log: None,
            sender: None,
        }
    }

    #[test]
    fn a_call_reads_its_own_edits_and_the_exchange_changes_only_in_apply() {
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
    fn a_new_body_removes_the_fields_that_describe_the_old_one() {
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
    fn a_later_body_replaces_the_earlier_one() {
        let mut journal = Journal::default();
        for body in [&b"first"[..], b"second"] {
            assert_eq!(journal.push(Edit::SetBody(Bytes::copy_from_slice(body))), Ok(()));
        }
        assert_eq!(journal.edits, [Edit::SetBody(Bytes::new()), Edit::SetBody(Bytes::from_static(b"second"))]);
        assert_eq!(journal.body().map(|body| &body[..]), Some(&b"second"[..]));
    }

    #[test]
    fn notes_and_edits_are_bounded() {
        let mut exchange = exchange();
        let mut journal = Journal::default();
        let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        for n in 0..NOTES_MAX {
            assert_eq!(journal.set_note(&exchange, &a, n.to_string(), String::new()), Ok(()));
        }
        assert!(journal.set_note(&exchange, &a, "more".into(), String::new()).is_err());
        assert_eq!(journal.set_note(&exchange, &a, "0".into(), "again".into()), Ok(()));
        exchange.apply(std::mem::take(&mut journal));
        assert!(journal.set_note(&exchange, &a, "more".into(), String::new()).is_err(), "in a later call too");
        assert_eq!(journal.set_note(&exchange, &a, "0".into(), "again".into()), Ok(()));
        for n in 0..NOTES_MAX {
            assert_eq!(journal.set_note(&exchange, &b, format!("b{n}"), String::new()), Ok(()), "B has its own quota");
        }
        assert_eq!(journal.set_note(&exchange, &b, "1".into(), "of a".into()), Ok(()));
        assert_eq!(journal.note(&exchange, "0"), Some("again"));
        let name = HeaderName::from_static("x");
        for _ in 0..EDITS_MAX {
            assert_eq!(journal.push(Edit::RemoveHeader(name.clone())), Ok(()));
        }
        assert!(journal.push(Edit::RemoveHeader(name)).is_err());
    }
}
