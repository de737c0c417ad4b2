//! Quotes untrusted text for log lines and error messages.
//!
//! This module does not know: where the text comes from.

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
}
