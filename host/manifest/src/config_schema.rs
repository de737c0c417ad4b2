//! The JSON Schemas of a filter's configuration keys: which schemas are allowed, and whether a
//! configuration fits them.
//!
//! The subset of JSON Schema (draft 2020-12) has no references, so a schema reads as it stands and
//! loads nothing. A misspelt keyword is an error, because JSON Schema itself would ignore it.
//! Regular expressions run in linear time. Messages never contain a value, which may be a secret.
//! This module does not know: where a schema or a configuration was written.

use std::collections::BTreeMap;

use jsonschema::{Draft, PatternOptions, Validator};
use serde_json::Value;

use crate::manifest::Manifest;
use crate::text::{check_printable, nearest, quoted};

/// How deep schemas may be nested.
const DEPTH_MAX: usize = 16;
/// Schemas of all keys of a manifest, with those inside of others.
const SCHEMAS_MAX: usize = 2000;
/// Regular expressions in them. Each may take some milliseconds to compile.
const PATTERNS_MAX: usize = 64;
/// The longest regular expression, in bytes.
pub(crate) const PATTERN_BYTES_MAX: usize = 1024;
/// The largest compiled regular expression, in bytes.
const PATTERN_SIZE_MAX: usize = 256 << 10;
/// The types of JSON Schema. `null` is missing, because a key without a value is not set.
pub(crate) const TYPES: [&str; 6] = ["string", "integer", "number", "boolean", "array", "object"];
/// Keywords whose value is not a schema.
pub(crate) const PLAIN: [&str; 21] = [
    "type",
    "title",
    "description",
    "default",
    "examples",
    "enum",
    "const",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "multipleOf",
    "minLength",
    "maxLength",
    "pattern",
    "minItems",
    "maxItems",
    "uniqueItems",
    "required",
    "minProperties",
    "maxProperties",
];
/// Keywords whose value is one schema.
pub(crate) const SCHEMA: [&str; 4] = ["items", "additionalProperties", "propertyNames", "not"];
/// Keywords whose value is a list of schemas.
pub(crate) const LIST: [&str; 3] = ["allOf", "anyOf", "oneOf"];
/// The keyword whose value maps names to schemas.
pub(crate) const PROPERTIES: &str = "properties";

impl Manifest {
    /// Everything that is wrong with a filter's configuration: `KEY: message` for each key. A
    /// string counts as what it says, so `"5"` fits an integer as well as a string.
    pub fn config_problems(&self, config: &BTreeMap<String, String>) -> Vec<String> {
        let mut problems = vec![];
        for (key, text) in config {
            let problem = match self.config.get(key) {
                None => Some(self.unknown_key(key)),
                Some(schema) => check_value(schema, text).err(),
            };
            problems.extend(problem.map(|why| format!("{key}: {why}")));
        }
        problems
    }

    /// Adds the defaults of the schemas for the keys that a configuration does not set.
    pub fn add_defaults(&self, config: &mut BTreeMap<String, String>) {
        for (key, schema) in &self.config {
            if let Some(default) = schema.get("default")
                && !config.contains_key(key)
            {
                config.insert(key.clone(), as_text(default));
            }
        }
    }

    fn unknown_key(&self, key: &str) -> String {
        let known: Vec<&str> = self.config.keys().map(String::as_str).collect();
        match nearest(key, &known) {
            Some(near) => format!("the filter has no such key: did you mean {near}?"),
            None if known.is_empty() => "the filter has no configuration: remove the key".into(),
            None => format!("the filter has no such key: its keys are {}", known.join(", ")),
        }
    }
}

/// The form in which a filter gets a value: strings as they are, other values as JSON.
fn as_text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// A value as JSON, of which at most 80 characters are shown.
fn quoted_json(value: &Value) -> String {
    if value.is_string() { quoted(&as_text(value)) } else { quoted(&value.to_string()).trim_matches('"').to_owned() }
}

/// Checks a configuration value against a schema that passed [`check_schema`].
fn check_value(schema: &Value, text: &str) -> Result<(), String> {
    let validator = compile(schema)?;
    let as_string = Value::from(text);
    let as_json = serde_json::from_str::<Value>(text).ok();
    if validator.is_valid(&as_string) || as_json.as_ref().is_some_and(|value| validator.is_valid(value)) {
        return Ok(());
    }
    // The JSON value gives the better message, unless the schema wants a string.
    let wants_string = schema.get("type").is_some_and(|kind| kind == "string");
    let value = as_json.filter(|_| !wants_string).unwrap_or(as_string);
    let messages = validator.iter_errors(&value).take(3).map(|error| {
        let at = error.instance_path().to_string();
        let message = error.masked_with("the value").to_string();
        if at.is_empty() { message } else { format!("{at}: {message}") }
    });
    Err(messages.collect::<Vec<_>>().join("; "))
}

/// What the schemas of one manifest may still have together.
pub(crate) struct SchemaBudget {
    schemas: usize,
    patterns: usize,
}

impl SchemaBudget {
    pub(crate) const fn new() -> Self {
        Self { schemas: SCHEMAS_MAX, patterns: PATTERNS_MAX }
    }

    fn take_schema(&mut self) -> Result<(), String> {
        let left = self.schemas.checked_sub(1);
        self.schemas = left.ok_or_else(|| format!("the schemas of all keys together are more than {SCHEMAS_MAX}"))?;
        Ok(())
    }

    fn take_pattern(&mut self) -> Result<(), String> {
        let left = self.patterns.checked_sub(1);
        self.patterns =
            left.ok_or_else(|| format!("the schemas of all keys together have more than {PATTERNS_MAX} patterns"))?;
        Ok(())
    }
}

/// Checks that a schema belongs to the subset and that its default fits it.
pub(crate) fn check_schema(schema: &Value, budget: &mut SchemaBudget) -> Result<(), String> {
    if !schema.is_object() {
        return Err("the schema is not a table: write [config.KEY] with `type = \"string\"` below it".into());
    }
    check_keywords(schema, 0, budget)?;
    let validator = compile(schema)?;
    match schema.get("default") {
        Some(default) if !validator.is_valid(default) => {
            if let Some(name) = schema.get("type").and_then(Value::as_str)
                && !compile(&serde_json::json!({"type": name}))?.is_valid(default)
            {
                return Err(format!("default: {} is not of the type {name}", quoted_json(default)));
            }
            let shown = quoted(&as_text(default));
            let why = validator.iter_errors(default).next().map(|error| error.masked_with("it").to_string());
            Err(format!("default: {shown} does not fit the schema: {}", why.unwrap_or_default()))
        }
        _ => Ok(()),
    }
}

fn check_keywords(schema: &Value, depth: usize, budget: &mut SchemaBudget) -> Result<(), String> {
    budget.take_schema()?;
    if depth > DEPTH_MAX {
        return Err(format!("schemas are nested more than {DEPTH_MAX} deep"));
    }
    let keywords = match schema {
        Value::Object(keywords) => keywords,
        Value::Bool(_) if depth > 0 => return Ok(()),
        _ => return Err("a schema is a table".into()),
    };
    for (keyword, value) in keywords {
        let inner = match keyword.as_str() {
            name if SCHEMA.contains(&name) => vec![value],
            name if LIST.contains(&name) => value.as_array().into_iter().flatten().collect(),
            PROPERTIES => value.as_object().into_iter().flat_map(serde_json::Map::values).collect(),
            name if PLAIN.contains(&name) => {
                if name == "pattern" {
                    budget.take_pattern()?;
                }
                check_plain(name, value)?;
                vec![]
            }
            name => return Err(unknown_keyword(name)),
        };
        inner.into_iter().try_for_each(|schema| check_keywords(schema, depth + 1, budget))?;
    }
    Ok(())
}

fn check_plain(keyword: &str, value: &Value) -> Result<(), String> {
    match (keyword, value) {
        ("type", Value::String(name)) if TYPES.contains(&name.as_str()) => Ok(()),
        ("type", Value::Array(names)) if names.iter().all(|name| TYPES.iter().any(|known| name == known)) => Ok(()),
        ("type", other) => Err(format!("type: {} is not one of {}", quoted(&as_text(other)), TYPES.join(", "))),
        ("pattern", Value::String(text)) if text.len() > PATTERN_BYTES_MAX => {
            Err(format!("pattern: {} bytes are above the limit of {PATTERN_BYTES_MAX}", text.len()))
        }
        (_, value) => check_texts(value),
    }
}

/// Line breaks are allowed, because a description may have several lines.
fn check_texts(value: &Value) -> Result<(), String> {
    match value {
        Value::String(text) => check_printable(&text.replace(['\n', '\t'], "")),
        Value::Array(items) => items.iter().try_for_each(check_texts),
        Value::Object(entries) => entries.iter().try_for_each(|(key, value)| {
            check_printable(key)?;
            check_texts(value)
        }),
        _ => Ok(()),
    }
}

fn unknown_keyword(name: &str) -> String {
    if name.starts_with('$') {
        return format!("{}: schemas have no references and identifiers here: write the schema out", quoted(name));
    }
    let known: Vec<&str> = PLAIN.iter().chain(&SCHEMA).chain(&LIST).copied().chain([PROPERTIES]).collect();
    match nearest(name, &known) {
        Some(near) => format!("{}: is not a known keyword: did you mean {near}?", quoted(name)),
        None => format!(
            "{}: is not a keyword that a configuration schema may have: the keywords are {}",
            quoted(name),
            known.join(", ")
        ),
    }
}

fn compile(schema: &Value) -> Result<Validator, String> {
    jsonschema::options()
        .with_draft(Draft::Draft202012)
        .with_pattern_options(PatternOptions::regex().size_limit(PATTERN_SIZE_MAX))
        .build(schema)
        .map_err(|error| format!("the schema is not valid: {}: {}", error.schema_path(), error.masked_with("it")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn manifest(config: Value) -> Manifest {
        let json = json!({"name": "a", "version": "1.0.0", "request": {}, "config": config});
        let manifest: Manifest = serde_json::from_value(json).unwrap_or_else(|error| panic!("the form: {error}"));
        assert_eq!(manifest.problems(), []);
        manifest
    }

    fn problems(manifest: &Manifest, config: &[(&str, &str)]) -> String {
        let config = config.iter().map(|(key, text)| ((*key).to_owned(), (*text).to_owned())).collect();
        manifest.config_problems(&config).join("\n")
    }

    #[test]
    fn a_configuration_fits_its_schemas_or_the_key_is_named() {
        let manifest = manifest(json!({
            "percent": {"type": "integer", "minimum": 0, "maximum": 100},
            "limit": {"type": "integer", "minimum": 1, "default": 100},
            "names": {"type": "array", "items": {"type": "string", "pattern": "^[a-z]+$"}},
            "mode": {"enum": ["a", "b"]},
            "key": {"type": "string", "minLength": 4},
        }));
        let good = [("percent", "5"), ("names", r#"["a","b"]"#), ("mode", "a"), ("key", "1234"), ("limit", "7")];
        assert_eq!(problems(&manifest, &good), "");
        for (key, text, expected) in [
            ("percent", "many", "percent: the value is not of type \"integer\""),
            ("percent", "101", "percent: the value is greater than the maximum of 100"),
            ("limit", "-3", "limit: the value is less than the minimum of 1"),
            ("limt", "3", "limt: the filter has no such key: did you mean limit?"),
            ("colour", "3", "colour: the filter has no such key: its keys are key, limit,"),
            ("names", r#"["a","B"]"#, "names: /1: the value does not match \"^[a-z]+$\""),
            ("mode", "c", "mode: the value is not one of"),
            ("key", "s3", "key: the value is shorter than 4 characters"),
        ] {
            let found = problems(&manifest, &[(key, text)]);
            assert!(found.contains(expected), "{expected} is not in {found}");
            assert!(!found.contains("s3"), "values may be secrets: {found}");
        }
    }

    #[test]
    fn defaults_fill_the_missing_keys() {
        let manifest = manifest(json!({"a": {"default": "x"}, "b": {"default": [1, 2]}, "c": {"default": 7}, "d": {}}));
        let mut config = BTreeMap::from([("c".to_owned(), "8".to_owned())]);
        manifest.add_defaults(&mut config);
        let pairs: Vec<_> = config.iter().map(|(key, text)| (key.as_str(), text.as_str())).collect();
        assert_eq!(pairs, [("a", "x"), ("b", "[1,2]"), ("c", "8")]);
    }

    #[test]
    fn a_schema_outside_the_subset_is_refused() {
        for (schema, expected) in [
            (json!({"$ref": "#/x"}), "\"$ref\": schemas have no references"),
            (json!({"properties": {"a": {"$ref": "http://127.0.0.1/"}}}), "\"$ref\": schemas have no references"),
            (json!({"minimun": 1}), "\"minimun\": is not a known keyword: did you mean minimum?"),
            (json!({"type": "int"}), "type: \"int\" is not one of string, integer"),
            (json!({"type": "integer", "default": "many"}), "default: \"many\" is not of the type integer"),
            (json!({"maximum": 5, "default": 7}), "default: \"7\" does not fit the schema"),
            (json!({"pattern": "(a"}), "the schema is not valid"),
            (json!({"pattern": "a{1000}{1000}"}), "the schema is not valid"),
            (json!({"minimum": "1"}), "the schema is not valid"),
            (json!({"title": "\u{1b}[2J"}), "is not printable"),
            (json!(true), "the schema is not a table"),
            ((0..20).fold(json!({}), |inner, _| json!({"not": inner})), "nested more than 16 deep"),
        ] {
            let error = check_schema(&schema, &mut SchemaBudget::new()).err().unwrap_or_default();
            assert!(error.contains(expected), "{expected} is not in {error}");
        }
    }

    #[test]
    fn the_schemas_of_a_manifest_are_bounded_together() {
        // Each takes milliseconds and 100 KiB.
        let large = |number: usize| json!({"pattern": format!("\\pL{{6}}{number}")});
        let key = |from: usize, to: usize| json!({"allOf": (from..to).map(large).collect::<Vec<_>>()});
        let mut budget = SchemaBudget::new();
        assert_eq!(check_schema(&key(0, 40), &mut budget), Ok(()));
        assert!(check_schema(&key(40, 80), &mut budget).is_err_and(|why| why.contains("more than 64 patterns")));
        let many = json!({"anyOf": vec![json!({}); SCHEMAS_MAX]});
        let refused = check_schema(&many, &mut SchemaBudget::new());
        assert!(refused.is_err_and(|why| why.contains("more than 2000")));
    }
}
