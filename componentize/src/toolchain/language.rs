//! The languages of filters, and the input and error of a language's build.
//!
//! This module does not know: the tools of a language.

use std::fmt;
use std::path::Path;

use witgate_manifest::Manifest;

/// A language that filters are written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Language {
    /// `src/filter.ts`.
    TypeScript,
    /// `filter.py`.
    Python,
    /// `Cargo.toml` and `src/lib.rs`.
    Rust,
}

/// Why a build made no component.
#[derive(Debug)]
pub(crate) enum BuildError {
    /// The author's source is wrong. The text is the output of the tool that found the mistake.
    Author(String),
    /// Any other error.
    Tool(anyhow::Error),
}

/// The input of a language's tools.
pub(crate) struct Job<'a> {
    pub(crate) source: &'a Path,
    pub(crate) manifest: &'a Manifest,
    /// The folder with the gateway's package and the world `filter`.
    pub(crate) wit: &'a Path,
    /// A folder for files of the tools. It is kept until the next build.
    pub(crate) work: &'a Path,
    /// Whether the component will be optimized.
    pub(crate) optimize: bool,
    /// Whether the tools' process stays for the next build. Only TypeScript has one.
    pub(crate) keeps_tools: bool,
}

impl Language {
    /// The language of a source folder. Each language has a file that no other has.
    pub(crate) fn of(source: &Path) -> Option<Self> {
        let has = |file: &str| source.join(file).exists();
        match (has("Cargo.toml"), has("filter.py"), has("src/filter.ts")) {
            (true, _, _) => Some(Self::Rust),
            (_, true, _) => Some(Self::Python),
            (_, _, true) => Some(Self::TypeScript),
            _ => None,
        }
    }

    /// The name in folder names.
    pub const fn name(self) -> &'static str {
        match self {
            Self::TypeScript => "typescript",
            Self::Python => "python",
            Self::Rust => "rust",
        }
    }
}

impl<E: Into<anyhow::Error>> From<E> for BuildError {
    fn from(error: E) -> Self {
        Self::Tool(error.into())
    }
}

impl fmt::Display for BuildError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Author(output) => formatter.write_str(output.trim_end()),
            Self::Tool(error) => write!(formatter, "{error:#}"),
        }
    }
}
