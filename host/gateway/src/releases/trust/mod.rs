//! Whether a component is trusted: its signatures, and that it is not older than before.
//!
//! It is judged at every load, from the bytes that are loaded and with the keys of the
//! configuration. A signature counts only if it is for this filter: otherwise whoever controls a
//! bucket could put one signed filter in the place of another. This module does not know: where
//! components come from.

mod cosign;
mod identity;
mod keys;
mod log_entry;
mod minisign;
mod trusted_root;

use self::cosign::Signers;
use self::keys::Keys;
use self::trusted_root::TrustedRoot;
use super::evidence::Evidence;
use witgate_config::{Filter, Signatures, SourceSettings};
use witgate_runtime::component::describe;
use witgate_runtime::load_error::{LoadError, LoadErrorReason};

/// Checks the signatures of a component as its source's settings say. Returns who signed it.
///
/// # Errors
/// `Signature`: the settings require a valid signature, and there is none.
pub fn check_signatures(
    name: &str,
    filter: &Filter,
    evidence: &Evidence,
    bytes: &[u8],
) -> Result<Option<String>, LoadError> {
    let settings = &filter.source_settings;
    if settings.signatures == Signatures::Off {
        return Ok(None);
    }
    let name = filter.signed_name.as_deref().unwrap_or(name);
    match verify(name, settings, evidence, bytes) {
        Ok(signer) => Ok(Some(signer)),
        Err(why) if settings.signatures == Signatures::Require => {
            Err(LoadError::new(LoadErrorReason::Signature, format_args!("no valid signature: {why}")))
        }
        Err(why) => {
            tracing::warn!(filter = name, why, "the filter has no valid signature and is used (`signatures: warn`)");
            Ok(None)
        }
    }
}

/// Refuses a version below the one that its location had before.
///
/// # Errors
/// `Downgrade`.
pub fn check_downgrade(filter: &Filter, before: Option<&str>, now: Option<&str>) -> Result<(), LoadError> {
    let is_pinned = filter.version.is_some() || filter.sha256.is_some();
    let parse = |text: Option<&str>| semver::Version::parse(text?).ok();
    let (Some(old), false, false) = (parse(before), is_pinned, filter.allow_downgrade) else { return Ok(()) };
    let message = match parse(now) {
        Some(new) if new >= old => return Ok(()),
        Some(new) => format!("the location has version {new}, but {old} was loaded from it before"),
        None => format!("the location has a component without a version, but {old} was loaded from it before"),
    };
    let advice = "pin `version` or `sha256`, or set `allow_downgrade: true`, if this is intended";
    Err(LoadError::new(LoadErrorReason::Downgrade, format!("{message}: {advice}")))
}

fn verify(name: &str, settings: &SourceSettings, evidence: &Evidence, bytes: &[u8]) -> Result<String, String> {
    let keys = Keys::parse(&settings.keys)?;
    let root = settings.trusted_root.as_deref().map(TrustedRoot::parse).transpose()?;
    let mut reasons = vec![];
    if let Some(signature) = &evidence.minisign {
        // The component is described only if the signature is valid, because only then its
        // manifest says the truth.
        let named = || describe(bytes).ok()?.manifest.map(|manifest| manifest.name);
        match minisign::verify(&keys.minisign, signature, bytes, name, named) {
            Ok(signer) => return Ok(signer),
            Err(why) => reasons.push(format!("minisign: {why}")),
        }
    }
    if let Some(image) = &evidence.image {
        let signers = Signers { keys: &keys.ecdsa, identities: &settings.identities, root: root.as_ref() };
        for signature in &evidence.cosign {
            match cosign::verify(&signers, signature, image) {
                Ok(signer) => return Ok(signer),
                Err(why) => reasons.push(format!("cosign: {why}")),
            }
        }
    }
    if reasons.is_empty() {
        reasons.push("the filter is not signed".into());
    }
    reasons.dedup();
    Err(reasons.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn filter(keys: &str) -> Result<Filter, String> {
        let text = format!(
            "filters: {{f: {{source: f.wasm{keys}}}}}\nupstreams: {{a: {{builtin: echo}}}}\nroutes: [{{upstream: a}}]\n"
        );
        let config = witgate_config::Config::parse(&text, "f", Path::new("/"));
        let mut config = config.map_err(|errors| errors.to_string())?;
        config.filters.remove("f").ok_or_else(|| "no filter".into())
    }

    #[test]
    fn an_older_version_needs_the_operator() -> Result<(), String> {
        let free = filter("")?;
        let refuses = |filter: &Filter, before, now| check_downgrade(filter, before, now).is_err();
        assert!(!refuses(&free, None, Some("1.0.0")) && !refuses(&free, Some("1.2.0"), Some("1.2.0")));
        assert!(!refuses(&free, Some("1.9.0"), Some("1.10.0")));
        assert!(refuses(&free, Some("1.10.0"), Some("1.9.0")) && refuses(&free, Some("1.0.0"), None));
        assert!(refuses(&free, Some("1.0.0"), Some("1.0.0-rc.1")));
        for allowed in [", allow_downgrade: true", ", version: 1.9.0"] {
            assert!(!refuses(&filter(allowed)?, Some("1.10.0"), Some("1.9.0")), "{allowed}");
        }
        Ok(())
    }
}
