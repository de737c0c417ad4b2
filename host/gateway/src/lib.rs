//! witgate: an API gateway whose filters are WebAssembly components.
//!
//! The layers, each of which knows only those below it (a test keeps it so, ARCHITECTURE.md says why): the command line → `control`
//! (what changes the state) → `serve` (what answers requests) → `snapshot` (the state) → `stage` (one step of an exchange each) → `wasm` → `config` →
//! plain values. [`Gateway::start`] wires them.

pub mod admin;
pub mod cli;
pub mod clients;
pub mod control;
pub mod process;
pub mod net;
pub mod pipeline;
pub mod releases;
pub mod server;
pub mod telemetry;
pub mod tls;
pub mod upstream;

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::thread::JoinHandle;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{mpsc, watch};

use control::reload::{Cause, FileWatcher, Reloader, Seen, Source, load_all, publish_filters, settle};
use control::signals::{Signals, exit_at_second};
use control::sockets::Sockets;
use control::systemd::notify;
use control::takeover::{Offer, over, take_over};
use pipeline::snapshot::{Shared, Snapshot};
use releases::loader::Loader;
use telemetry::Metrics;
use tls::reload::Certificates;
use upstream::EndpointRegistry;
use witgate_config::Config;
use witgate_runtime::engine::Engine;

/// A running gateway.
pub struct Gateway {
    /// Each listener's name and where it is: `http://…` or `https://…` and the address that it got.
    pub listeners: Vec<(String, String)>,
    /// The admin listener's address.
    pub admin: Option<SocketAddr>,
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    reloader: Reloader,
    source: Source,
    watcher: Option<FileWatcher>,
    events: mpsc::UnboundedReceiver<Seen>,
    runtime: Runtime,
    signals: Signals,
    admin_listener: Option<TcpListener>,
    /// For the next process that takes over; none where that cannot be.
    offer: Option<Offer>,
    taken: watch::Receiver<bool>,
}

impl Gateway {
    /// Loads the filters, binds the listeners and starts serving. The error is for the operator.
    ///
    /// `text` is what `config` was read from: a reload begins when `source` says something else. With `takes_over` the listeners come from the running
    /// gateway of the same state directory, if there is one; it drains once this one serves, and serves on where this one fails.
    pub fn start(config: Config, source: Source, text: String, takes_over: bool) -> Result<Self, String> {
        // Before the filters are loaded: addresses that differ are told at once.
        let (received, predecessor) = if takes_over { take_over(&config)?.unzip() } else { (None, None) };
        let metrics = Metrics::new();
        let engine = engine(&config)?;
        let mut loader = Loader::new(engine.clone(), &config);
        if predecessor.is_some() {
            // It serves on this machine meanwhile.
            loader.yield_to_traffic();
        }
        let certificates = Certificates::open(&config, &metrics).map_err(|errors| errors.to_string())?;
        let filters = load_all(&mut loader, &config, &metrics).map_err(|refusals| refusals.join("\n"))?;
        publish_filters(&metrics, &filters);
        let sockets = received.map_or_else(|| Sockets::bind(&config), Ok)?;
        let listeners = urls(&config, &sockets);
        let admin = sockets.admin.as_ref().map(|group| group.address);
        let copied = |error| format!("a socket cannot be shared out: {error}");
        let admin_listener = sockets.for_admin().map_err(copied)?;
        let shares = sockets.for_workers(config.workers).map_err(copied)?;
        let registry = EndpointRegistry::new(metrics.clone());
        let listener_tls = config.listeners.iter().map(|listener| certificates.listener(&listener.name)).collect();
        let snapshot = Snapshot::new(Arc::new(config), filters, certificates.upstream_tls(), &registry)?;
        let shared = Arc::new(Shared {
            snapshot: ArcSwap::from_pointee(snapshot),
            swapped: tokio::sync::watch::channel(()).0,
            registry,
            listener_tls,
            metrics,
            in_flight: AtomicUsize::new(0),
            connections: AtomicUsize::new(0),
            clients: Arc::default(),
            held: Arc::default(),
            engine,
            draining: tokio::sync::watch::channel(false).0,
        });
        // Before anybody is told that the gateway is ready: a signal may come, or a file be replaced, right after.
        let (runtime, signals) = receive_signals()?;
        let (sender, events) = mpsc::unbounded_channel();
        let watcher = watch(&shared, &source, sender);
        let reloader = Reloader::new(shared.clone(), loader, certificates, source.clone(), text);
        // Last of what can fail: from here on clients are served, and a gateway that is replaced may go.
        let workers = shares
            .into_iter()
            .enumerate()
            .map(|(index, sockets)| server::listener::spawn(index, shared.clone(), sockets))
            .collect::<Result<_, _>>()
            .map_err(|error| format!("a serving thread cannot start: {error}"))?;
        let replaces = predecessor.is_some();
        if let Some(predecessor) = predecessor {
            predecessor.dismiss();
        }
        let (sender, taken) = watch::channel(false);
        let offer = Offer::new(&shared.snapshot.load().config.state_dir, sockets, replaces, sender);
        let offer = offer.inspect_err(|why| tracing::warn!(why, "this gateway cannot be taken over (--takeover)")).ok();
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
            offer,
            taken,
        })
    }

    /// Reloads what changes and drains on SIGTERM, on SIGINT, or when a new process took over; returns when the last exchange is done.
    pub fn run(mut self) -> Result<(), String> {
        if let Some(listener) = self.admin_listener.take() {
            let (shared, taken) = (self.shared.clone(), self.taken.clone());
            std::thread::Builder::new()
                .name("admin".into())
                .spawn(move || {
                    let runtime = Builder::new_current_thread().enable_all().build();
                    match runtime {
                        Ok(runtime) => runtime.block_on(admin::serve(shared, listener, taken)),
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
        let Self { shared, workers, reloader, source, watcher, events, runtime, mut signals, offer, mut taken, .. } =
            self;
        notify("READY=1");
        runtime.block_on(supervise(&shared, reloader, source, watcher, events, &mut signals, &mut taken));
        notify("STOPPING=1");
        // Replacing rather than sending: nobody may be listening yet.
        shared.draining.send_replace(true);
        if let Some(offer) = offer {
            offer.withdraw();
        }
        tracing::info!("draining: no new connections, exchanges in flight finish");
        std::thread::Builder::new()
            .name("second-signal".into())
            .spawn(move || runtime.block_on(exit_at_second(signals)))
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

/// Each listener's name and where clients reach it.
fn urls(config: &Config, sockets: &Sockets) -> Vec<(String, String)> {
    let url = |(terms, (name, address)): (&witgate_config::Listener, (String, SocketAddr))| {
        let scheme = if terms.tls.is_some() { "https" } else { "http" };
        (name, format!("{scheme}://{address}"))
    };
    config.listeners.iter().zip(sockets.addresses()).map(url).collect()
}

/// The supervisor's runtime, with the signals that it waits for.
fn receive_signals() -> Result<(Runtime, Signals), String> {
    let runtime = Builder::new_current_thread().enable_all().build().map_err(|error| error.to_string())?;
    let signals = {
        let _inside = runtime.enter();
        Signals::new().map_err(|error| format!("signals cannot be received: {error}"))?
    };
    Ok((runtime, signals))
}

fn engine(config: &Config) -> Result<Engine, String> {
    let instances = u32::try_from(config.limits.in_flight.clamp(1, INSTANCES_MAX)).unwrap_or(u32::MAX);
    let faults = match Engine::maps_single_pages() {
        Ok(()) => "page by page".to_owned(),
        Err(error) => format!("with pages around each (userfaultfd: {error})"),
    };
    tracing::info!(
        instances,
        faults,
        cleaning = if Engine::scans_page_map() { "page-map scan" } else { "madvise (Linux 6.7 or newer is faster)" },
        "the pool of instances"
    );
    // Each thread may have one that is still to be cleaned up after.
    Engine::new(instances.saturating_add(u32::try_from(config.workers).unwrap_or(u32::MAX)))
}

/// Watches the files of the present state, where the configuration wants it.
fn watch(shared: &Shared, source: &Source, events: mpsc::UnboundedSender<Seen>) -> Option<FileWatcher> {
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
    mut events: mpsc::UnboundedReceiver<Seen>,
    signals: &mut Signals,
    taken: &mut watch::Receiver<bool>,
) {
    let reloader = Arc::new(std::sync::Mutex::new(reloader));
    loop {
        let config = shared.snapshot.load().config.clone();
        if let Some(watcher) = &mut watcher {
            watcher.follow(&source, &config);
        }
        let interval = config.reload.interval.unwrap_or(Duration::from_secs(u64::from(u32::MAX)));
        let cause = tokio::select! {
            () = over(taken) => return,
            is_reload = signals.reload_or_end() => if is_reload { Cause::Signal } else { return },
            Some(seen) = events.recv() => {
                settle(seen, &mut events).await;
                Cause::Watch
            }
            () = tokio::time::sleep(interval) => Cause::Interval,
        };
        if cause == Cause::Signal {
            notify("RELOADING=1");
        }
        let reloader = reloader.clone();
        // Compiling may take seconds: a signal to drain must not wait for it.
        let looking = tokio::task::spawn_blocking(move || {
            if let Err(error) = process::priority::shorten_time_slice() {
                tracing::debug!(%error, "reloads take the system's usual turns");
            }
            reloader.lock().unwrap_or_else(std::sync::PoisonError::into_inner).look(cause);
        });
        tokio::select! {
            () = over(taken) => return,
            () = signals.end() => return,
            looked = looking => if let Err(error) = looked {
                tracing::error!(%error, "a reload ended by a panic; the state before serves on");
            },
        }
        if cause == Cause::Signal {
            notify("READY=1");
        }
    }
}
