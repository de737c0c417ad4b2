//! The mistakes of a configuration file, each with its line, its path in the file and advice.
//!
//! This module does not know: YAML, which keys exist, where references lead.

use std::cell::RefCell;
use std::fmt;
use std::path::Path;

use crate::references::References;

/// What the readers of a file share: it collects their mistakes and warnings, hence the cells, and
/// looks up references.
pub(crate) struct Reading<'a> {
    pub(crate) references: &'a dyn References,
    /// The folder of relative paths.
    pub(crate) base: &'a Path,
    pub(crate) errors: RefCell<Vec<ConfigError>>,
    /// What can work but is probably not what the operator means.
    pub(crate) warnings: RefCell<Vec<ConfigError>>,
}

/// All mistakes of a file: at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigErrors {
    /// The file's name.
    pub file: String,
    /// Sorted by line.
    pub errors: Vec<ConfigError>,
}

/// One mistake, or one warning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// Counted from 1.
    pub line: usize,
    /// Such as `filters.api-key.timeout`; empty if the text is not valid YAML.
    pub path: String,
    /// The value, why it is wrong, and what to write instead.
    pub message: String,
}

impl<'a> Reading<'a> {
    pub(crate) fn new(references: &'a dyn References, base: &'a Path) -> Self {
        Self { references, base, errors: RefCell::default(), warnings: RefCell::default() }
    }
}

impl ConfigErrors {
    pub(crate) fn new(file: &str, mut errors: Vec<ConfigError>) -> Self {
        errors.sort_by_key(|error| error.line);
        Self { file: file.to_owned(), errors }
    }
}

impl ConfigError {
    pub(crate) fn new(line: usize, path: &str, message: impl Into<String>) -> Self {
        Self { line: line.max(1), path: path.to_owned(), message: message.into() }
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.errors.iter().enumerate() {
            if index > 0 {
                formatter.write_str("\n")?;
            }
            write!(formatter, "{}:{error}", self.file)?;
        }
        Ok(())
    }
}

impl fmt::Display for ConfigError {
    /// `LINE: PATH: MESSAGE`.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let colon = if self.path.is_empty() { "" } else { ": " };
        write!(formatter, "{}: {}{colon}{}", self.line, self.path, self.message)
    }
}

impl std::error::Error for ConfigErrors {}
