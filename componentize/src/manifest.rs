//! filter.toml: what a filter is and wants, as its author wrote it, checked; and the custom section that carries it to the gateway.
//!
//! Two stages: [`Raw`] is what stands in the file, with places; [`Manifest`] is what holds. All mistakes of a file are told at once (a mistake of TOML itself
//! comes alone: what follows it cannot be trusted). Must not know: languages, WIT.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use serde::{Deserialize, Serialize};
use toml::Spanned;

/// The custom section of the outermost component.
pub(crate) const SECTION: &str = "witgate:manifest";
/// What a filter may ask for beyond the base world.
const SERVICES: [&str; 1] = ["keyvalue"];
const NAME_CHARS_MAX: usize = 64;
const BODY_BYTES_DEFAULT: u32 = 1 << 20;
const BODY_BYTES_MAX: u32 = 8 << 20;
/// JSON Schema's types.
const TYPES: [&str; 6] = ["string", "integer", "number", "boolean", "array", "object"];

/// A filter's manifest. As JSON, the content of the custom section.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Manifest {
    /// 1 to 64 of a-z, 0-9 and -.
    pub(crate) name: String,
    /// A semantic version.
    pub(crate) version: String,
    /// One line; may be empty.
    pub(crate) description: String,
    /// Beyond the base world, each once.
    pub(crate) services: Vec<String>,
    /// There is at least one phase.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) request: Option<Phase>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) response: Option<Phase>,
    /// A JSON Schema for each key.
    pub(crate) config: BTreeMap<String, serde_json::Value>,
}

/// What a phase wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Phase {
    pub(crate) body: Body,
    /// 1 to 8 MiB; only means something with [`Body::Buffer`].
    pub(crate) body_bytes_max: u32,
}

/// Whether a phase wants the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Body {
    #[default]
    None,
    Buffer,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    name: Spanned<String>,
    version: Spanned<String>,
    description: Option<Spanned<String>>,
    #[serde(default)]
    services: Vec<Spanned<String>>,
    request: Option<RawPhase>,
    response: Option<RawPhase>,
    #[serde(default)]
    config: BTreeMap<String, Spanned<toml::Value>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPhase {
    #[serde(default)]
    body: Body,
    body_bytes_max: Option<Spanned<i64>>,
}

impl Manifest {
    /// Reads and checks filter.toml. The error has a line for each mistake: file, line, key, why.
    pub(crate) fn read(path: &Path) -> Result<Self, String> {
        let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
        Self::parse(&text, &path.display().to_string())
    }

    /// The same for the text of `file`.
    pub(crate) fn parse(text: &str, file: &str) -> Result<Self, String> {
        let mut mistakes = Mistakes { text, file, said: String::new() };
        let raw: Raw = toml::from_str(text).map_err(|error| mistakes.of_toml(&error))?;
        let manifest = raw.checked(&mut mistakes);
        if mistakes.said.is_empty() { Ok(manifest) } else { Err(mistakes.said) }
    }

    /// `request`, `response` or both, as the language tools are told.
    pub(crate) fn phases(&self) -> String {
        let phases = [("request", self.request), ("response", self.response)];
        let there: Vec<&str> = phases.into_iter().filter_map(|(name, phase)| phase.map(|_| name)).collect();
        there.join(",")
    }

    /// `component` with the manifest as a custom section at its end.
    pub(crate) fn embed(&self, mut component: Vec<u8>) -> Result<Vec<u8>, serde_json::Error> {
        use wasm_encoder::{ComponentSection as _, CustomSection};
        let json = serde_json::to_vec(self)?;
        CustomSection { name: SECTION.into(), data: json.into() }.append_to_component(&mut component);
        Ok(component)
    }
}

impl Raw {
    fn checked(self, mistakes: &mut Mistakes) -> Manifest {
        let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        let name = self.name.get_ref();
        if name.is_empty() || name.len() > NAME_CHARS_MAX || !name.chars().all(good) {
            mistakes.at(&self.name, "name", format!("{name:?}: a name has 1 to {NAME_CHARS_MAX} of a-z, 0-9 and -"));
        }
        if let Err(error) = semver::Version::parse(self.version.get_ref()) {
            let version = self.version.get_ref();
            mistakes.at(&self.version, "version", format!("{version:?}: {error}; write three numbers, such as 1.0.0"));
        }
        if let Some(description) = self.description.as_ref().filter(|text| text.get_ref().contains('\n')) {
            mistakes.at(description, "description", "it has more than one line".into());
        }
        let mut services = vec![];
        for service in self.services {
            if !SERVICES.contains(&service.get_ref().as_str()) {
                let known = SERVICES.join(", ");
                mistakes.at(&service, "services", format!("{:?} is no service: there is {known}", service.get_ref()));
            } else if services.contains(service.get_ref()) {
                mistakes.at(&service, "services", format!("{:?} stands there twice", service.get_ref()));
            }
            services.push(service.into_inner());
        }
        if self.request.is_none() && self.response.is_none() {
            mistakes.of_file("a filter has a phase: add [request], [response] or both");
        }
        Manifest {
            name: self.name.into_inner(),
            version: self.version.into_inner(),
            description: self.description.map(Spanned::into_inner).unwrap_or_default(),
            services,
            request: self.request.map(|phase| phase.checked("request", mistakes)),
            response: self.response.map(|phase| phase.checked("response", mistakes)),
            config: schemas(self.config, mistakes),
        }
    }
}

impl RawPhase {
    fn checked(self, phase: &str, mistakes: &mut Mistakes) -> Phase {
        let mut body_bytes_max = BODY_BYTES_DEFAULT;
        if let Some(wanted) = self.body_bytes_max {
            let (key, number) = (format!("{phase}.body_bytes_max"), *wanted.get_ref());
            match u32::try_from(number) {
                Ok(bytes) if (1..=BODY_BYTES_MAX).contains(&bytes) => body_bytes_max = bytes,
                _ => mistakes.at(&wanted, &key, format!("{number} is not between 1 and {BODY_BYTES_MAX} (8 MiB)")),
            }
            if self.body == Body::None {
                mistakes.at(
                    &wanted,
                    &key,
                    "there is no body to bound: add `body = \"buffer\"`, or take this out".into(),
                );
            }
        }
        Phase { body: self.body, body_bytes_max }
    }
}

/// The JSON Schemas of `[config.KEY]`.
fn schemas(
    config: BTreeMap<String, Spanned<toml::Value>>,
    mistakes: &mut Mistakes,
) -> BTreeMap<String, serde_json::Value> {
    let mut schemas = BTreeMap::new();
    for (name, schema) in config {
        match json(schema.get_ref()).and_then(|json| check_schema(&json).map(|()| json)) {
            Ok(json) => drop(schemas.insert(name, json)),
            Err(why) => mistakes.at(&schema, &format!("config.{name}"), why),
        }
    }
    schemas
}

/// Only what a typing mistake breaks: the rest of JSON Schema is the author's.
fn check_schema(schema: &serde_json::Value) -> Result<(), String> {
    let Some(schema) = schema.as_object() else {
        return Err("it is no table: write [config.KEY] with `type = \"string\"` below".into());
    };
    let Some(kind) = schema.get("type") else { return Ok(()) };
    if !kind.as_str().is_some_and(|kind| TYPES.contains(&kind)) {
        return Err(format!("type: {kind} is none of {}", TYPES.join(", ")));
    }
    let Some(default) = schema.get("default") else { return Ok(()) };
    let fits = match kind.as_str().unwrap_or_default() {
        "string" => default.is_string(),
        "integer" => default.is_i64(),
        "number" => default.is_number(),
        "boolean" => default.is_boolean(),
        "array" => default.is_array(),
        _ => default.is_object(),
    };
    if fits { Ok(()) } else { Err(format!("default: {default} is no {}", kind.as_str().unwrap_or_default())) }
}

/// TOML as JSON, which has no dates and no infinite numbers.
fn json(value: &toml::Value) -> Result<serde_json::Value, String> {
    Ok(match value {
        toml::Value::String(text) => text.as_str().into(),
        toml::Value::Integer(number) => (*number).into(),
        toml::Value::Float(number) if number.is_finite() => (*number).into(),
        toml::Value::Float(number) => return Err(format!("{number} cannot be written as JSON")),
        toml::Value::Boolean(flag) => (*flag).into(),
        toml::Value::Datetime(date) => return Err(format!("{date} is a date, which JSON lacks: write it in quotes")),
        toml::Value::Array(items) => items.iter().map(json).collect::<Result<Vec<_>, _>>()?.into(),
        toml::Value::Table(table) => {
            let entries = table.iter().map(|(key, value)| Ok((key.clone(), json(value)?)));
            serde_json::Value::Object(entries.collect::<Result<_, String>>()?)
        }
    })
}

/// What is wrong with one file, a line each: `FILE:LINE: KEY: why`.
struct Mistakes<'a> {
    text: &'a str,
    file: &'a str,
    said: String,
}

impl Mistakes<'_> {
    fn at<T>(&mut self, place: &Spanned<T>, key: &str, why: String) {
        let line = self.line(place.span().start);
        let _ = writeln!(self.said, "{}:{line}: {key}: {why}", self.file);
    }

    fn of_file(&mut self, why: &str) {
        let _ = writeln!(self.said, "{}: {why}", self.file);
    }

    /// TOML's own message does not always name the key: the line is shown below it.
    fn of_toml(&self, error: &toml::de::Error) -> String {
        // What lacks a key has no place of its own.
        let Some(span) = error.span().filter(|span| span.end > 0) else {
            return format!("{}: {}", self.file, error.message());
        };
        let line = self.line(span.start);
        let shown = self.text.lines().nth(line - 1).unwrap_or_default().trim_end();
        format!("{}:{line}: {}\n{line:>5} | {shown}", self.file, error.message())
    }

    fn line(&self, offset: usize) -> usize {
        self.text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "\
name = \"a\"
version = \"1.0.0\"
[request]
body = \"buffer\"
[config.limit]
type = \"integer\"
default = 100
";

    #[test]
    fn a_manifest_is_the_content_of_the_section() -> anyhow::Result<()> {
        let manifest = Manifest::parse(GOOD, "f").map_err(anyhow::Error::msg)?;
        let component = manifest.embed(b"\0asm\x0d\0\x01\0".to_vec())?;
        let mut found = None;
        for payload in wasmparser::Parser::new(0).parse_all(&component) {
            if let wasmparser::Payload::CustomSection(section) = payload? {
                found = Some((section.name().to_owned(), serde_json::from_slice(section.data())?));
            }
        }
        let expected = serde_json::json!({
            "name": "a", "version": "1.0.0", "description": "", "services": [],
            "request": {"body": "buffer", "body_bytes_max": 1_048_576},
            "config": {"limit": {"type": "integer", "default": 100}},
        });
        assert_eq!(found, Some((SECTION.to_owned(), expected)));
        Ok(())
    }

    #[test]
    fn mistakes_are_named_with_line_and_key() {
        for (from, to, expected) in [
            ("\"a\"", "\"A b\"", "f:1: name: \"A b\": a name has 1 to 64 of a-z, 0-9 and -"),
            ("\"a\"", "\"\"", "f:1: name: \"\": "),
            ("\"a\"", "7", "f:1: invalid type: integer `7`, expected a string\n    1 | name = 7"),
            ("name = \"a\"\n", "", "f: missing field `name`"),
            ("1.0.0", "1.0", "f:2: version: \"1.0\": "),
            (
                "[request]",
                "services = [\n\"disk\"]\n[request]",
                "f:4: services: \"disk\" is no service: there is keyvalue",
            ),
            (
                "[request]",
                "services = [\"keyvalue\", \"keyvalue\"]\n[request]",
                "f:3: services: \"keyvalue\" stands there twice",
            ),
            ("[request]", "description = \"\"\"a\nb\"\"\"\n[request]", "f:3: description: it has more than one line"),
            ("[request]\nbody = \"buffer\"\n", "", "f: a filter has a phase"),
            (
                "buffer\"",
                "buffer\"\nbody_bytes_max = 9999999",
                "f:5: request.body_bytes_max: 9999999 is not between 1 and 8388608",
            ),
            ("buffer\"", "buffer\"\nbody_bytes_max = 0", "f:5: request.body_bytes_max: 0 is not between"),
            ("buffer\"", "none\"\nbody_bytes_max = 1", "f:5: request.body_bytes_max: there is no body to bound"),
            ("body =", "bodi =", "f:4: unknown field `bodi`, expected `body` or `body_bytes_max`"),
            ("\"buffer\"", "\"stream\"", "f:4: unknown variant `stream`, expected `none` or `buffer`"),
            ("\"integer\"", "\"int\"", "f:5: config.limit: type: \"int\" is none of string, integer"),
            ("= 100", "= \"many\"", "f:5: config.limit: default: \"many\" is no integer"),
            ("= 100", "= 2020-01-01", "f:5: config.limit: 2020-01-01 is a date"),
            (
                "[config.limit]\ntype = \"integer\"\ndefault = 100",
                "[config]\nlimit = 100",
                "f:6: config.limit: it is no table",
            ),
            ("= 100", "= ", "f:7: "),
        ] {
            let error = Manifest::parse(&GOOD.replace(from, to), "f").err().unwrap_or_default();
            assert!(error.contains(expected), "{expected} not in {error}");
        }
    }

    #[test]
    fn all_mistakes_of_a_file_are_told_at_once() {
        let text = GOOD.replace("\"a\"", "\"A\"").replace("1.0.0", "1").replace("100", "true");
        let error = Manifest::parse(&text, "f").err().unwrap_or_default();
        let lines: Vec<&str> = error.lines().filter_map(|line| line.get(..4)).collect();
        assert_eq!(lines, ["f:1:", "f:2:", "f:5:"], "{error}");
    }
}
