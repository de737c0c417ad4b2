//! Users with passwords (RFC 7617): who may use a route.
//!
//! A check takes as long for an unknown user as for a known one, so that its time tells nobody
//! which users there are. This module does not know: how a password is checked.

pub mod passwords;

use std::net::IpAddr;

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use http::HeaderMap;
use http::header::{self, HeaderValue};

use witgate_config::BasicAuth;
use witgate_http::error::{Error, Kind};
use witgate_http::semantics::fields::remove_with_lookalikes;
use witgate_http::text::quoted;

use passwords::{Busy, PasswordChecks};

/// Bytes of the field `authorization`: a name of 256 bytes and a long password fit.
const FIELD_BYTES_MAX: usize = 1024;

const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Checks the credentials of a request, and gives the upstream the user's name.
pub async fn check(
    auth: &BasicAuth,
    passwords: &PasswordChecks,
    client: IpAddr,
    headers: &mut HeaderMap,
) -> Result<(), Error> {
    let refuse = |why: String| Error::new(Kind::Unauthorized, format!("basic_auth: {why}"));
    let (user, password) = credentials(headers).map_err(|why| refuse(why.into()))?;
    let known = auth.users.get(&user);
    let hash = known.or_else(|| auth.users.any()).unwrap_or_default();
    let is_right = passwords.check(client, (&user, hash), &password).await.map_err(|Busy| {
        Error::new(
            Kind::Saturated,
            "basic_auth: the queue of password checks is full: look for clients that send wrong passwords",
        )
    })?;
    if known.is_none() || !is_right {
        let what = if known.is_none() { "there is no user" } else { "the password is wrong for user" };
        return Err(refuse(format!("{what} {}", quoted(&user))));
    }
    if !auth.forward_credentials {
        headers.remove(header::AUTHORIZATION);
    }
    if let Some(name) = &auth.user_header {
        remove_with_lookalikes(headers, name);
        let value =
            HeaderValue::try_from(user).map_err(|_| refuse("the user's name is not a valid field value".into()))?;
        headers.insert(name, value);
    }
    Ok(())
}

/// The value of `www-authenticate` of a refusal.
pub fn challenge(auth: &BasicAuth) -> Option<HeaderValue> {
    HeaderValue::try_from(format!("Basic realm=\"{}\", charset=\"UTF-8\"", auth.realm)).ok()
}

/// The name and the password of a request, or what is wrong with it.
fn credentials(headers: &HeaderMap) -> Result<(String, Vec<u8>), &'static str> {
    let mut fields = headers.get_all(header::AUTHORIZATION).iter();
    let Some(field) = fields.next() else { return Err("the request has no credentials") };
    if fields.next().is_some() {
        return Err("the request has several fields authorization");
    }
    let field = field.as_bytes();
    if field.len() > FIELD_BYTES_MAX {
        return Err("the field authorization is too long");
    }
    let Some((scheme, encoded)) = field.split_at_checked(6) else { return Err("the scheme is not Basic") };
    if !scheme.eq_ignore_ascii_case(b"basic ") {
        return Err("the scheme is not Basic");
    }
    let mut decoded = BASE64.decode(encoded.trim_ascii()).map_err(|_| "the credentials are not base64")?;
    let colon = decoded.iter().position(|byte| *byte == b':').ok_or("the credentials have no colon")?;
    let password = decoded.split_off(colon + 1);
    decoded.truncate(colon);
    if password.contains(&0) {
        return Err("the password contains a NUL");
    }
    String::from_utf8(decoded).map(|user| (user, password)).map_err(|_| "the user's name is not UTF-8")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: &[&'static str]) -> Result<(String, Vec<u8>), &'static str> {
        credentials(&values.iter().map(|value| (header::AUTHORIZATION, HeaderValue::from_static(value))).collect())
    }

    #[test]
    fn credentials_are_read_as_the_rfc_says() {
        let ada = Ok(("ada".to_owned(), b"se:cret".to_vec()));
        assert_eq!(of(&["Basic YWRhOnNlOmNyZXQ="]), ada);
        assert_eq!(of(&["bAsIc  YWRhOnNlOmNyZXQ"]), ada);
        assert_eq!(of(&["Basic Og=="]), Ok((String::new(), vec![])));
        for (values, why) in [
            (&[][..], "no credentials"),
            (&["Basic YTpi", "Basic YTpi"], "several"),
            (&["Bearer x"], "not Basic"),
            (&["Basi"], "not Basic"),
            (&["Basic !!!"], "not base64"),
            (&["Basic YWRh"], "no colon"),
            (&["Basic /zpi"], "not UTF-8"),
            (&["Basic YTpiAA=="], "NUL"),
        ] {
            assert!(of(values).err().is_some_and(|found| found.contains(why)), "{values:?}");
        }
        let long = HeaderValue::try_from(format!("Basic {}", "YQ".repeat(FIELD_BYTES_MAX)));
        let headers = long.into_iter().map(|value| (header::AUTHORIZATION, value)).collect();
        assert_eq!(credentials(&headers).err(), Some("the field authorization is too long"));
    }
}
