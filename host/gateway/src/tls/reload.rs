//! Certificates, keys and authorities, kept in step with their files: a good change goes live, a bad one is told and the one before serves on.
//!
//! A changed file rebuilds what belongs to its listener or upstream and swaps it by one pointer; no configuration, filter or connection is touched. Each pair stands
//! for itself: one that is bad does not keep its neighbours from being renewed. Must not know: connections, requests.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use super::watched_files::{Look, Material, Refusal, Slot};
use crate::net::tls::ClientTls;
use crate::pipeline::snapshot::Clients;
use crate::telemetry::{
    CertificateFailureLabels, CertificateLabels, Metrics, UpstreamCertificateFailureLabels, UpstreamCertificateLabels,
};
use crate::tls::{Authorities, Facts, Pair, Resumption, Served, ServerTls, client_config};
use witgate_config::{CertificateFiles, Config, ListenerTls, UpstreamTls};

/// Everything with certificates that the gateway uses.
pub struct Certificates {
    metrics: Metrics,
    listeners: Vec<Listener>,
    upstreams: Upstreams,
}

/// The upstreams' part, by name: a reload makes it anew.
pub type Upstreams = BTreeMap<String, Upstream>;

struct Listener {
    terms: ListenerTls,
    tls: Arc<ServerTls>,
    pairs: Vec<Slot<Pair>>,
    clients: Option<Slot<Authorities>>,
    resumption: Resumption,
}

/// TLS of one upstream and its files.
#[derive(Clone)]
pub struct Upstream {
    terms: UpstreamTls,
    tls: Arc<ClientTls>,
    trusted: Trusted,
    identity: Option<Slot<Pair>>,
}

#[derive(Clone)]
enum Trusted {
    File(Slot<Authorities>),
    /// Read once: another set of them comes with the system's updates, and a restart.
    System(Arc<Authorities>),
}

/// Who has a file, for messages and metrics.
#[derive(Clone, Copy)]
enum Owner<'a> {
    Listener(&'a str),
    Upstream(&'a str),
}

impl Certificates {
    /// Reads every file of a configuration; all refusals at once, for the operator.
    pub fn start(config: &Config, metrics: &Metrics) -> Result<Self, Vec<String>> {
        let mut own = Self { metrics: metrics.clone(), listeners: vec![], upstreams: Upstreams::new() };
        let mut refusals = vec![];
        for (index, listener) in config.listeners.iter().enumerate() {
            match listener.tls.as_ref().map(|terms| Listener::open(&listener.name, terms)).transpose() {
                Ok(opened) => own.listeners.extend(opened),
                Err(more) => refusals.extend(more.into_iter().map(|why| format!("listeners[{index}].tls: {why}"))),
            }
        }
        match own.prepare(config) {
            Ok(upstreams) => own.adopt(upstreams),
            Err(more) => refusals.extend(more),
        }
        for listener in &own.listeners {
            let owner = Owner::Listener(&listener.tls.listener);
            listener.pairs.iter().for_each(|slot| owner.announce(slot));
            listener.clients.iter().for_each(|slot| owner.announce(slot));
        }
        if refusals.is_empty() { Ok(own) } else { Err(refusals) }
    }

    /// TLS of a listener; none where it speaks plain text.
    pub fn listener(&self, name: &str) -> Option<Arc<ServerTls>> {
        self.listeners.iter().find(|listener| *listener.tls.listener == *name).map(|listener| listener.tls.clone())
    }

    /// TLS of all upstreams that have it.
    pub fn clients(&self) -> Clients {
        clients(&self.upstreams)
    }

    /// The upstreams of a new configuration: what did not change is kept, what did is read. Nothing is in use before it was [adopted](Self::adopt).
    pub fn prepare(&self, config: &Config) -> Result<Upstreams, Vec<String>> {
        let (mut upstreams, mut refusals) = (Upstreams::new(), vec![]);
        for (name, upstream) in &config.upstreams {
            let Some(terms) = &upstream.tls else { continue };
            let known = self.upstreams.get(name).filter(|known| known.terms == *terms);
            match known.cloned().map_or_else(|| Upstream::open(terms), Ok) {
                Ok(upstream) => {
                    upstreams.insert(name.clone(), upstream);
                }
                Err(refusal) => {
                    Owner::Upstream(name).count(&self.metrics, refusal.reason);
                    refusals.push(format!("upstreams.{name}.tls: {refusal}"));
                }
            }
        }
        if refusals.is_empty() { Ok(upstreams) } else { Err(refusals) }
    }

    /// Looks after these upstreams from now on, and no longer after those before.
    pub fn adopt(&mut self, upstreams: Upstreams) {
        for (name, upstream) in &upstreams {
            if self.upstreams.get(name).is_none_or(|before| !Arc::ptr_eq(&before.tls, &upstream.tls)) {
                let owner = Owner::Upstream(name);
                upstream.identity.iter().for_each(|slot| owner.announce(slot));
                upstream.authorities().iter().for_each(|slot| owner.announce(slot));
            }
        }
        self.upstreams = upstreams;
        self.publish();
    }

    /// Reads the files and puts what changed into service. `force` tells of bad content that was told before.
    pub fn look(&mut self, force: bool) {
        let mut changed = false;
        for listener in &mut self.listeners {
            changed |= listener.look(force, &self.metrics);
        }
        for (name, upstream) in &mut self.upstreams {
            changed |= upstream.look(name, force, &self.metrics);
        }
        if changed {
            self.publish();
        }
    }

    /// A line for each certificate of a listener and each warning: for `witgate check`.
    pub fn describe(&self) -> Vec<String> {
        let mut lines = vec![];
        for listener in &self.listeners {
            for slot in &listener.pairs {
                let facts = &slot.good.facts;
                let until = httpdate::fmt_http_date(facts.not_after);
                lines.push(format!("listener {}: {} until {until}", listener.tls.listener, shown_names(facts)));
                lines.extend(slot.warnings().into_iter().map(|why| format!("warning: {why}")));
            }
            lines.extend(listener.clients.iter().flat_map(Slot::warnings).map(|why| format!("warning: {why}")));
        }
        for (name, upstream) in &self.upstreams {
            let found = upstream.identity.iter().flat_map(Slot::warnings);
            let found = found.chain(upstream.authorities().into_iter().flat_map(Slot::warnings));
            lines.extend(found.map(|why| format!("warning: upstream {name}: {why}")));
        }
        lines
    }

    /// Until when what is in use is valid: for a bundle of authorities, the first that ends.
    fn publish(&self) {
        let (listeners, upstreams) = (&self.metrics.certificate_expiry, &self.metrics.upstream_certificate_expiry);
        listeners.clear();
        upstreams.clear();
        for own in &self.listeners {
            let mut set = |facts: &Facts| {
                let labels = CertificateLabels { listener: own.tls.listener.clone(), name: short_name(facts) };
                listeners.get_or_create(&labels).set(seconds(facts.not_after));
            };
            own.pairs.iter().for_each(|slot| set(&slot.good.facts));
            own.clients.iter().filter_map(|slot| first_to_end(&slot.good.facts)).for_each(&mut set);
        }
        for (upstream, own) in &self.upstreams {
            let mut set = |facts: &Facts| {
                let labels = UpstreamCertificateLabels { upstream: upstream.as_str().into(), name: short_name(facts) };
                upstreams.get_or_create(&labels).set(seconds(facts.not_after));
            };
            own.identity.iter().for_each(|slot| set(&slot.good.facts));
            own.authorities().iter().filter_map(|slot| first_to_end(&slot.good.facts)).for_each(&mut set);
        }
    }
}

/// TLS of these upstreams, for a snapshot.
pub fn clients(upstreams: &Upstreams) -> Clients {
    upstreams.iter().map(|(name, upstream)| (name.clone(), upstream.tls.clone())).collect()
}

impl Listener {
    fn open(name: &str, terms: &ListenerTls) -> Result<Self, Vec<String>> {
        let (mut pairs, mut refusals) = (vec![], vec![]);
        for files in &terms.certificates {
            match Slot::open(pair_files(files)) {
                Ok(slot) => pairs.push(slot),
                Err(refusal) => refusals.push(refusal.to_string()),
            }
        }
        let clients = terms.client_auth.as_ref().map(|auth| Slot::<Authorities>::open(vec![auth.ca.clone()]));
        let clients = clients.transpose().unwrap_or_else(|refusal| {
            refusals.push(refusal.to_string());
            None
        });
        if !refusals.is_empty() {
            return Err(refusals);
        }
        let resumption = Resumption::new();
        let served = serve(terms, &pairs, clients.as_ref(), &resumption).map_err(|why| vec![why])?;
        let tls = Arc::new(ServerTls::new(name, served));
        Ok(Self { terms: terms.clone(), tls, pairs, clients, resumption })
    }

    /// Whether something new is in service.
    fn look(&mut self, force: bool, metrics: &Metrics) -> bool {
        let owner = Owner::Listener(&self.tls.listener);
        let mut changed = false;
        for slot in &mut self.pairs {
            changed |= owner.look(slot, force, metrics);
        }
        if self.clients.as_mut().is_some_and(|slot| owner.look(slot, force, metrics)) {
            // Who came in by an authority that is no longer trusted must not come back by a ticket.
            self.resumption = Resumption::new();
            changed = true;
        }
        if changed {
            match serve(&self.terms, &self.pairs, self.clients.as_ref(), &self.resumption) {
                Ok(served) => self.tls.replace(served),
                Err(why) => owner.fail(metrics, &why),
            }
        }
        changed
    }
}

fn serve(
    terms: &ListenerTls,
    pairs: &[Slot<Pair>],
    clients: Option<&Slot<Authorities>>,
    resumption: &Resumption,
) -> Result<Served, String> {
    let pairs = pairs.iter().map(|slot| slot.good.clone());
    Served::new(terms, pairs, clients.map(|slot| &*slot.good), resumption.clone())
}

impl Upstream {
    fn open(terms: &UpstreamTls) -> Result<Self, Refusal> {
        let trusted = match &terms.ca {
            Some(file) => Trusted::File(Slot::open(vec![file.clone()])?),
            None => Trusted::System(system_roots()?),
        };
        let identity = terms.identity.as_ref().map(|files| Slot::open(pair_files(files))).transpose()?;
        let config = connect(terms, &trusted, identity.as_ref()).map_err(|why| Refusal {
            file: terms.ca.clone().unwrap_or_default(),
            reason: "unusable",
            why,
        })?;
        let tls = Arc::new(ClientTls::new(config, terms.server_name.clone()));
        Ok(Self { terms: terms.clone(), tls, trusted, identity })
    }

    fn look(&mut self, name: &str, force: bool, metrics: &Metrics) -> bool {
        let owner = Owner::Upstream(name);
        let mut changed = false;
        if let Trusted::File(slot) = &mut self.trusted {
            changed |= owner.look(slot, force, metrics);
        }
        if let Some(slot) = &mut self.identity {
            changed |= owner.look(slot, force, metrics);
        }
        if changed {
            match connect(&self.terms, &self.trusted, self.identity.as_ref()) {
                Ok(config) => self.tls.replace(config),
                Err(why) => owner.fail(metrics, &why),
            }
        }
        changed
    }

    fn authorities(&self) -> Option<&Slot<Authorities>> {
        match &self.trusted {
            Trusted::File(slot) => Some(slot),
            Trusted::System(_) => None,
        }
    }
}

fn connect(
    terms: &UpstreamTls,
    trusted: &Trusted,
    identity: Option<&Slot<Pair>>,
) -> Result<Arc<rustls::ClientConfig>, String> {
    let trusted = match trusted {
        Trusted::File(slot) => &slot.good,
        Trusted::System(roots) => roots,
    };
    client_config(terms.min_version, trusted, identity.map(|slot| &*slot.good))
}

fn system_roots() -> Result<Arc<Authorities>, Refusal> {
    let found = rustls_native_certs::load_native_certs();
    Authorities::of_system(found.certs).map(Arc::new).ok_or_else(|| Refusal {
        file: "ca".into(),
        reason: "missing",
        why: "the system has no root certificates (package ca-certificates): install them, or name a file".into(),
    })
}

impl Owner<'_> {
    /// Whether the files have something new and good; what is bad is told and counted.
    fn look<T: Material>(self, slot: &mut Slot<T>, force: bool, metrics: &Metrics) -> bool {
        match slot.look(force) {
            Look::Same => false,
            Look::New => {
                self.announce(slot);
                true
            }
            Look::Refused(refusal) => {
                self.count(metrics, refusal.reason);
                let (listener, upstream) = self.fields();
                tracing::error!(
                    listener,
                    upstream,
                    file = %refusal.file.display(),
                    reason = refusal.reason,
                    why = refusal.why,
                    "a new certificate file was refused; the one before serves on"
                );
                false
            }
        }
    }

    fn announce<T: Material>(self, slot: &Slot<T>) {
        let (listener, upstream) = self.fields();
        let file = slot.files.first().map(|file| file.display().to_string());
        if let [facts] = slot.good.facts() {
            let until = httpdate::fmt_http_date(facts.not_after);
            tracing::info!(listener, upstream, file, names = shown_names(facts), until, "a certificate is in service");
        } else {
            tracing::info!(listener, upstream, file, count = slot.good.facts().len(), "certificates are in service");
        }
        for why in slot.warnings() {
            tracing::warn!(listener, upstream, file, why, "a certificate needs attention");
        }
    }

    fn fail(self, metrics: &Metrics, why: &str) {
        self.count(metrics, "unusable");
        let (listener, upstream) = self.fields();
        tracing::error!(listener, upstream, why, "new certificates cannot be used; those before serve on");
    }

    fn count(self, metrics: &Metrics, reason: &'static str) {
        match self {
            Self::Listener(name) => {
                let labels = CertificateFailureLabels { listener: name.into(), reason };
                metrics.certificate_failures.get_or_create(&labels).inc();
            }
            Self::Upstream(name) => {
                let labels = UpstreamCertificateFailureLabels { upstream: name.into(), reason };
                metrics.upstream_certificate_failures.get_or_create(&labels).inc();
            }
        }
    }

    fn fields(&self) -> (Option<&str>, Option<&str>) {
        match self {
            Self::Listener(name) => (Some(name), None),
            Self::Upstream(name) => (None, Some(name)),
        }
    }
}

fn pair_files(files: &CertificateFiles) -> Vec<std::path::PathBuf> {
    vec![files.certificate.clone(), files.key.clone()]
}

/// The hosts of a certificate, or its subject where it names none.
fn shown_names(facts: &Facts) -> String {
    let names: Vec<&str> = facts.dns_names().collect();
    if names.is_empty() { facts.subject.clone() } else { names.join(", ") }
}

fn short_name(facts: &Facts) -> Arc<str> {
    facts.dns_names().next().unwrap_or(&facts.subject).into()
}

fn first_to_end(facts: &[Facts]) -> Option<&Facts> {
    facts.iter().min_by_key(|facts| facts.not_after)
}

fn seconds(time: SystemTime) -> i64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}
