//! The mistakes of a configuration file, each with its line, its path in the file and advice.
//!
//! This module does not know: YAML, which keys exist, where references lead.

use std::cell::RefCell;
use std::fmt;
use std::path::Path;

use witgate_http::text::bounded;

use crate::key_forms::Shapes;
use crate::references::References;

/// A line carries the number of its file above this bit. A file has fewer lines.
pub(crate) const FILE_SHIFT: u32 = 32;
/// The most mistakes of a file that are shown.
const SHOWN_MAX: usize = 100;

/// What the readers of a file share: it collects their mistakes and warnings, hence the cells, and
/// looks up references.
pub(crate) struct Reading<'a> {
    pub(crate) references: &'a dyn References,
    /// The folder of relative paths.
    pub(crate) base: &'a Path,
    pub(crate) errors: RefCell<Vec<ConfigError>>,
    /// What can work but is probably not what the operator means.
    pub(crate) warnings: RefCell<Vec<ConfigError>>,
    /// What each key may be, if the readers are to note it: that is how the JSON Schema is made.
    pub(crate) shapes: Option<RefCell<Shapes>>,
}

/// All mistakes of a file: at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigErrors {
    /// The file's name.
    pub file: String,
    /// Sorted by line. The last one counts those above the first hundred.
    pub errors: Vec<ConfigError>,
}

/// One mistake, or one warning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// The included file that has the mistake; `None` for gateway.yaml.
    pub file: Option<String>,
    /// Counted from 1.
    pub line: usize,
    /// Such as `filters.api-key.timeout`; empty if the text is not valid YAML.
    pub path: String,
    /// The value, why it is wrong, and what to write instead.
    pub message: String,
}

impl<'a> Reading<'a> {
    pub(crate) fn new(references: &'a dyn References, base: &'a Path) -> Self {
        Self { references, base, errors: RefCell::default(), warnings: RefCell::default(), shapes: None }
    }
}

impl ConfigErrors {
    pub(crate) fn new(file: &str, mut errors: Vec<ConfigError>) -> Self {
        errors.sort_by_key(|error| error.line);
        if let Some(more) = errors.len().checked_sub(SHOWN_MAX).filter(|more| *more > 0) {
            errors.truncate(SHOWN_MAX);
            let line = errors.last().map_or(1, |last| last.line);
            errors.push(ConfigError::new(line, "", format!("and {more} more mistakes")));
        }
        Self { file: file.to_owned(), errors }
    }

    /// Names the included file of each mistake.
    pub(crate) fn name_files(mut self, included: &[String]) -> Self {
        self.errors.iter_mut().for_each(|error| error.name_file(included));
        self
    }
}

impl ConfigError {
    pub(crate) fn new(line: usize, path: &str, message: impl Into<String>) -> Self {
        Self { file: None, line: line.max(1), path: bounded(path), message: message.into() }
    }

    /// Splits the line into the file, which is one of `included`, and the line in it.
    pub(crate) fn name_file(&mut self, included: &[String]) {
        let (file, line) = file_of(self.line);
        self.line = line.max(1);
        self.file = file.checked_sub(1).and_then(|index| included.get(index).cloned());
    }
}

/// The number of the file and the line in it.
fn file_of(line: usize) -> (usize, usize) {
    (line >> FILE_SHIFT, line & ((1 << FILE_SHIFT) - 1))
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.errors.iter().enumerate() {
            if index > 0 {
                formatter.write_str("\n")?;
            }
            write!(formatter, "{}:{error}", error.file.as_ref().unwrap_or(&self.file))?;
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
