//! The connection to a store, with a time limit for each operation and a circuit breaker.
//!
//! One connection serves all threads, or one to each master of a cluster: the commands of all
//! threads travel together. A task connects
//! and proves with a PING that the server answers in time; only then the connection is in use. When
//! operations fail or time out in a row, the breaker opens: the connection is dropped, and until
//! the task has a new one each operation fails at once, without waiting. So a server that is down
//! costs a few operations their time limit, not all of them.
//! This module does not know: what operations do, what replaces a failed one.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use redis::aio::MultiplexedConnection;
use redis::{ErrorKind, RedisError, RedisResult, ServerErrorKind};
use tokio::time::timeout;

use super::connect::connect;
use super::connection::Connected;
use crate::net::tls::ClientTls;
use crate::telemetry::StoreSeries;
use witgate_config::SharedStore;
use witgate_http::limiter::Limiter;
use witgate_http::text::bounded;

/// Operations in a row that time out before the breaker opens.
const TIMEOUTS_MAX: u32 = 5;
/// Operations that may wait at the same time. Each holds its arguments.
const WAITING_MAX: usize = 1024;
/// Between two attempts to connect.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// A connection that held for this long resets the pause.
const STABLE: Duration = Duration::from_secs(5);

/// A store on a server.
pub(in crate::state) struct RedisClient {
    pub(in crate::state) name: Arc<str>,
    pub(in crate::state) settings: SharedStore,
    tls: Option<Arc<ClientTls>>,
    /// `None` while the breaker is open.
    connected: ArcSwapOption<Connected>,
    timeouts: AtomicU32,
    waiting: Limiter,
    series: StoreSeries,
}

impl RedisClient {
    /// A client without a connection. Call [`Self::keep_connected`].
    pub(in crate::state) fn new(
        name: &str,
        settings: SharedStore,
        tls: Option<Arc<ClientTls>>,
        series: StoreSeries,
    ) -> Arc<Self> {
        series.up.set(0);
        Arc::new(Self {
            name: name.into(),
            settings,
            tls,
            connected: ArcSwapOption::empty(),
            timeouts: AtomicU32::new(0),
            waiting: Limiter::default(),
            series,
        })
    }

    /// Whether this client can serve these settings.
    pub(in crate::state) fn serves(&self, settings: &SharedStore, tls: Option<&Arc<ClientTls>>) -> bool {
        let same_tls = match (&self.tls, tls) {
            (Some(own), Some(other)) => Arc::ptr_eq(own, other),
            (own, other) => own.is_none() && other.is_none(),
        };
        same_tls && self.settings == *settings
    }

    /// Runs one operation within the store's time limit, on the server that has `key`. The error is
    /// a text for people.
    pub(super) async fn run<T, F>(
        &self,
        operation: &'static str,
        key: &str,
        ask: impl FnOnce(MultiplexedConnection) -> F,
    ) -> Result<T, String>
    where
        F: Future<Output = RedisResult<T>>,
    {
        let Some(connected) = self.connected.load_full() else {
            self.series.count(operation, "refused", None);
            return Err(format!("the store {} is out of service", self.name));
        };
        let Ok(_permit) = self.waiting.try_acquire(WAITING_MAX) else {
            self.series.count(operation, "refused", None);
            return Err(format!("{WAITING_MAX} operations wait for the store {}", self.name));
        };
        let began = Instant::now();
        let outcome = timeout(self.settings.timeout, ask(connected.connection(key))).await;
        let (result, answer) = match outcome {
            Ok(Ok(answer)) => {
                self.timeouts.store(0, Relaxed);
                ("ok", Ok(answer))
            }
            Ok(Err(error)) => {
                if is_fatal(&error) {
                    self.drop_connection(&connected, &error);
                }
                ("error", Err(bounded(format_args!("the store {}: {error}", self.name))))
            }
            Err(_) => {
                let why = format!("no reply within {:?}", self.settings.timeout);
                if self.timeouts.fetch_add(1, Relaxed) + 1 >= TIMEOUTS_MAX {
                    self.drop_connection(&connected, &why);
                }
                ("timeout", Err(format!("the store {}: {why}", self.name)))
            }
        };
        self.series.count(operation, result, Some(began.elapsed().as_secs_f64()));
        answer
    }

    /// Opens the breaker, unless that has happened since the operation began.
    fn drop_connection(&self, connected: &Arc<Connected>, why: &dyn std::fmt::Display) {
        let current = self.connected.compare_and_swap(&Some(connected.clone()), None);
        if current.as_ref().is_some_and(|current| Arc::ptr_eq(current, connected)) {
            self.series.up.set(0);
            connected.abort();
            let why = bounded(format_args!("{why}"));
            tracing::warn!(store = &*self.name, why, "the store is out of service until it answers again");
            connected.lost.notify_one();
        }
    }

    /// Connects, and connects again whenever the connection is lost, until the client is dropped.
    pub(in crate::state) async fn keep_connected(client: Weak<Self>) {
        let mut pause = PAUSE_MIN;
        let mut is_reported = false;
        loop {
            let Some(this) = client.upgrade() else { return };
            match this.probe().await {
                Ok(connected) => {
                    let lost = connected.lost.clone();
                    this.timeouts.store(0, Relaxed);
                    this.connected.store(Some(Arc::new(connected)));
                    this.series.up.set(1);
                    tracing::info!(store = &*this.name, "the store is in service");
                    let began = Instant::now();
                    // Nothing here keeps the client alive: dropping it ends the connection.
                    drop(this);
                    lost.notified().await;
                    note_closed(&client);
                    is_reported = true;
                    pause = if began.elapsed() >= STABLE { PAUSE_MIN } else { (pause * 2).min(PAUSE_MAX) };
                }
                Err(why) => {
                    if !std::mem::replace(&mut is_reported, true) {
                        tracing::warn!(store = &*this.name, why, "the store cannot be reached");
                    } else {
                        tracing::debug!(store = &*this.name, why, "the store cannot be reached");
                    }
                    pause = (pause * 2).min(PAUSE_MAX);
                }
            }
            // Gateways that lost the same server do not return at the same moment.
            tokio::time::sleep(pause.mul_f64(0.5 + 0.5 * fastrand::f64())).await;
        }
    }

    /// Connections whose servers answer within the time limit of an operation.
    async fn probe(&self) -> Result<Connected, String> {
        let connected = connect(&self.settings.redis, self.tls.as_ref()).await?;
        let ping = redis::cmd("PING");
        for mut connection in connected.connections() {
            match timeout(self.settings.timeout, ping.query_async::<String>(&mut connection)).await {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => return Err(bounded(format_args!("{error}"))),
                Err(_) => return Err(format!("no reply to a PING within {:?}", self.settings.timeout)),
            }
        }
        Ok(connected)
    }
}

/// Opens the breaker if the server closed the connection and no operation has noticed it.
fn note_closed(client: &Weak<RedisClient>) {
    let Some(client) = client.upgrade() else { return };
    if let Some(connected) = client.connected.load_full() {
        client.drop_connection(&connected, &"the server closed the connection");
    }
}

/// Whether the connection is of no more use: it failed, the server cannot serve writes, or its part
/// of a cluster has moved.
fn is_fatal(error: &RedisError) -> bool {
    use ServerErrorKind::{BusyLoading, ClusterDown, MasterDown, Moved, ReadOnly};
    error.is_io_error()
        || error.is_unrecoverable_error()
        || matches!(
            error.kind(),
            ErrorKind::Parse | ErrorKind::Server(BusyLoading | ClusterDown | MasterDown | Moved | ReadOnly)
        )
}
