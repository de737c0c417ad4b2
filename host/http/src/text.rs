//! The one way of untrusted text into log lines and error messages: bounded and escaped.
//!
//! [`quoted`] shows a short piece, such as a field's value. [`BoundedText`] takes longer text, such
//! as a trap's stack or a filter's message, and stops its writer once it is full. This module does
//! not know: where the text comes from.

use std::fmt::{self, Write};

/// The most characters of a text that a message shows.
const CHARS_MAX: usize = 80;

/// Returns the first 80 characters of `text` in double quotes. Control characters, quotes and
/// backslashes are escaped, so that the text cannot start a new line of a log or imitate the
/// message around it. An ellipsis marks a text that was cut.
pub fn quoted(text: &str) -> String {
    match text.char_indices().nth(CHARS_MAX) {
        Some((end, _)) => format!("{:?}…", &text[..end]),
        None => format!("{text:?}"),
    }
}

/// The most bytes of one message that a guest or a file shapes.
pub const MESSAGE_BYTES_MAX: usize = 4 << 10;

/// Text with a bound on its bytes. Control characters but tabs are escaped on the way in, and so is
/// what reorders or breaks a line on a screen. A write that does not fit fails, so whoever formats
/// into it stops early: the cost of a message is bounded too.
#[derive(Debug)]
pub struct BoundedText {
    text: String,
    bytes_max: usize,
    is_cut: bool,
}

impl BoundedText {
    /// Empty text that takes at most `bytes_max` bytes, and an ellipsis if more is written.
    pub fn new(bytes_max: usize) -> Self {
        Self { text: String::new(), bytes_max, is_cut: false }
    }

    /// The text. An ellipsis at its end marks that some was cut.
    pub fn finish(mut self) -> String {
        if self.is_cut {
            self.text.push('…');
        }
        self.text
    }
}

impl Write for BoundedText {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if self.is_cut {
            return Err(fmt::Error);
        }
        for character in text.chars() {
            let before = self.text.len();
            if misleads(character) {
                self.text.extend(character.escape_default());
            } else {
                self.text.push(character);
            }
            if self.text.len() > self.bytes_max {
                self.text.truncate(before);
                self.is_cut = true;
                return Err(fmt::Error);
            }
        }
        Ok(())
    }
}

/// Whether a terminal or a viewer of logs would obey a character instead of showing it: control
/// characters, marks that reverse the direction of text, and separators of lines.
fn misleads(character: char) -> bool {
    match character {
        '\t' => false,
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => true,
        _ => character.is_control(),
    }
}

/// Formats a message that a guest or a file shapes: at most 4 KiB, control characters escaped.
pub fn bounded(message: impl fmt::Display) -> String {
    let mut text = BoundedText::new(MESSAGE_BYTES_MAX);
    // It only fails when the text is full, which its end says.
    let _ = write!(text, "{message}");
    text.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn special_characters_are_escaped() {
        assert_eq!(quoted(""), "\"\"");
        assert_eq!(quoted("a \"b\"\r\nlevel=error \\ \u{1b}[2J é"), r#""a \"b\"\r\nlevel=error \\ \u{1b}[2J é""#);
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        assert_eq!(quoted(&"x".repeat(80)), format!("\"{}\"", "x".repeat(80)));
        assert_eq!(quoted(&"é".repeat(81)), format!("\"{}\"…", "é".repeat(80)));
    }

    /// Writes a byte at a time, and counts how often it was asked to.
    struct Endless<'a>(&'a std::cell::Cell<usize>);

    impl fmt::Display for Endless<'_> {
        fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            loop {
                self.0.set(self.0.get() + 1);
                formatter.write_str("x")?;
            }
        }
    }

    #[test]
    fn an_endless_message_is_cut_and_its_writer_stopped() {
        let writes = std::cell::Cell::new(0);
        let text = bounded(Endless(&writes));
        assert_eq!((text.len(), writes.get()), (MESSAGE_BYTES_MAX + "…".len(), MESSAGE_BYTES_MAX + 1));
    }

    #[test]
    fn a_message_cannot_start_a_line_or_control_a_terminal() {
        assert_eq!(bounded("a\nlevel=error \u{1b}[2J\u{85}é"), "a\\nlevel=error \\u{1b}[2J\\u{85}é");
        assert_eq!(bounded("a\u{202e}b\u{2028}c\u{2066}"), "a\\u{202e}b\\u{2028}c\\u{2066}");
        assert_eq!(bounded("👩\u{200d}🚒 می\u{200c}خواهم"), "👩\u{200d}🚒 می\u{200c}خواهم", "joiners belong to words");
        let escaped = bounded("\0".repeat(MESSAGE_BYTES_MAX));
        assert!(escaped.len() <= MESSAGE_BYTES_MAX + "…".len() && escaped.ends_with("}…"), "bounded after escaping");
    }
}
