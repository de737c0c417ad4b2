//! What each language's tools are told: source and WIT in, a component without manifest out.
//!
//! TypeScript and Python have a script beside their lock files (`script`), Rust needs cargo and an encoder (`rust`). An author's mistake
//! comes back as [`Failure::Author`], in the words of the tool that found it. Must not know: the tools.

use std::fmt;
use std::path::Path;

use crate::manifest::Manifest;
use crate::progress::Progress;
use crate::{rust, script, setup};

/// A language that filters are written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Language {
    TypeScript,
    Python,
    Rust,
}

/// Why there is no component.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The author's source: shown as the tool said it.
    Author(String),
    /// Anything else.
    Tool(anyhow::Error),
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Tool(error.into())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Author(said) => formatter.write_str(said.trim_end()),
            Self::Tool(error) => write!(formatter, "{error:#}"),
        }
    }
}

/// Where things are for one build.
pub(crate) struct Job<'a> {
    pub(crate) source: &'a Path,
    pub(crate) manifest: &'a Manifest,
    /// The gateway's package with the world `filter`.
    pub(crate) wit: &'a Path,
    /// For whatever the tools write; kept until the next build.
    pub(crate) work: &'a Path,
}

impl Language {
    /// The language of a source folder, by the file that only it has.
    pub(crate) fn of(source: &Path) -> Option<Self> {
        let has = |file: &str| source.join(file).exists();
        match (has("Cargo.toml"), has("filter.py"), has("src/filter.ts")) {
            (true, _, _) => Some(Self::Rust),
            (_, true, _) => Some(Self::Python),
            (_, _, true) => Some(Self::TypeScript),
            _ => None,
        }
    }

    /// As in folder names.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::TypeScript => "typescript",
            Self::Python => "python",
            Self::Rust => "rust",
        }
    }

    /// Runs the language's tools, which are installed first where they are missing.
    pub(crate) fn build(self, job: &Job, progress: &mut Progress) -> Result<Vec<u8>, Failure> {
        let tools = setup::tools(self.name());
        match self {
            Self::TypeScript => {
                setup::typescript()?;
                script::build("node".as_ref(), &tools.join("build.mjs"), job, progress)
            }
            Self::Python => {
                setup::python()?;
                script::build(tools.join(".venv/bin/python").as_os_str(), &tools.join("build.py"), job, progress)
            }
            Self::Rust => rust::build(job, progress),
        }
    }
}
