//! The token that lets its holder see what the steps of an exchange decided.
//!
//! This module does not know: what the steps decide.

use http::{HeaderMap, HeaderName};

use witgate_config::Secret;

/// The field of a request that carries the token.
const X_WITGATE_DEBUG: HeaderName = HeaderName::from_static("x-witgate-debug");
/// The field of the response to a holder of the token.
pub(super) const X_WITGATE_TRACE: HeaderName = HeaderName::from_static("x-witgate-trace");

/// Removes the token from a request, so that no filter and no upstream sees it. Returns whether it
/// is the right one. Without a token in the configuration the field has no meaning and stays.
pub(super) fn take_token(headers: &mut HeaderMap, token: Option<&Secret>) -> bool {
    let Some(token) = token else { return false };
    let Some(sent) = headers.remove(X_WITGATE_DEBUG) else { return false };
    // The time of the comparison must not tell how many characters are right.
    aws_lc_rs::constant_time::verify_slices_are_equal(sent.as_bytes(), token.expose().as_bytes()).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use std::path::Path;
    use witgate_config::Config;

    #[test]
    fn only_the_whole_token_counts_and_it_goes_no_further() -> Result<(), String> {
        let text =
            "telemetry: {debug_token: 0123456789abcdef}\nupstreams: {u: {builtin: echo}}\nroutes: [{upstream: u}]";
        let config = Config::parse(text, "f", Path::new("/")).map_err(|errors| errors.to_string())?;
        for (sent, expected) in [("0123456789abcdef", true), ("0123456789abcde", false), ("", false)] {
            let mut headers = HeaderMap::new();
            headers.insert(X_WITGATE_DEBUG, HeaderValue::from_static(sent));
            assert_eq!(take_token(&mut headers, config.telemetry.debug_token.as_ref()), expected, "{sent}");
            assert!(headers.is_empty());
            headers.insert(X_WITGATE_DEBUG, HeaderValue::from_static(sent));
            assert!(!take_token(&mut headers, None), "no token is configured");
        }
        Ok(())
    }
}
