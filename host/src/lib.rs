//! witgate: an API gateway whose filters are WebAssembly components.
//!
//! The layers, each of which knows only those below it (a test keeps it so, ARCHITECTURE.md says why): the command line → `control`
//! (what changes the state) → `serve` (what answers requests) → `snapshot` (the state) → `stage` (one step of an exchange each) → `wasm` → `config` →
//! plain values. [`Gateway::start`] wires them.

pub mod body;
pub mod cli;
pub mod conduct;
pub mod config;
pub mod control;
pub mod error;
pub mod exchange;
pub mod http1;
pub mod http2;
pub mod keyvalue;
pub mod net;
pub mod pace;
pub mod serve;
pub mod snapshot;
pub mod stage;
pub mod telemetry;
pub mod wasm;

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::thread::JoinHandle;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use config::Config;
use control::artifacts::Loader;
use control::reload::{Cause, FileWatcher, Reloader, Source, load_all, publish_filters, settle};
use snapshot::{Shared, Snapshot};
use stage::upstream::Registry;
use telemetry::Metrics;
use wasm::engine::Engine;

/// A running gateway.
pub struct Gateway {
    /// Each listener's name and the address that it got.
    pub listeners: Vec<(String, SocketAddr)>,
    /// The admin listener's address.
    pub admin: Option<SocketAddr>,
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    reloader: Reloader,
    source: Source,
    watcher: Option<FileWatcher>,
    events: mpsc::UnboundedReceiver<()>,
    runtime: Runtime,
    signals: Signals,
    admin_listener: Option<TcpListener>,
}

/// What the operator's signals ask for.
struct Signals {
    reload: Signal,
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            reload: signal(SignalKind::hangup())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// SIGTERM or SIGINT.
    async fn end(terminate: &mut Signal, interrupt: &mut Signal) {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    }
}

impl Gateway {
    /// Loads the filters, binds the listeners and starts serving. The error is for the operator.
    ///
    /// `text` is what `config` was read from: a reload begins when `source` says something else.
    pub fn start(config: Config, source: Source, text: String) -> Result<Self, String> {
        let instances = u32::try_from(config.limits.in_flight.clamp(1, INSTANCES_MAX)).unwrap_or(u32::MAX);
        let engine = Engine::new(instances)?;
        let metrics = Metrics::new();
        let live = Arc::default();
        tracing::info!(
            instances,
            cleaning =
                if Engine::scans_page_map() { "page-map scan" } else { "madvise (Linux 6.7 or newer is faster)" },
            "the pool of instances"
        );
        let mut loader = Loader::new(engine, &config.state, Arc::clone(&live));
        let filters = load_all(&mut loader, &config, &metrics).map_err(|refusals| refusals.join("\n"))?;
        publish_filters(&metrics, &filters);
        let (listeners, sockets) = bind_all(&config)?;
        let admin_listener = config.admin.map(|address| bind(address, "admin")).transpose()?;
        let admin = admin_listener.as_ref().and_then(|listener| listener.local_addr().ok());
        let registry = Registry::new(metrics.clone());
        let snapshot = Snapshot::new(Arc::new(config), filters, &registry)?;
        let shared = Arc::new(Shared {
            snapshot: ArcSwap::from_pointee(snapshot),
            swapped: tokio::sync::watch::channel(()).0,
            registry,
            metrics,
            in_flight: AtomicUsize::new(0),
            connections: AtomicUsize::new(0),
            held: Arc::default(),
            instances: live,
            draining: tokio::sync::watch::channel(false).0,
        });
        let workers = sockets
            .into_iter()
            .enumerate()
            .map(|(index, sockets)| serve::listen::spawn(index, shared.clone(), sockets))
            .collect::<Result<_, _>>()
            .map_err(|error| format!("a serving thread cannot start: {error}"))?;
        // Before anybody is told that the gateway is ready: a signal may come, or a file be replaced, right after.
        let runtime = Builder::new_current_thread().enable_all().build().map_err(|error| error.to_string())?;
        let signals = {
            let _inside = runtime.enter();
            Signals::new().map_err(|error| format!("signals cannot be received: {error}"))?
        };
        let (sender, events) = mpsc::unbounded_channel();
        let watcher = watch(&shared, &source, sender);
        let reloader = Reloader::new(shared.clone(), loader, source.clone(), text);
        Ok(Self {
            listeners,
            admin,
            shared,
            workers,
            reloader,
            source,
            watcher,
            events,
            runtime,
            signals,
            admin_listener,
        })
    }

    /// Reloads what changes and drains on SIGTERM or SIGINT; returns when the last exchange is done.
    pub fn run(mut self) -> Result<(), String> {
        if let Some(listener) = self.admin_listener.take() {
            let shared = self.shared.clone();
            std::thread::Builder::new()
                .name("admin".into())
                .spawn(move || {
                    let runtime = Builder::new_current_thread().enable_all().build();
                    match runtime {
                        Ok(runtime) => runtime.block_on(control::admin::serve(shared, listener)),
                        Err(error) => tracing::error!(%error, "the admin thread cannot start"),
                    }
                })
                .map_err(|error| format!("the admin thread cannot start: {error}"))?;
        }
        {
            let shared = self.shared.clone();
            std::thread::Builder::new()
                .name("health".into())
                .spawn(move || {
                    let runtime = Builder::new_current_thread().enable_all().build();
                    match runtime {
                        Ok(runtime) => runtime.block_on(control::health::check(shared)),
                        Err(error) => tracing::error!(%error, "the health thread cannot start"),
                    }
                })
                .map_err(|error| format!("the health thread cannot start: {error}"))?;
        }
        let Self { shared, workers, reloader, source, watcher, events, runtime, mut signals, .. } = self;
        runtime.block_on(supervise(&shared, reloader, source, watcher, events, &mut signals));
        // Replacing rather than sending: nobody may be listening yet.
        shared.draining.send_replace(true);
        tracing::info!("draining: no new connections, exchanges in flight finish");
        std::thread::Builder::new()
            .name("second-signal".into())
            .spawn(move || runtime.block_on(exit_at_second_signal(signals)))
            .map_err(|error| error.to_string())?;
        for worker in workers {
            if worker.join().is_err() {
                tracing::error!("a serving thread ended by a panic");
            }
        }
        tracing::info!("drained");
        Ok(())
    }
}

/// Live instances at most: each reserves address space for its memories.
const INSTANCES_MAX: usize = 1024;

type Bound = (Vec<(String, SocketAddr)>, Vec<Vec<TcpListener>>);

/// Binds every listener once for each worker.
fn bind_all(config: &Config) -> Result<Bound, String> {
    let mut names = vec![];
    let mut sockets: Vec<Vec<TcpListener>> = (0..config.workers).map(|_| vec![]).collect();
    for listener in &config.listeners {
        // Alone at first: two gateways that shared a port would each get half of the connections, and nobody would know why.
        let alone = bind(listener.address, &listener.name)?;
        // With port 0 this bind chooses, the threads share.
        let address = alone.local_addr().map_err(|error| error.to_string())?;
        drop(alone);
        for own in &mut sockets {
            own.push(serve::listen::bind_shared(address).map_err(|error| refused(address, &listener.name, &error))?);
        }
        names.push((listener.name.clone(), address));
    }
    Ok((names, sockets))
}

fn bind(address: SocketAddr, name: &str) -> Result<TcpListener, String> {
    serve::listen::bind(address).map_err(|error| refused(address, name, &error))
}

fn refused(address: SocketAddr, name: &str, error: &std::io::Error) -> String {
    format!("listener {name}: {address}: {error}; is another process using it? (ss -ltnp)")
}

/// Watches the files of the present state, where the configuration wants it.
fn watch(shared: &Shared, source: &Source, events: mpsc::UnboundedSender<()>) -> Option<FileWatcher> {
    let config = shared.snapshot.load().config.clone();
    if !config.reload.watch {
        return None;
    }
    match FileWatcher::new(events) {
        Ok(mut watcher) => {
            watcher.follow(source, &config);
            Some(watcher)
        }
        Err(error) => {
            tracing::warn!(%error, "files are not watched: changes are seen at the interval or by SIGHUP");
            None
        }
    }
}

/// Waits for reasons to reload, until it is time to drain.
async fn supervise(
    shared: &Shared,
    reloader: Reloader,
    source: Source,
    mut watcher: Option<FileWatcher>,
    mut events: mpsc::UnboundedReceiver<()>,
    signals: &mut Signals,
) {
    let Signals { reload, terminate, interrupt } = signals;
    let reloader = Arc::new(std::sync::Mutex::new(reloader));
    loop {
        let config = shared.snapshot.load().config.clone();
        if let Some(watcher) = &mut watcher {
            watcher.follow(&source, &config);
        }
        let interval = config.reload.interval.unwrap_or(Duration::from_secs(u64::from(u32::MAX)));
        let cause = tokio::select! {
            () = Signals::end(terminate, interrupt) => return,
            _ = reload.recv() => Cause::Signal,
            Some(()) = events.recv() => {
                settle(&mut events).await;
                Cause::Watch
            }
            () = tokio::time::sleep(interval) => Cause::Interval,
        };
        let reloader = reloader.clone();
        // Compiling may take seconds: a signal to drain must not wait for it.
        let looking = tokio::task::spawn_blocking(move || {
            reloader.lock().unwrap_or_else(std::sync::PoisonError::into_inner).look(cause);
        });
        tokio::select! {
            () = Signals::end(terminate, interrupt) => return,
            looked = looking => if let Err(error) = looked {
                tracing::error!(%error, "a reload ended by a panic; the state before serves on");
            },
        }
    }
}

/// A second signal means that nobody wants to wait.
async fn exit_at_second_signal(mut signals: Signals) {
    Signals::end(&mut signals.terminate, &mut signals.interrupt).await;
    tracing::warn!("a second signal: leaving at once");
    std::process::exit(1);
}
