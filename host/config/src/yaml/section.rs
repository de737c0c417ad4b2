//! Reads typed values from a mapping of the YAML tree and collects every mistake.
//!
//! A reader never stops at a mistake: it records an error and returns nothing, so that the caller
//! uses a default and one run reports all mistakes. A section remembers which keys were read; the
//! rest are unknown keys. It can also note which form of value each key has (`key_forms.rs`).
//! This module does not know: which sections and keys exist.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use super::forms::example;
use super::suggest::{begins, nearest, other_name};
use super::tree::{Key, Node, Value};
use crate::error::{ConfigError, Reading};
use crate::key_forms::{ANY_NAME, Form, child_path};
use crate::references::Reference;
use crate::values;

/// The most unknown keys of one section that are reported.
const UNKNOWN_SHOWN_MAX: usize = 101;

/// A mapping that is being read.
pub(crate) struct Section<'a> {
    /// Such as `routes[0].match`; empty for the whole file.
    path: String,
    /// The path in the shape of the file, such as `routes[].match` (only while shapes are noted).
    shape_path: String,
    /// Whether the keys are names that the file chooses.
    has_any_names: bool,
    /// `None` if the file does not have this section.
    node: Option<&'a Node>,
    entries: &'a [(Key, Node)],
    keys_read: RefCell<Vec<&'static str>>,
    reading: &'a Reading<'a>,
}

impl<'a> Section<'a> {
    /// The whole file.
    pub(crate) fn root(root: &'a Node, reading: &'a Reading<'a>) -> Self {
        Self::open(Some(root), String::new(), String::new(), reading)
    }

    /// Reads the whole file with `read`, then reports the keys that `read` did not ask for.
    pub(crate) fn read_file<T>(root: &'a Node, reading: &'a Reading<'a>, read: impl FnOnce(&Self) -> T) -> T {
        let section = Self::root(root, reading);
        let value = read(&section);
        section.report_unknown_keys();
        value
    }

    /// Reads the mapping `node` of `key` with `read`, then reports the keys that `read` did not ask
    /// for. An absent value counts as an empty mapping; so does another kind of value, with an
    /// error.
    fn read<T>(&self, node: Option<&'a Node>, key: &str, read: impl FnOnce(&Self) -> T) -> T {
        self.note(key, || Form::Section);
        let section = Self::open(node, self.path_of(key), self.shape_path_of(key), self.reading);
        let value = read(&section);
        section.report_unknown_keys();
        value
    }

    /// The section `key`; an absent one counts as empty.
    pub(crate) fn nested<T>(&self, key: &'static str, read: impl FnOnce(&Self) -> T) -> T {
        self.read(self.get(key), key, read)
    }

    /// Reads a section without any key, for the defaults. Its keys do not count as keys of the
    /// file.
    pub(crate) fn blank<T>(&self, read: impl FnOnce(&Section<'_>) -> T) -> T {
        let reading = Reading::new(self.reading.references, self.reading.base);
        read(&Section::open(None, self.path.clone(), String::new(), &reading))
    }

    /// The section `key`, if the file has it.
    pub(crate) fn optional<T>(&self, key: &'static str, read: impl FnOnce(&Self) -> T) -> Option<T> {
        self.get(key).map(|node| self.child(key, node, read))
    }

    /// The list `key`, whose items are all sections.
    pub(crate) fn each<T>(&self, key: &'static str, read: impl Fn(usize, &Self) -> T) -> Vec<T> {
        let item = |(index, node)| self.item(key, index, node, |section| read(index, section));
        self.nodes(key).iter().enumerate().map(item).collect()
    }

    /// One item of a list as a section.
    pub(crate) fn item<T>(&self, key: &str, index: usize, node: &'a Node, read: impl FnOnce(&Self) -> T) -> T {
        self.child(&format!("{key}[{index}]"), node, read)
    }

    /// The value `node` of `key` as a section.
    pub(crate) fn child<T>(&self, key: &str, node: &'a Node, read: impl FnOnce(&Self) -> T) -> T {
        self.read(Some(node), key, read)
    }

    /// The mapping `key` from names to sections. `example` shows an entry of it.
    pub(crate) fn named<T>(&self, key: &'static str, example: &str, read: impl Fn(&Self) -> T) -> BTreeMap<String, T> {
        if let Some(node) = self.get(key).filter(|node| !matches!(node.value, Value::Map(_))) {
            let message = format!("expected a mapping from names, such as {example}, found {}", node.describe());
            self.error(node.line, key, message);
            return BTreeMap::new();
        }
        let all = self.free_form(key);
        let mut values = BTreeMap::new();
        for (entry, node) in all.entries {
            if let Err(why) = values::name(&entry.text) {
                all.error(entry.line, &entry.text, why);
            }
            values.insert(entry.text.clone(), all.child(&entry.text, node, &read));
        }
        values
    }

    /// The mapping `key`, which may have any keys.
    pub(crate) fn free_form(&self, key: &'static str) -> Self {
        self.note(key, || Form::AnyNames);
        let all = Self::open(self.get(key), self.path_of(key), self.shape_path_of(key), self.reading);
        Self { has_any_names: true, ..all }
    }

    pub(crate) fn entries(&self) -> &'a [(Key, Node)] {
        self.entries
    }

    /// The value of `key`, if the file has one.
    pub(crate) fn get(&self, key: &'static str) -> Option<&'a Node> {
        if let Some(shapes) = &self.reading.shapes {
            shapes.borrow_mut().ask(&self.shape_path, key);
        }
        let mut keys_read = self.keys_read.borrow_mut();
        if !keys_read.contains(&key) {
            keys_read.push(key);
        }
        self.entries.iter().find(|(name, _)| name.text == key).map(|(_, node)| node).filter(|node| !node.is_null())
    }

    pub(crate) fn has(&self, key: &'static str) -> bool {
        self.get(key).is_some()
    }

    /// Whether the value of `key` is the word `off`.
    pub(crate) fn is_off(&self, key: &'static str) -> bool {
        self.note(key, || Form::Words(vec!["off".into()]));
        matches!(self.get(key).map(|node| &node.value), Some(Value::Scalar { text, .. }) if text == "off")
    }

    /// Whether the value of `key` is a mapping.
    pub(crate) fn is_mapping(&self, key: &'static str) -> bool {
        matches!(self.get(key).map(|node| &node.value), Some(Value::Map(_)))
    }

    /// Whether the value of `key` is the word `false`.
    pub(crate) fn is_false(&self, key: &'static str) -> bool {
        self.note(key, || Form::Boolean);
        matches!(self.get(key).map(|node| &node.value), Some(Value::Scalar { text, plain: true }) if text == "false")
    }

    /// Reports an error if `key` is absent.
    pub(crate) fn require(&self, key: &'static str, advice: &str) {
        if let Some(shapes) = &self.reading.shapes {
            shapes.borrow_mut().require(&self.shape_path, key);
        }
        if !self.has(key) {
            self.error(self.line(), key, format!("is missing: {advice}"));
        }
    }

    /// The line where the section begins.
    pub(crate) fn line(&self) -> usize {
        self.node.map_or(1, |node| node.line)
    }

    pub(crate) fn error(&self, line: usize, key: &str, message: impl Into<String>) {
        self.reading.errors.borrow_mut().push(ConfigError::new(line, &self.path_of(key), message));
    }

    /// Reports what can work but is probably not what the operator means.
    pub(crate) fn warn(&self, line: usize, key: &str, message: impl Into<String>) {
        self.reading.warnings.borrow_mut().push(ConfigError::new(line, &self.path_of(key), message));
    }

    /// Reports a warning at a path below this section, such as `["routes[0]", "match"]`.
    pub(crate) fn warn_at(&self, path: &[&str], message: impl Into<String>) {
        let line = self.node.map_or(1, |node| node.line_at(path));
        self.warn(line, &path.join("."), message);
    }

    /// Reports an error at a path below this section, such as `["retries", "backoff"]`.
    pub(crate) fn error_at(&self, path: &[&str], message: impl Into<String>) {
        let line = self.node.map_or(1, |node| node.line_at(path));
        self.error(line, &path.join("."), message);
    }

    /// A single value. `parse` returns the end of the error message.
    pub(crate) fn scalar<T>(&self, key: &'static str, parse: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        self.note(key, || Form::Text);
        self.single(key, parse)
    }

    /// A single value in `node`, which belongs to `key`, or the value that it refers to.
    pub(crate) fn value<T>(&self, key: &str, node: &Node, parse: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        self.note(key, || Form::Text);
        self.parse_value(key, node, parse)
    }

    fn single<T>(&self, key: &'static str, parse: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        let node = self.get(key)?;
        self.parse_value(key, node, parse)
    }

    fn parse_value<T>(&self, key: &str, node: &Node, parse: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        let parsed = match (&node.value, node.reference()) {
            (Value::Scalar { text, .. }, _) => parse(text).map_err(|why| format!("{}: {why}", node.describe())),
            (_, Some(reference)) => {
                self.look_up(&reference).and_then(|text| parse(&text).map_err(|_| reference.not_allowed()))
            }
            _ => {
                let is_condition = self.path.ends_with(".match") || self.path.ends_with(".match.path");
                let advice = if is_condition { ": write a route for each" } else { "" };
                Err(format!("expected one value, found {}{advice}", node.describe()))
            }
        };
        parsed.map_err(|message| self.error(node.line, key, message)).ok()
    }

    /// Like [`value`](Self::value), but a message never contains the value.
    pub(crate) fn secret<T>(
        &self,
        key: &str,
        node: &Node,
        parse: impl FnOnce(&str) -> Option<T>,
        advice: &str,
    ) -> Option<T> {
        self.note(key, || Form::Text);
        let text = match (&node.value, node.reference()) {
            (Value::Scalar { text, .. }, _) => Ok(text.clone()),
            (_, Some(reference)) => self.look_up(&reference),
            _ => Err(advice.to_owned()),
        };
        let parsed = text.and_then(|text| parse(&text).ok_or_else(|| advice.to_owned()));
        parsed.map_err(|message| self.error(node.line, key, message)).ok()
    }

    /// A text of several lines, or the file that it refers to. The errors of `parse` name lines and
    /// quote nothing, so they are shown for a file, too.
    pub(crate) fn document<T>(&self, key: &'static str, parse: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        self.note(key, || Form::Text);
        let node = self.get(key)?;
        let parsed = match (&node.value, node.reference()) {
            (Value::Scalar { text, .. }, _) => parse(text),
            (_, Some(reference)) => {
                self.look_up(&reference).and_then(|text| parse(&text).map_err(|why| format!("{reference}: {why}")))
            }
            _ => Err(format!("expected a text or {{file: PATH}}, found {}", node.describe())),
        };
        parsed.map_err(|message| self.error(node.line, key, message)).ok()
    }

    /// The value that a reference stands for.
    pub(crate) fn look_up(&self, reference: &Reference<'_>) -> Result<String, String> {
        reference.look_up(self.reading.references, self.reading.base)
    }

    pub(crate) fn string(&self, key: &'static str) -> Option<String> {
        self.scalar(key, |text| Ok(text.to_owned()))
    }

    pub(crate) fn bool(&self, key: &'static str) -> Option<bool> {
        self.note(key, || Form::Boolean);
        self.single(key, |text| choose(text, &[("true", true), ("false", false)], "write true or false"))
    }

    /// The value of one of these words.
    pub(crate) fn choice<T: Clone>(&self, key: &'static str, choices: &[(&str, T)], advice: &str) -> Option<T> {
        self.note(key, || Form::words(choices));
        self.single(key, |text| choose(text, choices, advice))
    }

    pub(crate) fn number<T: FromStr + PartialOrd + Display + Copy>(
        &self,
        key: &'static str,
        min: T,
        max: T,
    ) -> Option<T> {
        self.note(key, || Form::Number(min.to_string(), max.to_string()));
        self.single(key, |text| {
            let number = text.parse().ok().filter(|number| *number >= min && *number <= max);
            number.ok_or_else(|| format!("expected a whole number between {min} and {max}"))
        })
    }

    /// In bytes.
    pub(crate) fn size(&self, key: &'static str, min: usize, max: usize) -> Option<usize> {
        self.note(key, || Form::Size(min, max));
        self.single(key, |text| values::size(text, min, max))
    }

    pub(crate) fn duration(&self, key: &'static str, min: Duration, max: Duration) -> Option<Duration> {
        self.note(key, || Form::Duration);
        self.single(key, |text| values::duration(text, min, max))
    }

    /// A duration, or `Some(None)` for `off`.
    pub(crate) fn duration_or_off(&self, key: &'static str, min: Duration, max: Duration) -> Option<Option<Duration>> {
        if self.is_off(key) { Some(None) } else { self.duration(key, min, max).map(Some) }
    }

    /// The path of a file or folder; a relative one is relative to `base`.
    pub(crate) fn file(&self, key: &'static str, base: &Path) -> Option<PathBuf> {
        self.string(key).map(|file| base.join(file))
    }

    /// A list of single values; a single value counts as a list of one.
    pub(crate) fn list<T>(&self, key: &'static str, parse: impl Fn(&str) -> Result<T, String>) -> Vec<T> {
        self.note(key, || Form::List(Box::new(Form::Text)));
        self.items(key, parse)
    }

    fn items<T>(&self, key: &'static str, parse: impl Fn(&str) -> Result<T, String>) -> Vec<T> {
        let items = self.get(key).map_or(&[][..], Node::as_list);
        items.iter().filter_map(|item| self.parse_value(key, item, &parse)).collect()
    }

    /// A list of these words' values.
    pub(crate) fn choices<T: Clone>(&self, key: &'static str, choices: &[(&str, T)], advice: &str) -> Vec<T> {
        self.note(key, || Form::List(Box::new(Form::words(choices))));
        self.items(key, |text| choose(text, choices, advice))
    }

    /// The items of a list that holds sections or values; a single one counts as a list of one.
    pub(crate) fn nodes_or_value(&self, key: &'static str) -> &'a [Node] {
        self.get(key).map_or(&[], Node::as_list)
    }

    /// The items of a list that holds sections.
    pub(crate) fn nodes(&self, key: &'static str) -> &'a [Node] {
        let Some(node) = self.get(key) else { return &[] };
        if let Value::List(items) = &node.value {
            return items;
        }
        let message = format!("expected a list, found {}: begin each item with `- `", node.describe());
        self.error(node.line, key, message);
        &[]
    }

    fn open(node: Option<&'a Node>, path: String, shape_path: String, reading: &'a Reading<'a>) -> Self {
        let entries: &[(Key, Node)] = match node {
            Some(Node { value: Value::Map(entries), .. }) => entries,
            Some(node) if !node.is_null() => {
                let such_as = example(&path).map(|example| format!(" such as {example}")).unwrap_or_default();
                let message = format!("expected a mapping{such_as}, found {}", node.describe());
                reading.errors.borrow_mut().push(ConfigError::new(node.line, &path, message));
                &[]
            }
            _ => &[],
        };
        Self { path, shape_path, has_any_names: false, node, entries, keys_read: RefCell::default(), reading }
    }

    /// Notes a form that the value of `key`, such as `endpoints` or `endpoints[0]`, may have.
    fn note(&self, key: &str, form: impl FnOnce() -> Form) {
        if let Some(shapes) = &self.reading.shapes {
            let key = if self.has_any_names { ANY_NAME } else { key };
            shapes.borrow_mut().note(&self.shape_path, key, form());
        }
    }

    fn shape_path_of(&self, key: &str) -> String {
        match &self.reading.shapes {
            None => String::new(),
            Some(_) if self.has_any_names => child_path(&self.shape_path, ANY_NAME),
            Some(_) => child_path(&self.shape_path, key),
        }
    }

    fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    fn report_unknown_keys(&self) {
        let known = self.keys_read.borrow();
        let unknown = self.entries.iter().filter(|(key, _)| !known.contains(&key.text.as_str()));
        for (key, _) in unknown.take(UNKNOWN_SHOWN_MAX) {
            let near = || nearest(&key.text, &known).or_else(|| begins(&key.text, &known));
            let hint = other_name(&self.path, &key.text)
                .or_else(|| near().map(|near| format!("did you mean {near}?")))
                .unwrap_or_else(|| format!("the keys here are {}", known.join(", ")));
            self.error(key.line, &key.text, format!("unknown key: {hint}"));
        }
    }
}

fn choose<T: Clone>(text: &str, choices: &[(&str, T)], advice: &str) -> Result<T, String> {
    let chosen = choices.iter().find(|(word, _)| *word == text);
    chosen.map(|(_, value)| value.clone()).ok_or_else(|| advice.to_owned())
}
