//! Counts the bytes of the two bodies of an exchange, and notes how they ended.
//!
//! This module does not know: what a body consists of.

use std::cell::Cell;

use crate::error::Kind;

/// Bytes of the bodies of one exchange, without the framing.
#[derive(Debug, Default)]
pub struct Traffic {
    received: Cell<u64>,
    sent: Cell<u64>,
    has_sent_all: Cell<bool>,
    broken: Cell<Option<(Direction, Kind)>>,
}

/// Which of the two bodies of an exchange a body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// The request's body, from the client.
    Received,
    /// The response's body, to the client.
    Sent,
}

impl Traffic {
    /// Bytes of the request's body.
    pub fn received(&self) -> u64 {
        self.received.get()
    }

    /// Bytes of the response's body.
    pub fn sent(&self) -> u64 {
        self.sent.get()
    }

    /// Whether the response's body was read to its end. A response to HEAD keeps its body unread.
    pub fn has_sent_all(&self) -> bool {
        self.has_sent_all.get()
    }

    /// The first body that ended with an error.
    pub fn broken(&self) -> Option<(Direction, Kind)> {
        self.broken.get()
    }

    pub(super) fn note_end(&self, direction: Direction) {
        if direction == Direction::Sent {
            self.has_sent_all.set(true);
        }
    }

    pub(super) fn note_broken(&self, direction: Direction, kind: Kind) {
        self.broken.set(self.broken.get().or(Some((direction, kind))));
    }

    pub(super) fn add(&self, direction: Direction, bytes: usize) {
        let count = match direction {
            Direction::Received => &self.received,
            Direction::Sent => &self.sent,
        };
        count.set(count.get() + bytes as u64);
    }
}
