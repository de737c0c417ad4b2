//! A list of JSON objects as a table.
//!
//! One list inside an object (the endpoints of an upstream) can become a row for each item, with
//! the outer columns repeated; an object inside one (a release) adds its columns. This module does
//! not know: what the columns mean.

use serde_json::{Map, Value};

/// Values are cut above this.
const CELL_CHARS_MAX: usize = 100;

/// Renders a list. Without `columns`, every column that occurs is shown. `inner` names the list
/// inside an object whose items are rows.
pub(super) fn render(list: &Value, columns: &[&str], inner: Option<&str>) -> String {
    let rows = list.as_array().into_iter().flatten().filter_map(Value::as_object);
    let rows: Vec<Map<String, Value>> = rows.flat_map(|object| flatten(object, inner)).collect();
    let mut names: Vec<String> = columns.iter().map(|name| (*name).to_owned()).collect();
    if columns.is_empty() {
        for name in rows.iter().flat_map(Map::keys) {
            if !names.contains(name) {
                names.push(name.clone());
            }
        }
    }
    let mut cells: Vec<Vec<String>> = vec![names.iter().map(|name| name.to_uppercase()).collect()];
    cells.extend(rows.iter().map(|row| names.iter().map(|name| cell(row.get(name))).collect()));
    let width = |column: usize| cells.iter().map(|row: &Vec<String>| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..names.len()).map(width).collect();
    let mut text = String::new();
    for row in &cells {
        let line: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        text.push_str(line.join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// The rows of one object. An outer column takes precedence over an inner one.
fn flatten(object: &Map<String, Value>, inner: Option<&str>) -> Vec<Map<String, Value>> {
    let mut row = Map::new();
    for (name, value) in object.values().filter_map(Value::as_object).flatten() {
        row.insert(name.clone(), value.clone());
    }
    let is_cell = |value: &Value| match value {
        Value::Array(items) => !items.iter().any(|item| item.is_object() && item["name"].is_null()),
        value => !value.is_object() && !value.is_null(),
    };
    let cells = object.iter().filter(|(name, value)| Some(name.as_str()) != inner && is_cell(value));
    row.extend(cells.map(|(name, value)| (name.clone(), value.clone())));
    let items = inner.and_then(|name| object.get(name)?.as_array()).filter(|items| !items.is_empty());
    let Some(items) = items else { return vec![row] };
    let extended = |item: &Value| {
        let mut extended = row.clone();
        extended.extend(item.as_object().cloned().unwrap_or_default());
        extended
    };
    items.iter().map(extended).collect()
}

fn cell(value: Option<&Value>) -> String {
    let text = match value {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(items)) => {
            let words = items.iter().map(|item| match item.as_str().or_else(|| item["name"].as_str()) {
                Some(text) => text.to_owned(),
                None => item.to_string(),
            });
            words.collect::<Vec<_>>().join(",")
        }
        Some(value) => value.to_string(),
    };
    // The text comes from another process: it must not move the cursor.
    let shown = text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c });
    shown.take(CELL_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn nested_lists_are_rows_and_text_cannot_control_a_terminal() {
        let list = json!([
            {"name": "a", "endpoints": [{"endpoint": "x:1", "healthy": null}, {"endpoint": "y:22", "healthy": true}]},
            {"name": "b\u{1b}[2J", "endpoints": []},
        ]);
        let text = render(&list, &["name", "endpoint", "healthy"], Some("endpoints"));
        assert_eq!(
            text,
            "NAME   ENDPOINT  HEALTHY\na      x:1       -\na      y:22      true\nb\u{fffd}[2J  -         -\n"
        );
    }

    #[test]
    fn a_release_adds_its_columns() {
        let list = json!([{"name": "f", "version": "1", "verdict": "w", "release": {"version": "2", "step": 2},
            "previous": [{"version": "0"}]}]);
        assert_eq!(render(&list, &["name", "version", "step"], None), "NAME  VERSION  STEP\nf     1        2\n");
    }
}
