//! Text from outside in a message: short, quoted and escaped.
//!
//! This module does not know: where the text came from.

/// A guest's text in a message: short, quoted, control characters escaped.
pub fn shown(text: &str) -> String {
    let mut end = text.len().min(80);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{:?}{}", &text[..end], if end < text.len() { "…" } else { "" })
}
