//! `witgate explain`: the cause of an error code, and what to do.
//!
//! The codes are the rows of the tables in docs/reference/errors.md, which is part of the program:
//! the page and the command cannot differ. This module does not know: when an error happens.

use serde_json::json;

use super::output::print;

/// The page with the tables.
const PAGE: &str = include_str!("../../../../docs/reference/errors.md");

/// A row of a table.
struct Row<'a> {
    /// The heading above the table.
    section: &'a str,
    /// The codes in the first column.
    codes: Vec<&'a str>,
    /// The names of the other columns with their texts.
    cells: Vec<(&'a str, &'a str)>,
}

/// Explains `code`. Without a code, lists all of them.
pub(super) fn explain(code: Option<&str>, as_json: bool) -> Result<(), String> {
    let rows = rows(PAGE);
    let Some(code) = code else { return list(rows.iter(), as_json) };
    if code.len() == 3 && code.bytes().all(|byte| byte.is_ascii_digit()) {
        return explain_status(&rows, code, as_json);
    }
    let code = &code.to_lowercase()[..];
    let found: Vec<&Row<'_>> = rows.iter().filter(|row| row.codes.contains(&code)).collect();
    if found.is_empty() {
        let known: Vec<&str> = rows.iter().flat_map(|row| row.codes.iter().copied()).collect();
        let near = witgate_config::nearest(code, &known)
            .or_else(|| known.into_iter().find(|known| known.contains(code) || code.contains(known)));
        let near = near.map_or_else(String::new, |near| format!(": did you mean {near}?"));
        return Err(format!("{code}: there is no such code{near}; `witgate explain` lists all"));
    }
    if as_json {
        return print(json!(found.iter().map(|row| to_json(row)).collect::<Vec<_>>()));
    }
    for (index, row) in found.iter().enumerate() {
        if index > 0 {
            print("")?;
        }
        print(format_args!("{code}  ({})", row.section))?;
        let width = row.cells.iter().map(|(name, _)| plain(name).chars().count()).max().unwrap_or(0);
        for (name, text) in row.cells.iter().filter(|(_, text)| !text.is_empty()) {
            print(format_args!("  {:<width$}  {}", plain(name), plain(text)))?;
        }
    }
    Ok(())
}

/// Every code that is explained.
#[cfg(test)]
pub(super) fn codes() -> std::collections::BTreeSet<&'static str> {
    rows(PAGE).into_iter().flat_map(|row| row.codes).collect()
}

/// Lists the codes with this status.
fn explain_status(rows: &[Row<'_>], status: &str, as_json: bool) -> Result<(), String> {
    let has_status = |row: &&Row<'_>| row.cells.contains(&("status", status));
    if !rows.iter().any(|row| has_status(&row)) {
        return Err(format!("{status}: the gateway itself answers nothing with this status: look at the upstream"));
    }
    if !as_json {
        print(format_args!(
            "The gateway answers {status} for one of these codes, which `details` of Proxy-Status names. Without Proxy-Status, an endpoint, a filter or the route chose the status."
        ))?;
    }
    list(rows.iter().filter(has_status), as_json)
}

fn list<'a>(rows: impl Iterator<Item = &'a Row<'a>>, as_json: bool) -> Result<(), String> {
    if as_json {
        return print(json!(rows.map(to_json).collect::<Vec<_>>()));
    }
    let mut section = "";
    for row in rows {
        if row.section != section {
            section = row.section;
            print(section)?;
        }
        let cause = row.cells.iter().find(|(name, _)| *name == "cause").map_or("", |(_, text)| *text);
        print(format_args!("  {:<24} {}", row.codes.join(", "), plain(cause)))?;
    }
    Ok(())
}

fn to_json(row: &Row<'_>) -> serde_json::Value {
    let cells: serde_json::Map<_, _> = row.cells.iter().map(|(name, text)| (plain(name), plain(text).into())).collect();
    json!({ "codes": row.codes, "section": row.section, "explanation": cells })
}

/// The rows of all tables whose first column is `kind` or `reason`.
fn rows(page: &str) -> Vec<Row<'_>> {
    let (mut rows, mut section, mut columns) = (vec![], "", vec![]);
    for line in page.lines() {
        if let Some(heading) = line.strip_prefix("## ") {
            section = heading;
        }
        let Some(row) = line.strip_prefix("| ").and_then(|line| line.strip_suffix('|')) else {
            if !line.starts_with('|') {
                columns = vec![];
            }
            continue;
        };
        let cells: Vec<&str> = row.split(" | ").map(str::trim).collect();
        if columns.is_empty() {
            columns = cells;
        } else if ["kind", "reason"].contains(&columns[0]) {
            let codes = cells[0].split('`').skip(1).step_by(2).collect();
            rows.push(Row { section, codes, cells: columns.iter().copied().zip(cells).skip(1).collect() });
        }
    }
    rows
}

/// A text of Markdown without its marks: links become their text.
fn plain(text: &str) -> String {
    let mut plain = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('[') {
        plain.push_str(before);
        match after.split_once("](").and_then(|(label, link)| Some((label, link.split_once(')')?.1))) {
            Some((label, after_link)) => {
                plain.push_str(label);
                rest = after_link;
            }
            None => {
                plain.push('[');
                rest = after;
            }
        }
    }
    plain.push_str(rest);
    plain.replace('`', "").replace("\\|", "|")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_a_cause_and_a_cure() {
        for row in rows(PAGE) {
            for column in ["cause", "what to do"] {
                let cell = row.cells.iter().find(|(name, _)| *name == column);
                let is_empty = cell.is_none_or(|(_, text)| text.is_empty());
                assert!(!is_empty, "{:?} has no {column} in docs/reference/errors.md", row.codes);
            }
        }
    }

    #[test]
    fn a_misspelt_code_gets_a_suggestion() {
        let error = explain(Some("dealine"), false).err().unwrap_or_default();
        assert!(error.contains("did you mean deadline?"), "{error}");
    }

    #[test]
    fn links_become_their_text() {
        assert_eq!(plain("see [rules](http.md#a) and `x`"), "see rules and x");
        assert_eq!(plain("a[0]"), "a[0]");
    }
}
