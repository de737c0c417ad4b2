//! What a text in an example is expected to be: a text, absent, or a pattern.
//!
//! This module does not know: where the text comes from.

use std::fmt;

use regex::{Regex, RegexBuilder};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The longest regular expression, in bytes, and the largest that it may become in memory.
const EXPRESSION_BYTES_MAX: usize = 1024;
const COMPILED_BYTES_MAX: usize = 256 << 10;

/// An expected text. In a file it is a text, a number, `true`, `false`, `null`, a list of texts, or
/// a mapping `{contains: TEXT}` or `{matches: REGULAR EXPRESSION}`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(try_from = "Value", into = "Value")]
pub enum Pattern {
    /// There is no such field, note or entry.
    Absent,
    /// Exactly this text.
    Text(String),
    /// Exactly these lines of a field.
    Lines(Vec<String>),
    /// A text that contains this one.
    Contains(String),
    /// A text that matches the expression as a whole. It runs in linear time. It is compiled when
    /// it is compared, because thousands of compiled ones would take gigabytes.
    Matches(Box<str>),
}

impl Pattern {
    /// Whether these lines, of which there may be none, are as expected.
    pub fn fits(&self, found: &[&str]) -> bool {
        match (self, found) {
            (Self::Absent, lines) => lines.is_empty(),
            (Self::Lines(expected), lines) => expected.iter().eq(lines.iter()),
            (Self::Text(expected), [line]) => expected == line,
            (Self::Contains(part), lines) => lines.iter().any(|line| line.contains(part.as_str())),
            (Self::Matches(expression), [line]) => compile(expression).is_ok_and(|compiled| compiled.is_match(line)),
            _ => false,
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => formatter.write_str("(none)"),
            Self::Text(text) => formatter.write_str(text),
            Self::Lines(lines) => formatter.write_str(&lines.join("\n")),
            Self::Contains(part) => write!(formatter, "(a text that contains) {part}"),
            Self::Matches(expression) => write!(formatter, "(a text that matches) {expression}"),
        }
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        Value::from(self.clone()) == Value::from(other.clone())
    }
}

impl TryFrom<Value> for Pattern {
    type Error = String;

    fn try_from(value: Value) -> Result<Self, String> {
        match value {
            Value::Null => Ok(Self::Absent),
            Value::String(text) => Ok(Self::Text(text)),
            Value::Bool(flag) => Ok(Self::Text(flag.to_string())),
            Value::Number(number) => Ok(Self::Text(number.to_string())),
            Value::Array(items) => {
                let text = |item: Value| match item {
                    Value::String(text) => Ok(text),
                    other => Err(format!("{other} is not a text: put quotes around it")),
                };
                items.into_iter().map(text).collect::<Result<_, _>>().map(Self::Lines)
            }
            Value::Object(map) => from_map(map),
        }
    }
}

fn from_map(map: Map<String, Value>) -> Result<Pattern, String> {
    let mut entries = map.into_iter();
    match (entries.next(), entries.next()) {
        (Some((key, Value::String(text))), None) if key == "contains" => Ok(Pattern::Contains(text)),
        (Some((key, Value::String(text))), None) if key == "matches" => {
            if text.len() > EXPRESSION_BYTES_MAX {
                return Err(format!("the regular expression has more than {EXPRESSION_BYTES_MAX} bytes"));
            }
            compile(&text).map_err(|error| format!("{text} is not a regular expression: {error}"))?;
            Ok(Pattern::Matches(text.into()))
        }
        _ => Err("write a text, null, a list of texts, {contains: TEXT} or {matches: REGULAR EXPRESSION}".into()),
    }
}

fn compile(expression: &str) -> Result<Regex, regex::Error> {
    RegexBuilder::new(&format!("^(?s:{expression})$")).size_limit(COMPILED_BYTES_MAX).build()
}

impl From<Pattern> for Value {
    fn from(pattern: Pattern) -> Self {
        match pattern {
            Pattern::Absent => Self::Null,
            Pattern::Text(text) => text.into(),
            Pattern::Lines(lines) => lines.into(),
            Pattern::Contains(text) => serde_json::json!({ "contains": text }),
            Pattern::Matches(expression) => serde_json::json!({ "matches": expression }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_compared_with_what_the_file_says() -> Result<(), String> {
        for (json, fitting, other) in [
            ("null", vec![], vec!["a"]),
            ("\"a\"", vec!["a"], vec!["ab"]),
            ("5", vec!["5"], vec![]),
            ("[\"a\", \"b\"]", vec!["a", "b"], vec!["b", "a"]),
            ("{\"contains\": \"b\"}", vec!["abc"], vec!["ac"]),
            ("{\"matches\": \"[0-9]+|x\"}", vec!["123"], vec!["123a"]),
        ] {
            let value: Value = serde_json::from_str(json).map_err(|error| error.to_string())?;
            let pattern = Pattern::try_from(value.clone())?;
            assert!(pattern.fits(&fitting) && !pattern.fits(&other), "{json}");
            assert_eq!(Pattern::try_from(Value::from(pattern.clone()))?, pattern);
        }
        assert!(Pattern::try_from(serde_json::json!({"contain": "a"})).is_err());
        assert!(Pattern::try_from(serde_json::json!({"matches": "a{1000}{1000}"})).is_err());
        Ok(())
    }
}
