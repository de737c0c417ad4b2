//! Parses YAML text into a tree in which every value knows its line.
//!
//! The tree is built from the parser's events and not with serde, because serde stops at the first
//! error and forgets the lines. Scalars keep their text, so that `version: 1.10` does not become
//! 1.1. Anchors and aliases are errors: without them a small file cannot expand into a huge tree.
//! This module does not know: what the keys mean.

use std::collections::HashMap;
use std::convert::Infallible;

use granit_parser::{Event, Parser, ScalarStyle};

use crate::error::{ConfigError, FILE_SHIFT};
use witgate_http::text::bounded;

use crate::references::Reference;

const DEPTH_MAX: usize = 32;
const NODES_MAX: usize = 200_000;
const NO_ANCHORS: &str = "anchors and aliases (& and *) are not supported: write the value out";

/// A value and the line on which it begins, from 1.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) line: usize,
    pub(crate) value: Value,
}

#[derive(Debug, Clone)]
pub(crate) enum Value {
    Scalar {
        text: String,
        /// Whether the text is written without quotes.
        plain: bool,
    },
    List(Vec<Node>),
    /// In the order of the file.
    Map(Vec<(Key, Node)>),
}

#[derive(Debug, Clone)]
pub(crate) struct Key {
    pub(crate) line: usize,
    pub(crate) text: String,
}

impl Node {
    /// The value for an error message: its text, or its kind.
    pub(crate) fn describe(&self) -> String {
        match &self.value {
            _ if self.is_null() => "nothing".into(),
            Value::Scalar { text, .. } => witgate_http::text::quoted(text),
            Value::List(_) => "a list".into(),
            Value::Map(_) => "a mapping".into(),
        }
    }

    /// The reference that the value is: `{env: NAME}` or `{file: PATH}`.
    pub(crate) fn reference(&self) -> Option<Reference<'_>> {
        let Value::Map(entries) = &self.value else { return None };
        match &entries[..] {
            [(key, Self { value: Value::Scalar { text, .. }, .. })] if key.text == "env" => Some(Reference::Env(text)),
            [(key, Self { value: Value::Scalar { text, .. }, .. })] if key.text == "file" => {
                Some(Reference::File(text))
            }
            _ => None,
        }
    }

    /// Whether the value is absent, `~` or `null`.
    pub(crate) fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar { text, plain: true } if matches!(text.as_str(), "" | "~" | "null"))
    }

    /// The line of the first reference in the value.
    pub(crate) fn first_reference(&self) -> Option<usize> {
        match &self.value {
            _ if self.reference().is_some() => Some(self.line),
            Value::Scalar { .. } => None,
            Value::List(items) => items.iter().find_map(Self::first_reference),
            Value::Map(entries) => entries.iter().find_map(|(_, node)| node.first_reference()),
        }
    }

    /// The value of `key` in this mapping, which gets `default` if it has none. `None` if this is
    /// no mapping.
    pub(crate) fn entry(&mut self, key: &str, line: usize, default: Value) -> Option<&mut Value> {
        let Value::Map(entries) = &mut self.value else { return None };
        let at = match entries.iter().position(|(entry, _)| entry.text == key) {
            Some(at) => at,
            None => {
                entries.push((Key { line, text: key.to_owned() }, Node { line, value: default.clone() }));
                entries.len() - 1
            }
        };
        let node = &mut entries[at].1;
        if node.is_null() {
            node.value = default;
        }
        Some(&mut node.value)
    }

    /// The items of a list; any other value is a list of one.
    pub(crate) fn as_list(&self) -> &[Self] {
        if let Value::List(items) = &self.value { items } else { std::slice::from_ref(self) }
    }

    /// The line of the value at `path`, such as `["routes[0]", "timeout"]`. If the path does not
    /// exist, the line of the last part that does.
    pub(crate) fn line_at(&self, path: &[&str]) -> usize {
        let mut node = self;
        for part in path.iter().flat_map(|part| part.split_inclusive('[')) {
            let next = match (&node.value, part.trim_end_matches('['), part.strip_suffix(']')) {
                (Value::List(items), _, Some(index)) => index.parse::<usize>().ok().and_then(|index| items.get(index)),
                (Value::Map(entries), key, _) => {
                    entries.iter().find(|(entry, _)| entry.text == key).map(|(_, node)| node)
                }
                _ => None,
            };
            let Some(next) = next else { break };
            node = next;
        }
        node.line
    }

    /// The value as JSON. Unquoted numbers, `true`, `false` and `null` become JSON values of that
    /// type. A reference becomes what `look_up` returns.
    pub(crate) fn to_json(
        &self,
        look_up: &impl Fn(&Reference<'_>) -> Result<String, String>,
    ) -> Result<serde_json::Value, String> {
        self.json_with(&|node| node.reference().map(|reference| look_up(&reference).map(Into::into)))
    }

    /// The value as JSON, in which a mapping is never a reference.
    pub(crate) fn to_plain_json(&self) -> serde_json::Value {
        let Ok(value) = self.json_with::<Infallible>(&|_| None);
        value
    }

    /// The value as JSON, with what `special` makes of the nodes that it knows.
    fn json_with<E>(
        &self,
        special: &impl Fn(&Self) -> Option<Result<serde_json::Value, E>>,
    ) -> Result<serde_json::Value, E> {
        if let Some(value) = special(self) {
            return value;
        }
        Ok(match &self.value {
            Value::Scalar { text, plain } if *plain => plain_to_json(text),
            Value::Scalar { text, .. } => text.as_str().into(),
            Value::List(items) => items.iter().map(|item| item.json_with(special)).collect::<Result<_, E>>()?,
            Value::Map(entries) => entries
                .iter()
                .map(|(key, node)| Ok((key.text.clone(), node.json_with(special)?)))
                .collect::<Result<serde_json::Map<_, _>, E>>()?
                .into(),
        })
    }
}

fn plain_to_json(text: &str) -> serde_json::Value {
    match text {
        "" | "~" | "null" => serde_json::Value::Null,
        "true" => true.into(),
        "false" => false.into(),
        _ => match serde_json::from_str::<serde_json::Number>(text) {
            Ok(number) => number.into(),
            Err(_) => text.into(),
        },
    }
}

/// Parses one YAML document. It stops at the first error in the YAML itself.
pub(crate) fn parse(text: &str) -> Result<Node, ConfigError> {
    parse_file(text, 0)
}

/// Like [`parse`], for the file with this number: its lines say so ([`file_of`]).
pub(crate) fn parse_file(text: &str, file: usize) -> Result<Node, ConfigError> {
    let first_line = file << FILE_SHIFT;
    let mut builder = Builder { parser: Parser::new_from_str(text), first_line, nodes: 0, errors: vec![] };
    let root = builder.document()?;
    match builder.errors.into_iter().next() {
        Some(error) => Err(error),
        None => Ok(root.unwrap_or(Node { line: first_line + 1, value: Value::Map(vec![]) })),
    }
}

type TextParser<'a> = Parser<'a, granit_parser::StrInput<'a>>;

struct Builder<'a> {
    parser: TextParser<'a>,
    /// What the lines of this file are counted from.
    first_line: usize,
    nodes: usize,
    errors: Vec<ConfigError>,
}

impl<'a> Builder<'a> {
    fn next(&mut self) -> Result<Option<(Event<'a>, usize)>, ConfigError> {
        match self.parser.next_event() {
            None => Ok(None),
            Some(Ok((event, span))) => Ok(Some((event, self.first_line + span.start.line()))),
            Some(Err(error)) => {
                let line = self.first_line + error.marker().line();
                Err(ConfigError::new(line, "", format!("this is not YAML: {}", error.info())))
            }
        }
    }

    fn document(&mut self) -> Result<Option<Node>, ConfigError> {
        let mut root = None;
        while let Some((event, line)) = self.next()? {
            match event {
                Event::StreamEnd => break,
                Event::StreamStart | Event::DocumentStart(..) | Event::DocumentEnd => {}
                _ if root.is_some() => {
                    return Err(ConfigError::new(
                        line,
                        "",
                        "a second document begins here: one file holds one configuration",
                    ));
                }
                event => root = Some(self.node(event, line, 0)?),
            }
        }
        Ok(root)
    }

    fn node(&mut self, event: Event<'a>, line: usize, depth: usize) -> Result<Node, ConfigError> {
        self.nodes += 1;
        if depth > DEPTH_MAX || self.nodes > NODES_MAX {
            let message = format!("a file has at most {NODES_MAX} values, nested at most {DEPTH_MAX} deep");
            return Err(ConfigError::new(line, "", message));
        }
        let value = match event {
            Event::Scalar(text, style, anchor, _) => {
                self.reject_anchor(anchor, line);
                Value::Scalar { text: text.into_owned(), plain: style == ScalarStyle::Plain }
            }
            Event::SequenceStart(_, anchor, _) => {
                self.reject_anchor(anchor, line);
                let mut items = vec![];
                loop {
                    match self.expect(line)? {
                        (Event::SequenceEnd, _) => break,
                        (event, line) => items.push(self.node(event, line, depth + 1)?),
                    }
                }
                Value::List(items)
            }
            Event::MappingStart(_, anchor, _) => {
                self.reject_anchor(anchor, line);
                Value::Map(self.mapping(line, depth)?)
            }
            _ => {
                return Err(ConfigError::new(line, "", NO_ANCHORS));
            }
        };
        Ok(Node { line, value })
    }

    fn mapping(&mut self, line: usize, depth: usize) -> Result<Vec<(Key, Node)>, ConfigError> {
        let mut entries: Vec<(Key, Node)> = vec![];
        let mut first_lines: HashMap<String, usize> = HashMap::new();
        loop {
            let (event, line) = self.expect(line)?;
            let key = match event {
                Event::MappingEnd => return Ok(entries),
                Event::Scalar(text, ..) => Key { line, text: text.into_owned() },
                _ => {
                    return Err(ConfigError::new(
                        line,
                        "",
                        "a key must be a single word or text, not a list or a mapping",
                    ));
                }
            };
            if let Some(first) = first_lines.get(&key.text) {
                let message =
                    format!("the key {} occurs twice (first in line {first}): remove one", bounded(&key.text));
                self.errors.push(ConfigError::new(line, &key.text, message));
            } else {
                first_lines.insert(key.text.clone(), line);
            }
            let (event, line) = self.expect(line)?;
            entries.push((key, self.node(event, line, depth + 1)?));
        }
    }

    fn expect(&mut self, line: usize) -> Result<(Event<'a>, usize), ConfigError> {
        self.next()?.ok_or_else(|| ConfigError::new(line, "", "the file ends in the middle of a value"))
    }

    fn reject_anchor(&mut self, anchor: usize, line: usize) {
        if anchor != 0 {
            self.errors.push(ConfigError::new(line, "", NO_ANCHORS));
        }
    }
}
