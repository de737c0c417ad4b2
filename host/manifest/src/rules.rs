//! The rules for the values of a manifest, and the messages about values that break them.
//!
//! A problem names its field by a type, not by text, so that `componentize` can show the line of
//! filter.toml. All problems are reported at once.
//! This module does not know: where a manifest was written.

use std::fmt;

use serde_json::Value;

use crate::manifest::{BODY_BYTES_MAX, Manifest, NAME_CHARS_MAX, Phase, SERVICES};

/// The types of JSON Schema.
const SCHEMA_TYPES: [&str; 6] = ["string", "integer", "number", "boolean", "array", "object"];

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
        for (key, schema) in &self.config {
            add(Field::Config(key.clone()), check_schema(schema));
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
    Err(format!("{name:?}: a name has 1 to {NAME_CHARS_MAX} characters of a-z, 0-9 and -"))
}

fn check_version(version: &str) -> Result<(), String> {
    let parsed = semver::Version::parse(version);
    parsed.map(drop).map_err(|error| format!("{version:?}: {error}; write three numbers, such as 1.0.0"))
}

fn check_description(description: &str) -> Result<(), String> {
    if description.contains('\n') { Err("the description has more than one line".into()) } else { Ok(()) }
}

fn check_service(services: &[String], index: usize) -> Result<(), String> {
    let service = services[index].as_str();
    if !SERVICES.contains(&service) {
        return Err(format!("{service:?} is not a service; the services are {}", SERVICES.join(", ")));
    }
    if services[..index].iter().any(|earlier| earlier == service) {
        return Err(format!("{service:?} is listed twice"));
    }
    Ok(())
}

/// Finds what a typing mistake breaks. The rest of JSON Schema is not checked.
fn check_schema(schema: &Value) -> Result<(), String> {
    let Some(schema) = schema.as_object() else {
        return Err("the schema is not a table: write [config.KEY] with `type = \"string\"` below it".into());
    };
    let Some(kind) = schema.get("type") else { return Ok(()) };
    let Some(name) = kind.as_str().filter(|name| SCHEMA_TYPES.contains(name)) else {
        return Err(format!("type: {kind} is not one of {}", SCHEMA_TYPES.join(", ")));
    };
    let Some(default) = schema.get("default") else { return Ok(()) };
    let fits = match name {
        "string" => default.is_string(),
        "integer" => default.is_i64(),
        "number" => default.is_number(),
        "boolean" => default.is_boolean(),
        "array" => default.is_array(),
        _ => default.is_object(),
    };
    if fits { Ok(()) } else { Err(format!("default: {default} is not of the type {name}")) }
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
    fn a_limit_of_a_body_has_bounds() {
        assert_eq!((check_body_bytes(1), check_body_bytes(8 << 20)), (Ok(1), Ok(8 << 20)));
        for number in [-1, 0, (8 << 20) + 1, i64::MAX] {
            assert!(check_body_bytes(number).is_err_and(|text| text.contains(&number.to_string())));
        }
    }
}
