//! Expressions of JavaScript and Python have the values that they have in Node.js and CPython. The
//! differences are those that docs/reference/differences.md lists.
//!
//! The tables of that page are what these tests find. `just differences` writes them anew. The
//! expressions are in the fixtures tests/fixtures/{typescript,python}/authors. These tests do not
//! know: how the SDKs do it.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use harness::{Gateway, Setup, repository};

const PAGE: &str = "docs/reference/differences.md";
/// Functions that Node.js 20 lacks, so there is nothing to compare.
const NEWER_THAN_NODE: [&str; 5] = ["groupBy", ".union(", "withResolvers", "Iterator.from", ".drop("];
/// Node.js 20 decodes windows-1252 as ISO-8859-1, against the Encoding Standard.
const WRONG_IN_NODE: &str = "new TextDecoder('latin1').decode(new Uint8Array([0x80";
#[test]
fn expressions_have_the_values_that_they_have_in_node() -> Result<()> {
    let file = repository().join("tests/fixtures/typescript/authors/src/expressions.json");
    let sources: Vec<String> = serde_json::from_slice(&fs::read(&file)?)?;
    let script = "console.log(JSON.stringify(JSON.parse(require('fs').readFileSync(process.argv[1])).map(s => {
        try { return String(JSON.stringify((0, eval)(s))) } catch (e) { return `throws ${e.name}` } })))";
    let output = Command::new("node").args(["-e", script]).arg(&file).env("TZ", "UTC").output()?;
    let in_node: Vec<String> = serde_json::from_slice(&output.stdout).context("node")?;
    let in_filter: Vec<String> = serde_json::from_value(start("typescript")?.get("/expressions?0", &[])?.json())?;
    ensure!(sources.len() > 300 && sources.len() == in_node.len() && sources.len() == in_filter.len());
    let is_compared = |source: &String| {
        !NEWER_THAN_NODE.iter().any(|name| source.contains(name)) && !source.starts_with(WRONG_IN_NODE)
    };
    for (source, value) in sources.iter().zip(&in_filter).filter(|(source, _)| !is_compared(source)) {
        ensure!(!value.starts_with("throws"), "{source}: {value}");
    }
    let rows = sources.iter().zip(in_filter.iter().zip(&in_node)).filter(|(source, _)| is_compared(source));
    compare("JavaScript", rows)
}

#[test]
fn expressions_have_the_values_that_they_have_in_cpython() -> Result<()> {
    let folder = repository().join("tests/fixtures/python/authors");
    let script = "import expressions as e, json; print(json.dumps([[s, e.evaluate(s)] for s in e.EXPRESSIONS]))";
    let mut python = Command::new(repository().join("componentize/python/.venv/bin/python"));
    python.args(["-B", "-X", "utf8", "-c", script]).current_dir(folder).env("TZ", "UTC").env("LC_ALL", "C.UTF-8");
    let output = python.stdin(std::process::Stdio::null()).output()?;
    // Some expressions print something before.
    let text = String::from_utf8(output.stdout)?;
    let line = text.lines().last().with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
    let in_python: Vec<(String, String)> = serde_json::from_str(line)?;
    let answer = start("python")?.get("/expressions_of_python", &[])?;
    ensure!(answer.status == 200, "{}", answer.text());
    let in_filter: Vec<String> = serde_json::from_value(answer.json()["result"].clone())?;
    ensure!(in_python.len() > 300 && in_python.len() == in_filter.len());
    let rows = in_python.iter().zip(&in_filter).map(|((source, own), value)| (source, (value, own)));
    compare("Python", rows)
}

/// Each text in code of docs/reference/faults.md is one that a test of this folder expects.
#[test]
fn the_page_of_faults_has_the_texts_that_the_tests_expect() -> Result<()> {
    let mut expected = String::new();
    for name in ["places", "python", "python_builds", "typescript"] {
        let file = repository().join(format!("tests/e2e/authors_{name}.rs"));
        expected += &fs::read_to_string(file)?.replace("\\\\\\\"", "\"").replace("\\\"", "\"");
    }
    let page = fs::read_to_string(repository().join("docs/reference/faults.md"))?;
    let (mut rows, mut unknown) = (0, vec![]);
    for row in page.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| kind")) {
        rows += 1;
        // A code span that contains a backtick has two around it.
        let row = row.replace("`` ", "\u{1}").replace("\\|", "|");
        let doubled = row.split('\u{1}').skip(1).step_by(2).map(str::trim);
        let single = row.split('\u{1}').step_by(2).flat_map(|part| part.split('`').skip(1).step_by(2));
        // A span without a space is the name of a function.
        unknown.extend(
            doubled.chain(single).filter(|text| text.contains(' ') && !expected.contains(*text)).map(str::to_owned),
        );
    }
    ensure!(rows >= 70 && unknown.is_empty(), "{rows} rows; no test expects {unknown:#?}");
    Ok(())
}

fn start(language: &str) -> Result<Gateway> {
    let yaml = "timeouts: {filters: 29s}\nupstreams: {echo: {builtin: echo, timeout: 60s}}\n\
        filters: {f: {source: f.wasm, timeout: 28s, memory: 128MiB, capabilities: [keyvalue]}}\n\
        routes: [{filters: [f], upstream: echo}]";
    Setup::new(yaml)?.with_guest("f.wasm", &format!("tests/{language}/authors"))?.start()
}

/// Compares the rows that differ with the table of the page.
fn compare<'a>(language: &str, rows: impl Iterator<Item = (&'a String, (&'a String, &'a String))>) -> Result<()> {
    let mut table = String::new();
    for (source, (in_filter, elsewhere)) in rows.filter(|(_, (in_filter, elsewhere))| in_filter != elsewhere) {
        let cells = [source, in_filter, elsewhere].map(|text| text.replace('|', "\\|"));
        writeln!(table, "| `{}` | `{}` | `{}` |", cells[0], cells[1], cells[2])?;
    }
    let page = repository().join(PAGE);
    let text = fs::read_to_string(&page)?;
    let begin = format!("<!-- what the tests find: {language} -->\n");
    let (before, rest) = text.split_once(&begin).with_context(|| format!("{begin} in {PAGE}"))?;
    let (found, after) = rest.split_once("\n<!-- end -->").context("an end of the table")?;
    let (head, own) = found.split_at(found.match_indices('\n').nth(1).map_or(found.len(), |(at, _)| at + 1));
    if std::env::var_os("DIFFERENCES_WRITE").is_some() {
        return write(page, &format!("{before}{begin}{head}{}\n<!-- end -->{after}", table.trim_end()));
    }
    ensure!(own.trim_end() == table.trim_end(), "the differences are others than in {PAGE}; they are now:\n{table}");
    Ok(())
}

fn write(page: PathBuf, text: &str) -> Result<()> {
    Ok(fs::write(page, text)?)
}
