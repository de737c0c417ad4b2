//! Where the configuration comes from: a file, or a text for the demo.
//!
//! This module does not know: what the configuration means, when it is read again.

use std::path::{Path, PathBuf};

use super::references::FileReferences;
use crate::process::regular_file::read_regular;
use witgate_config::Config;

/// The maximum size of gateway.yaml.
const CONFIG_BYTES_MAX: u64 = 4 << 20;

/// The source of the configuration. Clones share the list of files that it refers to.
#[derive(Debug, Clone)]
pub struct ConfigSource {
    origin: Origin,
    references: FileReferences,
}

#[derive(Debug, Clone)]
enum Origin {
    /// A file, which is read again when it changes.
    File(PathBuf),
    /// A constant text.
    Text {
        /// The content of a gateway.yaml.
        text: String,
        /// The folder of relative paths in the text.
        base: PathBuf,
    },
}

/// Logs what `check` would print as warnings.
pub fn log_warnings(config: &Config) {
    for warning in &config.warnings {
        let file = warning.file.as_deref().unwrap_or("gateway.yaml");
        tracing::warn!(line = warning.line, key = warning.path, "{file}: {}", warning.message);
    }
}

impl ConfigSource {
    /// The gateway.yaml at this path.
    pub fn file(path: PathBuf) -> Self {
        Self { origin: Origin::File(path), references: FileReferences::default() }
    }

    /// A constant text, whose relative paths are relative to `base`.
    pub fn text(text: &str, base: PathBuf) -> Self {
        Self { origin: Origin::Text { text: text.to_owned(), base }, references: FileReferences::default() }
    }

    /// The current text.
    ///
    /// # Errors
    /// A message for the operator if the file cannot be read.
    pub fn read(&self) -> Result<String, String> {
        match &self.origin {
            Origin::Text { text, .. } => Ok(text.clone()),
            Origin::File(path) => {
                let shown = path.display();
                let bytes = read_regular(path, CONFIG_BYTES_MAX)
                    .map_err(|error| format!("{shown}: {error}; give the right path with --config"))?;
                String::from_utf8(bytes).map_err(|error| {
                    format!(
                        "{shown}: byte {} is not UTF-8: save the file as UTF-8",
                        error.utf8_error().valid_up_to() + 1
                    )
                })
            }
        }
    }

    /// Whether the file exists.
    pub(super) fn exists(&self) -> bool {
        match &self.origin {
            Origin::Text { .. } => true,
            Origin::File(path) => path.exists(),
        }
    }

    /// Parses and checks a text of this source.
    ///
    /// # Errors
    /// A message for the operator: every problem with its line.
    pub fn parse(&self, text: &str) -> Result<Config, String> {
        let (name, base) = match &self.origin {
            Origin::Text { base, .. } => ("demo".to_owned(), base.clone()),
            Origin::File(path) => {
                let absolute = std::path::absolute(path).map_err(|error| format!("{}: {error}", path.display()))?;
                (path.display().to_string(), absolute.parent().map(Path::to_owned).unwrap_or_default())
            }
        };
        self.references.forget();
        Config::parse_with(text, &name, &base, &self.references).map_err(|errors| errors.to_string())
    }

    /// A digest of the files that the last parsed text refers to, to notice their changes.
    pub(super) fn references_digest(&self) -> [u8; 32] {
        self.references.digest()
    }

    /// The digest of those files as they were when the text was parsed.
    pub(super) fn references_digest_in_use(&self) -> [u8; 32] {
        self.references.digest_in_use()
    }

    /// The folders of the file and of those that it refers to, to watch them. Empty for a text.
    pub(super) fn folders(&self) -> Vec<PathBuf> {
        let Origin::File(path) = &self.origin else { return vec![] };
        let own = std::path::absolute(path).ok().and_then(|path| path.parent().map(Path::to_owned));
        own.into_iter().chain(self.references.folders()).collect()
    }
}
