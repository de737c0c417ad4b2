//! Writes JSON by hand into a buffer that is used again: no allocation, no tree of values.
//!
//! All text is escaped and bounded here, so that a field's value cannot start a new line, control a
//! terminal or fill a log. This module does not know: what is written.

use std::cell::Cell;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const HEX: &[u8; 16] = b"0123456789abcdef";

/// One JSON object that is being written. Gain of the inlined functions: the length of a name is
/// known where it is copied, which saves a third of the time of a line.
pub(super) struct JsonObject<'a> {
    out: &'a mut Vec<u8>,
    is_empty: bool,
}

impl<'a> JsonObject<'a> {
    /// Begins an object at the end of `out`.
    pub(super) fn new(out: &'a mut Vec<u8>) -> Self {
        out.push(b'{');
        Self { out, is_empty: true }
    }

    /// Ends the object.
    pub(super) fn end(self) {
        self.out.push(b'}');
    }

    /// A string of at most `max` bytes.
    #[inline(always)]
    pub(super) fn text(&mut self, name: &'static str, value: impl AsRef<[u8]>, max: usize) {
        self.name(name);
        self.out.push(b'"');
        escaped(self.out, value.as_ref(), max);
        self.out.push(b'"');
    }

    #[inline(always)]
    pub(super) fn number(&mut self, name: &'static str, value: u64) {
        self.name(name);
        decimal(self.out, value);
    }

    /// A duration in microseconds.
    pub(super) fn micros(&mut self, name: &'static str, time: Duration) {
        self.number(name, micros(time));
    }

    #[inline(always)]
    pub(super) fn bool(&mut self, name: &'static str, value: bool) {
        self.name(name);
        self.out.extend_from_slice(if value { b"true" } else { b"false" });
    }

    /// A list of objects, each written by `write`.
    pub(super) fn list<T>(
        &mut self,
        name: &'static str,
        items: impl IntoIterator<Item = T>,
        write: impl Fn(&mut JsonObject<'_>, T),
    ) {
        self.name(name);
        self.out.push(b'[');
        for (index, item) in items.into_iter().enumerate() {
            if index > 0 {
                self.out.push(b',');
            }
            let mut object = JsonObject::new(self.out);
            write(&mut object, item);
            object.end();
        }
        self.out.push(b']');
    }

    /// An object with names that are not fixed.
    pub(super) fn map<'t>(
        &mut self,
        name: &'static str,
        pairs: impl IntoIterator<Item = (&'t str, &'t [u8])>,
        max: usize,
    ) {
        self.name(name);
        let mut object = JsonObject::new(self.out);
        for (key, value) in pairs {
            object.separator();
            object.out.push(b'"');
            escaped(object.out, key.as_bytes(), max);
            object.out.extend_from_slice(b"\":\"");
            escaped(object.out, value, max);
            object.out.push(b'"');
        }
        object.end();
    }

    /// A number as so many hexadecimal digits.
    pub(super) fn hex(&mut self, name: &'static str, value: u128, digits: usize) {
        self.plain(name, |out| hex(out, value, digits));
    }

    /// A string that `write` appends and that needs no escapes.
    #[inline(always)]
    pub(super) fn plain(&mut self, name: &'static str, write: impl FnOnce(&mut Vec<u8>)) {
        self.name(name);
        self.out.push(b'"');
        write(self.out);
        self.out.push(b'"');
    }

    #[inline(always)]
    fn name(&mut self, name: &'static str) {
        self.out.reserve(name.len() + 4);
        self.separator();
        self.out.push(b'"');
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
    }

    #[inline(always)]
    fn separator(&mut self) {
        if !self.is_empty {
            self.out.push(b',');
        }
        self.is_empty = false;
    }
}

/// Whole microseconds.
pub(super) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// Appends a number.
pub(super) fn decimal(out: &mut Vec<u8>, mut value: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// Appends the last so many hexadecimal digits of a number, at most 32.
pub(super) fn hex(out: &mut Vec<u8>, value: u128, digits: usize) {
    let mut text = [0; 32];
    for (pair, byte) in text.chunks_exact_mut(2).zip(value.to_be_bytes()) {
        pair[0] = HEX[usize::from(byte >> 4)];
        pair[1] = HEX[usize::from(byte & 15)];
    }
    out.extend_from_slice(&text[32 - digits..]);
}

/// Appends at most about `max` bytes of `text` as the inside of a JSON string; an ellipsis marks a
/// text that was cut. Control characters are escaped, bytes that are not UTF-8 are replaced.
pub(super) fn escaped(out: &mut Vec<u8>, text: &[u8], max: usize) {
    if text.len() <= max && is_plain(text) {
        out.extend_from_slice(text);
        return;
    }
    let end = out.len().saturating_add(max);
    for chunk in text.utf8_chunks() {
        for character in chunk.valid().chars() {
            if out.len() >= end {
                out.extend_from_slice("…".as_bytes());
                return;
            }
            escaped_character(out, character);
        }
        if !chunk.invalid().is_empty() {
            out.extend_from_slice("\u{fffd}".as_bytes());
        }
    }
}

/// Whether each byte is a visible ASCII character or a space, but no quote and no backslash. Gain:
/// eight bytes at once, because nearly all text is plain.
fn is_plain(text: &[u8]) -> bool {
    const ONES: u64 = u64::MAX / 255;
    const HIGH_BITS: u64 = ONES << 7;
    let is_plain = |bytes: &[u8; 8]| {
        let word = u64::from_ne_bytes(*bytes);
        // The high bit of a byte of the result is set if that byte of `word` is below, or equal.
        let below_space = word.wrapping_sub(ONES * 0x20) & !word;
        let equals = |byte: u8| {
            let difference = word ^ (ONES * u64::from(byte));
            difference.wrapping_sub(ONES) & !difference
        };
        (word | below_space | equals(b'"') | equals(b'\\') | equals(0x7f)) & HIGH_BITS == 0
    };
    let (words, rest) = text.as_chunks();
    let mut last = [b' '; 8];
    last[..rest.len()].copy_from_slice(rest);
    words.iter().all(is_plain) && is_plain(&last)
}

fn escaped_character(out: &mut Vec<u8>, character: char) {
    match character {
        '"' => out.extend_from_slice(b"\\\""),
        '\\' => out.extend_from_slice(b"\\\\"),
        '\n' => out.extend_from_slice(b"\\n"),
        '\r' => out.extend_from_slice(b"\\r"),
        '\t' => out.extend_from_slice(b"\\t"),
        // The line separators end a line for some readers.
        character if character.is_control() || matches!(character, '\u{2028}' | '\u{2029}') => {
            let code = character as u32;
            out.extend_from_slice(b"\\u");
            out.extend([12, 8, 4, 0].map(|shift| HEX[(code >> shift & 15) as usize]));
        }
        character => out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
    }
}

/// Appends a time as RFC 3339 with milliseconds, such as `2026-01-31T23:59:59.123Z`. Each thread
/// keeps the text of the last second.
pub(super) fn timestamp(out: &mut Vec<u8>, time: SystemTime) {
    thread_local! {
        static LAST: Cell<(u64, [u8; 19])> = const { Cell::new((u64::MAX, [0; 19])) };
    }
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (mut second, mut text) = LAST.get();
    if second != since.as_secs() {
        (second, text) = (since.as_secs(), date_and_time(since.as_secs()));
        LAST.set((second, text));
    }
    out.extend_from_slice(&text);
    let milliseconds = since.subsec_millis();
    let digit = |value: u32| b'0' + (value % 10) as u8;
    out.extend([b'.', digit(milliseconds / 100), digit(milliseconds / 10), digit(milliseconds), b'Z']);
}

/// Such as `2026-01-31T23:59:59`.
fn date_and_time(seconds: u64) -> [u8; 19] {
    let (year, month, day) = civil_from_days(seconds / 86_400);
    let second = seconds % 86_400;
    let mut text = *b"0000-00-00T00:00:00";
    let mut write = |places: std::ops::Range<usize>, mut value: u64| {
        for digit in text[places].iter_mut().rev() {
            *digit = b'0' + (value % 10) as u8;
            value /= 10;
        }
    };
    write(0..4, year);
    write(5..7, month);
    write(8..10, day);
    write(11..13, second / 3600);
    write(14..16, second / 60 % 60);
    write(17..19, second % 60);
    text
}

/// The nanoseconds since 1970 of a time that `timestamp` wrote.
pub(super) fn parse_timestamp(text: &str) -> Option<u64> {
    let number = |from: usize, to: usize| text.get(from..to)?.parse::<u64>().ok();
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let days = days_from_civil(year, month, day)?;
    let seconds = days * 86_400 + number(11, 13)? * 3600 + number(14, 16)? * 60 + number(17, 19)?;
    Some(seconds * 1_000_000_000 + number(20, 23)? * 1_000_000)
}

/// The inverse of `civil_from_days`. `None` before 1970.
fn days_from_civil(year: u64, month: u64, day: u64) -> Option<u64> {
    let year = if month <= 2 { year.checked_sub(1)? } else { year };
    let (era, of_era) = (year / 400, year % 400);
    let shifted_month = if month > 2 { month - 3 } else { month + 9 };
    let of_year = (153 * shifted_month + 2) / 5 + day.checked_sub(1)?;
    let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year;
    days.checked_sub(719_468)
}

/// Year, month and day of a number of days since 1970 (Howard Hinnant's `civil_from_days`).
fn civil_from_days(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn escape(text: &[u8], max: usize) -> String {
        let mut out = vec![];
        escaped(&mut out, text, max);
        String::from_utf8(out).unwrap_or_default()
    }

    #[test]
    fn text_is_escaped_and_bounded() {
        assert_eq!(escape(b"plain /path?x=1", 100), "plain /path?x=1");
        assert_eq!(escape("a\"b\\\r\n\u{1b}[2J\u{85}\u{2028}é".as_bytes(), 100), r#"a\"b\\\r\n\u001b[2J\u0085\u2028é"#);
        assert_eq!(escape(b"\xff\x41", 100), "\u{fffd}A");
        assert_eq!(escape(b"abcdef", 3), "abc…");
    }

    #[test]
    fn times_are_rfc_3339() {
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00.042Z"),
            (951_782_400, "2000-02-29T00:00:00.042Z"),
            (1_798_761_599, "2026-12-31T23:59:59.042Z"),
            (4_107_542_400, "2100-03-01T00:00:00.042Z"),
        ] {
            let mut out = vec![];
            timestamp(&mut out, UNIX_EPOCH + Duration::from_millis(seconds * 1000 + 42));
            assert_eq!(String::from_utf8_lossy(&out), expected);
            assert_eq!(parse_timestamp(expected), Some((seconds * 1000 + 42) * 1_000_000));
        }
    }

    #[test]
    fn each_byte_is_plain_or_not_wherever_it_stands() {
        for byte in 0..=u8::MAX {
            for at in 0..17 {
                let mut text = *b"abcdefgh !~#[]012";
                text[at] = byte;
                let expected = (0x20..0x7f).contains(&byte) && byte != b'"' && byte != b'\\';
                assert_eq!(is_plain(&text), expected, "{byte} at {at}");
            }
        }
    }

    proptest! {
        #[test]
        fn any_bytes_become_valid_json_on_one_line(text: Vec<u8>, number: u64) {
            let mut out = vec![];
            let mut object = JsonObject::new(&mut out);
            object.text("a", &text, usize::MAX);
            object.number("n", number);
            object.end();
            let value: serde_json::Value = serde_json::from_slice(&out)
                .map_err(|error| TestCaseError::fail(error.to_string()))?;
            prop_assert_eq!(value["a"].as_str(), Some(&*String::from_utf8_lossy(&text)));
            prop_assert_eq!(value["n"].as_u64(), Some(number));
            prop_assert!(!out.contains(&b'\n'));
        }
    }
}
