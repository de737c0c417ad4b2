//! The threads that serve: each has sockets of its own for every listener (SO_REUSEPORT), accepts, and runs its own single-threaded runtime.
//!
//! So a connection lives and dies on one thread, and nothing on its way needs a lock. An error of `accept` (out of file descriptors, a client that left)
//! is logged and waited out: a listener is only left when the gateway drains. Must not know: what a connection says.

use std::future::poll_fn;
use std::net::TcpListener;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, LocalOptions, LocalRuntime};

use super::connection::{ListenerOptions, serve};
use super::worker::Worker;
use crate::process::memory;
use crate::pipeline::snapshot::Shared;
use crate::upstream::UpstreamClient;
use witgate_runtime::instance_cache;

/// After an error of `accept`, before the next try.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
const SWEEP_INTERVAL: Duration = Duration::from_secs(5);
/// How often instances that are kept between calls are looked at.
const TIDY_INTERVAL: Duration = Duration::from_secs(1);
/// Tasks run before the I/O driver is asked again, where there is always one that is ready: as many events as are taken at once. What was read together is so answered together. A neighbour's delay
/// is bounded otherwise: guests that use up a tick and connections that use up their budget go on only after the driver was asked.
const EVENT_INTERVAL: u32 = 512;

/// Starts a serving thread over its own sockets, each with its listener's place in the configuration. It ends when the gateway drains and its last connection is done.
pub fn spawn(
    index: usize,
    shared: Arc<Shared>,
    listeners: Vec<(usize, TcpListener)>,
) -> std::io::Result<JoinHandle<()>> {
    drop(runtime()?);
    std::thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
        // A local runtime cannot move between threads: it was only tried above, where an error can still be reported.
        match runtime() {
            Ok(runtime) => runtime.block_on(work(shared, listeners)),
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

async fn work(shared: Arc<Shared>, listeners: Vec<(usize, TcpListener)>) {
    let worker = Worker { upstream_client: Rc::new(UpstreamClient::new(shared.metrics.clone())), shared: shared.clone() };
    let here = Rc::new(());
    let mut accepting = vec![];
    let config = shared.snapshot.load().config.clone();
    for (place, listener) in listeners {
        let tls = shared.listener_tls.get(place).cloned().flatten();
        let proxied = config.listeners.get(place).is_some_and(|listener| listener.proxy_protocol);
        let options = ListenerOptions { tls, proxied };
        match tokio::net::TcpListener::from_std(listener) {
            Ok(listener) => {
                accepting.push(tokio::task::spawn_local(accept(worker.clone(), listener, options, here.clone())));
            }
            Err(error) => tracing::error!(%error, "a listener cannot be used"),
        }
    }
    let sweepers = [tokio::task::spawn_local(sweep(worker.clone())), tokio::task::spawn_local(tidy(shared.clone()))];
    let mut draining = shared.draining.subscribe();
    // An error would mean that the gateway itself is gone.
    let _ = draining.wait_for(|draining| *draining).await;
    let until = Instant::now() + shared.snapshot.load().config.timeouts.drain;
    // Each connection holds a reference until it is done.
    while Rc::strong_count(&here) > 1 && Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let cut = Rc::strong_count(&here) - 1;
    if cut > 0 {
        tracing::warn!(connections = cut, "the drain's time is up: connections are cut");
    }
    sweepers.iter().for_each(|sweeper| sweeper.abort());
    instance_cache::drop_deferred();
    instance_cache::sweep(|_| false);
}

async fn accept(worker: Worker, listener: tokio::net::TcpListener, options: ListenerOptions, here: Rc<()>) {
    let mut draining = worker.shared.draining.subscribe();
    loop {
        let max = worker.shared.snapshot.load().config.limits.connections;
        if worker.shared.connections.load(Ordering::Relaxed) >= max {
            // Above the limit clients wait in the kernel's queue.
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        }
        // A drain takes what has come so far: who waits in the queue has a connection, and would lose it.
        let accepted = tokio::select! {
            biased;
            accepted = listener.accept() => accepted,
            _ = draining.wait_for(|draining| *draining) => {
                // The runtime may not have looked at the socket since they came.
                tokio::task::yield_now().await;
                match poll_fn(|context| Poll::Ready(listener.poll_accept(context))).await {
                    Poll::Ready(accepted) => accepted,
                    Poll::Pending => return,
                }
            }
        };
        match accepted {
            Ok((stream, address)) => {
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%error, "a client left before it was served");
                    continue;
                }
                let counted = Counted::new(worker.shared.clone());
                let (worker, here, options) = (worker.clone(), here.clone(), options.clone());
                // What takes the client's time, such as a handshake, is awaited here and not in the loop. A panic ends this task and so this connection, nothing else.
                tokio::task::spawn_local(async move {
                    let _counted = (counted, here);
                    serve(worker, stream, address, options).await;
                });
            }
            Err(error) => {
                tracing::warn!(%error, "accept failed; trying again");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn sweep(worker: Worker) {
    let mut rested = None;
    loop {
        tokio::time::sleep(SWEEP_INTERVAL).await;
        let snapshot = worker.shared.snapshot.load_full();
        let kept = worker.upstream_client.sweep(snapshot.upstreams.values());
        // What a load needed is not kept for the next one. Again only where something happened since: a thread at rest frees nothing.
        let is_idle = worker.shared.in_flight.load(Ordering::Relaxed) == 0;
        let now = is_idle.then(|| (worker.shared.connections.load(Ordering::Relaxed), kept));
        if is_idle && rested != now {
            memory::release_freed();
        }
        rested = now;
    }
}

/// Lets go of instances that nothing needs, at once where another version came into service.
async fn tidy(shared: Arc<Shared>) {
    let mut swapped = shared.swapped.subscribe();
    loop {
        // An error would mean that the gateway itself is gone.
        if matches!(tokio::time::timeout(TIDY_INTERVAL, swapped.changed()).await, Ok(Err(_))) {
            return;
        }
        let snapshot = shared.snapshot.load_full();
        instance_cache::sweep(|filter| {
            snapshot.filters.get(&*filter.settings.name).is_some_and(|serving| Arc::ptr_eq(serving, filter))
        });
    }
}

/// Counts a connection while it lives.
struct Counted(Arc<Shared>);

impl Counted {
    fn new(shared: Arc<Shared>) -> Self {
        shared.connections.fetch_add(1, Ordering::Relaxed);
        Self(shared)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}
