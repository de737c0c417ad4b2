//! The connections of one serving thread that have no request, and their eviction.
//!
//! When the gateway has as many connections as it may, the ones that wait longest for a request
//! make room for new ones. A connection counts as idle from its start until its first request is
//! complete, and between requests. Gain: connections without requests lock no client out. Price: a
//! client may have to connect again, as after any close of an idle connection.
//!
//! When a drain begins, the thread wakes the tasks of its connections, so that an idle connection
//! needs no subscription of its own. This module does not know: protocols.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::task::Waker;
use std::time::{Duration, Instant};

use tokio::task::AbortHandle;

/// A connection is evicted only after it was idle for so long: a request of a new connection may be
/// on its way.
const IDLE_MIN: Duration = Duration::from_secs(1);
/// One search evicts this part of the idle connections, because it looks at all of them.
const EVICTED_PART: usize = 32;

/// The open connections of a serving thread. Clones share them.
#[derive(Clone, Default)]
pub(super) struct ThreadConnections(Rc<State>);

#[derive(Default)]
struct State {
    open: RefCell<HashMap<u64, Entry>>,
    next_id: Cell<u64>,
}

struct Entry {
    idle_since: Rc<Cell<Option<Instant>>>,
    task: Option<AbortHandle>,
    waker: Option<Waker>,
}

/// One open connection. Dropping it removes it.
pub(super) struct ThreadConnection {
    connections: ThreadConnections,
    id: u64,
    idle_since: Rc<Cell<Option<Instant>>>,
    has_waker: Cell<bool>,
}

impl ThreadConnections {
    /// Adds a connection, which is idle.
    pub(super) fn open(&self) -> ThreadConnection {
        let State { open, next_id } = &*self.0;
        let id = next_id.replace(next_id.get() + 1);
        let idle_since = Rc::new(Cell::new(Some(Instant::now())));
        open.borrow_mut().insert(id, Entry { idle_since: idle_since.clone(), task: None, waker: None });
        ThreadConnection { connections: self.clone(), id, idle_since, has_waker: Cell::new(false) }
    }

    /// Sets the task that an eviction of the connection ends.
    pub(super) fn set_task(&self, id: u64, task: AbortHandle) {
        if let Some(entry) = self.0.open.borrow_mut().get_mut(&id) {
            entry.task = Some(task);
        }
    }

    /// Wakes the tasks that called [`ThreadConnection::wake_on_drain`].
    pub(super) fn wake_all(&self) {
        self.0.open.borrow().values().filter_map(|entry| entry.waker.as_ref()).for_each(Waker::wake_by_ref);
    }

    /// The number of open connections.
    pub(super) fn count(&self) -> usize {
        self.0.open.borrow().len()
    }

    /// Closes the connections that have been idle longest: at least one, if there is any. Returns
    /// their number.
    pub(super) fn evict(&self) -> usize {
        let open = self.0.open.borrow();
        let latest = Instant::now().checked_sub(IDLE_MIN);
        let idle = open.iter().filter_map(|(id, entry)| Some((entry.idle_since.get()?, *id)));
        let mut idle: Vec<_> = idle.filter(|(since, _)| latest.is_some_and(|latest| *since <= latest)).collect();
        let evicted = idle.len().div_ceil(EVICTED_PART);
        if evicted == 0 {
            return 0;
        }
        idle.select_nth_unstable(evicted - 1);
        let tasks = idle[..evicted].iter().filter_map(|(_, id)| open.get(id)?.task.clone());
        let tasks: Vec<_> = tasks.collect();
        // A task that ends removes its connection.
        drop(open);
        tasks.iter().for_each(AbortHandle::abort);
        evicted
    }
}

impl ThreadConnection {
    /// Identifies the connection in its thread.
    pub(super) fn id(&self) -> u64 {
        self.id
    }

    /// The connection has waited for a request since then.
    pub(super) fn set_idle(&self, since: Instant) {
        self.idle_since.set(self.idle_since.get().or(Some(since)));
    }

    /// Has [`ThreadConnections::wake_all`] wake the task of this connection. The task stays the
    /// same while the connection lives, so only the first call has an effect.
    pub(super) fn wake_on_drain(&self, waker: &Waker) {
        if !self.has_waker.replace(true)
            && let Some(entry) = self.connections.0.open.borrow_mut().get_mut(&self.id)
        {
            entry.waker = Some(waker.clone());
        }
    }

    /// The connection has a request.
    pub(super) fn set_busy(&self) {
        self.idle_since.set(None);
    }
}

impl Drop for ThreadConnection {
    fn drop(&mut self) {
        self.connections.0.open.borrow_mut().remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_idle_connections_are_evicted() -> std::io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().build()?;
        runtime.block_on(async {
            let connections = ThreadConnections::default();
            let long_ago = Instant::now().checked_sub(2 * IDLE_MIN);
            let add = |since: Option<Instant>| {
                let connection = connections.open();
                connection.set_busy();
                if let Some(since) = since {
                    connection.set_idle(since);
                }
                let id = connection.id();
                let task = tokio::spawn(std::future::pending::<()>());
                connections.set_task(id, task.abort_handle());
                (connection, task)
            };
            let (busy, fresh) = (add(None), add(Some(Instant::now())));
            assert_eq!(connections.evict(), 0, "busy and fresh connections stay");
            let newer = add(long_ago.map(|ago| ago + IDLE_MIN / 2));
            let older = add(long_ago);
            assert_eq!(connections.evict(), 1);
            assert!(older.1.await.is_err_and(|error| error.is_cancelled()));
            tokio::task::yield_now().await;
            assert!(!busy.1.is_finished() && !fresh.1.is_finished() && !newer.1.is_finished());
            drop((older.0, newer.0));
            assert_eq!(connections.count(), 2);
        });
        Ok(())
    }
}
