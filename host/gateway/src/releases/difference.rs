//! Describes the difference between two versions of a filter.
//!
//! It compares what the components declare, not their code. This module does not know: why a
//! version was released.

use serde_json::Value;

use witgate_http::text::quoted;

/// Lines of one difference.
const LINES_MAX: usize = 50;
/// Characters of a value in a line.
const VALUE_CHARS_MAX: usize = 120;

/// Lists what differs, a line for each field. Objects are compared field by field, and lists of
/// texts item by item.
pub fn difference(old: &Value, new: &Value) -> Vec<String> {
    let mut lines = vec![];
    compare("", old, new, &mut lines);
    if lines.len() > LINES_MAX {
        let rest = lines.len() - LINES_MAX;
        lines.truncate(LINES_MAX);
        lines.push(format!("{rest} more differences"));
    }
    lines
}

fn compare(path: &str, old: &Value, new: &Value, lines: &mut Vec<String>) {
    match (old, new) {
        (old, new) if old == new => {}
        (Value::Object(old), Value::Object(new)) => {
            let added = new.keys().filter(|key| !old.contains_key(*key));
            for key in old.keys().chain(added) {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                compare(&path, old.get(key).unwrap_or(&Value::Null), new.get(key).unwrap_or(&Value::Null), lines);
            }
        }
        (Value::Array(old), Value::Array(new)) => {
            lines.extend(
                new.iter().filter(|item| !old.contains(item)).map(|item| format!("{path}: {} is new", shown(item))),
            );
            lines.extend(
                old.iter().filter(|item| !new.contains(item)).map(|item| format!("{path}: {} is gone", shown(item))),
            );
        }
        (Value::Null, new) => lines.push(format!("{path}: {} is new", shown(new))),
        (old, Value::Null) => lines.push(format!("{path}: {} is gone", shown(old))),
        (old, new) => lines.push(format!("{path}: {} became {}", shown(old), shown(new))),
    }
}

fn shown(value: &Value) -> String {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Object(_) | Value::Array(_) => value.to_string(),
        // A number, true, false or null.
        value => return value.to_string(),
    };
    let cut: String = text.chars().take(VALUE_CHARS_MAX).collect();
    if cut.len() < text.len() { format!("{}…", quoted(&cut)) } else { quoted(&cut) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn differences_are_lines_and_bounded() {
        let old = json!({"version": "1", "size": 10, "imports": ["a", "b"], "manifest": {"request": {"body": "none"}}});
        let new = json!({"version": "2", "size": 10, "imports": ["b", "c"], "manifest": {"request": {"body": "buffer"}, "x": 1}});
        let lines = difference(&old, &new).join("\n");
        for expected in ["version: ", "imports: ", " is new", " is gone", "manifest.request.body: ", " became "] {
            assert!(lines.contains(expected), "{lines}");
        }
        assert!(!lines.contains("size"), "{lines}");
        let many: Vec<String> = (0..1000).map(|number| number.to_string()).collect();
        assert_eq!(difference(&json!([]), &json!(many)).len(), LINES_MAX + 1);
        assert!(difference(&json!({"a": "x".repeat(10_000)}), &json!({})).concat().len() < 1000);
    }
}
