//! A JSON Schema of gateway.yaml, for editors.
//!
//! It is made from what the readers of the configuration ask for while they read two examples,
//! which together have every key in each of its forms, and from the tables of
//! docs/reference/config.md. So it changes with the code and with the documentation, and nobody
//! writes it by hand. It is a little wider than the readers: relations between keys, names and
//! patterns are left to `witgate check`.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value, json};

use crate::error::Reading;
use crate::key_forms::{ANY_NAME, Form, Shape, Shapes, child_path};
use crate::references::AnyReference;
use crate::yaml::{self, Section};

const EXAMPLES: [&str; 2] = [include_str!("example.yaml"), include_str!("forms.yaml")];
const REFERENCE: &str = include_str!("../../../docs/reference/config.md");

/// The schema, in JSON Schema draft 2020-12. `read` reads a whole file.
pub(crate) fn of(read: impl Fn(&Section)) -> Value {
    let shapes = examples_shapes(read);
    let docs = descriptions(&shapes);
    let mut root = object("", &shapes, &docs);
    root.insert("$schema".into(), "https://json-schema.org/draft/2020-12/schema".into());
    root.insert("title".into(), "gateway.yaml of witgate".into());
    root.insert("$defs".into(), definitions());
    Value::Object(root)
}

fn definitions() -> Value {
    let one = |key: &str, what: &str| {
        json!({ "type": "object", "additionalProperties": false, "required": [key], "description": what,
                "properties": { key: { "type": "string" } } })
    };
    json!({
        "reference": { "oneOf": [one("env", "the value of an environment variable"), one("file", "the content of a file")] },
        "text": { "anyOf": [{ "type": ["string", "number", "boolean"] }, { "$ref": "#/$defs/reference" }] }
    })
}

fn examples_shapes(read: impl Fn(&Section)) -> Shapes {
    let mut shapes = Shapes::default();
    for text in EXAMPLES {
        let Ok(root) = yaml::parse(text) else { continue };
        let mut reading = Reading::new(&AnyReference, Path::new("/"));
        reading.shapes = Some(RefCell::new(std::mem::take(&mut shapes)));
        Section::read_file(&root, &reading, &read);
        shapes = reading.shapes.take().map(RefCell::into_inner).unwrap_or_default();
    }
    shapes
}

/// The schema of the section at `path`.
fn object(path: &str, shapes: &Shapes, docs: &BTreeMap<String, String>) -> Map<String, Value> {
    let empty = Shape::default();
    let shape = shapes.0.get(path).unwrap_or(&empty);
    let mut properties = Map::new();
    for (key, forms) in &shape.keys {
        let mut property = value(path, key, forms, shapes, docs);
        if let Some(text) = docs.get(&child_path(path, key)) {
            property.insert("description".into(), text.as_str().into());
        }
        properties.insert(key.clone(), Value::Object(property));
    }
    let mut schema = Map::from_iter([("type".to_owned(), json!("object"))]);
    if let Some(any) = properties.remove(ANY_NAME) {
        schema.insert("additionalProperties".into(), any);
    } else if !shape.keys.is_empty() {
        schema.insert("additionalProperties".into(), false.into());
    }
    if !properties.is_empty() {
        schema.insert("properties".into(), Value::Object(properties));
    }
    if !shape.required.is_empty() {
        schema.insert("required".into(), json!(shape.required));
    }
    schema
}

/// The schema of the value of `key`: one form, or any of several.
fn value(
    path: &str,
    key: &str,
    forms: &[Form],
    shapes: &Shapes,
    docs: &BTreeMap<String, String>,
) -> Map<String, Value> {
    let path = child_path(path, key);
    let (mut schemas, mut items) = (vec![], vec![]);
    for form in forms {
        match form {
            Form::Section | Form::AnyNames => schemas.push(Value::Object(object(&path, shapes, docs))),
            Form::Items => items.push(Value::Object(object(&format!("{path}[]"), shapes, docs))),
            Form::List(item) => {
                // A single value counts as a list of one.
                items.extend(scalar_schemas(item));
                schemas.extend(scalar_schemas(item));
            }
            scalar => schemas.extend(scalar_schemas(scalar)),
        }
    }
    if !items.is_empty() {
        schemas.push(json!({ "type": "array", "items": any_of(items) }));
    }
    any_of(schemas)
}

fn any_of(mut schemas: Vec<Value>) -> Map<String, Value> {
    let mut distinct: Vec<Value> = vec![];
    schemas.drain(..).for_each(|schema| {
        if !distinct.contains(&schema) {
            distinct.push(schema)
        }
    });
    match (distinct.len(), distinct.pop()) {
        (1, Some(Value::Object(only))) => only,
        (_, None) => Map::new(),
        (_, Some(last)) => {
            distinct.push(last);
            Map::from_iter([("anyOf".to_owned(), distinct.into())])
        }
    }
}

/// Any value may be given by a reference.
fn scalar_schemas(form: &Form) -> Vec<Value> {
    match form {
        Form::Text => vec![json!({ "$ref": "#/$defs/text" })],
        other => vec![scalar_schema(other), json!({ "$ref": "#/$defs/reference" })],
    }
}

fn scalar_schema(form: &Form) -> Value {
    let number = |text: &str| text.parse::<u64>().ok().map_or(Value::Null, Value::from);
    match form {
        Form::Boolean => json!({ "type": "boolean" }),
        Form::Words(words) => {
            // YAML reads a word such as 301 as a number.
            let numbers = words.iter().filter_map(|word| serde_json::from_str::<serde_json::Number>(word).ok());
            let values: Vec<Value> = words.iter().cloned().map(Value::from).chain(numbers.map(Value::from)).collect();
            json!({ "enum": values })
        }
        Form::Number(min, max) => json!({ "type": "integer", "minimum": number(min), "maximum": number(max) }),
        Form::Size(min, max) => json!({ "anyOf": [
            { "type": "integer", "minimum": min, "maximum": max },
            { "type": "string", "pattern": "^[0-9]+(B|KiB|MiB|GiB|KB|kB|MB|GB)?$" }
        ] }),
        Form::Duration => json!({ "type": "string", "pattern": "^[0-9]+(ms|s|m|h)$" }),
        _ => Value::Bool(true),
    }
}

/// What the tables of the reference say of each key, by its path.
fn descriptions(shapes: &Shapes) -> BTreeMap<String, String> {
    let (mut chapter, mut section) = (String::new(), String::new());
    let mut found = BTreeMap::new();
    for line in REFERENCE.lines() {
        if let Some(title) = line.strip_prefix("## ") {
            (chapter, section) =
                (code_spans(title).next().unwrap_or_default().replace("NAME", ANY_NAME), String::new());
        } else if let Some(title) = line.strip_prefix("### ") {
            section = code_spans(title).next().unwrap_or_default().to_owned();
        }
        let Some(cells) = line.strip_prefix("| `") else { continue };
        let cells: Vec<&str> = cells.trim_end_matches('|').split(" |").collect();
        let [keys, _, default, _, meaning] = cells[..] else { continue };
        for key in code_spans(&format!("`{keys}")) {
            let paths = [join(&[&chapter, &section, key]), join(&[&chapter, key]), key.to_owned()];
            if let Some(path) = paths.into_iter().find(|path| exists(shapes, path)) {
                found.entry(path).or_insert_with(|| describe(default, meaning));
            }
        }
    }
    found
}

fn join(parts: &[&str]) -> String {
    parts.iter().filter(|part| !part.is_empty()).copied().collect::<Vec<_>>().join(".")
}

fn exists(shapes: &Shapes, path: &str) -> bool {
    let (parent, key) = path.rsplit_once('.').unwrap_or(("", path));
    shapes.0.get(parent).is_some_and(|shape| shape.keys.contains_key(key))
}

fn code_spans(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

fn describe(default: &str, meaning: &str) -> String {
    let (default, meaning) = (plain(default), plain(meaning));
    match (meaning.is_empty(), default.is_empty() || default.starts_with("required")) {
        (false, true) => meaning,
        (false, false) => format!("{meaning}. Default: {default}"),
        (true, _) => format!("Default: {default}"),
    }
}

/// Text without code marks and without the targets of links.
fn plain(markdown: &str) -> String {
    let mut text = String::new();
    let mut rest = markdown.trim();
    while let Some((before, after)) = rest.split_once("](") {
        let after_target = after.split_once(')').map_or("", |(_, after)| after);
        text.push_str(&before.replace('[', ""));
        rest = after_target;
    }
    text.push_str(rest);
    text.replace('`', "").replace("\\|", "|")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn property_paths(shapes: &Shapes) -> impl Iterator<Item = (String, &Vec<Form>)> {
        let keys =
            shapes.0.iter().flat_map(|(path, shape)| shape.keys.iter().map(move |(key, forms)| (path, key, forms)));
        keys.filter(|(_, key, _)| *key != ANY_NAME).map(|(path, key, forms)| (child_path(path, key), forms))
    }

    fn example(text: &str) -> Value {
        let root = yaml::parse(text).expect("the example is YAML");
        let mut file = root.to_json(&|_| Ok(String::new())).expect("every reference has a value");
        // This mapping is not a reference, although it looks like one.
        if let Some(target) = file.pointer_mut("/log/access/to") {
            *target = json!({ "file": "access.log" });
        }
        file
    }

    fn check(file: &Value) -> Result<(), String> {
        // JSON is YAML.
        let parsed = crate::Config::parse_with(&file.to_string(), "gateway.yaml", Path::new("/"), &AnyReference);
        parsed.map(drop).map_err(|errors| errors.to_string())
    }

    /// Every value of the tree that `wants`, as a JSON pointer.
    fn pointers(value: &Value, at: &str, wants: &impl Fn(&Value) -> bool, found: &mut Vec<String>) {
        if wants(value) {
            found.push(at.to_owned());
        }
        match value {
            Value::Object(map) => {
                for (key, value) in map {
                    let key = key.replace('~', "~0").replace('/', "~1");
                    pointers(value, &format!("{at}/{key}"), wants, found);
                }
            }
            Value::Array(items) => {
                items
                    .iter()
                    .enumerate()
                    .for_each(|(at_item, item)| pointers(item, &format!("{at}/{at_item}"), wants, found));
            }
            _ => {}
        }
    }

    /// Changes a value that the pseudo-random `seed` chooses.
    fn mutate(file: &mut Value, seed: usize) -> String {
        let mut places = vec![];
        pointers(file, "", &|value| !value.is_null(), &mut places);
        let place = places[1 + seed.wrapping_mul(7919) % (places.len() - 1)].clone();
        let value = file.pointer_mut(&place).expect("the pointer was just made");
        match (seed % 4, value) {
            (0, Value::Object(map)) => drop(map.insert("no_such_key".into(), 1.into())),
            (1, value) => *value = json!({ "no_such_key": [1] }),
            (2, value) => *value = json!(987_654_321_987_u64),
            (_, value) => *value = json!("no such value"),
        }
        place
    }

    #[test]
    fn the_schema_refuses_nothing_that_check_accepts() {
        let validator = jsonschema::validator_for(&crate::schema()).expect("the schema is valid");
        let originals = EXAMPLES.map(example);
        for original in &originals {
            assert_eq!(check(original), Ok(()));
            let errors: Vec<String> = validator.iter_errors(original).map(|error| error.to_string()).collect();
            assert!(errors.is_empty(), "{errors:?}");
        }
        let (mut both, mut only_check) = (0, 0);
        for seed in 0..400 {
            let mut file = originals[seed % 2].clone();
            let place = mutate(&mut file, seed);
            match (check(&file).is_ok(), validator.is_valid(&file)) {
                (true, false) => panic!("check accepts {place} of file {seed}, and the schema does not"),
                (false, true) => only_check += 1,
                (false, false) => both += 1,
                (true, true) => {}
            }
        }
        assert!(both > 3 * only_check, "the schema misses {only_check} mistakes and finds {both}");
    }

    /// The committed schema is the one that the code makes. `WRITE=1` writes it.
    #[test]
    fn the_published_schema_is_current() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/gateway.schema.json");
        let current = format!("{:#}\n", crate::schema());
        if std::env::var_os("WRITE").is_some() {
            std::fs::write(&path, &current).expect("the file can be written");
        }
        let published = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(published == current, "run: WRITE=1 cargo test --release --locked --workspace --lib published_schema");
    }

    /// Otherwise editors would not know the key: it must be in one of the two examples.
    #[test]
    fn every_key_has_a_form_and_every_section_its_keys() {
        let shapes = examples_shapes(crate::read_for_shapes);
        for (path, forms) in property_paths(&shapes) {
            assert!(!forms.is_empty(), "{path}: no example has this key");
            for form in forms {
                let inner = match form {
                    Form::Section => path.clone(),
                    Form::Items => format!("{path}[]"),
                    _ => continue,
                };
                assert!(shapes.0.contains_key(&inner), "{path}: no example has this section");
            }
        }
    }

    #[test]
    fn the_reference_describes_every_key() {
        let shapes = examples_shapes(crate::read_for_shapes);
        let docs = descriptions(&shapes);
        let is_covered = |path: &str| {
            let mut parents = path.match_indices('.').map(|(at, _)| &path[..at]);
            // A mapping that the row of its parent explains.
            docs.contains_key(path) || parents.any(|parent| docs.contains_key(parent.trim_end_matches("[]")))
        };
        // The rows of a section's keys describe it.
        let is_section = |path: &str, form: &Form| match form {
            Form::Section | Form::Items => true,
            Form::AnyNames => shapes.0.contains_key(path),
            _ => false,
        };
        let missing: Vec<String> = property_paths(&shapes)
            .filter(|(path, forms)| !forms.iter().any(|form| is_section(path, form)) && !is_covered(path))
            .map(|(path, _)| path)
            .collect();
        assert!(missing.is_empty(), "docs/reference/config.md has no row for {missing:?}");
    }
}
