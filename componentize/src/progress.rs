//! What a person sees while filters are built: a line for each step as it ends, a result for each filter. On standard error, coloured where that is
//! a terminal.
//!
//! Filters of several languages are built side by side, so every line names its filter and is written in one piece.

use std::time::{Duration, Instant};

use anstyle::{AnsiColor, Style};

const BOLD: Style = Style::new().bold();
const GOOD: Style = AnsiColor::Green.on_default().bold();
const BAD: Style = AnsiColor::Red.on_default().bold();
const WARN: Style = AnsiColor::Yellow.on_default().bold();
const DIM: Style = Style::new().dimmed();

/// The steps of one filter.
pub(crate) struct Progress {
    name: String,
    began: Instant,
    step: Option<(String, Instant)>,
}

impl Progress {
    /// `name` as `rust/api-key`.
    pub(crate) fn new(name: &str) -> Self {
        Self { name: name.to_owned(), began: Instant::now(), step: None }
    }

    /// A step begins; the one before has ended.
    pub(crate) fn step(&mut self, step: &str) {
        self.end_step();
        self.step = Some((step.to_owned(), Instant::now()));
    }

    fn end_step(&mut self) {
        if let Some((step, began)) = self.step.take() {
            anstream::eprintln!("{DIM}{:>28}  {:<10} {:>5.1} s{DIM:#}", self.name, step, began.elapsed().as_secs_f64());
        }
    }

    /// What a tool had to say although it succeeded; nothing where it said nothing.
    pub(crate) fn warned(&self, said: &str) {
        if !said.trim().is_empty() {
            anstream::eprintln!("{WARN}{:>28}{WARN:#}  warnings\n{}\n", self.name, said.trim_end());
        }
    }

    /// A word about a step that went another way.
    pub(crate) fn note(&mut self, what: &str) {
        self.end_step();
        anstream::eprintln!("{:>28}  {what}", self.name);
    }

    /// The filter has a new component.
    pub(crate) fn done(mut self, bytes: usize) {
        self.end_step();
        let (size, seconds) = (size(bytes), self.began.elapsed().as_secs_f64());
        anstream::eprintln!("{GOOD}{:>28}{GOOD:#}  {size} in {seconds:.1} s", self.name);
    }

    /// There was nothing to do.
    pub(crate) fn unchanged(self) {
        anstream::eprintln!("{DIM}{:>28}  unchanged{DIM:#}", self.name);
    }

    /// There is no new component; `why` is shown as it is.
    pub(crate) fn failed(mut self, why: &str) {
        self.end_step();
        anstream::eprintln!("{BAD}{:>28}  not built{BAD:#}\n{}\n", self.name, why.trim_end());
    }
}

/// A word about what takes long and happens once.
pub(crate) fn once(what: &str) {
    anstream::eprintln!("{BOLD}{:>28}{BOLD:#}  {what}", "set-up");
}

/// The last line, where there were several filters.
pub(crate) fn total(built: usize, unchanged: usize, failed: usize, took: Duration) {
    let style = if failed == 0 { BOLD } else { BAD };
    let failed = if failed == 0 { String::new() } else { format!(", {failed} not built") };
    let seconds = took.as_secs_f64();
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
