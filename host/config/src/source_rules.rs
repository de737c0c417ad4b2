//! The settings of each filter's source, and whether they allow its location.
//!
//! This module does not know: how a location is reached.

use std::collections::BTreeMap;

use crate::filters::Filter;
use crate::sources::Sources;
use crate::yaml::Section;

/// Gives each filter the settings of its location, and checks that they allow it.
pub(crate) fn apply(top: &Section, sources: &Sources, filters: &mut BTreeMap<String, Filter>) {
    for (name, filter) in filters {
        filter.source_settings = sources.of(&filter.source);
        let is_plain = filter.source.remote().is_some_and(|location| location.text.starts_with("http://"));
        if is_plain && !filter.source_settings.plain_http {
            let message = "whoever is on the network can replace the filter: write https, or allow it with `sources: [{prefix: \"http://…\", plain_http: true}]`";
            top.error_at(&["filters", name, "source"], message);
        }
    }
}
