//! YAML: from text to a tree with lines, and from the tree to typed values.

mod section;
mod suggest;
mod tree;

pub(crate) use section::Section;
pub(crate) use suggest::nearest;
pub(crate) use tree::{Key, Node, Value, parse};
