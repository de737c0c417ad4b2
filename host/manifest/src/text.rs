//! Texts of a manifest in messages: quoted, printable, and compared with the known words.
//!
//! This module does not know: the fields of a manifest.

/// The most characters of a value that a message shows.
const QUOTED_CHARS_MAX: usize = 80;
/// Longer words neither get a suggestion nor are one: comparing them takes long.
const WORD_BYTES_MAX: usize = 64;

/// Refuses what controls a terminal: control characters, and those that reverse the direction of
/// text.
pub(crate) fn check_printable(text: &str) -> Result<(), String> {
    let is_allowed = |c: char| !c.is_control() && !matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    match text.chars().find(|c| !is_allowed(*c)) {
        None => Ok(()),
        Some(found) => Err(format!("the character {found:?} is not printable: remove it")),
    }
}

/// At most 80 characters of a text, in quotes and escaped.
pub(crate) fn quoted(text: &str) -> String {
    match text.char_indices().nth(QUOTED_CHARS_MAX) {
        Some((end, _)) => format!("{:?}…", &text[..end]),
        None => format!("{text:?}"),
    }
}

/// The known word with the fewest edits from `word`, if there are few enough.
pub(crate) fn nearest<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    if word.len() > WORD_BYTES_MAX {
        return None;
    }
    let known = known.iter().filter(|known| known.len() <= WORD_BYTES_MAX);
    let (edits, nearest) = known.map(|known| (strsim::levenshtein(word, known), *known)).min()?;
    (edits <= 2.max(word.len() / 3)).then_some(nearest)
}
