//! The manifest of a filter (what it is and what it needs from the gateway), and its examples
//! (requests, and what the author expects of the filter).
//!
//! `componentize` reads the manifest from filter.toml and writes it as JSON into a custom section
//! of the component. The gateway reads that section. Both use this crate, so they agree on every
//! field, default and limit. This crate does not know: TOML, WebAssembly, the gateway's
//! configuration.

mod config_schema;
mod examples;
mod filter_schema;
mod manifest;
mod pattern;
mod rules;
mod section;
mod text;

pub use examples::{
    Action, EXAMPLES_BYTES_MAX, EXAMPLES_MAX, EXAMPLES_SECTION, Example, ExampleClient, ExampleRequest,
    ExampleResponse, ExamplesError, Expectation, ExpectedRequest, ExpectedResponse, FieldLines, REPEAT_MAX,
    examples_from_section, examples_to_section,
};
pub use filter_schema::filter_schema;
pub use manifest::{
    BODY_BYTES_DEFAULT, BODY_BYTES_MAX, BodyMode, CONFIG_KEYS_MAX, DESCRIPTION_BYTES_MAX, Manifest, NAME_CHARS_MAX,
    Phase, SERVICES, VERSION_CHARS_MAX,
};
pub use pattern::Pattern;
pub use rules::{Field, Problem, check_body_bytes};
pub use section::{SECTION, SECTION_BYTES_MAX, SectionError};
