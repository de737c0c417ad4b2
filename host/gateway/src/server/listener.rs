//! The serving threads: each accepts connections on its own sockets (SO_REUSEPORT) and serves them
//! on its own single-threaded runtime.
//!
//! A connection stays on one thread, so its code needs no locks. If `accept` fails, for example
//! without free file descriptors, the thread logs the error and tries again later: it leaves a
//! listener only when the gateway drains. This module does not know: protocols.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, LocalOptions, LocalRuntime};

use super::connection::{ListenerOptions, serve};
use super::idle_connections::ThreadConnections;
use super::worker::Worker;
use crate::net::Stream;
use crate::net::listening::{AsyncListener, ListeningSocket};
use crate::pipeline::https::ListenerPolicy;
use crate::pipeline::snapshot::Shared;
use crate::process::{files, memory};
use crate::telemetry::WARNINGS;
use crate::upstream::UpstreamClient;
use crate::upstream::outbound::{end_calls, serve_calls};
use witgate_config::HalfClose;
use witgate_runtime::instance_cache;

/// The pause after the first failed `accept`, and while the connection limit is reached.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// The longest pause, after many failures in a row.
const ACCEPT_PAUSE_MAX: Duration = Duration::from_secs(1);
/// How often a draining thread checks whether its last connection has ended.
const DRAIN_POLL_INTERVAL: Duration = Duration::from_millis(5);
/// How often idle upstream connections and freed memory are given back.
const SWEEP_INTERVAL: Duration = Duration::from_secs(5);
/// How often idle instances are checked.
const INSTANCE_SWEEP_INTERVAL: Duration = Duration::from_secs(1);
/// How many tasks the runtime polls before it asks the I/O driver again: as many as it takes events
/// at once, so that responses to requests that were read together are also written together. The
/// price is a longer time between two looks at the sockets. It stays bounded, because filters that
/// use up their time slice and connections that use up their budget yield to the driver.
const EVENT_INTERVAL: u32 = 512;

/// Starts a serving thread with its own sockets. Each comes with the index of its listener in the
/// configuration. The thread ends when the gateway drains and the last connection has ended, or
/// when the drain times out.
pub fn spawn(
    index: usize,
    shared: Arc<Shared>,
    listeners: Vec<(usize, ListeningSocket)>,
) -> std::io::Result<JoinHandle<()>> {
    drop(runtime()?);
    std::thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
        // A local runtime cannot move between threads. The one above only shows that it can be
        // built, while the caller can still get the error.
        match runtime() {
            Ok(runtime) => runtime.block_on(serve_until_drained(shared, listeners)),
            Err(error) => tracing::error!(%error, "a serving thread cannot start"),
        }
    })
}

fn runtime() -> std::io::Result<LocalRuntime> {
    Builder::new_current_thread()
        .enable_all()
        .event_interval(EVENT_INTERVAL)
        .on_thread_park(instance_cache::on_thread_park)
        .build_local(LocalOptions::default())
}

async fn serve_until_drained(shared: Arc<Shared>, listeners: Vec<(usize, ListeningSocket)>) {
    let upstream_client = Rc::new(UpstreamClient::new(shared.metrics.clone()));
    let of_calls = shared.clone();
    serve_calls(&upstream_client, move |name| of_calls.snapshot.load().upstreams.get(name).cloned());
    let telemetry = Rc::new(shared.telemetry.clone());
    let (listener, policy) = ("-".into(), Rc::default());
    let worker =
        Worker { upstream_client, telemetry, shared: shared.clone(), listener, policy, client_in_flight: None };
    let open_connections = ThreadConnections::default();
    // Each accept loop holds a reference until it ends.
    let accepting = Rc::new(());
    for (index, listener) in listeners {
        start_accepting(&worker, index, listener, (&open_connections, &accepting));
    }
    let sweepers = [
        tokio::task::spawn_local(sweep(worker.clone())),
        tokio::task::spawn_local(sweep_instances(shared.clone())),
        tokio::task::spawn_local(evict_for_others(shared.clone(), open_connections.clone())),
    ];
    worker.drained().await;
    open_connections.wake_all();
    let deadline = Instant::now() + shared.snapshot.load().config.timeouts.drain;
    let is_serving = || open_connections.count() > 0 || Rc::strong_count(&accepting) > 1;
    while is_serving() && Instant::now() < deadline {
        tokio::time::sleep(DRAIN_POLL_INTERVAL).await;
    }
    let remaining = open_connections.count();
    if remaining > 0 {
        tracing::warn!(connections = remaining, "timeouts.drain is over: closing the remaining connections");
    }
    sweepers.iter().for_each(|sweeper| sweeper.abort());
    instance_cache::drop_deferred();
    instance_cache::sweep(|_| false);
    end_calls();
}

/// Starts the accept loop for the socket of the configuration's listener `index`.
fn start_accepting(
    worker: &Worker,
    index: usize,
    listener: ListeningSocket,
    (open, accepting): (&ThreadConnections, &Rc<()>),
) {
    let config = worker.shared.snapshot.load().config.clone();
    let settings = config.listeners.get(index);
    let options = ListenerOptions {
        tls: worker.shared.listener_tls.get(index).cloned().flatten(),
        proxy_protocol: settings.is_some_and(|listener| listener.proxy_protocol),
        half_close: settings.map_or(HalfClose::Cancel, |listener| listener.half_close),
    };
    let name: Rc<str> = settings.map_or("-", |listener| &*listener.name).into();
    match listener.into_async() {
        Ok(listener) => {
            let policy = Rc::new(settings.map(ListenerPolicy::new).unwrap_or_default());
            let worker = Worker { listener: name, policy, ..worker.clone() };
            let (open, accepting) = (open.clone(), accepting.clone());
            tokio::task::spawn_local(async move {
                let _until_ended = accepting;
                accept(worker, listener, options, open).await;
            });
        }
        Err(error) => tracing::error!(%error, listener = &*name, "a listener cannot be used: it accepts no clients"),
    }
}

/// The accept loop of one socket.
async fn accept(worker: Worker, listener: AsyncListener, options: ListenerOptions, open: ThreadConnections) {
    let mut draining = worker.shared.draining.subscribe();
    let mut failures = 0;
    loop {
        // A drain first accepts the connections in the kernel's queue: for their clients they are
        // already established.
        let accepted = tokio::select! {
            biased;
            accepted = listener.accept() => accepted,
            _ = draining.wait_for(|draining| *draining) => {
                // Lets the runtime look at the socket once more.
                tokio::task::yield_now().await;
                match poll_fn(|context| Poll::Ready(listener.poll_accept(context))).await {
                    Poll::Ready(accepted) => accepted,
                    Poll::Pending => return,
                }
            }
        };
        match accepted {
            Ok((stream, address)) => {
                failures = 0;
                make_room(&worker.shared, &open).await;
                start_serving(&worker, stream, address, &options, &open);
            }
            Err(error) => {
                failures += 1;
                warn_accept(&worker, &error, failures);
                // Without a free descriptor, an idle connection has to give up its own.
                worker.shared.metrics.evicted_connections.inc_by(open.evict() as u64);
                tokio::time::sleep((ACCEPT_PAUSE * failures).min(ACCEPT_PAUSE_MAX)).await;
            }
        }
    }
}

/// Waits until the gateway may have one more connection. Connections that wait longest for a
/// request are closed. If there are none, the accepted connection waits, and others wait in the
/// kernel's queue.
async fn make_room(shared: &Shared, open: &ThreadConnections) {
    while shared.connections.in_use() >= connections_max(shared) {
        let evicted = open.evict();
        if evicted == 0 {
            // Another thread may have some.
            shared.needs_room.send_replace(());
            tokio::time::sleep(ACCEPT_PAUSE).await;
        } else {
            shared.metrics.evicted_connections.inc_by(evicted as u64);
            // The tasks of the evicted connections end.
            tokio::task::yield_now().await;
        }
    }
}

/// `limits.connections`, or fewer if the limit of open files does not allow them.
fn connections_max(shared: &Shared) -> usize {
    files::connections_max(shared.files_max, &shared.snapshot.load().config)
}

fn start_serving(
    worker: &Worker,
    stream: Stream,
    address: SocketAddr,
    options: &ListenerOptions,
    open: &ThreadConnections,
) {
    let permit = worker.shared.connections.acquire();
    let connection = Rc::new(open.open());
    let id = connection.id();
    // A slow handshake holds up this task and not the accept loop. A panic ends only this
    // connection.
    let serving = serve(worker.clone(), stream, address, options.clone(), connection, permit);
    let task = tokio::task::spawn_local(serving);
    open.set_task(id, task.abort_handle());
}

/// Errors of `accept` may repeat as fast as clients connect.
fn warn_accept(worker: &Worker, error: &std::io::Error, failures: u32) {
    let listener = &*worker.listener;
    if let Some(suppressed) = WARNINGS.allow(&format!("accept {listener}")) {
        let suppressed = (suppressed > 0).then_some(suppressed);
        tracing::warn!(
            %error, listener, failures, suppressed,
            "accept failed: trying again; with too many open files, raise LimitNOFILE or ulimit -n"
        );
    }
}

/// Evicts idle connections if another thread has none and needs room.
async fn evict_for_others(shared: Arc<Shared>, open: ThreadConnections) {
    let mut needs_room = shared.needs_room.subscribe();
    // An error means that the gateway has ended.
    while needs_room.changed().await.is_ok() {
        if shared.connections.in_use() >= connections_max(&shared) {
            shared.metrics.evicted_connections.inc_by(open.evict() as u64);
        }
    }
}

/// Closes idle upstream connections, and gives freed memory back to the system while the gateway
/// is idle.
async fn sweep(worker: Worker) {
    let mut idle_state = None;
    loop {
        tokio::time::sleep(SWEEP_INTERVAL).await;
        let snapshot = worker.shared.snapshot.load_full();
        let kept = worker.upstream_client.sweep(snapshot.upstreams.values());
        // Only if something has happened since the last time: an idle thread frees no memory.
        let is_idle = worker.shared.in_flight.in_use() == 0;
        let now = is_idle.then(|| (worker.shared.connections.in_use(), kept));
        if is_idle && idle_state != now {
            memory::release_freed();
        }
        idle_state = now;
    }
}

/// Drops idle instances that no call needs; those of a replaced filter version immediately.
async fn sweep_instances(shared: Arc<Shared>) {
    let mut swapped = shared.swapped.subscribe();
    loop {
        // An error means that the gateway has ended.
        if matches!(tokio::time::timeout(INSTANCE_SWEEP_INTERVAL, swapped.changed()).await, Ok(Err(_))) {
            return;
        }
        let snapshot = shared.snapshot.load_full();
        instance_cache::sweep(|filter| {
            snapshot.filters.get(&*filter.settings.name).is_some_and(|serving| Arc::ptr_eq(serving, filter))
        });
    }
}
