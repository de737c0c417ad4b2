//! The query of a request to the admin listener: `name=value` pairs.
//!
//! This module does not know: which names a resource has.

/// The value of a name that occurs once, decoded. `Some(Err)` if it occurs twice or is not UTF-8.
pub(super) fn value(query: &str, name: &str) -> Option<Result<String, String>> {
    let mut values = query.split('&').filter_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (key == name).then_some(value)
    });
    let first = values.next()?;
    if values.next().is_some() {
        return Some(Err(format!("{name} occurs more than once")));
    }
    Some(decode(first).ok_or_else(|| format!("{name} is not valid percent-encoding of UTF-8")))
}

/// A number between 1 and `max`. `default` if the query has none.
pub(super) fn number(query: &str, name: &str, max: usize, default: usize) -> Result<usize, String> {
    let Some(text) = value(query, name).transpose()? else { return Ok(default) };
    let number = text.parse().ok().filter(|number| (1..=max).contains(number));
    number.ok_or_else(|| format!("{name} is not a whole number between 1 and {max}"))
}

fn decode(text: &str) -> Option<String> {
    let mut bytes = vec![];
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        if *first == b'%' {
            bytes.push(hex::decode(after.get(..2)?).ok()?[0]);
            rest = &after[2..];
        } else {
            bytes.push(*first);
            rest = after;
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_decoded_and_occur_once() {
        assert_eq!(value("a=1&b=x%20%2B", "b"), Some(Ok("x +".into())));
        assert_eq!(value("a=1", "b"), None);
        assert!(matches!(value("a=1&a=2", "a"), Some(Err(_))));
        for bad in ["a=%", "a=%4", "a=%zz", "a=%ff"] {
            assert!(matches!(value(bad, "a"), Some(Err(_))), "{bad}");
        }
        assert_eq!(number("n=5", "n", 10, 1), Ok(5));
        assert_eq!(number("", "n", 10, 1), Ok(1));
        assert!(number("n=11", "n", 10, 1).is_err() && number("n=-1", "n", 10, 1).is_err());
    }
}
