//! `witgate publish`: uploads a filter under a name that does not exist yet, and prints the line
//! for gateway.yaml.
//!
//! This module does not know: object stores, registries.

use std::path::{Path, PathBuf};

use super::output::print;
use crate::control::config_source::ConfigSource;
use crate::process::regular_file::read_regular;
use crate::releases::remote::publish::{Publication, publish as upload};
use witgate_config::{FilterSource, RemoteKind, RemoteLocation, SourceSettings};
use witgate_runtime::component::{FILE_BYTES_MAX, describe};

const MINISIGN_BYTES_MAX: u64 = 8 << 10;

pub(super) fn publish(file: &Path, location: &str, config: Option<PathBuf>, plain_http: bool) -> Result<(), String> {
    let shown = file.display();
    let location = RemoteLocation::parse(location).map_err(|why| format!("{location}: {why}"))?;
    if matches!(&location.kind, RemoteKind::Oci(reference) if reference.tag.as_deref() == Some("latest")) {
        return Err(format!("{location}: name the version, such as :1.4.0, because a published version never changes"));
    }
    let mut settings = match config {
        None => SourceSettings::default(),
        Some(path) => {
            let source = ConfigSource::file(path);
            source.parse(&source.read()?)?.sources.of(&FilterSource::Remote(location.clone()))
        }
    };
    settings.plain_http |= plain_http;
    let bytes = read_regular(file, FILE_BYTES_MAX).map_err(|error| format!("{shown}: {error}"))?;
    let info = describe(&bytes).map_err(|error| format!("{shown}: {error}"))?;
    let minisign = signature_beside(file)?;
    let is_signed = minisign.is_some();
    let digest = upload(&location, &settings, Publication { bytes, info: &info, minisign })?;
    print(format_args!("published {location}{}", if is_signed { " with its signature" } else { "" }))?;
    print(format_args!("sha256    {}", info.digest))?;
    if let Some(digest) = &digest {
        print(format_args!("manifest  {digest}"))?;
    }
    let name = info.manifest.as_ref().map_or("NAME", |manifest| manifest.name.as_str());
    let pin = digest.map(|digest| format!("@{digest}")).unwrap_or_default();
    print(format_args!("gateway.yaml, below `filters`:"))?;
    print(format_args!("  {name}: {{ source: \"{location}{pin}\", sha256: {} }}", info.digest))
}

/// The text of FILE.minisig, if it exists.
fn signature_beside(file: &Path) -> Result<Option<String>, String> {
    let mut path = file.to_owned().into_os_string();
    path.push(".minisig");
    let path = PathBuf::from(path);
    if !path.exists() {
        return Ok(None);
    }
    let bytes = read_regular(&path, MINISIGN_BYTES_MAX).map_err(|error| format!("{}: {error}", path.display()))?;
    String::from_utf8(bytes).map(Some).map_err(|_| format!("{}: is not text", path.display()))
}
