//! The last failures of a gateway for people: what happened, what to do, and the whole exchange.
//!
//! This module does not know: how failures are explained.

use std::fmt::Write as _;

use serde_json::{Map, Value};

/// How many failures a list shows. `--json` shows all.
const SHOWN_MAX: usize = 20;

/// The last failures, newest first; with `id`, all fields of the one that has it.
///
/// # Errors
/// No failure has the id.
pub(super) fn describe(lists: &Value, id: Option<&str>) -> Result<String, String> {
    let entries = || ["failed", "refused"].into_iter().flat_map(|list| lists[list].as_array().into_iter().flatten());
    let mut out = String::new();
    let Some(id) = id else {
        entries().take(SHOWN_MAX).for_each(|entry| out.push_str(&summary(entry)));
        return Ok(if out.is_empty() { "nothing has failed\n".into() } else { out });
    };
    let found = entries().find(|entry| text(&entry["exchange"], "id") == id);
    let entry = found.ok_or_else(|| {
        format!("{id}: not among the last failures; if it is older, the access log has it under this id")
    })?;
    out.push_str(&summary(entry));
    let fields = entry["exchange"].as_object().into_iter().flatten();
    for (name, value) in fields.filter(|(name, _)| !["id", "time", "failure", "detail"].contains(&name.as_str())) {
        write_field(&mut out, name, value);
    }
    Ok(out)
}

/// Three lines: when, which status and kind, and the id; what happened; what to do.
fn summary(entry: &Value) -> String {
    let exchange = &entry["exchange"];
    let status = exchange["status"].as_u64().map_or("---".to_owned(), |status| status.to_string());
    let (time, kind, id) = (text(exchange, "time"), text(exchange, "failure"), text(exchange, "id"));
    format!("{time} {status} {kind} id={id}\n  {}\n  {}\n", text(entry, "what"), text(entry, "advice"))
}

/// A line, or a line for each object of a list.
fn write_field(out: &mut String, name: &str, value: &Value) {
    // Writing to a string does not fail.
    match value {
        Value::Array(items) => {
            for item in items.iter().filter_map(Value::as_object) {
                let _ = writeln!(out, "    {name}: {}", pairs(item));
            }
        }
        Value::Object(fields) => drop(writeln!(out, "    {name}: {}", pairs(fields))),
        value => drop(writeln!(out, "    {name}: {}", plain(value))),
    }
}

fn pairs(fields: &Map<String, Value>) -> String {
    let pairs = fields.iter().map(|(name, value)| format!("{name}={}", plain(value)));
    pairs.collect::<Vec<_>>().join(" ")
}

/// A text on one line.
fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), |text| text.replace('\n', " "))
}

fn text<'v>(value: &'v Value, key: &str) -> &'v str {
    value[key].as_str().unwrap_or("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_found_by_its_id() {
        let entry = |id: &str| {
            serde_json::json!({"what": "It broke.", "advice": "Mend it.", "exchange": {"id": id, "time": "t",
                "status": 502, "failure": "trap", "route": "r", "filters": [{"filter": "f", "us": 7}]}})
        };
        let lists = serde_json::json!({"failed": [entry("1"), entry("2")], "refused": [entry("3")]});
        let list = describe(&lists, None).unwrap_or_default();
        assert_eq!(list.lines().filter(|line| line.starts_with("t 502 trap id=")).count(), 3, "{list}");
        let one = describe(&lists, Some("3"));
        let expected =
            "t 502 trap id=3\n  It broke.\n  Mend it.\n    filters: filter=f us=7\n    route: r\n    status: 502\n";
        assert_eq!(one.as_deref(), Ok(expected));
        assert!(describe(&lists, Some("4")).is_err());
        assert_eq!(describe(&Value::Null, None).as_deref(), Ok("nothing has failed\n"));
    }
}
