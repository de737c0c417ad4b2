//! `sources:`: how filters are fetched and whether they are trusted, by the beginning of their
//! location. `deny` and `deny_packages`: what no filter may be or contain.
//!
//! This module does not know: how a location is reached, how a signature is checked.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::locations::{FilterSource, check_segments, plain_path};
use crate::telemetry::Secret;
use crate::values::{HOUR, sha256};
use crate::yaml::Section;

const SOURCES_MAX: usize = 100;
const KEYS_MAX: usize = 16;
const IDENTITIES_MAX: usize = 16;
const DENIED_MAX: usize = 10_000;

/// How the filters of some locations are fetched and checked.
#[derive(Debug, Clone, PartialEq)]
pub struct SourceSettings {
    /// How often a location is checked for a new version. Default 60 s; 1 s to 24 h; `None`
    /// (`poll: off`) checks at the start and after SIGHUP.
    pub poll: Option<Duration>,
    /// For one check with its download. Default 60 s; 100 ms to 1 h.
    pub timeout: Duration,
    /// The URL of the object store. Default: that of the cloud, or of the environment.
    pub endpoint: Option<String>,
    /// The region of the bucket. Default: that of the environment.
    pub region: Option<String>,
    /// For HTTP and registries.
    pub login: Option<(String, Secret)>,
    /// For S3. Default: the environment, or the role of the machine.
    pub access_key: Option<(Secret, Secret)>,
    /// Read buckets without credentials.
    pub anonymous: bool,
    /// More authorities for the certificates of servers, as PEM.
    pub ca: Option<PathBuf>,
    /// Whether `http://` and registries without TLS are allowed.
    pub plain_http: bool,
    /// Whether a server may redirect to a private address.
    pub private_addresses: bool,
    /// What happens to a filter without a valid signature.
    pub signatures: Signatures,
    /// Public keys: minisign keys and ECDSA keys in PEM.
    pub keys: Vec<String>,
    /// Who may sign images with a certificate of Sigstore.
    pub identities: Vec<SignerIdentity>,
    /// The text of a trusted_root.json: the authorities and logs of Sigstore.
    pub trusted_root: Option<String>,
}

/// Who signed, as a certificate of Sigstore says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignerIdentity {
    /// The URI or e-mail address of the certificate. A `*` at the end stands for any end.
    pub identity: String,
    /// The URL of the service at which the signer logged in.
    pub issuer: String,
}

/// What happens to a filter without a valid signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signatures {
    /// Nothing is checked.
    Off,
    /// A line in the log.
    Warn,
    /// It is refused.
    Require,
}

/// What no filter may be or contain.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Denied {
    /// SHA-256 digests of components.
    pub digests: Vec<[u8; 32]>,
    /// Packages in the SBOM of a component.
    pub packages: Vec<DeniedPackage>,
}

/// A package, in all versions or in one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeniedPackage {
    /// Its name.
    pub name: String,
    /// `None`: every version.
    pub version: Option<String>,
}

impl Default for SourceSettings {
    fn default() -> Self {
        Self {
            poll: Some(Duration::from_secs(60)),
            timeout: Duration::from_secs(60),
            endpoint: None,
            region: None,
            login: None,
            access_key: None,
            anonymous: false,
            ca: None,
            plain_http: false,
            private_addresses: false,
            signatures: Signatures::Off,
            keys: vec![],
            identities: vec![],
            trusted_root: None,
        }
    }
}

/// The settings of each location: of all prefixes that it begins with, the longest.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Sources(Vec<(String, SourceSettings)>);

impl Sources {
    pub(crate) fn read(top: &Section, base: &Path) -> Self {
        let sources = top.each("sources", |index, section| {
            section.require("prefix", "write the beginning of the locations, such as oci://registry.example.com/");
            let prefix = section.scalar("prefix", |text| prefix(text, base)).unwrap_or_default();
            (index, section.line(), prefix, SourceSettings::read(section, base))
        });
        if sources.len() > SOURCES_MAX {
            top.error_at(&["sources"], format!("has more than {SOURCES_MAX} entries"));
        }
        for (position, (index, line, prefix, _)) in sources.iter().enumerate() {
            if sources[..position].iter().any(|(_, _, other, _)| other == prefix && !prefix.is_empty()) {
                top.error(
                    *line,
                    &format!("sources[{index}].prefix"),
                    format!("{prefix}: another entry has this prefix"),
                );
            }
        }
        Self(sources.into_iter().map(|(_, _, prefix, settings)| (prefix, settings)).collect())
    }

    /// Whether an entry is for this location.
    pub(crate) fn contains(&self, source: &FilterSource) -> bool {
        let text = source.text();
        self.0.iter().any(|(prefix, _)| text.starts_with(prefix.as_str()))
    }

    /// The settings of a location.
    pub fn of(&self, source: &FilterSource) -> SourceSettings {
        let text = source.text();
        let matching = self.0.iter().filter(|(prefix, _)| text.starts_with(prefix.as_str()));
        let longest = matching.max_by_key(|(prefix, _)| prefix.len());
        longest.map(|(_, settings)| settings.clone()).unwrap_or_default()
    }
}

impl SourceSettings {
    fn read(section: &Section, base: &Path) -> Self {
        let default = Self::default();
        let modes = [("off", Signatures::Off), ("warn", Signatures::Warn), ("require", Signatures::Require)];
        let signatures = section.choice("signatures", &modes, "write off, warn or require").unwrap_or(Signatures::Off);
        let keys = section.list("keys", key);
        if keys.len() > KEYS_MAX {
            section.error_at(&["keys"], format!("has more than {KEYS_MAX} keys"));
        }
        let identities = read_identities(section);
        let trusted_root = section.document("trusted_root", trusted_root);
        if signatures != Signatures::Off && !section.has("keys") && !section.has("identities") {
            section.error_at(
                &["signatures"],
                "no signature can be valid without keys: add `keys: [{file: PATH}]`, or `identities`",
            );
        }
        for key in ["keys", "identities"] {
            if signatures == Signatures::Off && section.has(key) {
                section.error_at(&[key], "have no effect: add `signatures: require` or `signatures: warn`");
            }
        }
        Self {
            poll: section.duration_or_off("poll", Duration::from_secs(1), 24 * HOUR).unwrap_or(default.poll),
            timeout: section.duration("timeout", Duration::from_millis(100), HOUR).unwrap_or(default.timeout),
            endpoint: section.scalar("endpoint", endpoint),
            region: section.string("region"),
            login: pair(section, "username", "password").map(|(name, password)| (name.0, password)),
            access_key: pair(section, "access_key", "secret_key"),
            anonymous: section.bool("anonymous").unwrap_or(false),
            ca: section.file("ca", base),
            plain_http: section.bool("plain_http").unwrap_or(false),
            private_addresses: section.bool("private_addresses").unwrap_or(false),
            signatures,
            keys,
            identities,
            trusted_root,
        }
    }
}

fn read_identities(section: &Section) -> Vec<SignerIdentity> {
    let identities = section.each("identities", |_, section| {
        section.require("identity", "write the URI or e-mail address of the signer's certificate");
        section.require("issuer", "write the URL of the service at which the signer logs in");
        let identity = section.scalar("identity", identity).unwrap_or_default();
        SignerIdentity { identity, issuer: section.string("issuer").unwrap_or_default() }
    });
    if identities.len() > IDENTITIES_MAX {
        section.error_at(&["identities"], format!("has more than {IDENTITIES_MAX} entries"));
    }
    if section.has("identities") && section.string("prefix").is_some_and(|prefix| !prefix.starts_with("oci://")) {
        section.error_at(&["identities"], "have no effect: only images of registries (oci://) have such signatures");
    }
    match (section.has("identities"), section.has("trusted_root")) {
        (true, false) => section.error_at(
            &["identities"],
            "the authorities that certify identities are missing: add `trusted_root: {file: trusted_root.json}`",
        ),
        (false, true) => section.error_at(&["trusted_root"], "has no effect without `identities`"),
        _ => {}
    }
    identities
}

/// An identity without `*`, or with one at its end.
fn identity(text: &str) -> Result<String, String> {
    match text.strip_suffix('*').unwrap_or(text) {
        "" => Err("this allows every signer: write at least the beginning of an identity".into()),
        start if start.contains('*') => Err("`*` can stand at the end only".into()),
        _ => Ok(text.to_owned()),
    }
}

/// A trusted_root.json by its shape. Whoever verifies signatures parses it.
fn trusted_root(text: &str) -> Result<String, String> {
    let root: serde_json::Value =
        serde_json::from_str(text).map_err(|error| format!("not a trusted_root.json of Sigstore: {error}"))?;
    let has = |key: &str| root[key].as_array().is_some_and(|entries| !entries.is_empty());
    if has("certificateAuthorities") && has("tlogs") {
        Ok(text.to_owned())
    } else {
        Err("not a trusted_root.json of Sigstore: it has no `certificateAuthorities` or no `tlogs`".into())
    }
}

/// Reads `deny` and `deny_packages`.
pub(crate) fn read_denied(top: &Section) -> Denied {
    let denied = Denied { digests: top.list("deny", denied_digest), packages: top.list("deny_packages", package) };
    for (key, length) in [("deny", denied.digests.len()), ("deny_packages", denied.packages.len())] {
        if length > DENIED_MAX {
            top.error_at(&[key], format!("has more than {DENIED_MAX} entries"));
        }
    }
    denied
}

fn denied_digest(text: &str) -> Result<[u8; 32], String> {
    sha256(text.strip_prefix("sha256:").unwrap_or(text))
}

fn package(text: &str) -> Result<DeniedPackage, String> {
    let (name, version) = match text.split_once('@') {
        Some((name, version)) => (name, Some(version)),
        None => (text, None),
    };
    if name.is_empty() || version.is_some_and(str::is_empty) {
        return Err("write the name of a package, or name@version".into());
    }
    Ok(DeniedPackage { name: name.to_owned(), version: version.map(str::to_owned) })
}

/// Both values of two keys that belong together.
fn pair(section: &Section, first: &'static str, second: &'static str) -> Option<(Secret, Secret)> {
    let values = (section.string(first).map(Secret), section.string(second).map(Secret));
    match values {
        (Some(first), Some(second)) => Some((first, second)),
        (None, None) => None,
        _ => {
            let missing = if section.has(first) { second } else { first };
            section.error(section.line(), missing, "is missing: both are needed");
            None
        }
    }
}

/// A path prefix is relative to the folder of gateway.yaml, like the paths of filters.
fn prefix(text: &str, base: &Path) -> Result<String, String> {
    match text.split_once("://") {
        Some((scheme, rest)) if ["http", "https", "s3", "gs", "az", "oci"].contains(&scheme) => {
            let (host, path) = rest.split_once('/').ok_or_else(|| {
                format!("end the name with a slash, so that it is not the beginning of another name: {text}/")
            })?;
            check_segments(text)?;
            Ok(format!("{scheme}://{}/{path}", host.to_ascii_lowercase()))
        }
        Some(_) => Err("write a path, or a URL with https, s3, gs, az or oci".into()),
        None => {
            // A folder keeps its slash, so that it is not the beginning of another name.
            let slash = if text.ends_with('/') { "/" } else { "" };
            Ok(format!("{}{slash}", plain_path(&base.join(text)).display()))
        }
    }
}

fn endpoint(text: &str) -> Result<String, String> {
    let uri: Option<http::Uri> = text.parse().ok();
    let is_valid = uri.is_some_and(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https"))
            && uri.authority().is_some_and(|authority| !authority.as_str().contains('@'))
            && uri.query().is_none()
    });
    if is_valid {
        Ok(text.trim_end_matches('/').to_owned())
    } else {
        Err("write the URL of the object store, such as https://s3.example.com".into())
    }
}

/// A key by its shape. Whoever verifies signatures parses it.
fn key(text: &str) -> Result<String, String> {
    let is_pem = text.trim_start().starts_with("-----BEGIN PUBLIC KEY-----");
    let line = text.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default().trim();
    let is_minisign = line.len() == 56 && line.starts_with("RW");
    if is_pem || is_minisign {
        Ok(text.to_owned())
    } else {
        Err("write {file: PATH} with a minisign public key (minisign.pub) or a PEM public key (cosign.pub)".into())
    }
}
