//! The YAML of the documentation is what the gateway reads: each block of it parses, alone or as a
//! part of a file, and has no key that does not exist.

use std::path::{Path, PathBuf};

use witgate_config::{AnyReference, Config};

/// What a part of a file may lack, and what the documentation need not have.
const ALLOWED: &[&str] = &["there is no such ", "there is no route"];
/// Keys of other programs' files, such as Kubernetes and Prometheus.
const FOREIGN: &[&str] = &["apiVersion:", "services:", "scrape_configs:", "receivers:", "groups:", "on:", "request:"];

fn markdown_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("the folder is readable").flatten() {
        let path = entry.path();
        if path.is_dir() {
            markdown_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "md") {
            found.push(path);
        }
    }
}

/// The YAML blocks of a page, each with the line on which it begins. The indentation of a block in
/// a list is removed.
fn yaml_blocks(page: &str) -> Vec<(usize, String)> {
    let mut blocks = vec![];
    let mut lines = page.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        let Some(indent) = line.find("```yaml").filter(|at| line[..*at].trim().is_empty()) else { continue };
        let body = lines.by_ref().map(|(_, line)| line).take_while(|line| !line.trim_start().starts_with("```"));
        let text: String = body.map(|line| format!("{}\n", line.get(indent..).unwrap_or_default())).collect();
        blocks.push((number + 1, text));
    }
    blocks
}

/// The block as a whole file: what it lacks is added.
fn complete(block: &str) -> String {
    let has = |key: &str| block.lines().any(|line| line.starts_with(key));
    let mut file = block.to_owned();
    if !has("upstreams:") {
        file.push_str("\nupstreams: { api: { builtin: echo } }\n");
    }
    if !has("routes:") {
        file.push_str("\nroutes: [{ upstream: api }]\n");
    }
    file
}

#[test]
fn every_yaml_block_of_the_documentation_is_read_without_a_mistake() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut pages = vec![root.join("README.md"), root.join("SECURITY.md")];
    markdown_files(&root.join("docs"), &mut pages);
    markdown_files(&root.join("guests"), &mut pages);
    pages.retain(|page| !page.components().any(|part| part.as_os_str() == "node_modules"));
    let (mut blocks, mut mistakes) = (0, vec![]);
    for page in &pages {
        let text = std::fs::read_to_string(page).expect("the page is readable");
        for (line, block) in yaml_blocks(&text) {
            if block.contains('…') || block.lines().any(|line| FOREIGN.iter().any(|key| line.starts_with(key))) {
                continue;
            }
            blocks += 1;
            let parsed = Config::parse_with(&complete(&block), "block", Path::new("/"), &AnyReference);
            let errors = parsed.err().map(|errors| errors.errors).unwrap_or_default();
            let wrong = errors.iter().filter(|error| !ALLOWED.iter().any(|allowed| error.message.contains(allowed)));
            mistakes.extend(wrong.map(|error| format!("{}:{line} + {error}", page.display())));
        }
    }
    assert!(blocks > 20, "only {blocks} blocks were found");
    assert!(mistakes.is_empty(), "{}", mistakes.join("\n"));
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// The functions that a code span names: the words before a parenthesis, and the last word of a
/// path such as `config.keys`.
fn functions(span: &str) -> Vec<&str> {
    let before = |at: usize| span[..at].rsplit(|c| !is_word(c)).next();
    let mut found: Vec<&str> = span.match_indices(['(', '!']).filter_map(|(at, _)| before(at)).collect();
    if span.chars().all(|c| is_word(c) || c == '.' || c == ':') {
        found.extend(span.rsplit(['.', ':']).next());
    }
    found.retain(|name| name.len() > 1);
    found
}

/// Adds the texts of the source files in a folder and below it.
fn add_sources(folder: &Path, text: &mut String) {
    for entry in std::fs::read_dir(folder).expect("the folder is readable").flatten() {
        let path = entry.path();
        let is_source =
            path.extension().is_some_and(|extension| ["ts", "py", "rs"].iter().any(|end| extension == *end));
        if path.is_dir() {
            add_sources(&path, text);
        } else if is_source {
            text.push_str(&std::fs::read_to_string(&path).expect("the source is readable"));
        }
    }
}

#[test]
fn every_function_of_the_page_about_the_sdks_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let sdks = ["typescript/src", "python/witgate", "rust/src"].map(|folder| {
        let mut text = String::new();
        add_sources(&root.join("guests/sdk").join(folder), &mut text);
        text
    });
    let words = sdks.each_ref().map(|text| text.split(|c| !is_word(c)).collect::<std::collections::HashSet<_>>());
    let page = std::fs::read_to_string(root.join("docs/reference/sdk.md")).expect("the page is readable");
    let (mut count, mut missing) = (0, vec![]);
    // The first cell of a heading is empty.
    for row in page.lines().filter_map(|line| line.strip_prefix("| ")).filter(|row| !row.starts_with('|')) {
        let cells: Vec<&str> = row.split(" | ").collect();
        assert_eq!(cells.len(), 4, "a row has a cell for each language: {row}");
        for (cell, words) in cells[1..].iter().zip(&words) {
            for name in cell.split('`').skip(1).step_by(2).flat_map(functions) {
                count += 1;
                if !words.contains(name) {
                    missing.push(name);
                }
            }
        }
    }
    assert!(count > 100 && missing.is_empty(), "{count} names; the SDKs do not have {missing:?}");
}
