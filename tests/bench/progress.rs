//! What a run is at, on standard error: one line that is written over on a terminal, a line each where it goes into a file.
//!
//! Must not know: what is measured.

use std::io::{IsTerminal as _, Write as _, stderr};
use std::time::Instant;

/// Steps of a run whose number is known.
#[derive(Debug)]
pub(crate) struct Progress {
    began: Instant,
    done: usize,
    steps: usize,
    is_terminal: bool,
}

impl Progress {
    /// Of so many steps.
    pub(crate) fn new(steps: usize) -> Self {
        Self { began: Instant::now(), done: 0, steps, is_terminal: stderr().is_terminal() }
    }

    /// So many are left: known better than at the start.
    pub(crate) fn expect(&mut self, left: usize) {
        self.steps = self.done + left;
    }

    /// The next step begins.
    pub(crate) fn step(&mut self, what: &str) {
        self.done = (self.done + 1).min(self.steps);
        let seconds = self.began.elapsed().as_secs();
        let line = format!("{:3} % {:2}:{:02}  {what}", 100 * self.done / self.steps, seconds / 60, seconds % 60);
        let mut out = stderr().lock();
        // Nobody who reads is no reason to stop.
        let _ = if self.is_terminal { write!(out, "\r\x1b[2K{line}") } else { writeln!(out, "{line}") };
        let _ = out.flush();
    }

    /// Something that stays to be read.
    pub(crate) fn note(&self, what: &str) {
        let begin = if self.is_terminal { "\r\x1b[2K" } else { "" };
        let _ = writeln!(stderr(), "{begin}{what}");
    }

    /// Seconds since the start.
    pub(crate) fn seconds(&self) -> f64 {
        self.began.elapsed().as_secs_f64()
    }
}
