//! YAML: from text to a tree with lines, and from the tree to typed values.

mod section;
mod shape;
mod suggest;
mod tree;

pub(crate) use section::Section;
pub(crate) use shape::{ANY_NAME, Form, Shape, Shapes, child_path};
pub(crate) use suggest::nearest;
pub(crate) use tree::{Key, Node, Value, file_of, parse, parse_file};
