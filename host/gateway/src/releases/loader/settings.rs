//! What the runtime needs to know of a filter, from its entry in gateway.yaml.
//!
//! This module does not know: components.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::state::FilterState;
use crate::upstream::outbound::ThreadSender;
use witgate_config::{Capability, FilterHttp};
use witgate_runtime::crypto::SecretKey;
use witgate_runtime::outbound::HttpGrant;
use witgate_runtime::settings::{FilterSettings, Grant};

/// The settings of a filter.
pub(super) fn settings(name: &str, filter: &witgate_config::Filter, state: FilterState) -> FilterSettings {
    let grant = |capability: &Capability| match capability {
        Capability::KeyValue => Grant::KeyValue,
        Capability::Limiter => Grant::Limiter,
        Capability::Http => Grant::Http,
        Capability::Crypto => Grant::Crypto,
        Capability::Wasi => Grant::Wasi,
    };
    FilterSettings {
        name: name.into(),
        timeout: filter.timeout,
        memory_bytes: filter.memory_bytes,
        body_bytes: filter.body_bytes,
        concurrency: filter.concurrency,
        reuse: filter.reuse,
        grants: filter.capabilities.iter().map(grant).collect(),
        store: state.store,
        limiter: state.limiter,
        http: filter
            .capabilities
            .contains(&Capability::Http)
            .then(|| http_grant(format!("filters.{name}.http"), &filter.http)),
        keys: Arc::new(keys(filter)),
    }
}

/// What a filter or a component may call. `key` is the place in gateway.yaml that grants it.
pub(super) fn http_grant(key: String, settings: &FilterHttp) -> HttpGrant {
    HttpGrant {
        key: key.into(),
        origins: settings.upstreams().map(|(origin, upstream)| (origin.to_owned(), upstream.into())).collect(),
        calls: settings.calls,
        wait: settings.wait,
        request_bytes: settings.request_bytes,
        response_bytes: settings.response_bytes,
        sender: Arc::new(ThreadSender),
    }
}

fn keys(filter: &witgate_config::Filter) -> BTreeMap<String, SecretKey> {
    filter.keys.iter().map(|(name, secret)| (name.clone(), SecretKey::new(secret.key_bytes()))).collect()
}
