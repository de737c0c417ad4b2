//! Normalizes paths (RFC 3986, section 6.2.2), so that router, filters and upstream read the same
//! path.
//!
//! Dot segments are removed, also encoded ones. Encoded unreserved characters are decoded,
//! hexadecimal digits become upper case, and `//` becomes `/` unless it is kept. An encoded slash
//! or backslash stays encoded, because only the upstream knows whether it separates segments, and
//! `a%2Fb` can be a legitimate name.
//!
//! Some clients send characters as they are that a URI has only encoded: quotation marks, angle
//! brackets and letters that are not ASCII. They are encoded ([`encode`]), as browsers do it.
//!
//! Paths that two readers may interpret differently, and that no honest client sends, are rejected:
//! a raw backslash, `%00`, a `%` without two digits, and a dot segment behind a parameter or an
//! encoded slash (`/..;x/`, `/a%2F..%2Fb`). This module does not know: anything of the gateway.

use std::borrow::Cow;
use std::fmt::Write as _;

/// Returns the normal form of a path without query. The error is the reason why the path is
/// rejected.
///
/// A path that is already normal is borrowed, without an allocation. The normal form is never
/// longer than `path`, and normalizing it again changes nothing. The `*` of `OPTIONS *` is
/// accepted.
pub fn normalize(path: &str) -> Result<Cow<'_, str>, &'static str> {
    normalize_with(path, Slashes::Merge)
}

/// What happens to `//` in a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slashes {
    /// It becomes `/`.
    Merge,
    /// The empty segment stays: for some upstreams it is a name, or the path contains a URL.
    Keep,
}

/// As [`normalize`], with a choice for `//`.
pub fn normalize_with(path: &str, slashes: Slashes) -> Result<Cow<'_, str>, &'static str> {
    if !path.starts_with('/') {
        return if path == "*" { Ok(Cow::Borrowed(path)) } else { Err("a path begins with a slash") };
    }
    if is_normal(path.as_bytes(), slashes)? {
        return Ok(Cow::Borrowed(path));
    }
    let normal = rewrite(path, slashes)?;
    Ok(if normal == path { Cow::Borrowed(path) } else { Cow::Owned(normal) })
}

/// The path and query with the characters percent-encoded that a URI cannot have but that some
/// clients send as they are: `"`, `<`, `>`, `` ` `` and all that is not ASCII. `None` if there are
/// none.
pub fn encode(target: &[u8]) -> Option<String> {
    let is_encoded = |byte: u8| !byte.is_ascii() || b"\"<>`".contains(&byte);
    if !target.iter().any(|byte| is_encoded(*byte)) {
        return None;
    }
    let mut encoded = String::with_capacity(target.len() + 64);
    for byte in target {
        if is_encoded(*byte) {
            // Writing to a string does not fail.
            let _ = write!(encoded, "%{byte:02X}");
        } else {
            encoded.push(char::from(*byte));
        }
    }
    Some(encoded)
}

/// The role of a byte in a path.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Plain,
    Slash,
    Dot,
    Percent,
    Forbidden,
}

const CLASSES: [Class; 256] = {
    let mut classes = [Class::Forbidden; 256];
    let mut byte = 0x21;
    while byte < 0x7f {
        classes[byte] = Class::Plain;
        byte += 1;
    }
    classes[b'/' as usize] = Class::Slash;
    classes[b'.' as usize] = Class::Dot;
    classes[b'%' as usize] = Class::Percent;
    classes[b'\\' as usize] = Class::Forbidden;
    classes[b'?' as usize] = Class::Forbidden;
    classes[b'#' as usize] = Class::Forbidden;
    classes
};

const FORBIDDEN: &str = "a path has only visible ASCII and no backslash, ? or #";

/// Whether the path is certainly normal, in one pass; nearly every path is. False means that the
/// path may have to be rewritten.
fn is_normal(path: &[u8], slashes: Slashes) -> Result<bool, &'static str> {
    let mut before = b' ';
    let mut normal = true;
    for (at, byte) in path.iter().enumerate() {
        match CLASSES[usize::from(*byte)] {
            Class::Plain => {}
            Class::Slash => normal &= before != b'/' || slashes == Slashes::Keep,
            // A name may begin with a dot. After a dot segment comes the end, a slash, or something
            // that may hide it.
            Class::Dot => normal &= before != b'/' || !may_be_dot_segment(&path[at..]),
            Class::Percent => normal = false,
            Class::Forbidden => return Err(FORBIDDEN),
        }
        before = *byte;
    }
    Ok(normal)
}

fn may_be_dot_segment(rest: &[u8]) -> bool {
    let after = rest.strip_prefix(b"..").or_else(|| rest.strip_prefix(b".")).unwrap_or(rest);
    matches!(after.first(), None | Some(b'/' | b';' | b'%'))
}

fn rewrite(path: &str, slashes: Slashes) -> Result<String, &'static str> {
    let mut normal = String::with_capacity(path.len());
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let is_last = segments.peek().is_none();
        let start = normal.len();
        normal.push('/');
        decode(segment, &mut normal)?;
        let parent = match &normal[start + 1..] {
            "" if slashes == Slashes::Keep => continue,
            "" | "." => start,
            ".." => normal[..start].rfind('/').unwrap_or(0),
            name if hides_dots(name) => return Err("a dot segment is hidden by a parameter or an encoded slash"),
            _ => continue,
        };
        normal.truncate(parent);
        if is_last {
            normal.push('/');
        }
    }
    Ok(normal)
}

/// Appends a segment. Decodes unreserved characters and writes other escapes with upper-case
/// digits.
fn decode(segment: &str, normal: &mut String) -> Result<(), &'static str> {
    let mut parts = segment.split('%');
    normal.push_str(parts.next().unwrap_or_default());
    for part in parts {
        // The path is ASCII: `is_normal` has checked all bytes.
        let (Some(digits), Some(rest)) = (part.as_bytes().get(..2), part.get(2..)) else {
            return Err("a % in a path is followed by two hexadecimal digits");
        };
        let (Some(high), Some(low)) = (digit(digits[0]), digit(digits[1])) else {
            return Err("a % in a path is followed by two hexadecimal digits");
        };
        match high << 4 | low {
            0 => return Err("a path has no %00"),
            byte if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) => normal.push(char::from(byte)),
            _ => {
                normal.push('%');
                normal.push(char::from(digits[0].to_ascii_uppercase()));
                normal.push(char::from(digits[1].to_ascii_uppercase()));
            }
        }
        normal.push_str(rest);
    }
    Ok(())
}

fn digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

/// Whether a segment becomes a dot segment for a reader that decodes slashes or removes parameters.
fn hides_dots(segment: &str) -> bool {
    let is_dots = |piece: &str| {
        let name = piece.split(';').next().unwrap_or_default();
        matches!(name.split("%3B").next().unwrap_or_default(), "." | "..")
    };
    segment.split("%2F").flat_map(|piece| piece.split("%5C")).any(is_dots)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn equivalent_paths_have_one_normal_form() {
        for (path, normal) in [
            ("/", "/"),
            ("*", "*"),
            ("/a/b", "/a/b"),
            ("/a/", "/a/"),
            ("//a///b//", "/a/b/"),
            ("/a/./b", "/a/b"),
            ("/a/b/../c", "/a/c"),
            ("/a/..", "/"),
            ("/a/b/..", "/a/"),
            ("/a/b/.", "/a/b/"),
            ("/..", "/"),
            ("/../../a", "/a"),
            ("/a//../b", "/b"),
            ("/%2e%2E/a", "/a"),
            ("/a/%2e/b", "/a/b"),
            ("/a/.%2e/b", "/b"),
            ("/%61%7e%2D%5f", "/a~-_"),
            ("/a%2fb", "/a%2Fb"),
            ("/a%5cb", "/a%5Cb"),
            ("/a%2Fb", "/a%2Fb"),
            ("/%252e%252e/", "/%252e%252e/"),
            ("/a%c3%a9", "/a%C3%A9"),
            ("/a;v=1/b", "/a;v=1/b"),
            ("/.well-known/x", "/.well-known/x"),
            ("/...", "/..."),
            ("/..a", "/..a"),
            ("/a|b[1]{x}", "/a|b[1]{x}"),
        ] {
            assert_eq!(normalize(path).as_deref(), Ok(normal), "{path}");
        }
    }

    #[test]
    fn empty_segments_can_stay() {
        for (path, normal) in [
            ("/", "/"),
            ("/a/", "/a/"),
            ("//a///b//", "//a///b//"),
            ("/http://a/", "/http://a/"),
            ("/a//../b", "/a/b"),
            ("/a/.//b", "/a//b"),
            ("//..", "/"),
            ("//../..//%61", "//a"),
        ] {
            assert_eq!(normalize_with(path, Slashes::Keep).as_deref(), Ok(normal), "{path}");
        }
    }

    #[test]
    fn an_ambiguous_path_is_rejected() {
        for path in [
            "",
            "a",
            "**",
            "/a\\b",
            "/a b",
            "/\u{e9}",
            "/\u{7f}",
            "/a\0",
            "/%00",
            "/a%",
            "/a%2",
            "/a%zz",
            "/%+1",
            "/a?b",
            "/a#b",
            "/a/..;/b",
            "/..;x=1/b",
            "/.;/",
            "/..%3bx/",
            "/%2e%2e;/a",
            "/a%2F..%2Fb",
            "/..%2f",
            "/..%5Ca",
            "/a%5c%2e%2e",
            "/a%2f.",
            "/a%2F..;x",
        ] {
            assert!(normalize(path).is_err(), "{path}");
        }
    }

    #[test]
    fn a_normal_path_is_not_copied() {
        for path in ["/", "/v1/items/7.json", "/.git", "/a/b.c/", "/a%2Fb/%E2%82%AC", "/a;b"] {
            assert!(matches!(normalize(path), Ok(Cow::Borrowed(_))), "{path}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]
        #[test]
        fn a_normal_form_is_stable_safe_and_not_longer(path in "/([a-c.;~]|/|%2[eEfF5]|%5[cC]|%6[1f]|%3[bB]|[%\\\\A-F0-9]){0,24}") {
            if let Ok(normal) = normalize(&path) {
                prop_assert_eq!(normalize(&normal), Ok(Cow::Borrowed(&*normal)));
                prop_assert!(normal.len() <= path.len());
                prop_assert!(normal.starts_with('/') && !normal.contains("//"));
                let name = |segment: &str| segment.split(';').next().map(str::to_owned);
                prop_assert!(!normal.split('/').filter_map(name).any(|name| name == "." || name == ".."), "{}", normal);
                // Encoded slashes stay encoded.
                let slashes = |text: &str| text.to_ascii_uppercase().matches("%2F").count();
                prop_assert!(slashes(&normal) <= slashes(&path));
            }
        }

        #[test]
        fn a_form_that_keeps_slashes_is_stable_and_safe(path in "/([a-c.;~]|/|%2[eEfF5]|%5[cC]|%6[1f]){0,24}") {
            if let Ok(normal) = normalize_with(&path, Slashes::Keep) {
                prop_assert_eq!(normalize_with(&normal, Slashes::Keep), Ok(Cow::Borrowed(&*normal)));
                prop_assert!(normal.starts_with('/') && normal.len() <= path.len());
                prop_assert!(!normal.split('/').any(|name| name == "." || name == ".."), "{}", normal);
            }
        }

        #[test]
        fn no_input_panics(path in ".{0,64}") {
            let _ = normalize(&path);
            let _ = normalize(&format!("/{path}"));
        }
    }
}
