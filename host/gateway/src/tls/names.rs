//! Which certificate a name gets: exact before a wildcard of one label, else the first (RFC 9110, section 4.3.4; RFC 6125, section 6.4.3).
//!
//! Two hash tables rather than a search, since this runs in every handshake. Must not know: TLS.

use std::collections::HashMap;

/// A table from names to `T`.
#[derive(Debug)]
pub(super) struct Names<T> {
    /// At least one; the first is the default.
    all: Vec<T>,
    exact: HashMap<String, usize>,
    /// `example.com` for `*.example.com`.
    wildcard: HashMap<String, usize>,
}

impl<T> Names<T> {
    /// Names are in lower case; one that is there twice belongs to the first. None where there is nothing at all.
    pub(super) fn new(entries: impl IntoIterator<Item = (T, impl IntoIterator<Item = String>)>) -> Option<Self> {
        let mut table = Self { all: vec![], exact: HashMap::new(), wildcard: HashMap::new() };
        for (index, (value, names)) in entries.into_iter().enumerate() {
            table.all.push(value);
            for name in names {
                let (table, name) = match name.strip_prefix("*.") {
                    Some(parent) => (&mut table.wildcard, parent.to_owned()),
                    None => (&mut table.exact, name),
                };
                table.entry(name).or_insert(index);
            }
        }
        (!table.all.is_empty()).then_some(table)
    }

    /// What belongs to the name, or the default.
    pub(super) fn find(&self, name: Option<&str>) -> &T {
        let lower = name.map(|name| name.trim_end_matches('.').to_ascii_lowercase());
        let index = lower.as_deref().and_then(|name| {
            let below = || self.wildcard.get(name.split_once('.')?.1);
            self.exact.get(name).or_else(below)
        });
        &self.all[index.copied().unwrap_or(0)]
    }
}

/// Whether a certificate with these names (lower case) is good for a host.
pub(super) fn cover(names: &[String], host: &str) -> bool {
    names.iter().any(|name| match name.strip_prefix("*.") {
        Some(parent) => host.split_once('.').is_some_and(|(_, rest)| rest.eq_ignore_ascii_case(parent)),
        None => host.eq_ignore_ascii_case(name),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(entries: &[(&'static str, &[&str])]) -> Names<&'static str> {
        let own = entries.iter().map(|(value, names)| (*value, names.iter().map(|name| (*name).to_owned())));
        Names::new(own).expect("at least one")
    }

    #[test]
    fn exact_wins_over_wildcard_and_the_first_is_the_default() {
        let names = table(&[("a", &["a.test"]), ("wild", &["*.b.test"]), ("x", &["x.b.test", "b.test"])]);
        for (name, expected) in [
            (Some("a.test"), "a"),
            (Some("A.Test"), "a"),
            (Some("a.test."), "a"),
            (Some("y.b.test"), "wild"),
            (Some("x.b.test"), "x"),
            (Some("b.test"), "x"),
            (Some("z.y.b.test"), "a"),
            (Some(".b.test"), "wild"),
            (Some("unknown.test"), "a"),
            (Some(""), "a"),
            (Some("test"), "a"),
            (None, "a"),
        ] {
            assert_eq!(*names.find(name), expected, "{name:?}");
        }
    }

    #[test]
    fn a_name_that_is_there_twice_belongs_to_the_first() {
        let names = table(&[("a", &["a.test", "*.test"]), ("b", &["a.test", "*.test"])]);
        assert_eq!((*names.find(Some("a.test")), *names.find(Some("c.test"))), ("a", "a"));
        assert!(Names::<u8>::new(Vec::<(u8, Vec<String>)>::new()).is_none());
    }

    #[test]
    fn a_certificate_covers_its_names_and_one_label_below_a_wildcard() {
        let names = ["a.test".to_owned(), "*.b.test".to_owned()];
        for (host, expected) in [
            ("a.test", true),
            ("A.TEST", true),
            ("c.b.test", true),
            ("b.test", false),
            ("d.c.b.test", false),
            ("", false),
        ] {
            assert_eq!(cover(&names, host), expected, "{host}");
        }
    }
}
