//! The settings of the source of each filter and of each component of an upstream, and whether they
//! allow its location.
//!
//! This module does not know: how a location is reached.

use std::collections::BTreeMap;

use crate::filters::Filter;
use crate::sources::Sources;
use crate::upstreams::Upstream;
use crate::upstreams::endpoints::UpstreamTarget;
use crate::yaml::Section;

/// Gives each component the settings of its location, and checks that they allow it.
pub(crate) fn apply(
    top: &Section,
    sources: &Sources,
    filters: &mut BTreeMap<String, Filter>,
    upstreams: &mut BTreeMap<String, Upstream>,
) {
    for (name, filter) in filters {
        apply_one(top, sources, &["filters", name, "source"], filter);
        if let Some(store) = filter.release.as_mut().and_then(|release| release.store.as_mut()) {
            store.resolve(name, sources);
        }
    }
    for (name, upstream) in upstreams {
        if let UpstreamTarget::Component(component) = &mut upstream.target {
            apply_one(top, sources, &["upstreams", name, "component", "source"], &mut component.code);
            component.code.signed_name.get_or_insert_with(|| name.clone());
        }
    }
}

fn apply_one(top: &Section, sources: &Sources, path: &[&str], code: &mut Filter) {
    code.source_settings = sources.of(&code.source);
    let is_plain = code.source.remote().is_some_and(|location| location.text.starts_with("http://"));
    if is_plain && !code.source_settings.plain_http {
        let message = "whoever is on the network can replace the component: write https, or allow it with `sources: [{prefix: \"http://…\", plain_http: true}]`";
        top.error_at(path, message);
    }
}
