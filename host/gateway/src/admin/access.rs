//! Who may read from the admin listener and who may give commands: the holder of a token, or this
//! host.
//!
//! There are two roles. `admin.token` may do everything, `admin.read_token` may read. Without a
//! token, a loopback address serves everybody on this host. A web page in a browser on this host
//! could reach that address too, so two fields must show that none did. `host` must name this host:
//! a page whose own name was made to resolve to 127.0.0.1 (DNS rebinding) sends that name. And
//! `origin`, which browsers send with every POST, must be absent or this listener itself.
//! This module does not know: what a command does.

use std::net::SocketAddr;

use http::header::{self, HeaderMap, HeaderValue};
use http::uri::Authority;
use http::{Response, StatusCode};

use super::reply::{Reply, text};
use witgate_config::Secret;
use witgate_http::text::quoted;

/// The other side of an admin connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Caller {
    /// Its address.
    pub(super) peer: SocketAddr,
    /// Whether the listener has a loopback address.
    pub(super) is_loopback_listener: bool,
}

/// What a resource does, and so who may use it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// It shows nothing about the gateway but whether it runs.
    Public,
    /// It changes nothing.
    Read,
    /// It changes something.
    Command,
}

/// The tokens of the configuration.
#[derive(Clone, Copy, Default)]
pub(super) struct Tokens<'a> {
    /// May do everything.
    pub(super) all: Option<&'a Secret>,
    /// May read.
    pub(super) read: Option<&'a Secret>,
}

/// Who asks, for the audit log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Actor {
    /// The holder of `admin.token`.
    Token,
    /// The holder of `admin.read_token`.
    ReadToken,
    /// Somebody on this host.
    Loopback,
}

/// Why a command is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The token is missing or wrong.
    Token,
    /// The token may only read.
    ReadOnly,
    /// The listener is not on loopback, and there is no token for this.
    NoToken,
    /// `host` does not name this host.
    Host(String),
    /// The request comes from a web page.
    Origin(String),
}

impl Actor {
    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::Token => "admin.token",
            Self::ReadToken => "admin.read_token",
            Self::Loopback => "loopback",
        }
    }
}

impl Refusal {
    pub(super) fn why(&self) -> String {
        match self {
            Self::Token => "this needs `authorization: Bearer TOKEN` with the value of admin.token; admin.read_token is enough to read".into(),
            Self::ReadOnly => "admin.read_token may only read: this needs admin.token".into(),
            Self::NoToken => {
                "commands on an address that is not loopback need a token: set admin.token, or admin.address to 127.0.0.1:9901".into()
            }
            Self::Host(host) => format!("the field host is {host}: use the listener's address, 127.0.0.1 or localhost"),
            Self::Origin(origin) => format!("web pages of {origin} may not use this listener"),
        }
    }

    pub(super) fn reply(&self) -> Reply {
        let status = if *self == Self::Token { StatusCode::UNAUTHORIZED } else { StatusCode::FORBIDDEN };
        let mut reply: Response<_> = text(status, self.why() + "\n");
        if *self == Self::Token {
            reply.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        reply
    }
}

/// Decides whether a request may read or give a command.
///
/// # Errors
/// Why it may not.
pub(super) fn authorize(
    caller: &Caller,
    access: Access,
    tokens: Tokens<'_>,
    headers: &HeaderMap,
) -> Result<Actor, Refusal> {
    let host = single(headers, header::HOST);
    if access == Access::Public {
        return Ok(Actor::Loopback);
    }
    let has = |token: Option<&Secret>| token.is_some_and(|token| has_token(headers, token));
    let needs_token = match access {
        Access::Command => tokens.all.is_some() || tokens.read.is_some(),
        _ => tokens.read.is_some() || !caller.is_loopback_listener,
    };
    if needs_token || !caller.is_loopback_listener {
        check_origin(headers, host)?;
        return match access {
            _ if has(tokens.all) => Ok(Actor::Token),
            Access::Command if tokens.all.is_none() => Err(Refusal::NoToken),
            Access::Command if has(tokens.read) => Err(Refusal::ReadOnly),
            Access::Command => Err(Refusal::Token),
            _ if has(tokens.read) => Ok(Actor::ReadToken),
            _ => Err(Refusal::Token),
        };
    }
    if !host.is_some_and(names_this_host) {
        return Err(Refusal::Host(quoted(host.unwrap_or_default())));
    }
    check_origin(headers, host)?;
    Ok(Actor::Loopback)
}

fn has_token(headers: &HeaderMap, token: &Secret) -> bool {
    let sent = single(headers, header::AUTHORIZATION).and_then(|value| {
        let (scheme, sent) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| sent.trim())
    });
    // The time of the comparison must not tell how many characters are right.
    sent.is_some_and(|sent| {
        aws_lc_rs::constant_time::verify_slices_are_equal(sent.as_bytes(), token.expose().as_bytes()).is_ok()
    })
}

/// A port may differ: a forwarded port has another number, and an attacker cannot choose the host.
fn names_this_host(host: &str) -> bool {
    let Ok(authority) = host.parse::<Authority>() else { return false };
    let name = authority.host().trim_start_matches('[').trim_end_matches(']');
    let is_loopback = name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
    !host.contains('@') && (name.eq_ignore_ascii_case("localhost") || is_loopback)
}

fn check_origin(headers: &HeaderMap, host: Option<&str>) -> Result<(), Refusal> {
    let Some(origin) = headers.get(header::ORIGIN) else { return Ok(()) };
    let origin = origin.to_str().unwrap_or_default();
    match (origin.split_once("://"), host) {
        (Some(("http" | "https", own)), Some(host)) if own.eq_ignore_ascii_case(host) => Ok(()),
        _ => Err(Refusal::Origin(quoted(origin))),
    }
}

/// The value of a field that occurs once.
fn single(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    let mut values = headers.get_all(name).iter();
    values.next().filter(|_| values.next().is_none()).and_then(|value| value.to_str().ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;
    use witgate_config::Config;

    const LOCAL: Caller = Caller {
        peer: SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 1),
        is_loopback_listener: true,
    };
    const PUBLIC: Caller = Caller { is_loopback_listener: false, ..LOCAL };

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        fields
            .iter()
            .map(|(name, value)| (header::HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect()
    }

    #[test]
    fn without_a_token_only_this_host_may_command() {
        let of = |caller: &Caller, fields: &[(&'static str, &'static str)]| {
            authorize(caller, Access::Command, Tokens::default(), &headers(fields))
        };
        for host in ["127.0.0.1:9901", "localhost", "LOCALHOST:1", "[::1]:9901", "127.8.8.8"] {
            assert_eq!(of(&LOCAL, &[("host", host)]), Ok(Actor::Loopback), "{host}");
        }
        for host in
            ["evil.example", "localhost.evil.example:9901", "127.0.0.1.evil.example", "u@localhost", "", "10.0.0.1"]
        {
            assert!(matches!(of(&LOCAL, &[("host", host)]), Err(Refusal::Host(_))), "{host}");
        }
        assert!(matches!(of(&LOCAL, &[]), Err(Refusal::Host(_))));
        assert!(matches!(of(&LOCAL, &[("host", "localhost"), ("host", "localhost")]), Err(Refusal::Host(_))));
        assert_eq!(of(&LOCAL, &[("host", "localhost:1"), ("origin", "http://localhost:1")]), Ok(Actor::Loopback));
        for origin in ["http://localhost:3000", "https://evil.example", "null", "localhost:1"] {
            let refused = of(&LOCAL, &[("host", "localhost:1"), ("origin", origin)]);
            assert!(matches!(refused, Err(Refusal::Origin(_))), "{origin}");
        }
        assert_eq!(of(&PUBLIC, &[("host", "localhost")]), Err(Refusal::NoToken));
    }

    #[test]
    fn with_a_token_only_its_holder_may_command() -> Result<(), String> {
        let text = "admin: {address: \"0.0.0.0:1\", token: 0123456789abcdef}\nupstreams: {u: {builtin: echo}}\nroutes: [{upstream: u}]";
        let config = Config::parse(text, "f", Path::new("/")).map_err(|errors| errors.to_string())?;
        let tokens = Tokens { all: config.admin_token.as_ref(), read: None };
        let of =
            |fields: &[(&'static str, &'static str)]| authorize(&PUBLIC, Access::Command, tokens, &headers(fields));
        assert_eq!(of(&[("authorization", "Bearer 0123456789abcdef")]), Ok(Actor::Token));
        assert_eq!(of(&[("authorization", "bearer 0123456789abcdef")]), Ok(Actor::Token));
        for value in ["Bearer 0123456789abcde", "0123456789abcdef", "Basic 0123456789abcdef", "Bearer"] {
            assert_eq!(of(&[("authorization", value)]), Err(Refusal::Token), "{value}");
        }
        assert_eq!(of(&[("host", "localhost")]), Err(Refusal::Token));
        let foreign = of(&[("authorization", "Bearer 0123456789abcdef"), ("host", "a"), ("origin", "http://b")]);
        assert!(matches!(foreign, Err(Refusal::Origin(_))));
        Ok(())
    }

    #[test]
    fn the_role_of_a_token_decides_what_it_may_do() -> Result<(), String> {
        let text = "admin: {token: 0123456789abcdef, read_token: 0123456789abcdee}\nupstreams: {u: {builtin: echo}}\nroutes: [{upstream: u}]";
        let config = Config::parse(text, "f", Path::new("/")).map_err(|errors| errors.to_string())?;
        let both = Tokens { all: config.admin_token.as_ref(), read: config.admin_read_token.as_ref() };
        let (all, read) = (Tokens { read: None, ..both }, Tokens { all: None, ..both });
        let writer = headers(&[("host", "a"), ("authorization", "Bearer 0123456789abcdef")]);
        let reader = headers(&[("host", "a"), ("authorization", "Bearer 0123456789abcdee")]);
        let nobody = headers(&[("host", "localhost")]);
        for caller in [&LOCAL, &PUBLIC] {
            assert_eq!(authorize(caller, Access::Public, both, &headers(&[])), Ok(Actor::Loopback));
            assert_eq!(authorize(caller, Access::Read, both, &writer), Ok(Actor::Token));
            assert_eq!(authorize(caller, Access::Command, both, &writer), Ok(Actor::Token));
            assert_eq!(authorize(caller, Access::Read, both, &reader), Ok(Actor::ReadToken));
            assert_eq!(authorize(caller, Access::Command, both, &reader), Err(Refusal::ReadOnly));
            assert_eq!(authorize(caller, Access::Command, read, &reader), Err(Refusal::NoToken));
            for access in [Access::Read, Access::Command] {
                assert!(authorize(caller, access, both, &nobody).is_err());
            }
        }
        assert_eq!(authorize(&LOCAL, Access::Read, all, &nobody), Ok(Actor::Loopback));
        assert_eq!(authorize(&PUBLIC, Access::Read, all, &nobody), Err(Refusal::Token));
        assert_eq!(authorize(&PUBLIC, Access::Read, all, &writer), Ok(Actor::Token));
        Ok(())
    }
}
