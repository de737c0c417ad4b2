//! YAML text as a tree in which every value knows its line.
//!
//! Built from the parser's events rather than through serde: serde stops at the first problem and forgets where values stood, and an operator
//! wants every problem at once with its line. Scalars keep their text, so that `version: 1.10` does not become 1.1. Anchors and aliases
//! are refused: no bomb can be built without them. Must not know: what the keys mean.

use granit_parser::{Event, Parser, ScalarStyle};

use super::ConfigError;

/// Deeper nesting than any configuration has.
const DEPTH_MAX: usize = 32;
const NODES_MAX: usize = 200_000;

/// A value and the line on which it begins, from 1.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) line: usize,
    pub(super) value: Value,
}

#[derive(Debug, Clone)]
pub(super) enum Value {
    /// The text as written; `plain` where it was not quoted.
    Scalar {
        text: String,
        plain: bool,
    },
    List(Vec<Node>),
    /// In the order written.
    Map(Vec<(Key, Node)>),
}

#[derive(Debug, Clone)]
pub(super) struct Key {
    pub(super) line: usize,
    pub(super) text: String,
}

impl Node {
    /// What it is, in the words of an error message.
    pub(super) fn kind(&self) -> String {
        match &self.value {
            Value::Scalar { text, plain: true } if text.is_empty() || text == "~" || text == "null" => "nothing".into(),
            Value::Scalar { text, .. } => witgate_http::text::quoted(text),
            Value::List(_) => "a list".into(),
            Value::Map(_) => "a mapping".into(),
        }
    }

    /// Whether nothing was written.
    pub(super) fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar { text, plain: true } if matches!(text.as_str(), "" | "~" | "null"))
    }

    /// The value as JSON: plain scalars that look like numbers, booleans or null become such.
    pub(super) fn to_json(&self) -> serde_json::Value {
        match &self.value {
            Value::Scalar { text, plain } if *plain => plain_to_json(text),
            Value::Scalar { text, .. } => text.as_str().into(),
            Value::List(items) => items.iter().map(Self::to_json).collect(),
            Value::Map(entries) => entries
                .iter()
                .map(|(key, node)| (key.text.clone(), node.to_json()))
                .collect::<serde_json::Map<_, _>>()
                .into(),
        }
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

/// Reads one YAML document. An error is about YAML itself, so there is only one.
pub(super) fn parse(text: &str) -> Result<Node, ConfigError> {
    let mut builder = Builder { parser: Parser::new_from_str(text), nodes: 0, errors: vec![] };
    let root = builder.document()?;
    match builder.errors.into_iter().next() {
        Some(error) => Err(error),
        None => Ok(root.unwrap_or(Node { line: 1, value: Value::Map(vec![]) })),
    }
}

type TextParser<'a> = Parser<'a, granit_parser::StrInput<'a>>;

struct Builder<'a> {
    parser: TextParser<'a>,
    nodes: usize,
    errors: Vec<ConfigError>,
}

impl<'a> Builder<'a> {
    fn next(&mut self) -> Result<Option<(Event<'a>, usize)>, ConfigError> {
        match self.parser.next_event() {
            None => Ok(None),
            Some(Ok((event, span))) => Ok(Some((event, span.start.line()))),
            Some(Err(error)) => {
                let line = error.marker().line();
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
            let message =
                format!("nested deeper than {DEPTH_MAX} or more than {NODES_MAX} values: this is no configuration");
            return Err(ConfigError::new(line, "", message));
        }
        let value = match event {
            Event::Scalar(text, style, anchor, _) => {
                self.no_anchor(anchor, line);
                Value::Scalar { text: text.into_owned(), plain: style == ScalarStyle::Plain }
            }
            Event::SequenceStart(_, anchor, _) => {
                self.no_anchor(anchor, line);
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
                self.no_anchor(anchor, line);
                Value::Map(self.mapping(line, depth)?)
            }
            _ => {
                return Err(ConfigError::new(
                    line,
                    "",
                    "anchors and aliases (& and *) are not read: write the value out",
                ));
            }
        };
        Ok(Node { line, value })
    }

    fn mapping(&mut self, line: usize, depth: usize) -> Result<Vec<(Key, Node)>, ConfigError> {
        let mut entries: Vec<(Key, Node)> = vec![];
        loop {
            let (event, line) = self.expect(line)?;
            let key = match event {
                Event::MappingEnd => return Ok(entries),
                Event::Scalar(text, ..) => Key { line, text: text.into_owned() },
                _ => return Err(ConfigError::new(line, "", "a key is a plain text")),
            };
            if let Some((first, _)) = entries.iter().find(|(other, _)| other.text == key.text) {
                let message = format!("the key {} is there twice (first in line {}): remove one", key.text, first.line);
                self.errors.push(ConfigError::new(line, &key.text, message));
            }
            let (event, line) = self.expect(line)?;
            entries.push((key, self.node(event, line, depth + 1)?));
        }
    }

    fn expect(&mut self, line: usize) -> Result<(Event<'a>, usize), ConfigError> {
        self.next()?.ok_or_else(|| ConfigError::new(line, "", "the text ends in the middle of a value"))
    }

    fn no_anchor(&mut self, anchor: usize, line: usize) {
        if anchor != 0 {
            self.errors.push(ConfigError::new(
                line,
                "",
                "anchors and aliases (& and *) are not read: write the value out",
            ));
        }
    }
}
