//! YAML: from text to a tree with lines, and from the tree to typed values.

mod forms;
mod section;
mod suggest;
mod tree;

pub(crate) use section::Section;
pub use suggest::nearest;
pub(crate) use tree::{Key, Node, Value, parse, parse_file};

use crate::error::ConfigError;

/// The content of another YAML file, as JSON: without the rules and references of gateway.yaml.
/// JSON is YAML too.
///
/// # Errors
///
/// The text is not YAML, has anchors, or is too large.
pub fn yaml_to_json(text: &str) -> Result<serde_json::Value, ConfigError> {
    parse(text).map(|node| node.to_plain_json())
}
