//! Why a key or another argument is refused.
//!
//! This module does not know: algorithms.

use std::fmt;

/// A refusal. The text says what is wrong, and never shows a part of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CryptoError(String);

impl CryptoError {
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

impl fmt::Display for CryptoError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for CryptoError {}
