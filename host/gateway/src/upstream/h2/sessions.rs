//! One thread's HTTP/2 connections to one endpoint: which of them takes the next stream.
//!
//! One connection is enough until its peer's MAX_CONCURRENT_STREAMS are in use. Then the thread
//! opens another one, up to a bound. Only one connection is being made at a time; the requests that
//! come meanwhile wait for it and share its failure. This module does not know: requests, how a
//! connection is made.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::session::{Session, StreamSlot};
use crate::upstream::connect::TlsConfig;
use witgate_http::error::{Error, Kind};

/// The connections of one thread to one endpoint.
#[derive(Default)]
pub(in crate::upstream) struct Sessions {
    open: Vec<Session>,
    dial: Option<Rc<Dial>>,
    freed: Rc<Notify>,
}

/// What a request does to get a stream.
pub(in crate::upstream) enum Next {
    /// It has one.
    Stream(StreamSlot),
    /// It makes a connection.
    Dial(DialGuard),
    /// It waits for the connection that another request makes.
    AwaitDial(Rc<Dial>),
    /// It waits until a stream ends.
    AwaitStream(Rc<Notify>),
}

/// A connection that is being made.
#[derive(Default)]
pub(in crate::upstream) struct Dial {
    is_over: Cell<bool>,
    ended: Notify,
    failure: RefCell<Option<(Kind, String)>>,
}

/// Held by the request that makes the connection.
pub(in crate::upstream) struct DialGuard(Rc<Dial>);

impl Sessions {
    /// Decides how a request gets a stream. `is_current` says whether a connection was made with
    /// the current TLS configuration; `max` bounds the number of connections.
    pub(in crate::upstream) fn next(&mut self, max: usize, is_current: impl Fn(&TlsConfig) -> bool) -> Next {
        self.open.retain(|session| session.takes_streams() && is_current(&session.tls_config));
        if let Some(slot) = self.open.iter().find_map(Session::begin_stream) {
            return Next::Stream(slot);
        }
        // A suspect connection takes no streams, and must not keep a new one from being made.
        let usable = self.open.iter().filter(|session| !session.is_suspect()).count();
        match self.dial.as_ref().filter(|dial| !dial.is_over.get()) {
            Some(dial) => Next::AwaitDial(dial.clone()),
            None if usable < max && self.open.len() < 2 * max => {
                let dial = Rc::new(Dial::default());
                self.dial = Some(dial.clone());
                Next::Dial(DialGuard(dial))
            }
            None => Next::AwaitStream(self.freed.clone()),
        }
    }

    /// What the connections notify when a stream ends.
    pub(in crate::upstream) fn freed(&self) -> Rc<Notify> {
        self.freed.clone()
    }

    /// Adds the connection that was made.
    pub(in crate::upstream) fn add(&mut self, session: Session) {
        self.open.push(session);
        self.freed.notify_waiters();
    }

    /// Drops connections that were idle for `idle`.
    pub(in crate::upstream) fn sweep(&mut self, idle: Duration) {
        self.open.retain(|session| session.is_kept(idle));
    }

    /// A request that began at `began` had no response in time.
    pub(in crate::upstream) fn timed_out(&self, began: Instant) {
        self.open.iter().for_each(|session| session.timed_out(began));
    }

    pub(in crate::upstream) fn is_empty(&self) -> bool {
        self.open.is_empty() && self.dial.as_ref().is_none_or(|dial| dial.is_over.get())
    }
}

impl Dial {
    /// Waits until the connection was made or failed.
    pub(in crate::upstream) async fn ended(&self) -> Result<(), Error> {
        if !self.is_over.get() {
            self.ended.notified().await;
        }
        match &*self.failure.borrow() {
            Some((kind, why)) => Err(Error::new(*kind, why.clone())),
            None => Ok(()),
        }
    }
}

impl DialGuard {
    /// Gives the failure to the requests that wait.
    pub(in crate::upstream) fn fail(&self, error: &Error) {
        *self.0.failure.borrow_mut() = Some((error.kind, error.detail.clone()));
    }
}

impl Drop for DialGuard {
    fn drop(&mut self) {
        self.0.is_over.set(true);
        self.0.ended.notify_waiters();
    }
}
