//! `witgate check`: reports everything that `run` would refuse: the configuration, certificates and
//! filters. Filters are described and not compiled.
//!
//! This module does not know: how certificates and filters are checked.

use std::fmt::Display;
use std::path::Path;

use super::output::print;
use crate::control::config_source::ConfigSource;
use crate::pipeline::jwt::parse_keys;
use crate::process::files;
use crate::releases::loader;
use crate::releases::remote::RemoteSources;
use crate::telemetry::Metrics;
use crate::tls::reload::Certificates;
use witgate_config::{Filter, JwtKeys, OnError, SharedStore};
use witgate_runtime::component::ComponentInfo;

pub(super) fn check(file: &Path) -> Result<(), String> {
    let source = ConfigSource::file(file.to_owned());
    let config = source.parse(&source.read()?)?;
    let shown = file.display().to_string();
    let mut errors = vec![];
    match Certificates::open(&config, &Metrics::new()) {
        Ok(certificates) => certificates.describe().iter().try_for_each(print)?,
        Err(found) => errors.extend(found.lines().map(|line| format!("{shown}: {line}"))),
    }
    // A check leaves the state directory alone.
    let folder = tempfile::tempdir().map_err(|error| format!("a temporary folder: {error}"))?;
    let remote = RemoteSources::new(folder.path());
    remote.follow(config.sourced());
    for (name, filter) in &config.filters {
        match loader::check(name, filter, &config, &remote) {
            Ok(info) => print_filter(&shown, name, filter, &info)?,
            Err(error) => errors.push(format!("{shown}: filters.{name}: {}: {error}", filter.source)),
        }
    }
    for route in &config.routes {
        let keys = route.jwt.as_ref().map(|jwt| &jwt.keys);
        if let Some(JwtKeys::Text(text)) = keys
            && let Err(why) = parse_keys(text)
        {
            errors.push(format!("{shown}: route {}: jwt.keys: {why}", route.name));
        }
    }
    for (name, component) in config.components() {
        let file = &component.code.source;
        match loader::check_component(name, component, &config, &remote) {
            Ok(info) => {
                let (kib, digest) = (info.size >> 10, &info.digest[..12]);
                print(format_args!("upstream {name}: component {file}, {kib} KiB, sha256 {digest}"))?;
            }
            Err(error) => errors.push(format!("{shown}: upstreams.{name}.component: {file}: {error}")),
        }
    }
    for (name, store) in &config.stores {
        print_store(name, store);
    }
    for warning in &config.warnings {
        let file = warning.file.as_ref().unwrap_or(&shown);
        print(format_args!("{file}:{warning} (warning)"))?;
    }
    if let Some(why) = files::shortage(files::raise_limit(), &config) {
        print(format_args!("{shown}: {why} (warning)"))?;
    }
    if !errors.is_empty() {
        return Err(errors.join("\n"));
    }
    let (routes, filters) = (count(config.routes.len(), "route"), count(config.filters.len(), "filter"));
    print(format_args!("{shown}: ok ({routes}, {filters})"))
}

/// `1 route`, `2 routes`.
fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

fn print_filter(shown: &impl Display, name: &str, filter: &Filter, info: &ComponentInfo) -> Result<(), String> {
    print(format_args!(
        "filter {name}: {} {}, {} KiB, sha256 {}",
        filter.source,
        info.manifest.as_ref().map_or("without a manifest", |manifest| manifest.version.as_str()),
        info.size >> 10,
        &info.digest[..12]
    ))?;
    if filter.on_error == OnError::Open && info.manifest.as_ref().is_some_and(|manifest| manifest.auth) {
        print(format_args!(
            "{shown}: filters.{name}.on_error: with open, a request passes if it makes the filter fail, and this filter decides who may pass (`auth` in its manifest): write closed (warning)"
        ))?;
    }
    if filter.reuse > 1 {
        print(format_args!(
            "filter {name}: calls are not isolated from each other: an instance serves up to {} calls (reuse), and a call can read what earlier calls left in memory",
            filter.reuse
        ))?;
    }
    for (origin, upstream) in filter.http.upstreams() {
        let way = match upstream.strip_prefix(origin) {
            Some("") => "directly".into(),
            Some(networks) => format!("directly, also at addresses that are not public{networks}"),
            None => format!("through upstream {upstream}"),
        };
        print(format_args!("filter {name}: may call {origin} {way}"))?;
    }
    Ok(())
}

/// Does not connect: a check has the same result on every machine.
fn print_store(name: &str, store: &SharedStore) {
    let redis = &store.redis;
    let addresses: Vec<String> = redis.addresses.iter().map(ToString::to_string).collect();
    println!(
        "store {name}: {} {}{}, at most {:?} for an operation, on failure {}",
        match (&redis.master, redis.is_cluster) {
            (Some(_), _) => "Redis by the Sentinels",
            (None, true) => "Redis Cluster of",
            (None, false) => "Redis",
        },
        addresses.join(", "),
        if redis.tls.is_some() { " with TLS" } else { "" },
        store.timeout,
        store.on_failure.label()
    );
}
