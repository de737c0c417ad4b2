//! The gateway as a process: start-up in order, then serving, then drain.
//!
//! Start-up loads and binds everything that can fail before the first connection is accepted. So an
//! error leaves no half-started gateway, and a takeover leaves the running gateway in service.
//!
//! This module does not know: the command line, how a request is answered.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use arc_swap::ArcSwap;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;

use crate::admin::AdminListeners;
use crate::control::admin_socket::AdminSocket;
use crate::control::config_source::ConfigSource;
use crate::control::known_series;
use crate::control::reload::{FilterErrors, Reloader, load_components, load_filters};
use crate::control::rollout::{publish_filters, publish_steps, report};
use crate::control::signals::{Signals, exit_at_second};
use crate::control::sockets::{BindError, Sockets};
use crate::control::supervisor::Supervisor;
use crate::control::systemd::notify;
use crate::control::takeover::{Predecessor, TakeoverError, TakeoverOffer, take_over};
use crate::net::listening::ListeningSocket;
use crate::pipeline::basic_auth::passwords::PasswordChecks;
use crate::pipeline::jwt::key_cache::KeyCaches;
use crate::pipeline::snapshot::{Components, Filters, Shared, Snapshot, UpstreamParts};
use crate::process::files;
use crate::process::hardening::protect_memory;
use crate::releases::loader::Loader;
use crate::releases::remote::RemoteSources;
use crate::releases::version_registry::Releases;
use crate::state::RouteLimiters;
use crate::telemetry::{Metrics, MetricsExport, MetricsSource, ReloadStatus, Telemetry};
use crate::tls::reload::{CertificateErrors, Certificates, store_tls};
use crate::upstream::{EndpointRegistry, run_health_checks};
use crate::{admin, server};
use witgate_config::{Config, ListenAddress, Listener};
use witgate_http::body_budget::HeldBytes;
use witgate_http::limiter::Limiter;
use witgate_runtime::engine::Engine;

/// The maximum number of live instances. Each reserves address space for its memories.
const INSTANCES_MAX: usize = 1024;

/// Why the gateway cannot start. Displays the whole message for the operator.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The running gateway does not hand over its sockets.
    #[error(transparent)]
    Takeover(#[from] TakeoverError),
    /// The system does not provide what the filter engine needs.
    #[error("{0}")]
    Engine(String),
    /// Certificates are refused.
    #[error(transparent)]
    Certificates(#[from] CertificateErrors),
    /// Filters are refused.
    #[error(transparent)]
    Filters(#[from] FilterErrors),
    /// An address cannot be bound.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The UNIX socket of the admin listener cannot be bound.
    #[error("{0}")]
    AdminSocket(String),
    /// A socket cannot be duplicated.
    #[error("a listening socket cannot be duplicated: {source}; raise the limit of open files (ulimit -n)")]
    Socket {
        /// The cause.
        source: std::io::Error,
    },
    /// The access log or the export of traces cannot be started.
    #[error("{0}")]
    Telemetry(String),
    /// The parts of the configuration do not fit together.
    #[error("{0}")]
    Snapshot(String),
    /// The runtime or its signal handlers cannot be created.
    #[error("signals cannot be received: {source}")]
    Signals {
        /// The cause.
        source: std::io::Error,
    },
    /// A thread cannot be started.
    #[error("the thread {name} cannot be started: {source}")]
    Thread {
        /// Its name.
        name: &'static str,
        /// The cause.
        source: std::io::Error,
    },
}

/// A gateway that accepts connections.
pub struct Gateway {
    /// The name and URL of each listener: `http://…` or `https://…` and the bound address.
    pub listeners: Vec<(String, String)>,
    /// The names and URLs of the admin listener: its address, its UNIX socket.
    pub admin: Vec<(&'static str, String)>,
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    supervisor: Supervisor,
    runtime: Runtime,
    signals: Signals,
    admin_listeners: AdminListeners,
    /// Removes the file of the admin listener's UNIX socket at the end.
    admin_socket: Option<AdminSocket>,
    /// Lets a later process take over. `None` if the state directory does not allow it.
    takeover_offer: Option<TakeoverOffer>,
    taken_over: watch::Receiver<bool>,
}

impl Gateway {
    /// Loads the filters, binds the listeners and starts to serve.
    ///
    /// `text` is the text of `config`; a reload happens when `source` returns another one. With
    /// `take_over_running`, the listeners come from the gateway that runs with the same state
    /// directory. That one drains when this one serves, and keeps serving if this one fails.
    ///
    /// # Errors
    /// Why the gateway cannot start. No connection was accepted.
    pub fn start(
        config: Config,
        source: ConfigSource,
        text: String,
        take_over_running: bool,
    ) -> Result<Self, StartError> {
        let files_max = files::raise_limit();
        if let Some(why) = files::shortage(files_max, &config) {
            tracing::warn!("{why}");
        }
        // The takeover comes first: different addresses are reported before filters are compiled.
        let (received, predecessor) = if take_over_running { take_over(&config)?.unzip() } else { (None, None) };
        let metrics = Metrics::new();
        known_series::begin(&metrics, &config);
        let (engine, loader) = create_engine(&config, predecessor.is_some())?;
        // So is an address in use.
        let sockets = received.map_or_else(|| Sockets::bind(&config), Ok)?;
        let certificates = Certificates::open(&config, &metrics)?;
        let connected = loader.connect_stores(&config, &store_tls(&certificates.upstream_tls()), &metrics);
        connected.map_err(StartError::Snapshot)?;
        let limiters = loader.route_limiters(&config);
        let filters = load_filters(&loader, &config, &metrics)?;
        let components = load_components(&loader, &config, &metrics)?;
        let listeners = listener_urls(&config, &sockets);
        let admin = admin_urls(&config, &sockets);
        let admin_listener = sockets.for_admin().map_err(|source| StartError::Socket { source })?;
        let admin_tls = certificates.admin();
        let worker_sockets = sockets.for_workers(config.workers).map_err(|source| StartError::Socket { source })?;
        let telemetry = Telemetry::new(metrics);
        let sinks = telemetry.open(None, &config).map_err(StartError::Telemetry)?;
        let releases = admit_filters(&loader, &config, &filters, &telemetry.metrics);
        let loaded = LoadedParts { releases, limiters, components, sources: loader.remote().clone() };
        let shared = create_shared_state(config, loaded, &certificates, engine, telemetry, files_max)?;
        shared.telemetry.adopt(sinks);
        // Signals and file changes are received before `ready` is announced, because both may
        // follow at once.
        let (runtime, signals) = receive_signals()?;
        let reloader = Reloader::new(shared.clone(), loader, certificates, source.clone(), text);
        let supervisor = Supervisor::new(shared.clone(), reloader, source);
        sockets.listen()?;
        let admin_path = shared.snapshot.load().config.admin.socket.clone();
        let bound = admin_path.map(|path| AdminSocket::bind(&path, predecessor.is_some())).transpose();
        let (unix, admin_socket) = bound.map_err(StartError::AdminSocket)?.unzip();
        let admin_listeners = AdminListeners { tcp: admin_listener, tls: admin_tls, unix };
        // The workers are the last step that can fail: after it the predecessor can drain.
        let workers = start_workers(&shared, worker_sockets)?;
        let (takeover_offer, taken_over) = complete_takeover(&shared, sockets, predecessor);
        Ok(Self {
            listeners,
            admin,
            shared,
            workers,
            supervisor,
            runtime,
            signals,
            admin_listeners,
            admin_socket,
            takeover_offer,
            taken_over,
        })
    }

    /// A function that returns the digests of the served filters by their names, also while the
    /// gateway runs.
    pub fn served_filters(&self) -> impl Fn() -> BTreeMap<String, String> + Send + use<> {
        let shared = self.shared.clone();
        move || {
            let snapshot = shared.snapshot.load();
            snapshot.served_filters().map(|(name, digest)| (name.to_owned(), digest.to_owned())).collect()
        }
    }

    /// Serves until SIGTERM, SIGINT or a takeover. Then drains, and returns when the last exchange
    /// ended.
    ///
    /// # Errors
    /// A thread cannot be started.
    pub fn run(mut self) -> Result<(), StartError> {
        self.start_admin_thread()?;
        self.start_health_thread()?;
        let metrics_export = self.start_metrics_export()?;
        let Self {
            shared,
            workers,
            supervisor,
            runtime,
            mut signals,
            takeover_offer,
            mut taken_over,
            admin_socket,
            ..
        } = self;
        notify("READY=1");
        runtime.block_on(supervisor.run(&mut signals, &mut taken_over));
        notify("STOPPING=1");
        if !*taken_over.borrow() {
            runtime.block_on(delay_drain(&shared, &mut signals));
        }
        // `send_replace` and not `send`, which fails without a receiver.
        shared.draining.send_replace(true);
        if let Some(offer) = takeover_offer {
            offer.close();
        }
        tracing::info!("draining: no new connections, exchanges in flight finish");
        start_thread("second-signal", move || runtime.block_on(exit_at_second(signals)))?;
        for worker in workers {
            if worker.join().is_err() {
                tracing::error!("a serving thread ended with a panic");
            }
        }
        shared.telemetry.finish();
        metrics_export.finish();
        drop(admin_socket);
        tracing::info!("drained");
        Ok(())
    }

    fn start_admin_thread(&mut self) -> Result<(), StartError> {
        let listeners = std::mem::take(&mut self.admin_listeners);
        if listeners.tcp.is_none() && listeners.unix.is_none() {
            return Ok(());
        }
        let (shared, taken_over) = (self.shared.clone(), self.taken_over.clone());
        start_async_thread("admin", move || admin::serve(shared, listeners, taken_over))
    }

    fn start_metrics_export(&self) -> Result<MetricsExport, StartError> {
        let (shared, reloaded) = (self.shared.clone(), self.shared.swapped.subscribe());
        let settings = move || shared.snapshot.load().config.telemetry.clone();
        let shared = self.shared.clone();
        let read = move || admin::openmetrics(&shared);
        let counters = self.shared.metrics.metrics_exports();
        let started = MetricsExport::start(MetricsSource { settings, read, reloaded, counters });
        started.map_err(|source| StartError::Thread { name: "metrics-export", source })
    }

    fn start_health_thread(&self) -> Result<(), StartError> {
        let shared = self.shared.clone();
        start_async_thread("health", move || {
            let changed = shared.swapped.subscribe();
            run_health_checks(changed, move || shared.snapshot.load().upstreams.values().cloned().collect())
        })
    }
}

/// Serves on for `drain_delay` while `/readyz` says 503, unless a second signal comes. A gateway
/// that was taken over does not wait: its successor serves.
async fn delay_drain(shared: &Shared, signals: &mut Signals) {
    let delay = shared.snapshot.load().config.timeouts.drain_delay;
    if delay.is_zero() {
        return;
    }
    shared.leaving.store(true, Relaxed);
    tracing::info!(seconds = delay.as_secs_f64(), "draining soon: /readyz returns 503, connections are still accepted");
    let second = async {
        signals.forget_duplicates().await;
        signals.drain().await;
    };
    tokio::select! {
        () = tokio::time::sleep(delay) => {}
        () = second => {}
    }
}

fn create_engine(config: &Config, beside_traffic: bool) -> Result<(Engine, Loader), StartError> {
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
    // Each worker may hold one more instance whose memory is not cleared yet.
    let workers = u32::try_from(config.workers).unwrap_or(u32::MAX);
    let engine = Engine::new(instances.saturating_add(workers)).map_err(StartError::Engine)?;
    // The engine has opened what it reads of /proc, and no key or secret file is read yet.
    if let Err(error) = protect_memory() {
        tracing::warn!(%error, "core dumps and debuggers cannot be forbidden");
    }
    let loader = Loader::new(engine.clone(), config);
    if beside_traffic {
        loader.yield_to_traffic();
    }
    Ok((engine, loader))
}

/// The name and URL of each listener.
fn listener_urls(config: &Config, sockets: &Sockets) -> Vec<(String, String)> {
    let url = |(listener, (name, address)): (&Listener, (String, ListenAddress))| match address {
        ListenAddress::Tcp(address) if listener.tls.is_some() => (name, format!("https://{address}")),
        ListenAddress::Tcp(address) => (name, format!("http://{address}")),
        ListenAddress::Unix(_) => (name, address.to_string()),
    };
    config.listeners.iter().zip(sockets.addresses()).map(url).collect()
}

/// The name and URL of the admin listener's address and of its UNIX socket.
fn admin_urls(config: &Config, sockets: &Sockets) -> Vec<(&'static str, String)> {
    let scheme = if config.admin.tls.is_some() { "https" } else { "http" };
    let address = sockets.admin.as_ref().map(|listener| ("admin", format!("{scheme}://{}", listener.address)));
    let socket = config.admin.socket.as_ref().map(|path| ("admin-socket", format!("unix:{}", path.display())));
    address.into_iter().chain(socket).collect()
}

/// Decides which versions serve: the record of earlier releases may keep the file's version out of
/// service.
fn admit_filters(loader: &Loader, config: &Config, filters: &Filters, metrics: &Metrics) -> Releases {
    let mut releases = loader.open_releases();
    let decisions = releases.admit(config, filters, |name| loader.content(name), true);
    report(metrics, &decisions);
    publish_steps(metrics, &releases);
    releases.save(&decisions, &gateway_name());
    releases
}

/// What was loaded for the first snapshot.
struct LoadedParts {
    releases: Releases,
    limiters: RouteLimiters,
    components: Components,
    sources: Arc<RemoteSources>,
}

fn create_shared_state(
    config: Config,
    LoadedParts { releases, limiters, components, sources }: LoadedParts,
    certificates: &Certificates,
    engine: Engine,
    telemetry: Telemetry,
    files_max: usize,
) -> Result<Arc<Shared>, StartError> {
    let metrics = telemetry.metrics.clone();
    let registry = EndpointRegistry::new(&config.dns_servers, metrics.clone());
    let listener_tls = config.listeners.iter().map(|listener| certificates.listener(&listener.name)).collect();
    let (held, key_caches) = (HeldBytes::default(), KeyCaches::default());
    let loaded = (releases.in_service(), releases.canaries(), limiters);
    let upstream_parts = UpstreamParts { tls: certificates.upstream_tls(), components };
    let snapshot = Snapshot::new(Arc::new(config), loaded, upstream_parts, &registry, &metrics, (&held, &key_caches))
        .map_err(StartError::Snapshot)?;
    publish_filters(&metrics, &snapshot);
    let reloads = ReloadStatus::default();
    reloads.apply_config();
    reloads.serve(snapshot.served_filters());
    Ok(Arc::new(Shared {
        gateway_name: gateway_name(),
        shared_releases: Mutex::default(),
        reloads,
        snapshot: ArcSwap::from_pointee(snapshot),
        releases: Mutex::new(releases),
        sources,
        swapped: watch::channel(()).0,
        registry,
        listener_tls,
        certificates: certificates.list(),
        metrics,
        telemetry,
        in_flight: Limiter::default(),
        connections: Limiter::default(),
        clients: Arc::default(),
        held,
        passwords: PasswordChecks::default(),
        key_caches,
        needs_room: watch::channel(()).0,
        files_max,
        engine,
        leaving: AtomicBool::new(false),
        draining: watch::channel(false).0,
    }))
}

/// The name of this gateway among those that share a store.
fn gateway_name() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("{}/{}", host.trim(), std::process::id())
}

/// Creates the supervisor's runtime, which receives signals from here on.
fn receive_signals() -> Result<(Runtime, Signals), StartError> {
    let fail = |source| StartError::Signals { source };
    let runtime = Builder::new_current_thread().enable_all().build().map_err(fail)?;
    let signals = {
        let _inside = runtime.enter();
        Signals::new().map_err(fail)?
    };
    Ok((runtime, signals))
}

fn start_workers(
    shared: &Arc<Shared>,
    sockets: Vec<Vec<(usize, ListeningSocket)>>,
) -> Result<Vec<JoinHandle<()>>, StartError> {
    let workers = sockets
        .into_iter()
        .enumerate()
        .map(|(index, sockets)| server::listener::spawn(index, shared.clone(), sockets))
        .collect::<Result<_, _>>();
    workers.map_err(|source| StartError::Thread { name: "worker", source })
}

/// Lets the predecessor drain, and offers the sockets to a successor.
fn complete_takeover(
    shared: &Shared,
    sockets: Sockets,
    predecessor: Option<Predecessor>,
) -> (Option<TakeoverOffer>, watch::Receiver<bool>) {
    let replaces = predecessor.is_some();
    if let Some(predecessor) = predecessor {
        predecessor.tell_to_drain();
    }
    let (sender, taken_over) = watch::channel(false);
    let offer = TakeoverOffer::new(&shared.snapshot.load().config.state_dir, sockets, replaces, sender);
    let offer = offer.inspect_err(|why| tracing::warn!(why, "this gateway cannot be taken over (--takeover)")).ok();
    (offer, taken_over)
}

/// Runs a future on a thread with a runtime of its own.
fn start_async_thread<F: Future<Output = ()>>(
    name: &'static str,
    make: impl FnOnce() -> F + Send + 'static,
) -> Result<(), StartError> {
    start_thread(name, move || match Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(make()),
        Err(error) => tracing::error!(%error, name, "a thread ended because its runtime cannot be created"),
    })
}

fn start_thread(name: &'static str, run: impl FnOnce() + Send + 'static) -> Result<(), StartError> {
    let spawned = std::thread::Builder::new().name(name.into()).spawn(run);
    spawned.map(drop).map_err(|source| StartError::Thread { name, source })
}
