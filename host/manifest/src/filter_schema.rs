//! A JSON Schema of filter.toml, for editors.
//!
//! It is made from the constants and keywords that the rules use, so it changes with them. It is a
//! little wider than the reader: sizes in bytes, unprintable characters, and whether a default fits
//! its own schema are left to the build. This module does not know: TOML.

use serde_json::{Map, Value, json};

use crate::config_schema::{LIST, PATTERN_BYTES_MAX, PLAIN, PROPERTIES, SCHEMA, TYPES};
use crate::manifest::{
    BODY_BYTES_DEFAULT, BODY_BYTES_MAX, CONFIG_KEYS_MAX, DESCRIPTION_BYTES_MAX, NAME_CHARS_MAX, SERVICES,
    VERSION_CHARS_MAX,
};

/// Three numbers, then the names of a pre-release and of a build (semver.org).
const VERSION: &str = r"^(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)(-(0|[1-9][0-9]*|[0-9]*[A-Za-z-][0-9A-Za-z-]*)(\.(0|[1-9][0-9]*|[0-9]*[A-Za-z-][0-9A-Za-z-]*))*)?(\+[0-9A-Za-z-]+(\.[0-9A-Za-z-]+)*)?$";

/// The schema, in JSON Schema draft 2020-12.
pub fn filter_schema() -> Value {
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "filter.toml of a witgate filter",
        "type": "object",
        "additionalProperties": false,
        "required": ["name", "version"],
        "anyOf": [{ "required": ["request"] }, { "required": ["response"] }],
        "properties": {
            "name": {
                "type": "string", "pattern": format!("^[a-z0-9-]{{1,{NAME_CHARS_MAX}}}$"),
                "description": format!("1 to {NAME_CHARS_MAX} characters of a-z, 0-9 and -")
            },
            "version": {
                "type": "string", "pattern": VERSION, "maxLength": VERSION_CHARS_MAX,
                "description": "a semantic version, such as 1.0.0"
            },
            "description": {
                "type": "string", "pattern": "^[^\\u0000-\\u001f]*$", "maxLength": DESCRIPTION_BYTES_MAX,
                "description": "one line, for people"
            },
            "services": {
                "type": "array", "uniqueItems": true, "items": { "enum": SERVICES },
                "description": "what the filter uses of the gateway; gateway.yaml must grant it"
            },
            "auth": {
                "type": "boolean",
                "description": "whether the filter decides who may pass. By default, the builder finds out"
            },
            "request": { "$ref": "#/$defs/phase" },
            "response": { "$ref": "#/$defs/phase" },
            "config": {
                "type": "object", "maxProperties": CONFIG_KEYS_MAX,
                "propertyNames": { "pattern": format!("^[A-Za-z0-9_.-]{{1,{NAME_CHARS_MAX}}}$") },
                "additionalProperties": { "allOf": [{ "type": "object" }, { "$ref": "#/$defs/schema" }] },
                "description": "a JSON Schema for each key that gateway.yaml may set"
            }
        },
        "$defs": {
            "phase": {
                "type": "object", "additionalProperties": false,
                "properties": {
                    "body": {
                        "enum": ["none", "buffer"], "default": "none",
                        "description": "buffer: the gateway reads the whole body before the call"
                    },
                    "body_bytes_max": {
                        "type": "integer", "minimum": 1, "maximum": BODY_BYTES_MAX, "default": BODY_BYTES_DEFAULT,
                        "description": "the largest body that the gateway buffers"
                    }
                },
                "dependentSchemas": {
                    "body_bytes_max": { "required": ["body"], "properties": { "body": { "const": "buffer" } } }
                }
            },
            "schema": { "type": ["object", "boolean"], "additionalProperties": false, "properties": keywords() }
        }
    })
}

/// The keywords of the schema of a configuration key.
fn keywords() -> Map<String, Value> {
    let inner = json!({ "$ref": "#/$defs/schema" });
    let mut keywords: Map<String, Value> = PLAIN.iter().map(|name| ((*name).to_owned(), plain(name))).collect();
    keywords.extend(SCHEMA.iter().map(|name| ((*name).to_owned(), inner.clone())));
    let list = json!({ "type": "array", "minItems": 1, "items": inner });
    keywords.extend(LIST.iter().map(|name| ((*name).to_owned(), list.clone())));
    keywords.insert(PROPERTIES.to_owned(), json!({ "type": "object", "additionalProperties": inner }));
    keywords
}

/// The value of a keyword that is not a schema.
fn plain(keyword: &str) -> Value {
    match keyword {
        "type" => json!({ "anyOf": [
            { "enum": TYPES },
            { "type": "array", "minItems": 1, "uniqueItems": true, "items": { "enum": TYPES } }
        ] }),
        "pattern" => json!({ "type": "string", "maxLength": PATTERN_BYTES_MAX }),
        "title" | "description" => json!({ "type": "string" }),
        "examples" | "enum" => json!({ "type": "array" }),
        "minimum" | "maximum" | "exclusiveMinimum" | "exclusiveMaximum" => json!({ "type": "number" }),
        "multipleOf" => json!({ "type": "number", "exclusiveMinimum": 0 }),
        "uniqueItems" => json!({ "type": "boolean" }),
        "required" => json!({ "type": "array", "uniqueItems": true, "items": { "type": "string" } }),
        "default" | "const" => Value::Bool(true),
        // Lengths and counts.
        _ => json!({ "type": "integer", "minimum": 0 }),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    /// The committed schema is the one that the code makes. `WRITE=1` writes it.
    #[test]
    fn the_published_schema_of_filter_toml_is_current() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/filter.schema.json");
        let current = format!("{:#}\n", super::filter_schema());
        if std::env::var_os("WRITE").is_some() {
            std::fs::write(&path, &current).expect("the file can be written");
        }
        let published = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(published == current, "run: WRITE=1 cargo test --release --locked --workspace --lib published_schema");
    }
}
