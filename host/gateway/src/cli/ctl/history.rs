//! The history of releases as text: a line for each decision, and below it the reason and what
//! differs between the versions.
//!
//! This module does not know: how the history is fetched.

use std::time::{Duration, SystemTime};

use serde_json::Value;
use witgate_http::text::bounded;

/// Renders a list of decisions.
pub(super) fn render(list: &Value) -> String {
    let text: String = list.as_array().into_iter().flatten().map(decision).collect();
    if text.is_empty() { "no decision is recorded (`witgate ctl filters` lists the filters)\n".into() } else { text }
}

fn decision(one: &Value) -> String {
    // The text comes from another process: it must not move the cursor.
    let text = |value: &Value| bounded(value.as_str().unwrap_or("-"));
    let version = |value: &Value| {
        let digest = text(&value["digest"]);
        format!("{} ({})", text(&value["version"]), digest.get(..12).unwrap_or(&digest))
    };
    let at = SystemTime::UNIX_EPOCH + Duration::from_millis(one["at"].as_u64().unwrap_or(0).min(253_402_300_799_000));
    let mut lines = format!(
        "{}  {}  {} {} by {}\n",
        httpdate::fmt_http_date(at),
        text(&one["filter"]),
        text(&one["decision"]).replace('_', " "),
        version(&one["version"]),
        text(&one["who"]),
    );
    if one["other"].is_object() {
        lines += &format!("    beside {}\n", version(&one["other"]));
    }
    lines += &format!("    {}\n", text(&one["why"]));
    for difference in one["differences"].as_array().into_iter().flatten() {
        lines += &format!("    - {}\n", text(difference));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_decision_is_a_block_of_lines() {
        let list = json!([{"at": 1000, "filter": "f", "decision": "rolled_back", "who": "gates", "why": "2 of 3\u{1b}[2J",
            "version": {"version": "2.0.0", "digest": "0123456789abcdef"}, "other": {"version": "1.0.0", "digest": "ab"},
            "differences": ["size: 1 became 2"]}]);
        let text = render(&list);
        assert!(
            text.starts_with("Thu, 01 Jan 1970 00:00:01 GMT  f  rolled back 2.0.0 (0123456789ab) by gates\n"),
            "{text}"
        );
        assert!(text.contains("    beside 1.0.0 (ab)\n") && text.ends_with("    - size: 1 became 2\n"), "{text}");
        assert!(!text.contains('\u{1b}'), "{text}");
        assert!(render(&json!([])).starts_with("no decision is recorded"));
    }
}
