//! Why the gateway does not load a filter's file: a typed reason, a message and its cause.
//!
//! Code branches on [`LoadErrorReason`], never on text. This module does not know: who loads files.

use std::error::Error;
use std::fmt;

use serde::{Deserialize, Serialize};
use witgate_http::text::bounded;

/// Why a file is refused. The compiler's process sends it to the gateway as its label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LoadErrorReason {
    /// The file is not a WebAssembly component.
    NotWasm,
    /// The file is a core module.
    CoreModule,
    /// The file or its manifest is damaged.
    Malformed,
    /// The component does not fit the world `gateway-filter`.
    WrongWorld,
    /// The component imports an interface that the configuration does not grant.
    NotGranted,
    /// The file differs from the digest or version that the configuration pins.
    Pin,
    /// There is no valid signature, and the configuration requires one.
    Signature,
    /// The component or a package in it is on the configuration's list of denied ones.
    Denied,
    /// The version is below one that came from the same location before.
    Downgrade,
    /// The configuration does not fit the schemas of the manifest.
    Config,
    /// The component is above a limit on size, memory, tables or compile time.
    Limits,
    /// The component uses a WebAssembly proposal that filters cannot use.
    Proposal,
    /// The host functions cannot be linked.
    Link,
    /// An instance cannot be created.
    Instantiate,
    /// An example that the component carries fails, or it carries none and must.
    Examples,
    /// The file cannot be read, or changed while it was read.
    Unreadable,
    /// The component cannot be compiled, or its machine code cannot be stored or read back.
    Compile,
}

impl LoadErrorReason {
    /// All reasons.
    pub const ALL: [Self; 17] = [
        Self::NotWasm,
        Self::CoreModule,
        Self::Malformed,
        Self::WrongWorld,
        Self::NotGranted,
        Self::Pin,
        Self::Signature,
        Self::Denied,
        Self::Downgrade,
        Self::Config,
        Self::Limits,
        Self::Proposal,
        Self::Link,
        Self::Instantiate,
        Self::Examples,
        Self::Unreadable,
        Self::Compile,
    ];

    /// The value of the label `reason` in metrics and logs.
    pub const fn label(self) -> &'static str {
        match self {
            Self::NotWasm => "not-wasm",
            Self::CoreModule => "core-module",
            Self::Malformed => "malformed",
            Self::WrongWorld => "wrong-world",
            Self::NotGranted => "not-granted",
            Self::Pin => "pin",
            Self::Signature => "signature",
            Self::Denied => "denied",
            Self::Downgrade => "downgrade",
            Self::Config => "config",
            Self::Limits => "limits",
            Self::Proposal => "proposal",
            Self::Link => "link",
            Self::Instantiate => "instantiate",
            Self::Examples => "examples",
            Self::Unreadable => "unreadable",
            Self::Compile => "compile",
        }
    }
}

/// The refusal of a filter's file. Displays as `MESSAGE (REASON)`.
#[derive(Debug)]
pub struct LoadError {
    /// For code and metrics.
    pub reason: LoadErrorReason,
    /// For the operator: what happened, why, and what to do. It contains the text of the cause, so
    /// a reporter prints this error alone and not the chain.
    pub message: String,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl LoadError {
    /// A refusal without an underlying error. The message is bounded and escaped, because files
    /// shape it: names of imports, the texts of a manifest, what a parser quotes.
    pub fn new(reason: LoadErrorReason, message: impl fmt::Display) -> Self {
        Self { reason, message: bounded(message), source: None }
    }

    /// The same refusal with the error that caused it.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }
}

impl fmt::Display for LoadError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} ({})", self.message, self.reason.label())
    }
}

impl Error for LoadError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_travels_as_its_label() -> Result<(), serde_json::Error> {
        for reason in [LoadErrorReason::NotWasm, LoadErrorReason::Limits, LoadErrorReason::WrongWorld] {
            let text = serde_json::to_string(&reason)?;
            assert_eq!(text, format!("\"{}\"", reason.label()));
            assert_eq!(serde_json::from_str::<LoadErrorReason>(&text)?, reason);
        }
        Ok(())
    }

    #[test]
    fn the_cause_is_the_source() {
        let error = LoadError::new(LoadErrorReason::Unreadable, "a.wasm: gone").with_source(std::io::Error::other("x"));
        assert_eq!(error.to_string(), "a.wasm: gone (unreadable)");
        assert_eq!(error.source().map(ToString::to_string).as_deref(), Some("x"));
    }
}
