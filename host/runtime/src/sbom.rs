//! The software bill of materials that `cargo auditable` embeds: JSON, compressed with zlib, in the
//! custom section `.dep-v0` of a module.
//!
//! It says what the author's build used, and an author can leave it out: a list of denied packages
//! finds known mistakes, not malice. This module does not know: which packages are denied.

use std::io::Read as _;

use serde::{Deserialize, Serialize};

use crate::load_error::{LoadError, LoadErrorReason};

/// The name of the custom section.
pub(crate) const SECTION: &str = ".dep-v0";
/// The most packages of a component.
pub(crate) const PACKAGES_MAX: usize = 5000;
const JSON_BYTES_MAX: u64 = 4 << 20;
const NAME_CHARS_MAX: usize = 128;

/// A package that is part of a component.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
}

#[derive(Deserialize)]
struct Sbom {
    packages: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    name: String,
    version: String,
    #[serde(default)]
    kind: String,
}

/// Reads a section. Packages that only the build used are left out.
pub(crate) fn packages(section: &[u8], most: usize) -> Result<Vec<Package>, LoadError> {
    let fail = |why: String| {
        LoadError::new(LoadErrorReason::Malformed, format!("the SBOM in the section {SECTION} is not valid: {why}"))
    };
    let mut json = vec![];
    let inflated = flate2::read::ZlibDecoder::new(section).take(JSON_BYTES_MAX + 1).read_to_end(&mut json);
    inflated.map_err(|error| fail(error.to_string()))?;
    if json.len() as u64 > JSON_BYTES_MAX {
        return Err(fail(format!("it is larger than {JSON_BYTES_MAX} bytes")));
    }
    let sbom: Sbom = serde_json::from_slice(&json).map_err(|error| fail(error.to_string()))?;
    let used: Vec<Entry> = sbom.packages.into_iter().filter(|entry| entry.kind != "build").collect();
    let is_long = |entry: &Entry| entry.name.len() > NAME_CHARS_MAX || entry.version.len() > NAME_CHARS_MAX;
    if used.len() > most || used.iter().any(is_long) {
        return Err(fail(format!(
            "it has more than {PACKAGES_MAX} packages, or names above {NAME_CHARS_MAX} characters"
        )));
    }
    Ok(used.into_iter().map(|Entry { name, version, .. }| Package { name, version }).collect())
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn compress(text: &[u8]) -> std::io::Result<Vec<u8>> {
        let mut encoder = flate2::write::ZlibEncoder::new(vec![], flate2::Compression::best());
        encoder.write_all(text)?;
        encoder.finish()
    }

    #[test]
    fn packages_of_the_build_are_left_out_and_bad_sections_are_refused() -> Result<(), Box<dyn std::error::Error>> {
        let json = br#"{"packages":[{"name":"a","version":"1.0.0","source":"registry","root":true},{"name":"b","version":"2.0.0","source":"local","kind":"build"}]}"#;
        let found = packages(&compress(json)?, 10)?;
        assert_eq!(found, [Package { name: "a".into(), version: "1.0.0".into() }]);
        assert!(packages(&compress(json)?, 0).is_err(), "too many");
        assert!(packages(b"text", 10).is_err() && packages(&compress(b"[]")?, 10).is_err());
        let bomb = compress(&vec![b' '; JSON_BYTES_MAX as usize + 1])?;
        assert!(packages(&bomb, 10).is_err_and(|error| error.message.contains("larger")));
        Ok(())
    }
}
