//! Which keys a section has and which forms their values may have, noted while a file is read.
//!
//! The readers of the configuration are its only description: this module lets them write down
//! what they ask for, so that nobody has to keep a second one. A file that has every key shows
//! every section. This module does not know: JSON Schema, which keys exist.

use std::collections::{BTreeMap, BTreeSet};

/// Stands for the keys of a section whose keys are names that the file chooses.
pub(crate) const ANY_NAME: &str = "*";

/// A form that a value may have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Form {
    /// One value, in the reader's own notation.
    Text,
    Boolean,
    /// One of these words.
    Words(Vec<String>),
    /// A whole number between the two.
    Number(String, String),
    /// Bytes, between the two.
    Size(usize, usize),
    Duration,
    /// A list of such values; one value counts as a list of one.
    List(Box<Form>),
    /// A mapping; the shape of its path describes it.
    Section,
    /// A list of mappings; the shape of its path describes them.
    Items,
    /// A mapping with any keys.
    AnyNames,
}

/// One section: its keys.
#[derive(Debug, Default)]
pub(crate) struct Shape {
    /// The forms of each key's value. Empty if the reader looks at the value itself.
    pub(crate) keys: BTreeMap<String, Vec<Form>>,
    pub(crate) required: BTreeSet<String>,
}

/// All sections by path, such as `routes[].match`; the path of the whole file is empty.
#[derive(Debug, Default)]
pub(crate) struct Shapes(pub(crate) BTreeMap<String, Shape>);

impl Form {
    pub(crate) fn words<T>(choices: &[(&str, T)]) -> Self {
        Self::Words(choices.iter().map(|(word, _)| (*word).to_owned()).collect())
    }
}

impl Shapes {
    /// Notes a form of the value of `key`. A key such as `filters[3]` is an item of a list.
    pub(crate) fn note(&mut self, path: &str, key: &str, form: Form) {
        let (key, form) = match key.split_once('[') {
            Some((list, _)) if form == Form::Section => (list, Form::Items),
            Some((list, _)) => (list, Form::List(Box::new(form))),
            None => (key, form),
        };
        let forms = self.0.entry(path.to_owned()).or_default().keys.entry(key.to_owned()).or_default();
        if !forms.contains(&form) {
            forms.push(form);
        }
    }

    /// Notes that the section has this key.
    pub(crate) fn ask(&mut self, path: &str, key: &str) {
        self.0.entry(path.to_owned()).or_default().keys.entry(key.to_owned()).or_default();
    }

    pub(crate) fn require(&mut self, path: &str, key: &str) {
        self.0.entry(path.to_owned()).or_default().required.insert(key.to_owned());
    }
}

/// The path of the section `key` below `path`: `routes[3]` becomes `routes[]`.
pub(crate) fn child_path(path: &str, key: &str) -> String {
    let key = key.split_once('[').map_or_else(|| key.to_owned(), |(list, _)| format!("{list}[]"));
    if path.is_empty() { key } else { format!("{path}.{key}") }
}
