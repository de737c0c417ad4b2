//! The mistakes of a configuration file, each with its line, its path in the file and advice.
//!
//! This module does not know: YAML, which keys exist.

use std::cell::RefCell;
use std::fmt;

/// Collects mistakes while a file is read. Readers share it, hence the cell.
pub(crate) type ErrorList = RefCell<Vec<ConfigError>>;

/// All mistakes of a file: at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigErrors {
    /// The file's name.
    pub file: String,
    /// Sorted by line.
    pub errors: Vec<ConfigError>,
}

/// One mistake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// Counted from 1.
    pub line: usize,
    /// Such as `filters.api-key.timeout`; empty if the text is not valid YAML.
    pub path: String,
    /// The value, why it is wrong, and what to write instead.
    pub message: String,
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
            let colon = if error.path.is_empty() { "" } else { ": " };
            write!(formatter, "{}:{}: {}{colon}{}", self.file, error.line, error.path, error.message)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}
