//! The rules for the values of a manifest, and the messages about values that break them.
//!
//! A problem names its field by a type, not by text, so that `componentize` can show the line of
//! filter.toml. All problems are reported at once. A message shows at most 80 characters of a
//! value, escaped.
//! This module does not know: where a manifest was written.

use std::fmt;

use crate::config_schema::{SchemaBudget, check_schema};
use crate::manifest::{
    BODY_BYTES_MAX, CONFIG_KEYS_MAX, DESCRIPTION_BYTES_MAX, Manifest, NAME_CHARS_MAX, Phase, SERVICES,
    VERSION_CHARS_MAX,
};
use crate::text::{check_printable, quoted};

/// A field of a manifest. Displays as its key in filter.toml.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Field {
    /// `name`
    Name,
    /// `version`
    Version,
    /// `description`
    Description,
    /// The entry of `services` at this index.
    Service(usize),
    /// The choice of `[request]` and `[response]`.
    Phases,
    /// `body_bytes_max` of the phase with this name.
    BodyBytes(&'static str),
    /// The schema of this configuration key.
    Config(String),
    /// The table `config`.
    Configs,
}

/// A value that breaks a rule. Displays as `KEY: message`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where the value is.
    pub field: Field,
    /// The mistake and its correction.
    pub message: String,
}

impl Manifest {
    /// Every value that breaks a rule, in the order of the fields.
    pub fn problems(&self) -> Vec<Problem> {
        let mut problems = vec![];
        let mut add = |field: Field, checked: Result<(), String>| {
            problems.extend(checked.err().map(|message| Problem { field, message }));
        };
        add(Field::Name, check_name(&self.name));
        add(Field::Version, check_version(&self.version));
        add(Field::Description, check_description(&self.description));
        for index in 0..self.services.len() {
            add(Field::Service(index), check_service(&self.services, index));
        }
        add(Field::Phases, self.check_phases());
        for (name, Phase { body_bytes_max, .. }) in self.phases() {
            add(Field::BodyBytes(name), check_body_bytes((*body_bytes_max).into()).map(drop));
        }
        let mut budget = SchemaBudget::new();
        for (key, schema) in self.config.iter().take(CONFIG_KEYS_MAX) {
            add(Field::Config(shown_key(key)), check_key(key).and_then(|()| check_schema(schema, &mut budget)));
        }
        if self.config.len() > CONFIG_KEYS_MAX {
            let message = format!("{} keys are above the limit of {CONFIG_KEYS_MAX}", self.config.len());
            problems.push(Problem { field: Field::Configs, message });
        }
        problems
    }

    fn check_phases(&self) -> Result<(), String> {
        if self.phases().next().is_some() {
            return Ok(());
        }
        Err("a filter has at least one phase: add [request], [response] or both to filter.toml".into())
    }
}

/// `number` as the limit of a buffered body.
///
/// # Errors
///
/// The number is not between 1 and [`BODY_BYTES_MAX`]; the text says so.
pub fn check_body_bytes(number: i64) -> Result<u32, String> {
    match u32::try_from(number) {
        Ok(bytes) if (1..=BODY_BYTES_MAX).contains(&bytes) => Ok(bytes),
        _ => Err(format!("{number} is not between 1 and {BODY_BYTES_MAX} (8 MiB)")),
    }
}

fn check_name(name: &str) -> Result<(), String> {
    let is_allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if (1..=NAME_CHARS_MAX).contains(&name.len()) && name.chars().all(is_allowed) {
        return Ok(());
    }
    Err(format!("{}: a name has 1 to {NAME_CHARS_MAX} characters of a-z, 0-9 and -", quoted(name)))
}

fn check_version(version: &str) -> Result<(), String> {
    if version.len() > VERSION_CHARS_MAX {
        return Err(format!("{}: a version has at most {VERSION_CHARS_MAX} characters", quoted(version)));
    }
    let parsed = semver::Version::parse(version);
    parsed.map(drop).map_err(|error| format!("{version:?}: {error}; write three numbers, such as 1.0.0"))
}

fn check_description(description: &str) -> Result<(), String> {
    if description.contains('\n') {
        return Err("the description has more than one line".into());
    }
    if description.len() > DESCRIPTION_BYTES_MAX {
        let length = description.len();
        return Err(format!("the description has {length} bytes, above the limit of {DESCRIPTION_BYTES_MAX}"));
    }
    check_printable(description)
}

fn check_key(key: &str) -> Result<(), String> {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
    if (1..=NAME_CHARS_MAX).contains(&key.len()) && key.chars().all(is_allowed) {
        return Ok(());
    }
    Err(format!("a key has 1 to {NAME_CHARS_MAX} characters of a-z, A-Z, 0-9, _, - and ."))
}

/// A key as a part of a path in a message.
fn shown_key(key: &str) -> String {
    if check_key(key).is_ok() { key.to_owned() } else { quoted(key) }
}

fn check_service(services: &[String], index: usize) -> Result<(), String> {
    let service = services[index].as_str();
    if !SERVICES.contains(&service) {
        return Err(format!("{} is not a service; the services are {}", quoted(service), SERVICES.join(", ")));
    }
    if services[..index].iter().any(|earlier| earlier == service) {
        return Err(format!("{} is listed twice", quoted(service)));
    }
    Ok(())
}

impl fmt::Display for Field {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name => formatter.write_str("name"),
            Self::Version => formatter.write_str("version"),
            Self::Description => formatter.write_str("description"),
            Self::Service(_) => formatter.write_str("services"),
            Self::Phases => formatter.write_str("phases"),
            Self::BodyBytes(phase) => write!(formatter, "{phase}.body_bytes_max"),
            Self::Config(key) => write!(formatter, "config.{key}"),
            Self::Configs => formatter.write_str("config"),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.field, self.message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_problem_is_reported_in_the_order_of_the_fields() {
        let manifest: Manifest = serde_json::from_value(serde_json::json!({
            "name": "A b", "version": "1.0", "description": "a\nb",
            "services": ["keyvalue", "disk", "keyvalue"], "request": {"body_bytes_max": 0},
            "config": {"k": {"type": "int"}, "l": {"type": "integer", "default": 1.5}, "m": {}},
        }))
        .unwrap_or_else(|error| panic!("the manifest above has the right form: {error}"));
        let problems: Vec<String> = manifest.problems().iter().map(ToString::to_string).collect();
        let keys: Vec<&str> = problems.iter().filter_map(|text| text.split(": ").next()).collect();
        assert_eq!(
            keys,
            [
                "name",
                "version",
                "description",
                "services",
                "services",
                "request.body_bytes_max",
                "config.k",
                "config.l"
            ]
        );
        assert!(problems[3].contains("\"disk\" is not a service"), "{problems:?}");
        assert!(problems[4].contains("listed twice"), "{problems:?}");
    }

    #[test]
    fn texts_are_bounded_and_printable() {
        let long = "9".repeat(200_000);
        for (json, expected) in [
            (serde_json::json!({"version": format!("1.0.0+{long}")}), "a version has at most 64 characters"),
            (serde_json::json!({"version": "1.0.0\u{1b}[2J"}), "write three numbers"),
            (serde_json::json!({"name": long.clone()}), "a name has 1 to 64 characters"),
            (serde_json::json!({"description": long.clone()}), "above the limit of 512"),
            (serde_json::json!({"description": "a\u{1b}[2Jb"}), "'\\u{1b}' is not printable"),
            (serde_json::json!({"description": "a\u{202e}b"}), "'\\u{202e}' is not printable"),
            (serde_json::json!({"services": [long.clone()]}), "is not a service"),
            (serde_json::json!({"config": {long.clone(): {}}}), "a key has 1 to 64 characters"),
            (serde_json::json!({"config": {"\u{1b}": {}}}), "a key has 1 to 64 characters"),
            (serde_json::json!({"config": {"k": {"title": "a\u{7}"}}}), "is not printable"),
            (
                serde_json::json!({"config": (0..300).map(|at| (format!("k{at}"), serde_json::json!({})))
                .collect::<serde_json::Map<_, _>>()}),
                "300 keys are above the limit of 256",
            ),
        ] {
            let mut all = serde_json::json!({"name": "a", "version": "1.0.0", "request": {}});
            for (key, value) in json.as_object().into_iter().flatten() {
                all[key] = value.clone();
            }
            let manifest: Manifest =
                serde_json::from_value(all).unwrap_or_else(|error| panic!("the form is right: {error}"));
            let problems = manifest.problems();
            let text = problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
            assert!(problems.len() == 1 && text.contains(expected), "{expected} is not in {text}");
            assert!(text.len() < 400 && !text.chars().any(char::is_control), "{text}");
        }
    }

    #[test]
    fn a_limit_of_a_body_has_bounds() {
        assert_eq!((check_body_bytes(1), check_body_bytes(8 << 20)), (Ok(1), Ok(8 << 20)));
        for number in [-1, 0, (8 << 20) + 1, i64::MAX] {
            assert!(check_body_bytes(number).is_err_and(|text| text.contains(&number.to_string())));
        }
    }
}
