//! Finds the line of the author's source that an interpreter was running when the gateway ended
//! its call.
//!
//! A trap, a deadline and a memory limit end an interpreter before it could raise an exception, so
//! it cannot say where it was. Its memory still has the frames of the running functions, and they
//! are read here, after the call.
//!
//! Gain: the log names the author's file and line, and a call that ends well pays nothing. Price:
//! the gateway knows where two interpreters keep their frames. CPython describes that in its own
//! memory (`python`); the positions for QuickJS are constants, and a memory that does not look like
//! them gives no line (`quickjs`). Each filter that fails is searched once for its interpreter.
//!
//! A memory is a guest's data: every read is checked, every walk is bounded, and what is found is
//! shown as text and never used. This module does not know: calls, failures.

mod memory;
mod place;
mod python;
mod quickjs;

use std::fmt::Write as _;
use std::sync::OnceLock;

use memory::Memory;
use place::Place;
use python::Python;
use quickjs::QuickJs;
use witgate_http::text::BoundedText;

/// How many places are named, the innermost first.
const PLACES_MAX: usize = 4;
/// The most bytes of all places.
const TEXT_BYTES_MAX: usize = 512;

/// The place of a call that runs the jobs of promises when no line of the author is running.
const BETWEEN_LINES: &str =
    "between two lines of the filter: look for promises or queueMicrotask calls that never come to an end";

/// The interpreter of one filter, which is searched for at its first failure.
#[derive(Default)]
pub(crate) struct Interpreter(OnceLock<Option<Kind>>);

enum Kind {
    Python(Python),
    QuickJs(QuickJs),
}

impl Interpreter {
    /// The places in the author's source that the memory shows, the innermost first:
    /// `filter.py:12 in find < filter.py:30 in on_request`. `None` if there is none, or if the
    /// memory is not that of a known interpreter.
    pub(crate) fn places(&self, memory: &[u8]) -> Option<String> {
        let (_, places) = self.find(memory)?;
        let mut text = BoundedText::new(TEXT_BYTES_MAX);
        for (depth, place) in places.iter().take(PLACES_MAX).enumerate() {
            // A write fails when the text is full, which its end says.
            let _ = write!(text, "{}{place}", if depth == 0 { "" } else { " < " });
        }
        if places.is_empty() {
            let Some(Some(Kind::QuickJs(quickjs))) = self.0.get() else { return None };
            return quickjs.is_running(Memory(memory)).then(|| BETWEEN_LINES.to_owned());
        }
        Some(text.finish())
    }

    /// The name of the interpreter, and a text for each place, the innermost first. `None` if the
    /// memory is not that of a known interpreter.
    pub(crate) fn lines(&self, memory: &[u8]) -> Option<(&'static str, Vec<String>)> {
        let (name, places) = self.find(memory)?;
        Some((name, places.iter().map(ToString::to_string).collect()))
    }

    fn find(&self, memory: &[u8]) -> Option<(&'static str, Vec<Place>)> {
        let memory = Memory(memory);
        let kind = self.0.get_or_init(|| {
            let python = Python::find(memory).map(Kind::Python);
            python.or_else(|| QuickJs::find(memory).map(Kind::QuickJs))
        });
        Some(match kind.as_ref()? {
            Kind::Python(python) => ("CPython", python.places(memory)),
            Kind::QuickJs(quickjs) => ("QuickJS", quickjs.places(memory)),
        })
    }
}
