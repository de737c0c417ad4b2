//! Signatures of minisign: over the bytes of a component, with a trusted comment.
//!
//! This module does not know: where a signature comes from.

use minisign_verify::{PublicKey, Signature};
use witgate_http::text::quoted;

/// The prefix of the word in a trusted comment that names the filter.
const FILTER: &str = "filter:";

/// Verifies a signature of a component. `named` is the name in the component's manifest, which
/// counts if the trusted comment names no filter. Returns who signed it.
///
/// # Errors
/// Why the signature is not valid for the filter `name`.
pub(super) fn verify(
    keys: &[PublicKey],
    signature: &str,
    bytes: &[u8],
    name: &str,
    named: impl FnOnce() -> Option<String>,
) -> Result<String, String> {
    let signature = Signature::decode(signature)
        .map_err(|_| "the signature is not in the format of minisign: sign the file again".to_owned())?;
    if keys.is_empty() {
        return Err("no minisign key is configured".into());
    }
    let results = keys.iter().map(|key| key.verify(bytes, &signature, true));
    let mut last = "no key in `keys` made the signature".to_owned();
    let mut is_valid = false;
    for result in results {
        match result {
            Ok(()) => is_valid = true,
            Err(minisign_verify::Error::InvalidSignature) => {
                "the signature does not match the file: sign it again".clone_into(&mut last)
            }
            Err(_) => {}
        }
    }
    if !is_valid {
        return Err(last);
    }
    let comment = signature.trusted_comment();
    let signed = comment.split_whitespace().find_map(|word| word.strip_prefix(FILTER)).map(str::to_owned);
    match signed.or_else(named) {
        Some(signed) if signed == name => Ok(format!("minisign: {}", quoted(comment))),
        Some(signed) => Err(format!(
            "it is for the filter {}, not for {name} (`signed_name` in gateway.yaml names another)",
            quoted(&signed)
        )),
        None => Err(format!(
            "neither its trusted comment ({FILTER}NAME) nor the component's manifest says which filter it is for"
        )),
    }
}
