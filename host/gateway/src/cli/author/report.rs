//! Shows the results of tests: as text with diffs, as JSON, as JUnit XML.
//!
//! This module does not know: how tests are run.

use std::path::Path;
use std::time::Duration;

use componentize::UnitTests;
use quick_junit::{NonSuccessKind, Report as JUnit, TestCase, TestCaseStatus, TestSuite};
use serde_json::{Value, json};
use similar::{ChangeTag, TextDiff};
use witgate_examples::{Difference, Report};

use crate::cli::output::print;

/// The longest text of a difference that is shown, in lines.
const DIFF_LINES_MAX: usize = 40;

/// The results of one run.
pub(super) struct Results {
    /// `None` if there are none or they were not run.
    pub(super) unit_tests: Option<UnitTests>,
    pub(super) reports: Vec<Report>,
}

impl Results {
    fn failed(&self) -> usize {
        self.reports.iter().filter(|report| !report.passed()).count()
    }

    /// The summary as an error, unless everything passed.
    pub(super) fn verdict(&self) -> Result<(), String> {
        let unit_tests_failed = self.unit_tests.as_ref().is_some_and(|tests| !tests.passed);
        match (unit_tests_failed, self.failed(), self.reports.len()) {
            (false, 0, _) => Ok(()),
            (true, 0, _) => Err("unit tests failed".into()),
            (false, failed, all) => Err(format!("{failed} of {all} examples failed")),
            (true, failed, all) => Err(format!("unit tests failed, and {failed} of {all} examples")),
        }
    }
}

/// Prints the results as text. A quiet run prints failures only.
pub(super) fn print_text(results: &Results, quiet: bool) -> Result<(), String> {
    if let Some(tests) = &results.unit_tests {
        if !tests.passed {
            tests.output.lines().try_for_each(print)?;
        }
        if !quiet {
            let word = if tests.passed { "ok" } else { "FAILED" };
            print(format_args!("unit tests  {word}, {} in {:.1} s", tests.tool, tests.took.as_secs_f64()))?;
        }
    }
    if results.reports.is_empty() && !quiet {
        return print("examples    none: add some to the folder examples (docs/how-to/test-a-filter.md)");
    }
    if !quiet {
        print(format_args!(
            "examples    {} of {} passed",
            results.reports.len() - results.failed(),
            results.reports.len()
        ))?;
    }
    let width = results.reports.iter().map(|report| report.name.chars().count()).max().unwrap_or(0).min(80);
    for report in &results.reports {
        if !quiet || !report.passed() {
            print_report(report, width)?;
        }
    }
    Ok(())
}

pub(super) fn print_report(report: &Report, width: usize) -> Result<(), String> {
    let word = if report.passed() { "ok  " } else { "FAIL" };
    let cost = match &report.outcome {
        Ok(outcome) => format!("{:>8}  {:>9}", milliseconds(outcome.took), mebibytes(outcome.memory_bytes)),
        Err(_) => String::new(),
    };
    print(format_args!("  {word}  {:<width$}  {cost}", report.name))?;
    if let Err(problem) = &report.outcome {
        return print(format_args!("          the example cannot be run: {problem}"));
    }
    report.differences.iter().try_for_each(|difference| {
        print(format_args!("          {}", difference.path))?;
        diff_lines(difference).iter().try_for_each(|line| print(format_args!("            {line}")))
    })
}

/// The lines of a difference: `-` for what is expected, `+` for what was found.
pub(super) fn diff_lines(difference: &Difference) -> Vec<String> {
    let diff = TextDiff::from_lines(&difference.expected, &difference.found);
    let mut lines: Vec<String> = diff
        .iter_all_changes()
        .map(|change| {
            let mark = match change.tag() {
                ChangeTag::Delete => "- ",
                ChangeTag::Insert => "+ ",
                ChangeTag::Equal => "  ",
            };
            format!("{mark}{}", change.value().trim_end_matches('\n'))
        })
        .collect();
    if let Some(more) = lines.len().checked_sub(DIFF_LINES_MAX).filter(|more| *more > 0) {
        lines.truncate(DIFF_LINES_MAX);
        lines.push(format!("… {more} more lines"));
    }
    lines
}

/// Prints the results as one JSON object. `fuzz` is what generated requests found.
pub(super) fn print_json(results: &Results, fuzz: Option<Value>) -> Result<(), String> {
    let examples: Vec<_> = results
        .reports
        .iter()
        .map(|report| {
            let outcome = report.outcome.as_ref().ok();
            let differences: Vec<_> = report
                .differences
                .iter()
                .map(|difference| {
                    json!({ "path": difference.path, "expected": difference.expected, "found": difference.found })
                })
                .collect();
            json!({
                "name": report.name,
                "passed": report.passed(),
                "error": report.outcome.as_ref().err(),
                "differences": differences,
                "action": outcome.map(|outcome| outcome.action.label()),
                "milliseconds": outcome.map(|outcome| outcome.took.as_secs_f64() * 1e3),
                "memory_bytes": outcome.map(|outcome| outcome.memory_bytes),
            })
        })
        .collect();
    let unit_tests = results.unit_tests.as_ref().map(|tests| {
        json!({ "tool": tests.tool, "passed": tests.passed, "seconds": tests.took.as_secs_f64(), "output": tests.output })
    });
    let passed = results.verdict().is_ok() && fuzz.as_ref().is_none_or(|fuzz| fuzz["passed"] == true);
    let mut object = json!({ "passed": passed, "unit_tests": unit_tests, "examples": examples });
    if let Some(fuzz) = fuzz {
        object["fuzz"] = fuzz;
    }
    print(object)
}

/// Writes the results as JUnit XML, which CI systems read.
pub(super) fn write_junit(path: &Path, filter: &str, results: &Results) -> Result<(), String> {
    let mut junit = JUnit::new(filter);
    if let Some(tests) = &results.unit_tests {
        let status = if tests.passed { TestCaseStatus::success() } else { failure(&tests.output) };
        let mut case = TestCase::new(tests.tool, status);
        case.set_time(tests.took);
        let mut suite = TestSuite::new("unit tests");
        suite.add_test_case(case);
        junit.add_test_suite(suite);
    }
    let mut suite = TestSuite::new("examples");
    for report in &results.reports {
        let status = match &report.outcome {
            Err(problem) => failure(problem),
            Ok(_) if report.differences.is_empty() => TestCaseStatus::success(),
            Ok(_) => {
                let text =
                    |difference: &Difference| format!("{}\n{}", difference.path, diff_lines(difference).join("\n"));
                failure(&report.differences.iter().map(text).collect::<Vec<_>>().join("\n"))
            }
        };
        let mut case = TestCase::new(report.name.as_str(), status);
        case.set_classname(filter);
        if let Ok(outcome) = &report.outcome {
            case.set_time(outcome.took);
        }
        suite.add_test_case(case);
    }
    junit.add_test_suite(suite);
    let text = junit.to_string().map_err(|error| format!("{}: {error}", path.display()))?;
    std::fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
}

fn failure(text: &str) -> TestCaseStatus {
    let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
    status.set_message(text.lines().next().unwrap_or_default()).set_description(text);
    status
}

/// Such as `0.42 ms`.
pub(super) fn milliseconds(time: Duration) -> String {
    format!("{:.2} ms", time.as_secs_f64() * 1e3)
}

/// Such as `1.9 MiB`.
pub(super) fn mebibytes(bytes: usize) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_of_several_lines_shows_what_changed() {
        let difference = Difference {
            path: "request.json".into(),
            expected: "{\n  \"a\": 1,\n  \"b\": 2\n}".into(),
            found: "{\n  \"a\": 1,\n  \"b\": 3\n}".into(),
        };
        assert_eq!(diff_lines(&difference), ["  {", "    \"a\": 1,", "-   \"b\": 2", "+   \"b\": 3", "  }"]);
    }
}
