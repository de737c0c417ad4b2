//! filter.toml: what a filter is and wants, as its author wrote it, checked; and the custom section that carries it to the gateway.
//!
//! Must not know: languages, WIT.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// The custom section of the outermost component.
pub(crate) const SECTION: &str = "witgate:manifest";
const BODY_BYTES_MAX: u32 = 8 << 20;
const SERVICES: [&str; 1] = ["keyvalue"];

/// A filter's manifest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Manifest {
    pub(crate) name: String,
    pub(crate) version: String,
    #[serde(default)]
    pub(crate) description: String,
    #[serde(default)]
    pub(crate) services: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) request: Option<Phase>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) response: Option<Phase>,
    /// A JSON Schema for each key.
    #[serde(default)]
    pub(crate) config: BTreeMap<String, serde_json::Value>,
}

/// What a phase wants.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Phase {
    #[serde(default)]
    pub(crate) body: Body,
    #[serde(default = "default_bytes")]
    pub(crate) body_bytes_max: u32,
}

/// Whether a phase wants the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Body {
    #[default]
    None,
    Buffer,
}

fn default_bytes() -> u32 {
    1 << 20
}

impl Manifest {
    /// Reads and checks filter.toml; the error names file, line and key.
    pub(crate) fn read(path: &Path) -> Result<Self, String> {
        let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
        Self::parse(&text, &path.display().to_string())
    }

    fn parse(text: &str, file: &str) -> Result<Self, String> {
        let manifest: Self = toml::from_str(text).map_err(|error| {
            let line = error.span().map_or(1, |span| text[..span.start.min(text.len())].lines().count().max(1));
            format!("{file}:{line}: {}", error.message())
        })?;
        let wrong = |key: &str, why: String| {
            let line = text.lines().position(|line| line.trim_start().starts_with(key)).map_or(1, |line| line + 1);
            Err(format!("{file}:{line}: {key}: {why}"))
        };
        let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if manifest.name.is_empty() || manifest.name.len() > 64 || !manifest.name.chars().all(good) {
            return wrong("name", format!("{:?}: a name has 1 to 64 of a-z, 0-9 and -", manifest.name));
        }
        let numbers: Vec<&str> = manifest.version.split(['-', '+']).next().unwrap_or_default().split('.').collect();
        if numbers.len() != 3 || numbers.iter().any(|number| number.parse::<u32>().is_err()) {
            return wrong("version", format!("{:?}: write three numbers, such as 1.0.0", manifest.version));
        }
        if let Some(service) = manifest.services.iter().find(|service| !SERVICES.contains(&service.as_str())) {
            return wrong("services", format!("{service:?} is not a service: there is keyvalue"));
        }
        if manifest.request.is_none() && manifest.response.is_none() {
            return Err(format!("{file}: a filter has a phase: add [request], [response] or both"));
        }
        for phase in [&manifest.request, &manifest.response].into_iter().flatten() {
            if phase.body_bytes_max == 0 || phase.body_bytes_max > BODY_BYTES_MAX {
                return wrong(
                    "body_bytes_max",
                    format!("{} is not between 1 and {BODY_BYTES_MAX}", phase.body_bytes_max),
                );
            }
        }
        Ok(manifest)
    }

    /// `request`, `response` or both, as the language tools are told.
    pub(crate) fn phases(&self) -> String {
        let mut phases = vec![];
        if self.request.is_some() {
            phases.push("request");
        }
        if self.response.is_some() {
            phases.push("response");
        }
        phases.join(",")
    }

    /// `component` with the manifest as a custom section at its end.
    pub(crate) fn embed(&self, mut component: Vec<u8>) -> Result<Vec<u8>, serde_json::Error> {
        use wasm_encoder::{ComponentSection as _, CustomSection};
        let json = serde_json::to_vec(self)?;
        CustomSection { name: SECTION.into(), data: json.into() }.append_to_component(&mut component);
        Ok(component)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "name = \"a\"\nversion = \"1.0.0\"\n[request]\nbody = \"buffer\"\n";

    #[test]
    fn a_manifest_survives_the_section() -> anyhow::Result<()> {
        let manifest = Manifest::parse(GOOD, "f").map_err(anyhow::Error::msg)?;
        let component = manifest.embed(b"\0asm\x0d\0\x01\0".to_vec())?;
        let mut found = None;
        for payload in wasmparser::Parser::new(0).parse_all(&component) {
            if let wasmparser::Payload::CustomSection(section) = payload? {
                found = Some((section.name().to_owned(), serde_json::from_slice::<Manifest>(section.data())?));
            }
        }
        assert_eq!(found, Some((SECTION.to_owned(), manifest)));
        Ok(())
    }

    #[test]
    fn mistakes_are_named_with_their_line() {
        for (from, to, expected) in [
            ("\"a\"", "\"A b\"", "f:1: name: \"A b\": a name has"),
            ("1.0.0", "1.0", "f:2: version: \"1.0\""),
            ("[request]", "services = [\"disk\"]\n[request]", "f:3: services: \"disk\" is not a service"),
            ("[request]\nbody = \"buffer\"\n", "", "a filter has a phase"),
            ("buffer\"", "buffer\"\nbody_bytes_max = 9999999", "f:5: body_bytes_max: 9999999"),
            ("body =", "bodi =", "f:4: unknown field `bodi`"),
            ("\"buffer\"", "\"stream\"", "f:4: unknown variant"),
        ] {
            let error = Manifest::parse(&GOOD.replace(from, to), "f").err().unwrap_or_default();
            assert!(error.contains(expected), "{expected} not in {error}");
        }
    }
}
