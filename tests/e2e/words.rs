//! The language of the repository: the width of comments and Markdown prose, and names that were
//! replaced by field terms and must not come back.
//!
//! It reads the files that git tracks. It does not know: what a text says, which a reader judges.

use std::fs;
use std::process::Command;

use anyhow::{Result, ensure};
use harness::repository;

const COMMENT_COLUMNS_MAX: usize = 100;
const PROSE_COLUMNS_MAX: usize = 120;

/// Names that were replaced. Each is a whole word that must not occur in a file or below a folder.
/// The folder "" is the repository.
const REPLACED_NAMES: &[(&str, &[&str])] = &[
    (
        "",
        &[
            "_rehearsal",
            "before_sleep",
            "BodyWish",
            "come_in",
            "drop_imitations",
            "drop_no_trailers",
            "fault_around::can_stop",
            "fault_around::stop",
            "others_first",
            "poll_gone",
            "poll_stuck",
            "Refusal::Nobody",
            "take_short_turns",
            "told_address",
            "wants_one",
        ],
    ),
    (
        "host",
        &[
            "const APART",
            "const CALM",
            "const EXACT",
            "const FEW",
            "const HURRY",
            "const LEISURE",
            "const LOOK",
            "const MANY",
            "const PATIENCE",
            "const PIECE",
            "Distrust",
            "enum Stop",
            "enum Way",
            "enum Word",
            "fn knock",
            "fn shaken",
            "struct Allowance",
            "struct Asked",
            "struct Bounds",
            "struct Demand",
            "struct Description",
            "struct Door",
            "struct Entrance",
            "struct From",
            "struct Guarded",
            "struct Link",
            "struct Note",
            "struct Own",
            "struct Pace",
            "struct Pass",
            "struct Seen",
            "struct Shelf",
            "struct Sight",
            "struct Standing",
            "struct Taken",
            "struct Unread",
            "struct Wire",
        ],
    ),
    ("host/gateway/src/upstream", &["struct Attempt", "struct Group", "struct Member", "struct To"]),
    ("host/gateway/src/upstream/endpoint.rs", &["struct State"]),
    ("tests", &["Mood", "nobody()", "set_mood"]),
];

/// Folders and files whose names were replaced.
const REPLACED_PATHS: &[&str] = &[
    "componentize/src/flatten",
    "guests/sdk/python/witgate/_rehearsal.py",
    "host/src",
    "tests/edge",
    "tests/guests",
    "tests/h2",
];

/// Files that must contain replaced names: this list, and the history.
const NAMES_EXEMPT: &[&str] = &["CHANGELOG.md", "tests/e2e/words.rs"];

#[test]
fn comments_fit_into_100_columns() -> Result<()> {
    let mut findings = vec![];
    for (path, text) in tracked_texts()? {
        let Some(style) = CommentStyle::of(&path, &text) else { continue };
        let long = style.comment_lines(&text).filter(|(_, line)| breakable_columns(line) > COMMENT_COLUMNS_MAX);
        findings.extend(long.map(|(number, line)| format!("{path}:{number}: {} columns", columns(line))));
    }
    report(&findings, "comment lines have more than 100 columns: wrap them")
}

#[test]
fn markdown_prose_fits_into_120_columns() -> Result<()> {
    let mut findings = vec![];
    for (path, text) in tracked_texts()? {
        if path.ends_with(".md") {
            let long = prose_lines(&text).filter(|(_, line)| breakable_columns(line) > PROSE_COLUMNS_MAX);
            findings.extend(long.map(|(number, line)| format!("{path}:{number}: {} columns", columns(line))));
        }
    }
    report(&findings, "lines of prose have more than 120 columns: wrap them")
}

#[test]
fn replaced_names_do_not_come_back() -> Result<()> {
    let mut findings = vec![];
    for (path, text) in tracked_texts()? {
        findings.extend(REPLACED_PATHS.iter().filter(|old| is_below(&path, old)).map(|_| format!("{path}: the path")));
        if NAMES_EXEMPT.contains(&path.as_str()) {
            continue;
        }
        for (_, names) in REPLACED_NAMES.iter().filter(|(folder, _)| is_below(&path, folder)) {
            for (number, line) in (1..).zip(text.lines()) {
                let found = names.iter().filter(|name| contains_word(line, name));
                findings.extend(found.map(|name| format!("{path}:{number}: {name}")));
            }
        }
    }
    report(&findings, "uses of replaced names: take the field term (see CONTRIBUTING.md)")
}

fn report(findings: &[String], what: &str) -> Result<()> {
    ensure!(findings.is_empty(), "{} {what}\n{}", findings.len(), findings.join("\n"));
    Ok(())
}

/// The path and text of every tracked file that is UTF-8. Lock files are generated and left out.
fn tracked_texts() -> Result<Vec<(String, String)>> {
    let output = Command::new("git").args(["ls-files", "-z"]).current_dir(repository()).output()?;
    ensure!(output.status.success(), "git ls-files failed: {}", String::from_utf8_lossy(&output.stderr));
    let paths = String::from_utf8(output.stdout)?;
    let paths = paths.split('\0').filter(|path| !path.is_empty() && !path.ends_with(".lock"));
    // A file that was deleted and not committed yet is still tracked.
    Ok(paths.filter_map(|path| Some((path.to_owned(), fs::read_to_string(repository().join(path)).ok()?))).collect())
}

/// How a language marks comments.
#[derive(Clone, Copy, PartialEq, Eq)]
enum CommentStyle {
    /// `//` to the end of the line, and `/* … */`.
    Slashes,
    /// `#` to the end of the line.
    Hash,
    /// `#` to the end of the line, and docstrings.
    Python,
}

impl CommentStyle {
    /// The style of a file, by its extension, its name or its `#!` line.
    fn of(path: &str, text: &str) -> Option<Self> {
        match path.rsplit('/').next().unwrap_or(path).rsplit_once('.').map(|(_, extension)| extension) {
            Some("rs" | "ts" | "js" | "mjs" | "go" | "wit") => Some(Self::Slashes),
            Some("toml" | "yaml" | "sh") => Some(Self::Hash),
            Some("py") => Some(Self::Python),
            None if path == "justfile" || text.starts_with("#!") => Some(Self::Hash),
            _ => None,
        }
    }

    /// The lines that consist of a comment, with their numbers.
    fn comment_lines(self, text: &str) -> impl Iterator<Item = (usize, &str)> {
        let mut is_in_block = false;
        (1..).zip(text.lines()).filter(move |(_, line)| {
            let trimmed = line.trim_start();
            let (starts, ends, line_mark) = match self {
                Self::Slashes => (trimmed.starts_with("/*"), trimmed.contains("*/"), "//"),
                Self::Python => (trimmed.starts_with("\"\"\""), trimmed.ends_with("\"\"\""), "#"),
                Self::Hash => (false, false, "#"),
            };
            if is_in_block {
                is_in_block = !ends;
                return true;
            }
            // A docstring may end on its first line, with a second mark.
            is_in_block = starts && (!ends || trimmed == "\"\"\"");
            starts || trimmed.starts_with(line_mark)
        })
    }
}

/// The lines of Markdown paragraphs and lists, with their numbers: no code, tables, headings, HTML
/// and link definitions.
fn prose_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut is_in_code = false;
    (1..).zip(text.lines()).filter(move |(_, line)| {
        let trimmed = line.trim_start();
        if trimmed.starts_with("```") || trimmed.starts_with("~~~") {
            is_in_code = !is_in_code;
            return false;
        }
        let is_link_definition = trimmed.starts_with('[') && trimmed.contains("]: ");
        !is_in_code && !trimmed.starts_with(['|', '#', '<']) && !is_link_definition
    })
}

fn columns(line: &str) -> usize {
    line.chars().count()
}

/// The columns of a line without URLs and link targets, because these cannot be wrapped.
fn breakable_columns(line: &str) -> usize {
    let mut rest = String::new();
    for (index, part) in line.split("](").enumerate() {
        rest.push_str(if index == 0 { part } else { part.split_once(')').map_or("", |(_, after)| after) });
    }
    rest.split(' ')
        .map(|word| if word.contains("://") { 1 } else { columns(word) + 1 })
        .sum::<usize>()
        .saturating_sub(1)
}

/// Whether a path is the folder or file `root`, or below it. Everything is below "".
fn is_below(path: &str, root: &str) -> bool {
    root.is_empty() || path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Whether `line` contains `name` without a letter, digit or underscore on either side.
fn contains_word(line: &str, name: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(name).any(|(at, _)| {
        let (before, after) = (&line[..at], &line[at + name.len()..]);
        // A name such as `_rehearsal` may follow a letter.
        let starts = name.starts_with('_') || !before.ends_with(is_part);
        starts && (name.ends_with(')') || !after.starts_with(is_part))
    })
}
