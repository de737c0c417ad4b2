//! Examples: requests to a filter, and what the author expects of it.
//!
//! `componentize` reads them from the folder `examples/` of a filter and writes them as JSON into a
//! custom section of the component. So they can be run wherever the component is: by the author, in
//! CI, and by a gateway before it puts a new version into service. A reader treats the section as
//! untrusted input: its size and the number of examples are limited, and every value is checked.
//! This module does not know: YAML, how a filter is called.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::pattern::Pattern;

/// The name of the custom section of the outermost component.
pub const EXAMPLES_SECTION: &str = "witgate:examples";
/// The largest content of the section, in bytes.
pub const EXAMPLES_BYTES_MAX: usize = 1 << 20;
/// The most examples of a filter.
pub const EXAMPLES_MAX: usize = 500;
/// The most calls of one example.
pub const REPEAT_MAX: u32 = 1000;
/// The most expectations `{matches: …}` of all examples. Each is compiled when it is read.
const EXPRESSIONS_MAX: usize = 1000;
/// The longest name of an example, in characters.
const NAME_CHARS_MAX: usize = 128;

/// A request, the state in which it arrives, and what is expected to happen.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Example {
    /// Identifies the example in reports.
    #[serde(default)]
    pub name: String,
    /// The configuration of the filter; the defaults of its manifest are added.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub config: BTreeMap<String, Value>,
    /// The entries of the key-value store before the call: a text, or a whole number for a counter.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub keyvalue: BTreeMap<String, Value>,
    /// The notes that earlier filters have attached.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub notes: BTreeMap<String, String>,
    /// The client that sends the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<ExampleClient>,
    /// How often the request is sent; the last exchange is compared. State is kept between them.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub repeat: u32,
    /// The request of the client.
    #[serde(default)]
    pub request: ExampleRequest,
    /// The upstream's response, if the request gets there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upstream: Option<ExampleResponse>,
    /// What is expected. Only what is named is compared.
    #[serde(default)]
    pub expect: Expectation,
}

/// The client of an example.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExampleClient {
    /// Its address. Default 192.0.2.1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip: Option<IpAddr>,
    /// Whether it uses TLS. Default false.
    #[serde(default)]
    pub tls: bool,
}

/// The request of an example.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExampleRequest {
    /// Default `GET`, or `POST` if there is a body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// The path and query. Default `/`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The fields. `host` is `example.com` if it is not given.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, FieldLines>,
    /// The body as text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// The body as a JSON value. It sets `content-type: application/json` if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub json: Option<Value>,
    /// The body in base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base64: Option<String>,
}

/// The upstream's response in an example.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExampleResponse {
    /// Default 200.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// The fields.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, FieldLines>,
    /// The body as text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// The body as a JSON value. It sets `content-type: application/json` if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub json: Option<Value>,
    /// The body in base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base64: Option<String>,
}

/// The value of a field, or the values of its lines.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum FieldLines {
    /// One line.
    One(String),
    /// Several lines.
    Several(Vec<String>),
    /// One line that YAML reads as a number.
    Number(serde_json::Number),
    /// One line that YAML reads as a truth value.
    Flag(bool),
}

impl FieldLines {
    /// The lines as texts.
    pub fn lines(&self) -> Vec<String> {
        match self {
            Self::One(text) => vec![text.clone()],
            Self::Several(lines) => lines.clone(),
            Self::Number(number) => vec![number.to_string()],
            Self::Flag(flag) => vec![flag.to_string()],
        }
    }
}

/// What is expected of an example. Only what is named is compared.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expectation {
    /// How the exchange goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<Action>,
    /// Why the filter fails, such as `deadline`; for the action `fail`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// The request as the upstream gets it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<ExpectedRequest>,
    /// The response as the client gets it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response: Option<ExpectedResponse>,
    /// Notes after the exchange.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub notes: BTreeMap<String, Pattern>,
    /// Lines of the log, such as `info: hello`, in this order. Others may stand between them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub log: Vec<Pattern>,
    /// Entries of the key-value store after the exchange.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub keyvalue: BTreeMap<String, Pattern>,
}

/// How an exchange goes on after the filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// The request goes to the upstream, and its response to the client.
    Proceed,
    /// The filter answers the request.
    Respond,
    /// The filter replaces the upstream's response.
    Replace,
    /// A call of the filter fails.
    Fail,
}

/// A request that is expected at the upstream.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExpectedRequest {
    /// The path and query.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<Pattern>,
    /// Fields; `null` says that there is none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, Pattern>,
    /// The body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<Pattern>,
    /// The body as a JSON value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub json: Option<Value>,
}

/// A response that is expected at the client.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExpectedResponse {
    /// The status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Fields; `null` says that there is none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, Pattern>,
    /// The body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<Pattern>,
    /// The body as a JSON value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub json: Option<Value>,
}

impl Action {
    /// The word in example files.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Proceed => "proceed",
            Self::Respond => "respond",
            Self::Replace => "replace",
            Self::Fail => "fail",
        }
    }
}

impl Example {
    /// What is wrong with the values. Empty for a valid example.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = vec![];
        let mut check = |is_wrong: bool, text: &str| {
            if is_wrong {
                problems.push(text.to_owned());
            }
        };
        let name_chars = self.name.chars().count();
        check(
            name_chars == 0 || name_chars > NAME_CHARS_MAX || self.name.chars().any(char::is_control),
            &format!("name: write 1 to {NAME_CHARS_MAX} characters in one line"),
        );
        check(self.repeat == 0 || self.repeat > REPEAT_MAX, &format!("repeat: write a number from 1 to {REPEAT_MAX}"));
        let request = &self.request;
        check(
            too_many_bodies(&request.body, &request.json, &request.base64),
            "request: write only one of body, json and base64",
        );
        let upstream = self.upstream.as_ref();
        check(
            upstream.is_some_and(|answer| too_many_bodies(&answer.body, &answer.json, &answer.base64)),
            "upstream: write only one of body, json and base64",
        );
        check(
            self.keyvalue.values().any(|value| !value.is_string() && value.as_i64().is_none()),
            "keyvalue: a value is a text, or a whole number for a counter",
        );
        let expect = &self.expect;
        check(
            expect.failure.is_some() && expect.action != Some(Action::Fail),
            "expect.failure: has an effect only with `action: fail`",
        );
        check(
            *expect == Expectation::default(),
            "expect: name at least one thing that is expected, such as `action: proceed`",
        );
        problems
    }
}

fn too_many_bodies(body: &Option<String>, json: &Option<Value>, base64: &Option<String>) -> bool {
    usize::from(body.is_some()) + usize::from(json.is_some()) + usize::from(base64.is_some()) > 1
}

/// Why the examples of a component are refused.
#[derive(Debug)]
pub enum ExamplesError {
    /// The section is larger than [`EXAMPLES_BYTES_MAX`]; its size in bytes.
    TooLarge(usize),
    /// There are more than [`EXAMPLES_MAX`]; their number.
    TooMany(usize),
    /// There are more than [`EXPRESSIONS_MAX`] regular expressions; their number.
    TooManyExpressions(usize),
    /// It is not the JSON form of examples.
    Json(serde_json::Error),
    /// A value of this example breaks a rule.
    Invalid(String, String),
}

impl fmt::Display for ExamplesError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge(bytes) => {
                write!(formatter, "the examples have {bytes} bytes, above the limit of {EXAMPLES_BYTES_MAX}")
            }
            Self::TooMany(count) => {
                write!(formatter, "there are {count} examples, above the limit of {EXAMPLES_MAX}")
            }
            Self::TooManyExpressions(count) => {
                write!(formatter, "the examples have {count} regular expressions, above the limit of {EXPRESSIONS_MAX}")
            }
            Self::Json(error) => write!(formatter, "the section {EXAMPLES_SECTION} has no examples: {error}"),
            Self::Invalid(name, problem) => write!(formatter, "example {name:?}: {problem}"),
        }
    }
}

impl std::error::Error for ExamplesError {}

/// Reads and checks the content of a section.
///
/// # Errors
///
/// The content is too large, holds no examples, or has values that break a rule.
pub fn examples_from_section(bytes: &[u8]) -> Result<Vec<Example>, ExamplesError> {
    if bytes.len() > EXAMPLES_BYTES_MAX {
        return Err(ExamplesError::TooLarge(bytes.len()));
    }
    let json: Value = serde_json::from_slice(bytes).map_err(ExamplesError::Json)?;
    // Before the expressions are compiled.
    let expressions = count_expressions(&json);
    if expressions > EXPRESSIONS_MAX {
        return Err(ExamplesError::TooManyExpressions(expressions));
    }
    let examples: Vec<Example> = serde_json::from_value(json).map_err(ExamplesError::Json)?;
    check(&examples)?;
    Ok(examples)
}

fn count_expressions(json: &Value) -> usize {
    match json {
        Value::Array(items) => items.iter().map(count_expressions).sum(),
        Value::Object(entries) => {
            usize::from(entries.contains_key("matches")) + entries.values().map(count_expressions).sum::<usize>()
        }
        _ => 0,
    }
}

/// The content of the section that carries these examples.
///
/// # Errors
///
/// They are too large or too many, or one of them breaks a rule.
pub fn examples_to_section(examples: &[Example]) -> Result<Vec<u8>, ExamplesError> {
    check(examples)?;
    let bytes = serde_json::to_vec(examples).map_err(ExamplesError::Json)?;
    if bytes.len() > EXAMPLES_BYTES_MAX { Err(ExamplesError::TooLarge(bytes.len())) } else { Ok(bytes) }
}

fn check(examples: &[Example]) -> Result<(), ExamplesError> {
    if examples.len() > EXAMPLES_MAX {
        return Err(ExamplesError::TooMany(examples.len()));
    }
    let problem = |example: &Example| Some((example.name.clone(), example.problems().into_iter().next()?));
    match examples.iter().find_map(problem) {
        Some((name, problem)) => Err(ExamplesError::Invalid(name, problem)),
        None => Ok(()),
    }
}

const fn one() -> u32 {
    1
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
const fn is_one(number: &u32) -> bool {
    *number == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Vec<Example>, ExamplesError> {
        examples_from_section(json.as_bytes())
    }

    #[test]
    fn examples_survive_the_section() -> Result<(), ExamplesError> {
        let json = r#"[{"name":"a","config":{"limit":2},"keyvalue":{"n":1},"repeat":3,
            "request":{"headers":{"x-a":"1","x-b":["1","2"],"x-c":3},"json":{"a":1}},
            "upstream":{"status":204},
            "expect":{"action":"respond","response":{"status":429,"headers":{"x-d":null,"x-e":{"matches":"[0-9]+"}}},
                      "log":["info: hello",{"contains":"x"}]}}]"#;
        let examples = read(json)?;
        assert_eq!(examples[0].request.headers["x-c"].lines(), ["3"]);
        assert_eq!(examples_from_section(&examples_to_section(&examples)?)?, examples);
        Ok(())
    }

    #[test]
    fn a_mistake_is_named() {
        let expect = r#""expect":{"action":"proceed"}"#;
        for (json, expected) in [
            ("", "EOF"),
            (r#"[{"name":"a","reqest":{}}]"#, "unknown field `reqest`"),
            (r#"[{"name":"a"}]"#, "example \"a\": expect: name at least one thing"),
            (&format!(r#"[{{"name":"",{expect}}}]"#), "name: write 1 to 128"),
            (&format!(r#"[{{"name":"a","repeat":0,{expect}}}]"#), "repeat: write a number from 1 to 1000"),
            (&format!(r#"[{{"name":"a","request":{{"body":"","json":1}},{expect}}}]"#), "only one of body, json"),
            (&format!(r#"[{{"name":"a","keyvalue":{{"n":1.5}},{expect}}}]"#), "keyvalue: a value is a text"),
            (r#"[{"name":"a","expect":{"action":"pass"}}]"#, "unknown variant `pass`"),
            (r#"[{"name":"a","expect":{"failure":"trap"}}]"#, "only with `action: fail`"),
            (r#"[{"name":"a","expect":{"log":[{"matches":"("}]}}]"#, "regular expression"),
        ] {
            let error = read(json).err().map(|error| error.to_string()).unwrap_or_default();
            assert!(error.contains(expected), "{expected} not in {error}");
        }
        let many = format!("[{}]", vec![format!(r#"{{"name":"a",{expect}}}"#); EXAMPLES_MAX + 1].join(","));
        assert!(matches!(read(&many), Err(ExamplesError::TooMany(501))));
        assert!(matches!(read(&" ".repeat(EXAMPLES_BYTES_MAX + 1)), Err(ExamplesError::TooLarge(_))));
        let lines = vec![r#"{"m\u0061tches":"a"}"#; EXPRESSIONS_MAX + 1].join(",");
        let many = format!(r#"[{{"name":"a","expect":{{"log":[{lines}]}}}}]"#);
        assert!(matches!(read(&many), Err(ExamplesError::TooManyExpressions(1001))));
    }
}
