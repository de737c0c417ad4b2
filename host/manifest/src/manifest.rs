//! The fields of a manifest, with their defaults and limits.
//!
//! This module does not know: the rules for values (`rules`), the form in a component (`section`).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The services that a filter may request beyond the base world.
pub const SERVICES: [&str; 4] = ["keyvalue", "limiter", "http", "crypto"];
/// The longest name of a filter, in characters.
pub const NAME_CHARS_MAX: usize = 64;
/// The longest version of a filter, in characters.
pub const VERSION_CHARS_MAX: usize = 64;
/// The longest description of a filter, in bytes.
pub const DESCRIPTION_BYTES_MAX: usize = 512;
/// The most configuration keys of a filter.
pub const CONFIG_KEYS_MAX: usize = 256;
/// The limit of a buffered body, in bytes, if the author sets none.
pub const BODY_BYTES_DEFAULT: u32 = 1 << 20;
/// The highest limit of a buffered body that an author may set, in bytes.
pub const BODY_BYTES_MAX: u32 = 8 << 20;

/// A filter's manifest. Its JSON form is the content of the section [`crate::SECTION`].
///
/// Deserialising checks the form only. [`Manifest::problems`] checks the values, and
/// [`Manifest::from_section`] does both.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// 1 to [`NAME_CHARS_MAX`] characters of a-z, 0-9 and `-`.
    pub name: String,
    /// A semantic version of at most [`VERSION_CHARS_MAX`] characters.
    pub version: String,
    /// One line of at most [`DESCRIPTION_BYTES_MAX`] bytes without control characters. It may be
    /// empty.
    #[serde(default)]
    pub description: String,
    /// Services beyond the base world, each at most once.
    #[serde(default)]
    pub services: Vec<String>,
    /// Whether the filter decides who may pass, so that a failed call must not let the exchange go
    /// on. `witgate check` warns of `on_error: open`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub auth: bool,
    /// The request phase. A filter has at least one phase.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<Phase>,
    /// The response phase.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response: Option<Phase>,
    /// A JSON Schema for each configuration key, at most [`CONFIG_KEYS_MAX`]. A key has 1 to
    /// [`NAME_CHARS_MAX`] characters of a-z, A-Z, 0-9, `_`, `-` and `.`.
    #[serde(default)]
    pub config: BTreeMap<String, serde_json::Value>,
}

/// What a filter needs in one phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Phase {
    /// Whether the gateway reads the body before it calls the filter.
    #[serde(default)]
    pub body: BodyMode,
    /// The largest body, in bytes: 1 to [`BODY_BYTES_MAX`]. Applies only to [`BodyMode::Buffer`].
    #[serde(default = "body_bytes_default")]
    pub body_bytes_max: u32,
}

/// How a phase receives the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BodyMode {
    /// The filter does not see the body; the gateway streams it.
    #[default]
    None,
    /// The gateway reads the whole body into memory before the call.
    Buffer,
}

impl Manifest {
    /// The phases that the filter has, by name, request first.
    pub fn phases(&self) -> impl Iterator<Item = (&'static str, &Phase)> {
        let phases = [("request", &self.request), ("response", &self.response)];
        phases.into_iter().filter_map(|(name, phase)| Some((name, phase.as_ref()?)))
    }
}

impl Phase {
    /// The largest body in bytes if the phase buffers it, else `None`.
    ///
    /// At most [`BODY_BYTES_MAX`], even for a manifest whose values were not checked.
    pub fn body_limit(&self) -> Option<usize> {
        (self.body == BodyMode::Buffer).then(|| self.body_bytes_max.min(BODY_BYTES_MAX) as usize)
    }
}

const fn body_bytes_default() -> u32 {
    BODY_BYTES_DEFAULT
}
