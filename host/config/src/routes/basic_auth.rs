//! `basic_auth:` of a route: users with passwords (RFC 7617).
//!
//! The users stand in the format of htpasswd. Only bcrypt is accepted: the other hashes of that
//! format (MD5, SHA-1, DES) can be reversed too fast. This module does not know: how a password is
//! checked.

use std::collections::BTreeMap;
use std::fmt;

use http::HeaderName;

use super::policies::editable_name;
use crate::yaml::Section;

/// The longest name of a user in bytes.
const USER_BYTES_MAX: usize = 256;
/// The costs of bcrypt that the gateway accepts. Each step doubles the time of a check: 14 takes a
/// second.
const COSTS: std::ops::RangeInclusive<u8> = 4..=14;
/// A hash of bcrypt: `$2y$`, two digits, `$`, and 53 characters of salt and hash.
const BCRYPT_BYTES: usize = 60;

/// Who may use a route, by name and password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BasicAuth {
    /// At least one.
    pub users: Users,
    /// What browsers show when they ask for a password. Default `restricted`.
    pub realm: String,
    /// The field of the request that gets the user's name. A client cannot set it.
    pub user_header: Option<HeaderName>,
    /// Whether the upstream and the filters get the field `authorization`. Default false.
    pub forward_credentials: bool,
}

/// Hashes of passwords, by the user's name. `Debug` shows only the names.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Users(BTreeMap<String, Box<str>>);

impl Users {
    /// The hash of a user's password.
    pub fn get(&self, user: &str) -> Option<&str> {
        self.0.get(user).map(|hash| &**hash)
    }

    /// The hash of some user's password.
    pub fn any(&self) -> Option<&str> {
        self.0.values().next().map(|hash| &**hash)
    }
}

impl fmt::Debug for Users {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_list().entries(self.0.keys()).finish()
    }
}

impl BasicAuth {
    pub(crate) fn read(section: &Section) -> Self {
        section.require("users", "write {file: users.htpasswd}; `htpasswd -B -c users.htpasswd NAME` makes the file");
        Self {
            users: section.document("users", parse_users).unwrap_or_default(),
            realm: section.scalar("realm", realm).unwrap_or_else(|| "restricted".into()),
            user_header: section.scalar("user_header", editable_name),
            forward_credentials: section.bool("forward_credentials").unwrap_or(false),
        }
    }
}

/// Lines `NAME:HASH`; empty lines and those that begin with `#` do not count.
fn parse_users(text: &str) -> Result<Users, String> {
    let mut users = BTreeMap::new();
    // Some editors put a byte order mark before the first name.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    for (index, line) in text.lines().enumerate() {
        let (number, line) = (index + 1, line.trim_end());
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let fail = |why: &str| Err(format!("line {number}: {why}"));
        let Some((name, hash)) = line.split_once(':') else {
            return fail("expected NAME:HASH, as `htpasswd -B` writes it");
        };
        let is_named = !name.is_empty() && name.len() <= USER_BYTES_MAX && name.trim() == name;
        if !is_named || name.chars().any(char::is_control) {
            return fail("a name has 1 to 256 bytes, without control characters and spaces at its ends");
        }
        if let Err(why) = check_hash(hash) {
            return fail(&why);
        }
        if users.insert(name.to_owned(), hash.into()).is_some() {
            return fail("another line has this user");
        }
    }
    if users.is_empty() { Err("has no user".into()) } else { Ok(Users(users)) }
}

fn check_hash(hash: &str) -> Result<(), String> {
    let Some(rest) = ["$2a$", "$2b$", "$2y$"].iter().find_map(|prefix| hash.strip_prefix(prefix)) else {
        let found = match hash {
            _ if hash.starts_with("$apr1$") => "MD5 (apr1)",
            _ if hash.starts_with("{SHA}") => "SHA-1",
            _ if hash.starts_with("$5$") || hash.starts_with("$6$") => "SHA-crypt",
            _ => "not bcrypt",
        };
        return Err(format!("the password's hash is {found}: create it again with `htpasswd -B`"));
    };
    let is_base64 = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'.' || byte == b'/';
    let (cost, digest) = rest.split_once('$').unwrap_or_default();
    if hash.len() != BCRYPT_BYTES || cost.len() != 2 || !digest.bytes().all(is_base64) {
        return Err("the password's hash is cut off or damaged: create it again with `htpasswd -B`".into());
    }
    if !cost.parse().is_ok_and(|cost| COSTS.contains(&cost)) {
        return Err("the cost of bcrypt is not between 4 and 14 (`htpasswd -B -C 10`)".into());
    }
    Ok(())
}

fn realm(text: &str) -> Result<String, String> {
    let is_allowed = |byte: u8| (b' '..=b'~').contains(&byte) && byte != b'"' && byte != b'\\';
    if !text.is_empty() && text.len() <= 256 && text.bytes().all(is_allowed) {
        Ok(text.to_owned())
    } else {
        Err("a realm has 1 to 256 visible ASCII characters without quotes and backslashes".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "$2y$05$5Dxcoxp2uEpJo7FqV7hJb.H1YzSfuVHaRsyCUfUBqIxaURhQVGNSi";

    #[test]
    fn users_have_bcrypt_hashes() {
        for mark in ["# staff\n\n", "\u{feff}"] {
            let text = format!("{mark}ada:{HASH}\nb b:{HASH}\r\n");
            let users = parse_users(&text).unwrap_or_default();
            assert_eq!((users.get("ada"), users.get("b b"), users.get("x")), (Some(HASH), Some(HASH), None));
        }
        let users = parse_users(&format!("ada:{HASH}")).unwrap_or_default();
        assert!(parse_users(&format!("ada :{HASH}")).is_err_and(|why| why.contains("spaces at its ends")));
        assert!(!format!("{users:?}").contains("$2y"));
    }

    #[test]
    fn a_mistake_names_its_line_and_not_the_hash() {
        for (line, expected) in [
            ("ada", "expected NAME:HASH"),
            (&*format!(":{HASH}"), "a name has"),
            ("ada:$apr1$x$y", "MD5 (apr1)"),
            ("ada:{SHA}x", "SHA-1"),
            ("ada:secret", "not bcrypt"),
            (&HASH.replace("$2y$05", "ada:$2y$31"), "between 4 and 14"),
            (&format!("ada:{}", &HASH[..50]), "cut off"),
            (&format!("root:{HASH}"), "another line"),
        ] {
            let why = parse_users(&format!("root:{HASH}\n{line}")).err().unwrap_or_default();
            assert!(why.starts_with("line 2: ") && why.contains(expected), "{line}: {why}");
            assert!(!why.contains("secret") && !why.contains("5Dxco"), "{why}");
        }
        assert_eq!(parse_users("#").err().as_deref(), Some("has no user"));
    }
}
