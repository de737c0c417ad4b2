//! `filters.NAME.source`: a file, or an object on a server.
//!
//! This module does not know: how a location is reached, which settings belong to it.

use std::fmt;
use std::path::{Component, Path, PathBuf};

use http::Uri;

const LOCATION_CHARS_MAX: usize = 1024;

/// Where the component of a filter is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FilterSource {
    /// A .wasm file. Relative to the folder of gateway.yaml.
    File(PathBuf),
    /// An object that is fetched.
    Remote(RemoteLocation),
}

/// Where an object is on a server. Its `Display` leaves out the query of a URL, which can be a
/// secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteLocation {
    /// The location as it stands in the file, with the host in lower case.
    pub text: String,
    /// The same, by kind.
    pub kind: RemoteKind,
}

/// A kind of server, and what names the object there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RemoteKind {
    /// `https://…`, or `http://…` if `plain_http` allows it.
    Http,
    /// `s3://`, `gs://` or `az://`.
    Bucket(BucketObject),
    /// `oci://`.
    Oci(OciReference),
}

/// An object in a bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BucketObject {
    /// Who stores it.
    pub service: BucketService,
    /// The bucket; the container of Azure.
    pub bucket: String,
    /// The name of the object, without a slash at its beginning.
    pub key: String,
}

/// A protocol of object stores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BucketService {
    /// `s3://`: Amazon S3 and servers with its protocol.
    S3,
    /// `gs://`: Google Cloud Storage.
    Gcs,
    /// `az://`: Azure Blob Storage.
    Azure,
}

/// An artifact in a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OciReference {
    /// Host and port, in lower case.
    pub registry: String,
    /// Such as `team/api-key`.
    pub repository: String,
    /// `latest` if the file names neither a tag nor a digest.
    pub tag: Option<String>,
    /// The digest of the manifest, such as `sha256:…`.
    pub digest: Option<String>,
}

impl FilterSource {
    /// The path of a file.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::File(path) => Some(path),
            Self::Remote(_) => None,
        }
    }

    /// The location of an object on a server.
    pub fn remote(&self) -> Option<&RemoteLocation> {
        match self {
            Self::File(_) => None,
            Self::Remote(location) => Some(location),
        }
    }

    /// A text without a scheme is a path, relative to `base`.
    pub(crate) fn parse(text: &str, base: &Path) -> Result<Self, String> {
        if text.contains("://") {
            check_segments(text)?;
            RemoteLocation::parse(text).map(Self::Remote)
        } else {
            Ok(Self::File(plain_path(&base.join(text))))
        }
    }

    /// What the prefixes of `sources` are compared with.
    pub(crate) fn text(&self) -> String {
        match self {
            Self::File(path) => path.display().to_string(),
            Self::Remote(location) => location.text.clone(),
        }
    }
}

/// Refuses segments by which a location would leave the prefix of `sources` that it begins with.
pub(crate) fn check_segments(location: &str) -> Result<(), String> {
    let path = location.split(['?', '#']).next().unwrap_or_default().to_ascii_lowercase().replace("%2e", ".");
    if path.contains('\\') || path.split('/').any(|segment| segment == "." || segment == "..") {
        return Err("a location has no segments . and .. and no backslash: write the path that they lead to".into());
    }
    Ok(())
}

/// A path without `.`, `..` and doubled slashes, so that two spellings of it are one.
pub(crate) fn plain_path(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => drop(plain.pop()),
            part => plain.push(part),
        }
    }
    plain
}

impl Default for FilterSource {
    fn default() -> Self {
        Self::File(PathBuf::new())
    }
}

impl fmt::Display for FilterSource {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(formatter),
            Self::Remote(location) => location.fmt(formatter),
        }
    }
}

impl fmt::Display for RemoteLocation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.text.split_once('?') {
            Some((shown, _)) => write!(formatter, "{shown}?…"),
            None => formatter.write_str(&self.text),
        }
    }
}

impl RemoteLocation {
    /// Parses a location such as `oci://registry.example.com/team/api-key:1.4.0`.
    ///
    /// # Errors
    /// The end of a message for the operator.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.len() > LOCATION_CHARS_MAX || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(format!("a location has at most {LOCATION_CHARS_MAX} visible ASCII characters"));
        }
        let (scheme, rest) = text.split_once("://").unwrap_or(("", text));
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        if host.contains('@') {
            return Err("a password in a URL is easily shown: write username and password in `sources`".into());
        }
        let kind = match scheme {
            "https" | "http" => {
                let uri: Uri =
                    text.parse().map_err(|_| "is not a URL: write https://host/path/name.wasm".to_owned())?;
                if uri.host().is_none_or(str::is_empty) || path.is_empty() {
                    return Err("write https://host/path/name.wasm".into());
                }
                RemoteKind::Http
            }
            "s3" => bucket(BucketService::S3, host, path)?,
            "gs" => bucket(BucketService::Gcs, host, path)?,
            "az" => bucket(BucketService::Azure, host, path)?,
            "oci" => RemoteKind::Oci(OciReference::parse(host, path)?),
            _ => return Err("write a path, or a URL with https, s3, gs, az or oci".into()),
        };
        Ok(Self { text: format!("{scheme}://{}/{path}", host.to_ascii_lowercase()), kind })
    }

    /// Whether the location always has the same bytes.
    pub fn is_immutable(&self) -> bool {
        matches!(&self.kind, RemoteKind::Oci(reference) if reference.digest.is_some())
    }
}

fn bucket(service: BucketService, bucket: &str, key: &str) -> Result<RemoteKind, String> {
    if bucket.is_empty() || key.is_empty() || key.ends_with('/') || key.contains(['?', '#']) {
        return Err("write the bucket and the name of the object, such as s3://filters/api-key/1.4.0.wasm".into());
    }
    Ok(RemoteKind::Bucket(BucketObject { service, bucket: bucket.to_owned(), key: key.to_owned() }))
}

impl OciReference {
    fn parse(registry: &str, rest: &str) -> Result<Self, String> {
        let (rest, digest) = match rest.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest)),
            None => (rest, None),
        };
        let (repository, tag) = match rest.rsplit_once(':') {
            Some((repository, tag)) => (repository, Some(tag)),
            None => (rest, None),
        };
        let is_part = |text: &str| {
            !text.is_empty()
                && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b))
        };
        let is_tag = |text: &str| {
            (1..=128).contains(&text.len())
                && !text.starts_with(['.', '-'])
                && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
        };
        let is_digest = |text: &str| {
            let hex = text.strip_prefix("sha256:").unwrap_or_default();
            hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        };
        if registry.is_empty() || !repository.split('/').all(is_part) {
            return Err(
                "write the registry and the repository, such as oci://registry.example.com/team/api-key:1.4.0".into()
            );
        }
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err("a tag has 1 to 128 letters, digits, '.', '_' and '-'".into());
        }
        if digest.is_some_and(|digest| !is_digest(digest)) {
            return Err("write the digest as sha256: and 64 hexadecimal digits in lower case".into());
        }
        let tag = tag.or(if digest.is_none() { Some("latest") } else { None });
        Ok(Self {
            registry: registry.to_ascii_lowercase(),
            repository: repository.to_owned(),
            tag: tag.map(str::to_owned),
            digest: digest.map(str::to_owned),
        })
    }

    /// Registry and repository, as signatures name them.
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_are_parsed_or_refused_with_advice() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let oci = |text: &str| match RemoteLocation::parse(text).map(|location| location.kind) {
            Ok(RemoteKind::Oci(reference)) => Some((reference.name(), reference.tag, reference.digest)),
            _ => None,
        };
        let name = || "reg:5000/a/b".to_owned();
        assert_eq!(oci("oci://REG:5000/a/b"), Some((name(), Some("latest".into()), None)));
        assert_eq!(oci("oci://reg:5000/a/b:1.0"), Some((name(), Some("1.0".into()), None)));
        assert_eq!(oci(&format!("oci://reg:5000/a/b@{digest}")), Some((name(), None, Some(digest.clone()))));
        assert_eq!(oci(&format!("oci://reg:5000/a/b:1.0@{digest}")), Some((name(), Some("1.0".into()), Some(digest))));
        for (text, advice) in [
            ("ftp://a/b", "https, s3, gs, az or oci"),
            ("https://u:p@a/b", "username and password"),
            ("https://a", "write https://host/path"),
            ("s3://b", "name of the object"),
            ("s3://b/folder/", "name of the object"),
            ("oci://reg", "the repository"),
            ("oci://reg/A", "the repository"),
            ("oci://reg/a:b c", "visible ASCII"),
            ("oci://reg/a@sha256:1", "64 hexadecimal digits"),
        ] {
            let why = RemoteLocation::parse(text).err().unwrap_or_default();
            assert!(why.contains(advice), "{text}: {why}");
        }
        let shown = RemoteLocation::parse("https://a/b.wasm?X-Amz-Signature=1").map(|location| location.to_string());
        assert_eq!(shown, Ok("https://a/b.wasm?…".to_owned()));
    }
}
