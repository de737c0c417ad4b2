//! Untrusted text in a message is bounded, has no control character, and stops its writer.
#![no_main]

use std::cell::Cell;
use std::fmt;

use libfuzzer_sys::fuzz_target;
use witgate_http::text::{MESSAGE_BYTES_MAX, bounded, quoted};

/// Writes a text again and again, as a trap with many frames does.
struct Repeated<'a> {
    text: &'a str,
    written: Cell<usize>,
}

impl fmt::Display for Repeated<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for _ in 0..1_000_000 {
            self.written.set(self.written.get() + 1);
            writeln!(formatter, "{}", self.text)?;
        }
        Ok(())
    }
}

fuzz_target!(|text: &str| {
    let repeated = Repeated { text, written: Cell::new(0) };
    for shown in [bounded(text), bounded(&repeated)] {
        assert!(shown.len() <= MESSAGE_BYTES_MAX + '…'.len_utf8(), "{} bytes", shown.len());
        assert!(shown.chars().all(|character| !character.is_control() || character == '\t'), "{shown:?}");
    }
    assert!(repeated.written.get() <= MESSAGE_BYTES_MAX + 1, "the writer stops");
    let shown = quoted(text);
    assert!(shown.starts_with('"') && shown.chars().all(|character| !character.is_control()));
    // The longest escape of a character is \u{10ffff}.
    assert!(shown.chars().count() <= 80 * 10 + 3);
});
