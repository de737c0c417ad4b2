//! Progress of a run on standard error: on a terminal one line that is overwritten, in a file one
//! line for each step.
//!
//! This module does not know: what is measured.

use std::io::{IsTerminal as _, Write as _, stderr};
use std::time::Instant;

/// The progress of a run whose number of steps is known.
#[derive(Debug)]
pub(crate) struct Progress {
    began: Instant,
    done: usize,
    steps: usize,
    is_terminal: bool,
}

impl Progress {
    /// Starts a run of this many steps.
    pub(crate) fn new(steps: usize) -> Self {
        Self { began: Instant::now(), done: 0, steps, is_terminal: stderr().is_terminal() }
    }

    /// Corrects the number of steps that are left.
    pub(crate) fn expect(&mut self, left: usize) {
        self.steps = self.done + left;
    }

    /// Announces the next step.
    pub(crate) fn step(&mut self, what: &str) {
        self.done = (self.done + 1).min(self.steps);
        let seconds = self.began.elapsed().as_secs();
        let line = format!("{:3} % {:2}:{:02}  {what}", 100 * self.done / self.steps, seconds / 60, seconds % 60);
        let mut out = stderr().lock();
        // The run goes on if standard error is closed.
        let _ = if self.is_terminal { write!(out, "\r\x1b[2K{line}") } else { writeln!(out, "{line}") };
        let _ = out.flush();
    }

    /// Prints a line that is not overwritten.
    pub(crate) fn print(&self, what: &str) {
        let begin = if self.is_terminal { "\r\x1b[2K" } else { "" };
        let _ = writeln!(stderr(), "{begin}{what}");
    }

    /// Seconds since the start.
    pub(crate) fn seconds(&self) -> f64 {
        self.began.elapsed().as_secs_f64()
    }
}
