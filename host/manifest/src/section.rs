//! The JSON form of a manifest in the custom section of a component.
//!
//! The gateway treats a section as untrusted input: its size is limited, unknown fields are
//! refused, and every value is checked by the rules that `componentize` applies to filter.toml.
//! This module does not know: how a component is encoded.

use std::fmt;

use crate::manifest::Manifest;
use crate::rules::Problem;

/// The name of the custom section of the outermost component.
pub const SECTION: &str = "witgate:manifest";
/// The largest content of the section, in bytes.
pub const SECTION_BYTES_MAX: usize = 256 << 10;

/// Why the content of a section is refused.
#[derive(Debug)]
pub enum SectionError {
    /// It is larger than [`SECTION_BYTES_MAX`]; its size in bytes.
    TooLarge(usize),
    /// It is not the JSON form of a manifest.
    Json(serde_json::Error),
    /// Some values break a rule. There is at least one problem.
    Invalid(Vec<Problem>),
}

impl Manifest {
    /// Reads and checks the content of a section.
    ///
    /// # Errors
    ///
    /// The content is too large, is not a manifest, or has values that break a rule.
    pub fn from_section(bytes: &[u8]) -> Result<Self, SectionError> {
        if bytes.len() > SECTION_BYTES_MAX {
            return Err(SectionError::TooLarge(bytes.len()));
        }
        let manifest: Self = serde_json::from_slice(bytes).map_err(SectionError::Json)?;
        let problems = manifest.problems();
        if problems.is_empty() { Ok(manifest) } else { Err(SectionError::Invalid(problems)) }
    }

    /// The content of the section that carries this manifest.
    ///
    /// # Errors
    ///
    /// The content would be larger than [`SECTION_BYTES_MAX`], so no gateway would read it.
    pub fn to_section(&self) -> Result<Vec<u8>, SectionError> {
        let bytes = serde_json::to_vec(self).map_err(SectionError::Json)?;
        if bytes.len() > SECTION_BYTES_MAX { Err(SectionError::TooLarge(bytes.len())) } else { Ok(bytes) }
    }
}

impl fmt::Display for SectionError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge(bytes) => {
                write!(formatter, "the manifest has {bytes} bytes, above the limit of {SECTION_BYTES_MAX}")
            }
            Self::Json(error) => write!(formatter, "the section {SECTION} is not a manifest: {error}"),
            Self::Invalid(problems) => {
                write!(formatter, "the section {SECTION} is not valid: ")?;
                for (index, problem) in problems.iter().enumerate() {
                    write!(formatter, "{}{problem}", if index == 0 { "" } else { "; " })?;
                }
                Ok(())
            }
        }
    }
}

impl std::error::Error for SectionError {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BODY_BYTES_DEFAULT, BodyMode, Phase};

    /// The error for this section, or "accepted".
    fn refusal(json: &str) -> String {
        Manifest::from_section(json.as_bytes()).map_or_else(|error| error.to_string(), |_| "accepted".into())
    }

    #[test]
    fn a_manifest_survives_the_section() -> Result<(), SectionError> {
        let json = r#"{"name":"a","version":"1.0.0","services":["keyvalue"],"request":{"body":"buffer"}}"#;
        let manifest = Manifest::from_section(json.as_bytes())?;
        let phase = Phase { body: BodyMode::Buffer, body_bytes_max: BODY_BYTES_DEFAULT };
        assert_eq!((manifest.request, manifest.response), (Some(phase), None));
        assert_eq!(phase.body_limit(), Some(1 << 20));
        assert_eq!(manifest.phases().map(|(name, _)| name).collect::<Vec<_>>(), ["request"]);
        assert_eq!(Manifest::from_section(&manifest.to_section()?)?, manifest);
        Ok(())
    }

    #[test]
    fn a_body_that_is_not_buffered_has_no_limit() -> Result<(), SectionError> {
        let json = r#"{"name":"a","version":"1.0.0","request":null,"response":{"body_bytes_max":5}}"#;
        let manifest = Manifest::from_section(json.as_bytes())?;
        assert_eq!(manifest.response.and_then(|phase| phase.body_limit()), None);
        Ok(())
    }

    #[test]
    fn a_section_is_checked_by_the_rules_of_filter_toml() {
        for (json, expected) in [
            (r#"{"name":"a","version":"1.0.0","request":{}}"#, "accepted"),
            ("", "the section witgate:manifest is not a manifest: EOF"),
            (r#"{"version":"1.0.0"}"#, "missing field `name`"),
            (r#"{"name":"a","version":"1.0.0","request":{},"more":1}"#, "unknown field `more`"),
            (r#"{"name":"a","version":"1.0.0","request":{"body":"stream"}}"#, "unknown variant `stream`"),
            (r#"{"name":"A","version":"1","request":{}}"#, "is not valid: name: \"A\": "),
            (r#"{"name":"A","version":"1","request":{}}"#, "; version: \"1\": "),
            (r#"{"name":"a","version":"1.0.0"}"#, "at least one phase"),
            (r#"{"name":"a","version":"1.0.0","services":["disk"],"request":{}}"#, "services: \"disk\""),
            (
                r#"{"name":"a","version":"1.0.0","request":{"body":"buffer","body_bytes_max":8388609}}"#,
                "request.body_bytes_max: 8388609 is not between 1 and 8388608",
            ),
            (r#"{"name":"a","version":"1.0.0","request":{},"config":{"k":1}}"#, "config.k: "),
        ] {
            let refusal = refusal(json);
            assert!(refusal.contains(expected), "{expected} not in {refusal}");
        }
        let long = format!(r#"{{"name":"a","description":"{}"}}"#, "x".repeat(SECTION_BYTES_MAX));
        assert!(refusal(&long).contains("above the limit of 262144"));
    }
}
