//! All certificates, keys and authorities of the gateway, reloaded when their files change.
//!
//! A changed file rebuilds the TLS configuration of its listener or upstream and replaces it
//! through one pointer. Configuration, filters and open connections are not affected. Each file is
//! judged on its own: an invalid one is reported, its last valid content stays in service, and the
//! other files are renewed.
//!
//! This module does not know: connections, requests.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;

use super::certificate_info::shown_names;
use super::client::client_config;
use super::list::{CertificateList, listed};
use super::pem::{Authorities, KeyPair, Reason};
use super::report::{Owner, clear_expiry};
use super::server::{Resumption, ServerTls, TlsContext};
use super::watched_files::{FileError, WatchedFiles};
use crate::net::tls::ClientTls;
use crate::telemetry::Metrics;
use witgate_config::{CertificateFiles, Config, ListenerTls, UpstreamTls};

/// Begins the names of shared stores among the upstreams. No upstream's name has a colon.
const STORE: &str = "store:";
/// The name of the admin listener among the listeners.
const ADMIN: &str = "admin";

/// The certificates of all listeners, upstreams and shared stores.
pub struct Certificates {
    metrics: Metrics,
    listeners: Vec<ListenerCertificates>,
    upstreams: UpstreamSet,
    list: CertificateList,
}

/// The certificates of all upstreams, by the upstream's name. A reload replaces the whole set.
pub type UpstreamSet = BTreeMap<String, UpstreamCertificates>;

/// TLS of the upstreams that use it, by the upstream's name.
pub type UpstreamTlsMap = HashMap<String, Arc<ClientTls>>;

/// The refused certificates of a configuration. Displays one line for each.
#[derive(Debug)]
pub struct CertificateErrors(Vec<(String, FileError)>);

impl CertificateErrors {
    /// A line for each refusal: its section of the configuration, the file, why, what to do.
    pub fn lines(&self) -> impl Iterator<Item = String> {
        self.0.iter().map(|(section, error)| format!("{section}: {error}"))
    }
}

impl std::fmt::Display for CertificateErrors {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.lines().collect::<Vec<_>>().join("\n"))
    }
}

impl std::error::Error for CertificateErrors {}

impl Certificates {
    /// Reads every file of a configuration.
    ///
    /// # Errors
    /// All refusals in one error.
    pub fn open(config: &Config, metrics: &Metrics) -> Result<Self, CertificateErrors> {
        let mut certificates = Self {
            metrics: metrics.clone(),
            listeners: vec![],
            upstreams: UpstreamSet::new(),
            list: CertificateList::default(),
        };
        let mut errors = vec![];
        for (index, listener) in config.listeners.iter().enumerate() {
            let Some(settings) = &listener.tls else { continue };
            match ListenerCertificates::open(&listener.name, settings) {
                Ok(opened) => certificates.listeners.push(opened),
                Err(found) => errors.extend(found.into_iter().map(|error| (format!("listeners[{index}].tls"), error))),
            }
        }
        if let Some(settings) = &config.admin.tls {
            match ListenerCertificates::open(ADMIN, settings) {
                Ok(opened) => certificates.listeners.push(opened),
                Err(found) => errors.extend(found.into_iter().map(|error| ("admin.tls".to_owned(), error))),
            }
        }
        match certificates.prepare(config) {
            Ok(upstreams) => certificates.adopt(upstreams),
            Err(found) => errors.extend(found.0),
        }
        for listener in &certificates.listeners {
            let owner = Owner::Listener(&listener.tls.listener);
            listener.key_pairs.iter().for_each(|files| owner.announce(files));
            listener.clients.iter().for_each(|files| owner.announce(files));
            listener.tls.current().unreachable.iter().for_each(|why| owner.warn(why));
        }
        if errors.is_empty() { Ok(certificates) } else { Err(CertificateErrors(errors)) }
    }

    /// TLS of a listener. `None` if it serves plain text.
    pub fn listener(&self, name: &str) -> Option<Arc<ServerTls>> {
        self.listeners.iter().find(|listener| *listener.tls.listener == *name).map(|listener| listener.tls.clone())
    }

    /// TLS of the admin listener. `None` if it serves plain text. No other listener has its name.
    pub fn admin(&self) -> Option<Arc<ServerTls>> {
        self.listener(ADMIN)
    }

    /// The certificates in service. It changes with the files.
    pub fn list(&self) -> CertificateList {
        self.list.clone()
    }

    /// TLS of all upstreams that use it.
    pub fn upstream_tls(&self) -> UpstreamTlsMap {
        upstream_tls(&self.upstreams)
    }

    /// The upstreams of a new configuration. Unchanged ones are kept, and the files of the others
    /// are read. Nothing is in service before [`adopt`](Self::adopt).
    ///
    /// # Errors
    /// All refusals in one error.
    pub fn prepare(&self, config: &Config) -> Result<UpstreamSet, CertificateErrors> {
        let (mut upstreams, mut errors) = (UpstreamSet::new(), vec![]);
        let of_upstreams = config.upstreams.iter().filter_map(|(name, upstream)| {
            Some((name.clone(), format!("upstreams.{name}.tls"), upstream.tls.as_ref()?))
        });
        let of_stores = config.stores.iter().filter_map(|(name, store)| {
            Some((format!("{STORE}{name}"), format!("stores.{name}.redis.tls"), store.redis.tls.as_ref()?))
        });
        for (name, section, settings) in of_upstreams.chain(of_stores) {
            let known = self.upstreams.get(&name).filter(|known| known.settings == *settings);
            match known.cloned().map_or_else(|| UpstreamCertificates::open(settings), Ok) {
                Ok(upstream) => {
                    upstreams.insert(name, upstream);
                }
                Err(error) => {
                    Owner::Upstream(&name).count(&self.metrics, error.reason);
                    errors.push((section, error));
                }
            }
        }
        if errors.is_empty() { Ok(upstreams) } else { Err(CertificateErrors(errors)) }
    }

    /// Puts the upstreams of a new configuration in the place of the previous ones.
    pub fn adopt(&mut self, upstreams: UpstreamSet) {
        for (name, upstream) in &upstreams {
            if self.upstreams.get(name).is_none_or(|previous| !Arc::ptr_eq(&previous.tls, &upstream.tls)) {
                let owner = Owner::Upstream(name);
                upstream.identity.iter().for_each(|files| owner.announce(files));
                upstream.authority_files().iter().for_each(|files| owner.announce(files));
            }
        }
        self.upstreams = upstreams;
        self.publish_expiry();
    }

    /// Reads the files and puts changed ones into service. `report_again` also reports invalid
    /// content that was reported before.
    pub fn reload_changed(&mut self, report_again: bool) {
        let mut changed = false;
        for listener in &mut self.listeners {
            changed |= listener.reload_changed(report_again, &self.metrics);
        }
        for (name, upstream) in &mut self.upstreams {
            changed |= upstream.reload_changed(name, report_again, &self.metrics);
        }
        if changed {
            self.publish_expiry();
        }
    }

    /// A line for each certificate of a listener and for each warning, for `witgate check`.
    pub fn describe(&self) -> Vec<String> {
        let mut lines = vec![];
        for listener in &self.listeners {
            for files in &listener.key_pairs {
                let info = &files.current.info;
                let until = httpdate::fmt_http_date(info.not_after);
                lines.push(format!("listener {}: {} until {until}", listener.tls.listener, shown_names(info)));
                lines.extend(files.warnings().into_iter().map(|why| format!("warning: {why}")));
            }
            let others = listener.clients.iter().flat_map(WatchedFiles::warnings);
            let others = others.chain(listener.tls.current().unreachable.clone());
            lines.extend(others.map(|why| format!("warning: {why}")));
        }
        for (name, upstream) in &self.upstreams {
            let found = upstream.identity.iter().flat_map(WatchedFiles::warnings);
            let found = found.chain(upstream.authority_files().into_iter().flat_map(WatchedFiles::warnings));
            lines.extend(found.map(|why| format!("warning: upstream {name}: {why}")));
        }
        lines
    }

    /// Sets the metrics of expiry, and the list. A bundle of authorities counts as its first one to
    /// expire.
    fn publish_expiry(&self) {
        clear_expiry(&self.metrics);
        let mut list = vec![];
        for listener in &self.listeners {
            let owner = Owner::Listener(&listener.tls.listener);
            listener.key_pairs.iter().for_each(|files| owner.publish_expiry(files, &self.metrics));
            listener.clients.iter().for_each(|files| owner.publish_expiry(files, &self.metrics));
            let user = ("listener", &*listener.tls.listener);
            list.extend(listener.key_pairs.iter().flat_map(|files| listed(user, "own", files)));
            list.extend(listener.clients.iter().flat_map(|files| listed(user, "authority", files)));
        }
        for (name, upstream) in &self.upstreams {
            let owner = Owner::Upstream(name);
            upstream.identity.iter().for_each(|files| owner.publish_expiry(files, &self.metrics));
            upstream.authority_files().iter().for_each(|files| owner.publish_expiry(files, &self.metrics));
            let user = name.strip_prefix(STORE).map_or(("upstream", name.as_str()), |store| ("store", store));
            list.extend(upstream.identity.iter().flat_map(|files| listed(user, "own", files)));
            list.extend(upstream.authority_files().iter().flat_map(|files| listed(user, "authority", files)));
        }
        self.list.set(list);
    }
}

/// TLS of the shared stores among these upstreams, by the store's name.
pub fn store_tls(upstreams: &UpstreamTlsMap) -> HashMap<String, Arc<ClientTls>> {
    upstreams.iter().filter_map(|(name, tls)| Some((name.strip_prefix(STORE)?.to_owned(), tls.clone()))).collect()
}

/// TLS of these upstreams, for a snapshot.
pub fn upstream_tls(upstreams: &UpstreamSet) -> UpstreamTlsMap {
    upstreams.iter().map(|(name, upstream)| (name.clone(), upstream.tls.clone())).collect()
}

/// The certificates of one listener.
struct ListenerCertificates {
    settings: ListenerTls,
    tls: Arc<ServerTls>,
    key_pairs: Vec<WatchedFiles<KeyPair>>,
    /// The authorities of client certificates.
    clients: Option<WatchedFiles<Authorities>>,
    resumption: Resumption,
}

impl ListenerCertificates {
    fn open(name: &str, settings: &ListenerTls) -> Result<Self, Vec<FileError>> {
        let (mut key_pairs, mut errors) = (vec![], vec![]);
        for files in &settings.certificates {
            match WatchedFiles::open(key_pair_paths(files)) {
                Ok(files) => key_pairs.push(files),
                Err(error) => errors.push(error),
            }
        }
        let clients = settings.client_auth.as_ref().map(|auth| WatchedFiles::open(vec![auth.ca.clone()]));
        let clients = clients.transpose().unwrap_or_else(|error| {
            errors.push(error);
            None
        });
        if !errors.is_empty() {
            return Err(errors);
        }
        let resumption = Resumption::new();
        let context = build_context(settings, &key_pairs, clients.as_ref(), &resumption).map_err(|message| {
            let path = settings.certificates.first().map(|files| files.certificate.clone());
            vec![unusable(path, message)]
        })?;
        let tls = Arc::new(ServerTls::new(name, context));
        Ok(Self { settings: settings.clone(), tls, key_pairs, clients, resumption })
    }

    /// Returns whether something new is in service.
    fn reload_changed(&mut self, report_again: bool, metrics: &Metrics) -> bool {
        let owner = Owner::Listener(&self.tls.listener);
        let mut changed = false;
        for files in &mut self.key_pairs {
            changed |= owner.check(files, report_again, metrics);
        }
        if self.clients.as_mut().is_some_and(|files| owner.check(files, report_again, metrics)) {
            // A client of a removed authority must not return with a session ticket.
            self.resumption = Resumption::new();
            changed = true;
        }
        if changed {
            match build_context(&self.settings, &self.key_pairs, self.clients.as_ref(), &self.resumption) {
                Ok(context) => {
                    context.unreachable.iter().for_each(|why| owner.warn(why));
                    self.tls.replace(context);
                }
                Err(why) => owner.fail(metrics, &why),
            }
        }
        changed
    }
}

fn build_context(
    settings: &ListenerTls,
    key_pairs: &[WatchedFiles<KeyPair>],
    clients: Option<&WatchedFiles<Authorities>>,
    resumption: &Resumption,
) -> Result<TlsContext, String> {
    let key_pairs: Vec<_> = key_pairs.iter().map(|files| files.current.clone()).collect();
    TlsContext::new(settings, &key_pairs, clients.map(|files| &*files.current), resumption.clone())
}

/// The certificates of one upstream.
#[derive(Clone)]
pub struct UpstreamCertificates {
    settings: UpstreamTls,
    tls: Arc<ClientTls>,
    trusted: TrustedAuthorities,
    /// The gateway's own certificate.
    identity: Option<WatchedFiles<KeyPair>>,
}

#[derive(Clone)]
enum TrustedAuthorities {
    File(WatchedFiles<Authorities>),
    /// The system's roots. They are read once: a changed set needs a restart.
    System(Arc<Authorities>),
}

impl UpstreamCertificates {
    fn open(settings: &UpstreamTls) -> Result<Self, FileError> {
        let trusted = match &settings.ca {
            Some(path) => TrustedAuthorities::File(WatchedFiles::open(vec![path.clone()])?),
            None => TrustedAuthorities::System(system_roots()?),
        };
        let identity = settings.identity.as_ref().map(|files| WatchedFiles::open(key_pair_paths(files))).transpose()?;
        let config = build_client_config(settings, &trusted, identity.as_ref())
            .map_err(|message| unusable(settings.ca.clone(), message))?;
        let tls = Arc::new(ClientTls::new(config, settings.server_name.clone()));
        Ok(Self { settings: settings.clone(), tls, trusted, identity })
    }

    /// Returns whether something new is in service.
    fn reload_changed(&mut self, name: &str, report_again: bool, metrics: &Metrics) -> bool {
        let owner = Owner::Upstream(name);
        let mut changed = false;
        if let TrustedAuthorities::File(files) = &mut self.trusted {
            changed |= owner.check(files, report_again, metrics);
        }
        if let Some(files) = &mut self.identity {
            changed |= owner.check(files, report_again, metrics);
        }
        if changed {
            match build_client_config(&self.settings, &self.trusted, self.identity.as_ref()) {
                Ok(config) => self.tls.replace(config),
                Err(why) => owner.fail(metrics, &why),
            }
        }
        changed
    }

    fn authority_files(&self) -> Option<&WatchedFiles<Authorities>> {
        match &self.trusted {
            TrustedAuthorities::File(files) => Some(files),
            TrustedAuthorities::System(_) => None,
        }
    }
}

fn build_client_config(
    settings: &UpstreamTls,
    trusted: &TrustedAuthorities,
    identity: Option<&WatchedFiles<KeyPair>>,
) -> Result<Arc<rustls::ClientConfig>, String> {
    let trusted = match trusted {
        TrustedAuthorities::File(files) => &files.current,
        TrustedAuthorities::System(roots) => roots,
    };
    client_config(settings.min_version, trusted, identity.map(|files| &*files.current))
}

fn system_roots() -> Result<Arc<Authorities>, FileError> {
    let found = rustls_native_certs::load_native_certs();
    Authorities::from_system(found.certs).map(Arc::new).ok_or_else(|| FileError {
        file: "ca".into(),
        reason: Reason::Missing,
        message: "the system has no root certificates: install them (package ca-certificates), or name a file".into(),
    })
}

fn unusable(path: Option<PathBuf>, message: String) -> FileError {
    FileError { file: path.unwrap_or_default(), reason: Reason::Unusable, message }
}

fn key_pair_paths(files: &CertificateFiles) -> Vec<PathBuf> {
    vec![files.certificate.clone(), files.key.clone()]
}
