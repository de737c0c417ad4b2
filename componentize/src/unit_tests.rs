//! Runs the unit tests of a filter with the tool of its language: vitest, pytest or cargo.
//!
//! The tools are those that build the filter, so an author installs nothing. This module does not
//! know: examples, components.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::toolchain::folders::{repository, tools};
use crate::toolchain::install;
use crate::toolchain::language::Language;

/// Folders of tests, and the ends of the names of their files.
const FOLDERS: [&str; 3] = ["test", "tests", "src"];

/// The result of the unit tests.
#[derive(Debug)]
pub struct UnitTests {
    /// The name of the tool.
    pub tool: &'static str,
    /// Whether all tests passed.
    pub passed: bool,
    /// What the tool printed.
    pub output: String,
    /// The time that it took.
    pub took: Duration,
}

/// Runs the unit tests of the filter in `source`. `None` if it has none.
///
/// # Errors
///
/// The tool cannot be run or installed.
pub fn run_unit_tests(source: &Path, language: Language, name: &str) -> Result<Option<UnitTests>> {
    let began = Instant::now();
    let (tool, mut command) = match language {
        Language::TypeScript if has_tests(source, |file| file.ends_with(".test.ts")) => {
            install::typescript()?;
            ("vitest", vitest(source))
        }
        Language::Python if has_tests(source, |file| file.starts_with("test_") && file.ends_with(".py")) => {
            install::python()?;
            ("pytest", pytest(source, name))
        }
        Language::Rust => ("cargo test", cargo_test()),
        Language::TypeScript | Language::Python => return Ok(None),
    };
    // The report escapes control characters, so colours would make it unreadable.
    let output = command.current_dir(source).env("NO_COLOR", "1").stdin(Stdio::null()).output();
    let output = output.with_context(|| format!("{tool} cannot be run"))?;
    let text = [output.stdout, output.stderr].concat();
    let output_text = String::from_utf8_lossy(&text).trim().to_owned();
    Ok(Some(UnitTests { tool, passed: output.status.success(), output: output_text, took: began.elapsed() }))
}

fn vitest(source: &Path) -> Command {
    let folder = tools("typescript");
    let mut command = Command::new("node");
    command.arg(folder.join("node_modules/vitest/vitest.mjs")).args(["run", "--config"]);
    command.arg(folder.join("vitest.config.ts")).arg("--root").arg(source).env("WITGATE_PROJECT", source);
    command
}

fn pytest(source: &Path, name: &str) -> Command {
    let mut command = Command::new(tools("python").join(".venv/bin/python"));
    command.args(["-m", "pytest", "-q", "--import-mode=importlib", "-p", "no:cacheprovider", "tests"]);
    let sdk = repository().join("guests/sdk/python");
    // The packages that the last build installed for the filter.
    let packages = source.join("dist/.work").join(name).join("packages/lib/site-packages");
    let paths = [sdk, packages, source.to_owned()];
    let joined = std::env::join_paths(paths).unwrap_or_default();
    command.env("PYTHONPATH", joined).env("PYTHONDONTWRITEBYTECODE", "1");
    command
}

fn cargo_test() -> Command {
    let mut command = Command::new("cargo");
    command.args(["test", "--quiet"]);
    command
}

/// Whether a folder of tests has a file whose name `is_test` accepts.
fn has_tests(source: &Path, is_test: impl Fn(&str) -> bool + Copy) -> bool {
    FOLDERS.iter().any(|folder| search(&source.join(folder), is_test, 0))
}

fn search(folder: &Path, is_test: impl Fn(&str) -> bool + Copy, depth: usize) -> bool {
    let Ok(entries) = fs::read_dir(folder) else { return false };
    entries.flatten().any(|entry| {
        let path = entry.path();
        if path.is_dir() {
            depth < 3 && search(&path, is_test, depth + 1)
        } else {
            is_test(&entry.file_name().to_string_lossy())
        }
    })
}
