//! `{env: NAME}` and `{file: PATH}`: values that stand outside gateway.yaml, such as secrets.
//!
//! Whoever parses a configuration looks the values up. A message about such a value never contains
//! it. This module does not know: environment variables, files.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};

/// Looks up the values that a configuration refers to. An error is the end of a message for the
/// operator, and does not contain the value.
pub trait References {
    /// The value of an environment variable.
    ///
    /// # Errors
    /// There is no such variable, or it is not UTF-8.
    fn env(&self, name: &str) -> Result<String, String>;

    /// The content of a file without the line break at its end.
    ///
    /// # Errors
    /// The file cannot be read, is too large or is not UTF-8.
    fn file(&self, path: &Path) -> Result<String, String>;

    /// The name and text of each file that `include` names by a path, whose last part may have `*`.
    /// In the order of their names.
    ///
    /// # Errors
    /// No file matches, or one cannot be read, is too large or is not UTF-8.
    fn include(&self, pattern: &Path) -> Result<Vec<(String, String)>, String>;
}

/// Refuses every reference.
pub struct NoReferences;

impl References for NoReferences {
    fn env(&self, _: &str) -> Result<String, String> {
        Err("references are not available here".into())
    }

    fn file(&self, _: &Path) -> Result<String, String> {
        Err("references are not available here".into())
    }

    fn include(&self, _: &Path) -> Result<Vec<(String, String)>, String> {
        Err("files cannot be included here".into())
    }
}

/// Gives every reference a value that fits, so that a text can be read that refers to something
/// else, such as an example of the documentation.
pub struct AnyReference;

impl References for AnyReference {
    fn env(&self, _: &str) -> Result<String, String> {
        Ok("any-value-of-16-characters".into())
    }

    fn file(&self, path: &Path) -> Result<String, String> {
        // A file of users has to have the form of htpasswd. This is the hash of a random password.
        let users = "ann:$2b$04$U2NPd8Y/Y2uJ3En5NYANouk0RskGIKPC2T9H/NLFGZ.9UxEe5wTpO";
        match path.file_name().and_then(|name| name.to_str()) {
            Some("users") => Ok(users.into()),
            Some("trusted_root.json") => Ok(r#"{"certificateAuthorities": [{}], "tlogs": [{}]}"#.into()),
            _ => self.env(""),
        }
    }

    fn include(&self, _: &Path) -> Result<Vec<(String, String)>, String> {
        Ok(vec![])
    }
}

/// A reference as it stands in the file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Reference<'a> {
    Env(&'a str),
    /// Relative to the folder of gateway.yaml.
    File(&'a str),
}

impl Reference<'_> {
    /// The value that it stands for.
    pub(crate) fn look_up(&self, references: &dyn References, base: &Path) -> Result<String, String> {
        let found = match self {
            Self::Env(name) => references.env(name),
            Self::File(path) => references.file(&base.join(PathBuf::from(path))),
        };
        found.map_err(|why| format!("{self}: {why}"))
    }

    /// A message about a value that a key does not allow.
    pub(crate) fn not_allowed(&self) -> String {
        format!("{self}: the value is not valid for this key; it is not shown, because it may be a secret")
    }
}

impl fmt::Display for Reference<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, text) = match self {
            Self::Env(name) => ("env", name),
            Self::File(path) => ("file", path),
        };
        write!(formatter, "{{{kind}: {}}}", witgate_http::text::quoted(text))
    }
}

/// Values for a filter, by key. They may be secrets: `Debug` shows the keys only.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct FilterConfig(BTreeMap<String, String>);

impl FilterConfig {
    /// The values.
    pub fn into_inner(self) -> BTreeMap<String, String> {
        self.0
    }
}

impl Deref for FilterConfig {
    type Target = BTreeMap<String, String>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl DerefMut for FilterConfig {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.0
    }
}

impl fmt::Debug for FilterConfig {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_map().entries(self.0.keys().map(|key| (key, "…"))).finish()
    }
}
