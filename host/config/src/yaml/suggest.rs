//! Suggestions for misspelt words.

/// Longer words, and words among more known ones, get no suggestion: comparing them takes long.
const WORD_BYTES_MAX: usize = 64;
const KNOWN_MAX: usize = 1000;

/// The known word with the fewest edits from `word`, if there are few enough.
pub(crate) fn nearest<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    if word.len() > WORD_BYTES_MAX || known.len() > KNOWN_MAX {
        return None;
    }
    let (edits, nearest) = known.iter().map(|known| (strsim::levenshtein(word, known), *known)).min()?;
    (edits <= 2.max(word.len() / 3)).then_some(nearest)
}

/// The only known word that begins with `word`, such as `health_check` for `health`.
pub(crate) fn begins<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    let mut found = known.iter().filter(|known| word.len() >= 4 && known.starts_with(word));
    found.next().copied().filter(|_| found.next().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_word_has_a_suggestion() {
        assert_eq!(nearest("timout", &["timeout", "memory"]), Some("timeout"));
        assert_eq!(nearest("xyz", &["timeout", "memory"]), None);
        assert_eq!(begins("health", &["timeout", "health_check"]), Some("health_check"));
        assert_eq!(begins("http", &["http2", "http3"]), None);
    }
}
