//! filter.toml: reads a filter's manifest as its author wrote it, and names each mistake by its
//! line.
//!
//! [`Raw`] is the content of the file with the position of each value. The rules for the values are
//! those of `witgate-manifest`; this module adds the rules that only a TOML file can break. All
//! mistakes are reported at once. A syntax error is reported alone, because the text after it
//! cannot be trusted. This module does not know: languages, WIT.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use toml::Spanned;
use witgate_manifest::{BODY_BYTES_DEFAULT, BodyMode, Field, Manifest, Phase, check_body_bytes};

use crate::examples::plain;

/// Reads and checks the filter.toml at `path`.
///
/// The error has one line for each mistake: `FILE:LINE: KEY: message`. Calls `has_auth` if the
/// file has no `auth`.
pub(crate) fn read(path: &Path, has_auth: impl FnOnce() -> bool) -> Result<Manifest, String> {
    let text = std::fs::read_to_string(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => format!(
            "{}: there is no such file: name the folder of a filter, or make one with `witgate new`",
            path.display()
        ),
        _ => format!("{}: {error}", path.display()),
    })?;
    parse_with(&text, &path.display().to_string(), has_auth)
}

/// Like [`read`], for the text of the file named `file`, with `has_auth` returning false.
#[cfg(test)]
pub(crate) fn parse(text: &str, file: &str) -> Result<Manifest, String> {
    parse_with(text, file, || false)
}

fn parse_with(text: &str, file: &str, has_auth: impl FnOnce() -> bool) -> Result<Manifest, String> {
    let mut report = Report { text, file, offsets: BTreeMap::new(), mistakes: vec![] };
    let raw: Raw = toml::from_str(text).map_err(|error| report.syntax_error(&error))?;
    let auth = raw.auth.unwrap_or_else(has_auth);
    let manifest = Manifest { auth, ..raw.into_manifest(&mut report) };
    for problem in manifest.problems() {
        report.add(problem.field, &problem.message);
    }
    report.finish(manifest)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    name: Spanned<String>,
    version: Spanned<String>,
    description: Option<Spanned<String>>,
    #[serde(default)]
    services: Vec<Spanned<String>>,
    auth: Option<bool>,
    request: Option<RawPhase>,
    response: Option<RawPhase>,
    #[serde(default)]
    config: BTreeMap<String, Spanned<toml::Value>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPhase {
    #[serde(default)]
    body: BodyMode,
    body_bytes_max: Option<Spanned<i64>>,
}

impl Raw {
    fn into_manifest(self, report: &mut Report) -> Manifest {
        let services = self.services.into_iter().enumerate();
        Manifest {
            name: report.locate(Field::Name, self.name),
            version: report.locate(Field::Version, self.version),
            description: self.description.map_or_else(String::new, |text| report.locate(Field::Description, text)),
            services: services.map(|(index, service)| report.locate(Field::Service(index), service)).collect(),
            auth: false,
            request: self.request.map(|phase| phase.into_phase("request", report)),
            response: self.response.map(|phase| phase.into_phase("response", report)),
            config: schemas(self.config, report),
        }
    }
}

impl RawPhase {
    fn into_phase(self, name: &'static str, report: &mut Report) -> Phase {
        let mut body_bytes_max = BODY_BYTES_DEFAULT;
        if let Some(number) = self.body_bytes_max {
            let field = Field::BodyBytes(name);
            match check_body_bytes(report.locate(field.clone(), number)) {
                Ok(bytes) => body_bytes_max = bytes,
                Err(message) => report.add(field.clone(), &message),
            }
            if self.body == BodyMode::None {
                report.add(field, "there is no body to limit: add `body = \"buffer\"`, or remove this line");
            }
        }
        Phase { body: self.body, body_bytes_max }
    }
}

/// The JSON Schemas of `[config.KEY]`.
fn schemas(config: BTreeMap<String, Spanned<toml::Value>>, report: &mut Report) -> BTreeMap<String, serde_json::Value> {
    let mut schemas = BTreeMap::new();
    for (key, schema) in config {
        let field = Field::Config(key.clone());
        match json(&report.locate(field.clone(), schema)) {
            Ok(schema) => drop(schemas.insert(key, schema)),
            Err(message) => report.add(field, &message),
        }
    }
    schemas
}

/// A TOML value as JSON. JSON has no dates and no infinite numbers.
fn json(value: &toml::Value) -> Result<serde_json::Value, String> {
    Ok(match value {
        toml::Value::String(text) => text.as_str().into(),
        toml::Value::Integer(number) => (*number).into(),
        toml::Value::Float(number) if number.is_finite() => (*number).into(),
        toml::Value::Float(number) => return Err(format!("{number} is not a number that JSON can hold")),
        toml::Value::Boolean(flag) => (*flag).into(),
        toml::Value::Datetime(date) => {
            return Err(format!("{date} is a date, and JSON has no dates: write it in quotes"));
        }
        toml::Value::Array(items) => items.iter().map(json).collect::<Result<Vec<_>, _>>()?.into(),
        toml::Value::Table(table) => {
            let entries = table.iter().map(|(key, value)| Ok((key.clone(), json(value)?)));
            serde_json::Value::Object(entries.collect::<Result<_, String>>()?)
        }
    })
}

/// The mistakes of one file.
struct Report<'a> {
    text: &'a str,
    file: &'a str,
    /// The byte offset of each value that the file has.
    offsets: BTreeMap<Field, usize>,
    /// The line of each mistake, 0 if it concerns the whole file, and its text.
    mistakes: Vec<(usize, String)>,
}

impl Report<'_> {
    /// Records where the value of a field is, and returns the value.
    fn locate<T>(&mut self, field: Field, value: Spanned<T>) -> T {
        self.offsets.insert(field, value.span().start);
        value.into_inner()
    }

    fn add(&mut self, field: Field, message: &str) {
        self.mistakes.push(match self.offsets.get(&field) {
            Some(offset) => {
                let line = self.line(*offset);
                (line, format!("{}:{line}: {field}: {message}", self.file))
            }
            None => (0, format!("{}: {message}", self.file)),
        });
    }

    /// The manifest if the file has no mistake, else all mistakes in the order of their lines.
    fn finish(mut self, manifest: Manifest) -> Result<Manifest, String> {
        if self.mistakes.is_empty() {
            return Ok(manifest);
        }
        self.mistakes.sort_by_key(|(line, _)| *line);
        Err(self.mistakes.into_iter().map(|(_, text)| text + "\n").collect())
    }

    /// Shows the line as well, because a message of the TOML parser does not always name the key.
    fn syntax_error(&self, error: &toml::de::Error) -> String {
        // An error about a missing key has no position.
        let Some(span) = error.span().filter(|span| span.end > 0) else {
            let advice = match error.message() {
                "missing field `name`" => ": write name = \"my-filter\"",
                "missing field `version`" => ": write version = \"0.1.0\"",
                _ => "",
            };
            return format!("{}: {}{advice}", self.file, error.message());
        };
        let line = self.line(span.start);
        let shown = self.text.lines().nth(line - 1).unwrap_or_default().trim_end();
        format!("{}:{line}: {}\n{line:>5} | {shown}", self.file, plain(error.message()))
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
    fn each_mistake_is_reported_with_its_line_and_key() {
        for (from, to, expected) in [
            ("\"a\"", "\"A b\"", "f:1: name: \"A b\": a name has 1 to 64 characters of a-z, 0-9 and -"),
            ("\"a\"", "\"\"", "f:1: name: \"\": "),
            ("\"a\"", "7", "f:1: invalid type: integer `7`, expected a string\n    1 | name = 7"),
            ("name = \"a\"\n", "", "f: missing field `name`"),
            ("1.0.0", "1.0", "f:2: version: \"1.0\": "),
            (
                "[request]",
                "services = [\n\"disk\"]\n[request]",
                "f:4: services: \"disk\" is not a service; the services are keyvalue, limiter",
            ),
            (
                "[request]",
                "services = [\"keyvalue\", \"keyvalue\"]\n[request]",
                "f:3: services: \"keyvalue\" is listed twice",
            ),
            (
                "[request]",
                "description = \"\"\"a\nb\"\"\"\n[request]",
                "f:3: description: the description has more than one line",
            ),
            ("[request]\nbody = \"buffer\"\n", "", "f: a filter has at least one phase"),
            (
                "buffer\"",
                "buffer\"\nbody_bytes_max = 9999999",
                "f:5: request.body_bytes_max: 9999999 is not between 1 and 8388608",
            ),
            ("buffer\"", "buffer\"\nbody_bytes_max = 0", "f:5: request.body_bytes_max: 0 is not between"),
            ("buffer\"", "none\"\nbody_bytes_max = 1", "f:5: request.body_bytes_max: there is no body to limit"),
            ("body =", "bodi =", "f:4: unknown field `bodi`, expected `body` or `body_bytes_max`"),
            ("\"buffer\"", "\"stream\"", "f:4: unknown variant `stream`, expected `none` or `buffer`"),
            ("\"integer\"", "\"int\"", "f:5: config.limit: type: \"int\" is not one of string, integer"),
            ("= 100", "= \"many\"", "f:5: config.limit: default: \"many\" is not of the type integer"),
            ("= 100", "= 2020-01-01", "f:5: config.limit: 2020-01-01 is a date"),
            (
                "[config.limit]\ntype = \"integer\"\ndefault = 100",
                "[config]\nlimit = 100",
                "f:6: config.limit: the schema is not a table",
            ),
            ("= 100", "= ", "f:7: "),
        ] {
            let error = parse(&GOOD.replace(from, to), "f").err().unwrap_or_default();
            assert!(error.contains(expected), "{expected} not in {error}");
        }
    }

    /// Values of each key. The schema of editors must judge each as the reader does.
    const VALUES: [(&str, &str, &[&str]); 14] = [
        ("name = \"a\"", "name", &["'a-1'", "'A'", "''", "7", "'a b'", "'a_b'", "['a']"]),
        (
            "version = \"1.0.0\"",
            "version",
            &["'1.2.3-rc.1+b'", "'1.0'", "'01.0.0'", "'1.0.0-'", "'1.0.0-01'", "1.0", "'v1.0.0'", "'1.0.0-a..b'"],
        ),
        ("", "description", &["'one line'", "''", "\"a\\nb\"", "5", "[]", "'é'"]),
        ("", "services", &["[]", "['http', 'crypto']", "['disk']", "['http', 'http']", "'http'", "[1]"]),
        ("", "auth", &["true", "false", "'yes'", "1", "{}"]),
        ("", "no_such_key", &["1", "{}"]),
        ("", "response", &["{}", "{body = 'buffer'}", "[]", "true", "{body = 'all'}", "{bodi = 'none'}", "'none'"]),
        (
            "body = \"buffer\"",
            "body_bytes_max",
            &["1", "1\nbody = 'buffer'", "8388608\nbody = 'buffer'", "8388609\nbody = 'buffer'", "0\nbody = 'buffer'"],
        ),
        (
            "body = \"buffer\"",
            "body_bytes_max",
            &["-1\nbody = 'buffer'", "1.5\nbody = 'buffer'", "'1'\nbody = 'buffer'", "1\nbody = 'none'"],
        ),
        ("type = \"integer\"", "type", &["'number'", "['integer', 'array']", "'int'", "['int']", "'null'", "5", "[]"]),
        ("default = 100", "minimum", &["1", "1.5", "'1'", "true", "[1]"]),
        ("default = 100", "maxLength", &["1", "0", "-1", "'1'", "true"]),
        ("default = 100", "items", &["{}", "true", "{type = 'string'}", "{type = 'int'}", "5", "[]"]),
        ("default = 100", "properties", &["{}", "{a = {type = 'string'}}", "{a = {typ = 'string'}}", "[]", "{a = 5}"]),
    ];
    /// The same for keywords that take several schemas.
    const SCHEMAS: [&str; 8] = [
        "anyOf = [{type = 'integer'}]",
        "anyOf = []",
        "anyOf = {}",
        "oneOf = [{no = 1}]",
        "allOf = [5]",
        "not = {}",
        "required = ['a', 'a']",
        "multipleOf = 0",
    ];

    #[test]
    fn the_schema_of_editors_judges_as_the_reader_does() {
        let validator = jsonschema::validator_for(&witgate_manifest::filter_schema()).expect("the schema is valid");
        let mut files = vec![GOOD.to_owned(), GOOD.replace("[request]\nbody = \"buffer\"\n", "")];
        files.push(GOOD.replace("config.limit", "config.\"a b\""));
        files.push(GOOD.replace("default", "\"$ref\""));
        files.extend(["name = \"a\"\n", "version = \"1.0.0\"\n"].map(|line| GOOD.replace(line, "")));
        files.extend(SCHEMAS.map(|line| GOOD.replace("default = 100", line)));
        for (line, key, values) in VALUES {
            for value in values {
                let new = format!("{key} = {value}\n");
                files.push(if line.is_empty() { new + GOOD } else { GOOD.replace(&format!("{line}\n"), &new) });
            }
        }
        let (mut accepted, mut refused) = (0, 0);
        for file in &files {
            let value: toml::Value = toml::from_str(file).unwrap_or_else(|error| panic!("{file}{error}"));
            let is_valid = validator.is_valid(&json(&value).expect("the values above are JSON"));
            let reader = parse(file, "f").map(|_| ());
            assert_eq!(reader.is_ok(), is_valid, "{file}{reader:?}");
            if is_valid { accepted += 1 } else { refused += 1 }
        }
        assert!(accepted > 25 && refused > 50, "{accepted} accepted and {refused} refused files");
    }

    #[test]
    fn all_mistakes_of_a_file_are_reported_at_once() {
        let text = GOOD.replace("\"a\"", "\"A\"").replace("1.0.0", "1").replace("100", "true");
        let error = parse(&text, "f").err().unwrap_or_default();
        let lines: Vec<&str> = error.lines().filter_map(|line| line.get(..4)).collect();
        assert_eq!(lines, ["f:1:", "f:2:", "f:5:"], "{error}");
    }
}
