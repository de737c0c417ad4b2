//! Selection of a certificate by name: an exact name first, then a wildcard of one label, else the
//! first certificate (RFC 9110, section 4.3.4; RFC 6125, section 6.4.3).
//!
//! Every handshake runs this selection, so it uses two hash tables instead of a search.
//!
//! This module does not know: TLS.

use std::collections::HashMap;
use std::net::IpAddr;

/// A table from names to `T`.
#[derive(Debug)]
pub(super) struct NameTable<T> {
    /// At least one value. The first is the default.
    all: Vec<T>,
    exact: HashMap<String, usize>,
    /// The key for `*.example.com` is `example.com`.
    wildcard: HashMap<String, usize>,
}

impl<T> NameTable<T> {
    /// Builds the table. Names are in lower case. A name that occurs twice selects its first value.
    /// `None` if there are no entries.
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

    /// The value of a name, or the default.
    pub(super) fn find(&self, name: Option<&str>) -> &T {
        let lower = name.map(|name| name.trim_end_matches('.').to_ascii_lowercase());
        let index = lower.as_deref().and_then(|name| {
            let below = || self.wildcard.get(name.split_once('.')?.1);
            self.exact.get(name).or_else(below)
        });
        &self.all[index.copied().unwrap_or(0)]
    }
}

/// Whether a certificate with these names and IP addresses covers a host (RFC 9110, sections 4.3.4
/// and 4.3.5). The names are in lower case, and the addresses in the form of `IpAddr`.
pub(super) fn covers_host(names: &[String], host: &str) -> bool {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    if let Ok(address) = bare.parse::<IpAddr>() {
        return names.iter().any(|name| name.parse() == Ok(address));
    }
    names.iter().any(|name| match name.strip_prefix("*.") {
        Some(parent) => host.split_once('.').is_some_and(|(_, rest)| rest.eq_ignore_ascii_case(parent)),
        None => host.eq_ignore_ascii_case(name),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(entries: &[(&'static str, &[&str])]) -> NameTable<&'static str> {
        let own = entries.iter().map(|(value, names)| (*value, names.iter().map(|name| (*name).to_owned())));
        NameTable::new(own).expect("at least one")
    }

    #[test]
    fn an_exact_name_precedes_a_wildcard_and_the_first_is_the_default() {
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
    fn a_name_that_occurs_twice_selects_its_first_value() {
        let names = table(&[("a", &["a.test", "*.test"]), ("b", &["a.test", "*.test"])]);
        assert_eq!((*names.find(Some("a.test")), *names.find(Some("c.test"))), ("a", "a"));
        assert!(NameTable::<u8>::new(Vec::<(u8, Vec<String>)>::new()).is_none());
    }

    #[test]
    fn a_certificate_covers_its_names_and_one_label_below_a_wildcard() {
        let names = ["a.test".to_owned(), "*.b.test".to_owned(), "192.0.2.1".to_owned(), "2001:db8::1".to_owned()];
        for (host, expected) in [
            ("a.test", true),
            ("A.TEST", true),
            ("c.b.test", true),
            ("b.test", false),
            ("d.c.b.test", false),
            ("", false),
            ("192.0.2.1", true),
            ("192.0.2.2", false),
            ("[2001:db8::1]", true),
            ("[2001:DB8:0::1]", true),
            ("[2001:db8::2]", false),
        ] {
            assert_eq!(covers_host(&names, host), expected, "{host}");
        }
    }
}
