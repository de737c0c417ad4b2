//! Where the configuration comes from: a file, or a text for the demo.
//!
//! This module does not know: what the configuration means, when it is read again.

use std::path::{Path, PathBuf};

use witgate_config::Config;

/// The maximum size of gateway.yaml.
const CONFIG_BYTES_MAX: u64 = 4 << 20;

/// The source of the configuration.
#[derive(Debug, Clone)]
pub enum ConfigSource {
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
        tracing::warn!(line = warning.line, key = warning.path, "gateway.yaml: {}", warning.message);
    }
}

impl ConfigSource {
    /// The current text.
    ///
    /// # Errors
    /// A message for the operator if the file cannot be read.
    pub fn read(&self) -> Result<String, String> {
        match self {
            Self::Text { text, .. } => Ok(text.clone()),
            Self::File(path) => {
                let shown = path.display();
                let fail = |error: std::io::Error| format!("{shown}: {error}; give the right path with --config");
                let length = std::fs::metadata(path).map_err(fail)?.len();
                if length > CONFIG_BYTES_MAX {
                    return Err(format!("{shown}: {length} bytes are above the limit of {CONFIG_BYTES_MAX}"));
                }
                std::fs::read_to_string(path).map_err(fail)
            }
        }
    }

    /// Parses and checks a text of this source.
    ///
    /// # Errors
    /// A message for the operator: every problem with its line.
    pub fn parse(&self, text: &str) -> Result<Config, String> {
        let (name, base) = match self {
            Self::Text { base, .. } => ("demo".to_owned(), base.clone()),
            Self::File(path) => {
                let absolute = std::path::absolute(path).map_err(|error| format!("{}: {error}", path.display()))?;
                (path.display().to_string(), absolute.parent().map(Path::to_owned).unwrap_or_default())
            }
        };
        Config::parse(text, &name, &base).map_err(|errors| errors.to_string())
    }

    /// The folder of the file, to watch it. `None` for a text.
    pub(super) fn folder(&self) -> Option<PathBuf> {
        let Self::File(path) = self else { return None };
        std::path::absolute(path).ok()?.parent().map(Path::to_owned)
    }
}
