//! Reports the progress of builds on standard error: a line for each finished step and a result for
//! each filter, in colour on a terminal.
//!
//! Languages build in parallel, so every line names its filter and is written with one call.
//! This module does not know: the steps of a build.

use std::time::{Duration, Instant};

use anstyle::{AnsiColor, Style};

const BOLD: Style = Style::new().bold();
const GOOD: Style = AnsiColor::Green.on_default().bold();
const BAD: Style = AnsiColor::Red.on_default().bold();
const WARN: Style = AnsiColor::Yellow.on_default().bold();
const DIM: Style = Style::new().dimmed();

/// The progress of one filter.
pub(crate) struct Progress {
    name: String,
    started: Instant,
    step: Option<(String, Instant)>,
    /// Whether more than failures and warnings are reported.
    is_shown: bool,
}

impl Progress {
    /// `name` is the title of the filter, such as `rust/api-key`. Without `is_shown`, only failures
    /// and warnings are reported.
    pub(crate) fn new(name: &str, is_shown: bool) -> Self {
        Self { name: name.to_owned(), started: Instant::now(), step: None, is_shown }
    }

    /// Begins a step and ends the previous one.
    pub(crate) fn step(&mut self, step: &str) {
        self.end_step();
        self.step = Some((step.to_owned(), Instant::now()));
    }

    fn end_step(&mut self) {
        if let Some((step, started)) = self.step.take().filter(|_| self.is_shown) {
            anstream::eprintln!(
                "{DIM}{:>28}  {:<10} {:>5.1} s{DIM:#}",
                self.name,
                step,
                started.elapsed().as_secs_f64()
            );
        }
    }

    /// Shows the output of a tool that succeeded with warnings. Empty output is not shown.
    pub(crate) fn warnings(&self, output: &str) {
        if !output.trim().is_empty() {
            anstream::eprintln!("{WARN}{:>28}{WARN:#}  warnings\n{}\n", self.name, output.trim_end());
        }
    }

    /// Reports that a step was skipped or had another result than usual.
    pub(crate) fn note(&mut self, text: &str) {
        self.end_step();
        if self.is_shown {
            anstream::eprintln!("{:>28}  {text}", self.name);
        }
    }

    /// Reports a new component.
    pub(crate) fn done(mut self, bytes: usize) {
        self.end_step();
        let (size, seconds) = (size(bytes), self.started.elapsed().as_secs_f64());
        if self.is_shown {
            anstream::eprintln!("{GOOD}{:>28}{GOOD:#}  {size} in {seconds:.1} s", self.name);
        }
    }

    /// Reports that the present component is current.
    pub(crate) fn unchanged(self) {
        if self.is_shown {
            anstream::eprintln!("{DIM}{:>28}  unchanged{DIM:#}", self.name);
        }
    }

    /// Reports that there is no new component. `error` is shown unchanged.
    pub(crate) fn failed(mut self, error: &str) {
        self.end_step();
        anstream::eprintln!("{BAD}{:>28}  not built{BAD:#}\n{}\n", self.name, error.trim_end());
    }
}

/// Announces work that takes long and happens once, such as the installation of tools.
pub(crate) fn setup_notice(text: &str) {
    anstream::eprintln!("{BOLD}{:>28}{BOLD:#}  {text}", "set-up");
}

/// Reports the counts of a build of several filters.
pub(crate) fn summary(built: usize, unchanged: usize, failed: usize, elapsed: Duration) {
    let style = if failed == 0 { BOLD } else { BAD };
    let failed = if failed == 0 { String::new() } else { format!(", {failed} not built") };
    let seconds = elapsed.as_secs_f64();
    anstream::eprintln!(
        "{style}{:>28}{style:#}  {built} built, {unchanged} unchanged{failed} in {seconds:.1} s",
        "filters"
    );
}

fn size(bytes: usize) -> String {
    if bytes < 1 << 20 {
        format!("{} KiB", bytes.div_ceil(1 << 10))
    } else {
        format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
    }
}
