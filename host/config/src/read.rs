//! Takes typed values out of the tree and collects every problem on the way.
//!
//! A reader never stops: a bad value is noted and its default used, so that one run reports all. What was taken is remembered; what is left
//! over at the end is an unknown key. Must not know: which sections there are.

use std::cell::RefCell;
use std::str::FromStr;
use std::time::Duration;

use super::ConfigError;
use super::tree::{Key, Node, Value};

/// Where problems go.
pub(super) type Errors = RefCell<Vec<ConfigError>>;

/// A mapping that is being read.
pub(super) struct Section<'a> {
    pub(super) path: String,
    pub(super) line: usize,
    entries: &'a [(Key, Node)],
    taken: RefCell<Vec<&'static str>>,
    pub(super) errors: &'a Errors,
}

impl<'a> Section<'a> {
    /// The mapping at `path`; nothing or another kind of value counts as an empty one, the latter with an error.
    pub(super) fn new(node: Option<&'a Node>, path: impl Into<String>, errors: &'a Errors) -> Self {
        let path = path.into();
        let (line, entries): (usize, &[(Key, Node)]) = match node {
            None => (1, &[]),
            Some(node) => match &node.value {
                Value::Map(entries) => (node.line, entries),
                _ if node.is_null() => (node.line, &[]),
                _ => {
                    errors.borrow_mut().push(ConfigError::new(
                        node.line,
                        &path,
                        format!("expected a mapping, found {}", node.kind()),
                    ));
                    (node.line, &[])
                }
            },
        };
        Self { path, line, entries, taken: RefCell::default(), errors }
    }

    /// The value of a key, where something was written.
    pub(super) fn get(&self, key: &'static str) -> Option<&'a Node> {
        self.taken.borrow_mut().push(key);
        self.entries.iter().find(|(name, _)| name.text == key).map(|(_, node)| node).filter(|node| !node.is_null())
    }

    /// All entries: for mappings whose keys are names.
    pub(super) fn entries(&self) -> &'a [(Key, Node)] {
        self.entries
    }

    /// The path of a key of this section.
    pub(super) fn at(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    pub(super) fn error(&self, line: usize, key: &str, message: impl Into<String>) {
        self.errors.borrow_mut().push(ConfigError::new(line, &self.at(key), message));
    }

    /// Reports what nobody took.
    pub(super) fn finish(self) {
        let taken = self.taken.borrow();
        for (key, _) in self.entries {
            if taken.contains(&key.text.as_str()) {
                continue;
            }
            let hint = nearest(&key.text, &taken).map_or_else(
                || format!("the keys here are {}", taken.join(", ")),
                |near| format!("did you mean {near}?"),
            );
            self.error(key.line, &key.text, format!("unknown key: {hint}"));
        }
    }

    /// A nested section.
    pub(super) fn section(&self, key: &'static str) -> Section<'a> {
        Section::new(self.get(key), self.at(key), self.errors)
    }

    /// A scalar, by a function that says what is wrong with its text.
    pub(super) fn scalar<T>(&self, key: &'static str, read: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        let node = self.get(key)?;
        let result = match &node.value {
            Value::Scalar { text, .. } => read(text).map_err(|why| format!("{}: {why}", node.kind())),
            _ => Err(format!("expected one value, found {}", node.kind())),
        };
        result.map_err(|message| self.error(node.line, key, message)).ok()
    }

    pub(super) fn text(&self, key: &'static str) -> Option<String> {
        self.scalar(key, |text| Ok(text.to_owned()))
    }

    pub(super) fn bool(&self, key: &'static str) -> Option<bool> {
        self.scalar(key, |text| match text {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Err("write true or false".into()),
        })
    }

    pub(super) fn number<T: FromStr + PartialOrd + std::fmt::Display + Copy>(
        &self,
        key: &'static str,
        min: T,
        max: T,
    ) -> Option<T> {
        self.scalar(key, |text| within(text.parse().ok(), min, max))
    }

    pub(super) fn size(&self, key: &'static str, min: usize, max: usize) -> Option<usize> {
        self.scalar(key, |text| match size(text) {
            None => Err("write a size such as 64KiB, 16MiB or 1000000 (bytes)".into()),
            Some(bytes) if bytes < min || bytes > max => {
                Err(format!("between {} and {}", shown_size(min), shown_size(max)))
            }
            Some(bytes) => Ok(bytes),
        })
    }

    pub(super) fn duration(&self, key: &'static str, min: Duration, max: Duration) -> Option<Duration> {
        self.scalar(key, |text| duration_within(text, min, max))
    }

    /// A list of scalars, each read by a function; a single scalar counts as a list of one.
    pub(super) fn list<T>(&self, key: &'static str, read: impl Fn(&str) -> Result<T, String>) -> Vec<T> {
        let Some(node) = self.get(key) else { return vec![] };
        let one = std::slice::from_ref(node);
        let items = if let Value::List(items) = &node.value { items.as_slice() } else { one };
        let mut values = vec![];
        for item in items {
            let result = match &item.value {
                Value::Scalar { text, .. } => read(text).map_err(|why| format!("{}: {why}", item.kind())),
                _ => Err(format!("expected one value, found {}", item.kind())),
            };
            match result {
                Ok(value) => values.push(value),
                Err(message) => self.error(item.line, key, message),
            }
        }
        values
    }

    /// A list of mappings or names.
    pub(super) fn nodes(&self, key: &'static str) -> &'a [Node] {
        match self.get(key) {
            None => &[],
            Some(node) => match &node.value {
                Value::List(items) => items,
                _ => {
                    self.error(node.line, key, format!("expected a list, found {}", node.kind()));
                    &[]
                }
            },
        }
    }
}

fn within<T: PartialOrd + std::fmt::Display + Copy>(value: Option<T>, min: T, max: T) -> Result<T, String> {
    value
        .filter(|value| *value >= min && *value <= max)
        .ok_or_else(|| format!("expected a whole number between {min} and {max}"))
}

/// A duration with its unit, within bounds.
pub(super) fn duration_within(text: &str, min: Duration, max: Duration) -> Result<Duration, String> {
    match duration(text) {
        None => Err("write a duration such as 500ms, 10s, 2m or 1h".into()),
        Some(value) if value < min || value > max => Err(format!("between {min:?} and {max:?}")),
        Some(value) => Ok(value),
    }
}

fn duration(text: &str) -> Option<Duration> {
    let end = text.find(|c: char| !c.is_ascii_digit())?;
    let number: u64 = text[..end].parse().ok()?;
    Some(match &text[end..] {
        "ms" => Duration::from_millis(number),
        "s" => Duration::from_secs(number),
        "m" => Duration::from_secs(number.checked_mul(60)?),
        "h" => Duration::from_secs(number.checked_mul(3600)?),
        _ => return None,
    })
}

fn size(text: &str) -> Option<usize> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: usize = text[..end].parse().ok()?;
    let unit = match &text[end..] {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "KB" | "kB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        _ => return None,
    };
    number.checked_mul(unit)
}

fn shown_size(bytes: usize) -> String {
    match bytes {
        bytes if bytes >= 1 << 30 && bytes % (1 << 30) == 0 => format!("{}GiB", bytes >> 30),
        bytes if bytes >= 1 << 20 && bytes % (1 << 20) == 0 => format!("{}MiB", bytes >> 20),
        bytes if bytes >= 1 << 10 && bytes % (1 << 10) == 0 => format!("{}KiB", bytes >> 10),
        bytes => bytes.to_string(),
    }
}

/// The known word that differs least, if it differs little.
pub(super) fn nearest<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    let near = known.iter().map(|known| (distance(word, known), *known)).min()?;
    (near.0 <= 2.max(word.len() / 3)).then_some(near.1)
}

/// Levenshtein's distance, over bytes.
fn distance(a: &str, b: &str) -> usize {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let cost = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = cost.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units() {
        assert_eq!(duration("500ms"), Some(Duration::from_millis(500)));
        assert_eq!(duration("2m"), Some(Duration::from_secs(120)));
        for bad in ["", "5", "-1s", "1.5s", "1d", "99999999999999999999s", "18446744073709551615h"] {
            assert_eq!(duration(bad), None, "{bad}");
        }
        assert_eq!(size("64KiB"), Some(65536));
        assert_eq!(size("16MB"), Some(16_000_000));
        assert_eq!(size("7"), Some(7));
        for bad in ["", "x", "-1", "1TiB", "99999999999GiB"] {
            assert_eq!(size(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_slip_of_the_finger_is_understood() {
        assert_eq!(nearest("timout", &["timeout", "memory"]), Some("timeout"));
        assert_eq!(nearest("xyz", &["timeout", "memory"]), None);
    }
}
