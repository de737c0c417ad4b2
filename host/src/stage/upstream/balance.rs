//! Which endpoint takes the next request.
//!
//! Must not know: connections, clocks, configuration.

use std::cell::RefCell;
use std::collections::HashMap;

/// Whose turn it is, for each upstream of this thread.
#[derive(Default)]
pub(super) struct Turns(RefCell<HashMap<String, usize>>);

impl Turns {
    /// The place in a list of `count` endpoints, at least one.
    pub(super) fn next(&self, upstream: &str, count: usize) -> usize {
        let mut turns = self.0.borrow_mut();
        match turns.get_mut(upstream) {
            Some(turn) => {
                *turn = turn.wrapping_add(1);
                *turn % count
            }
            None => {
                turns.insert(upstream.to_owned(), 0);
                0
            }
        }
    }
}
