//! What a person sees while a filter is built: a line for each step, a result for each filter.

use std::time::Instant;

use anstyle::{AnsiColor, Style};

const BOLD: Style = Style::new().bold();
const GOOD: Style = AnsiColor::Green.on_default().bold();
const BAD: Style = AnsiColor::Red.on_default().bold();
const DIM: Style = Style::new().dimmed();

/// The steps of one filter.
pub(crate) struct Progress {
    name: String,
    began: Instant,
    step: Option<(String, Instant)>,
}

impl Progress {
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

    pub(crate) fn done(mut self, what: &str) {
        self.end_step();
        anstream::eprintln!("{GOOD}{:>28}{GOOD:#}  {what} in {:.1} s", self.name, self.began.elapsed().as_secs_f64());
    }

    pub(crate) fn unchanged(self) {
        anstream::eprintln!("{DIM}{:>28}  unchanged{DIM:#}", self.name);
    }

    pub(crate) fn failed(mut self, why: &str) {
        self.end_step();
        anstream::eprintln!("{BAD}{:>28}  failed{BAD:#}", self.name);
        eprintln!("{}\n", why.trim_end());
    }
}

/// A word about what takes long and happens once.
pub(crate) fn once(what: &str) {
    anstream::eprintln!("{BOLD}{:>28}{BOLD:#}  {what}", "set-up");
}
