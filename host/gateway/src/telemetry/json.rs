//! Writes JSON by hand into a buffer that is used again: no allocation, no tree of values.
//!
//! All text is escaped and bounded here, so that a field's value cannot start a new line, control a
//! terminal or fill a log. This module does not know: what is written.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// One JSON object that is being written.
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
    pub(super) fn text(&mut self, name: &'static str, value: impl AsRef<[u8]>, max: usize) {
        self.name(name);
        self.out.push(b'"');
        escaped(self.out, value.as_ref(), max);
        self.out.push(b'"');
    }

    pub(super) fn number(&mut self, name: &'static str, value: u64) {
        self.name(name);
        decimal(self.out, value);
    }

    /// A duration in microseconds.
    pub(super) fn micros(&mut self, name: &'static str, time: Duration) {
        self.number(name, micros(time));
    }

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

    /// A string that `write` appends and that needs no escapes.
    pub(super) fn plain(&mut self, name: &'static str, write: impl FnOnce(&mut Vec<u8>)) {
        self.name(name);
        self.out.push(b'"');
        write(self.out);
        self.out.push(b'"');
    }

    fn name(&mut self, name: &'static str) {
        self.separator();
        self.out.push(b'"');
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
    }

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

/// Appends at most about `max` bytes of `text` as the inside of a JSON string; an ellipsis marks a
/// text that was cut. Control characters are escaped, bytes that are not UTF-8 are replaced.
pub(super) fn escaped(out: &mut Vec<u8>, text: &[u8], max: usize) {
    let is_plain = |byte: u8| (0x20..0x7f).contains(&byte) && byte != b'"' && byte != b'\\';
    if text.len() <= max && text.iter().all(|byte| is_plain(*byte)) {
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

fn escaped_character(out: &mut Vec<u8>, character: char) {
    match character {
        '"' => out.extend_from_slice(b"\\\""),
        '\\' => out.extend_from_slice(b"\\\\"),
        '\n' => out.extend_from_slice(b"\\n"),
        '\r' => out.extend_from_slice(b"\\r"),
        '\t' => out.extend_from_slice(b"\\t"),
        // The line separators end a line for some readers.
        character if character.is_control() || matches!(character, '\u{2028}' | '\u{2029}') => {
            const DIGITS: &[u8; 16] = b"0123456789abcdef";
            let code = character as u32;
            out.extend_from_slice(b"\\u");
            out.extend([12, 8, 4, 0].map(|shift| DIGITS[(code >> shift & 15) as usize]));
        }
        character => out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
    }
}

/// Appends a time as RFC 3339 with milliseconds, such as `2026-01-31T23:59:59.123Z`.
pub(super) fn timestamp(out: &mut Vec<u8>, time: SystemTime) {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let (year, month, day) = civil_from_days(days);
    let mut padded = |value: u64, width: u32, before: &[u8]| {
        out.extend_from_slice(before);
        (0..width).rev().for_each(|place| out.push(b'0' + (value / 10_u64.pow(place) % 10) as u8));
    };
    padded(year, 4, b"");
    padded(month, 2, b"-");
    padded(day, 2, b"-");
    padded(second / 3600, 2, b"T");
    padded(second / 60 % 60, 2, b":");
    padded(second % 60, 2, b":");
    padded(u64::from(since.subsec_millis()), 3, b".");
    out.push(b'Z');
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
