//! Who may read from the admin listener and who may give commands: the holder of a token, or this
//! host.
//!
//! There are two roles: to read, and to change. `admin.token` and the certificates in
//! `admin.clients.change` have both, `admin.read_token` and those in `admin.clients.read` the
//! first. Whoever can open the UNIX socket has both, because its mode lets nobody else open it.
//! Without a token and without certificates, a loopback address serves everybody on this host. A
//! web page in a browser on this host could reach that address too, so two fields must show that
//! none did. `host` must name this host: a page whose own name was made to resolve to 127.0.0.1
//! (DNS rebinding) sends that name. And `origin`, which browsers send with every POST, must be
//! absent or this listener itself. This module does not know: what a command does.

use http::header::{self, HeaderMap, HeaderValue};
use http::uri::Authority;
use http::{Response, StatusCode};

use super::reply::{Reply, text};
use witgate_config::{Admin, AdminClients, Secret};
use witgate_http::text::{bounded, quoted};

/// The other side of an admin connection.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    /// Its address, its certificate or its user, for the audit log.
    pub(super) from: String,
    /// How it is connected.
    pub(super) via: Via,
    /// The names of its certificate: the alternative names and the subject.
    pub(super) certificate: Option<Vec<String>>,
}

/// How a caller is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Via {
    /// A loopback address.
    Loopback,
    /// Another address.
    Network,
    /// The UNIX socket.
    Socket,
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

/// Who asks, for the audit log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Actor {
    /// The holder of `admin.token`.
    Token,
    /// The holder of `admin.read_token`.
    ReadToken,
    /// The holder of a certificate that may do everything.
    Certificate,
    /// The holder of a certificate that may read.
    ReadCertificate,
    /// Somebody who can open the UNIX socket.
    Socket,
    /// Somebody on this host.
    Loopback,
}

/// Why a command is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The token is missing or wrong.
    Token,
    /// The token or the certificate may only read.
    ReadOnly,
    /// Nobody may give commands on this listener.
    NoToken,
    /// The certificate with these names has no role.
    Certificate(String),
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
            Self::Certificate => "admin.clients.change",
            Self::ReadCertificate => "admin.clients.read",
            Self::Socket => "admin.socket",
            Self::Loopback => "loopback",
        }
    }
}

impl Refusal {
    /// The kind of refusal.
    pub(super) const fn label(&self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::ReadOnly => "read-only",
            Self::NoToken => "no-token",
            Self::Certificate(_) => "certificate",
            Self::Host(_) => "host",
            Self::Origin(_) => "origin",
        }
    }

    pub(super) fn why(&self) -> String {
        match self {
            Self::Token => "this needs `authorization: Bearer TOKEN` with the value of admin.token; admin.read_token is enough to read".into(),
            Self::ReadOnly => {
                "this token or certificate may only read: use admin.token, or a certificate of admin.clients.change".into()
            }
            Self::Certificate(names) => format!(
                "the certificate ({names}) has no role: add one of its names to admin.clients.change or admin.clients.read"
            ),
            Self::NoToken => {
                "nobody may give commands here: set admin.token or admin.clients.change, or use admin.socket or a loopback address".into()
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
pub(super) fn authorize(caller: &Caller, access: Access, admin: &Admin, headers: &HeaderMap) -> Result<Actor, Refusal> {
    let host = single(headers, header::HOST);
    if access == Access::Public {
        return Ok(Actor::Loopback);
    }
    let is_command = access == Access::Command;
    let has_tokens = admin.read_token.is_some() || (is_command && admin.token.is_some());
    let needs_proof = caller.via == Via::Network || admin.asks_for_certificates() || has_tokens;
    if caller.via == Via::Socket || !needs_proof {
        if !host.is_some_and(names_this_host) {
            return Err(Refusal::Host(quoted(host.unwrap_or_default())));
        }
        check_origin(headers, host)?;
        return Ok(if caller.via == Via::Socket { Actor::Socket } else { Actor::Loopback });
    }
    check_origin(headers, host)?;
    let actor = prove(caller, admin, headers);
    let may_change = matches!(actor, Some(Actor::Token | Actor::Certificate));
    match actor {
        Some(actor) if may_change || !is_command => Ok(actor),
        _ if is_command && admin.token.is_none() && admin.clients.change.is_empty() => Err(Refusal::NoToken),
        Some(_) => Err(Refusal::ReadOnly),
        None => Err(match &caller.certificate {
            Some(names) if admin.token.is_none() && admin.read_token.is_none() => {
                Refusal::Certificate(bounded(names.join(", ")))
            }
            _ => Refusal::Token,
        }),
    }
}

/// Who the token and the certificate of a request belong to: of two, the one that may do more.
fn prove(caller: &Caller, admin: &Admin, headers: &HeaderMap) -> Option<Actor> {
    let has = |token: &Option<Secret>| token.as_ref().is_some_and(|token| has_token(headers, token));
    let is_in = |list: &[String]| caller.certificate.iter().flatten().any(|name| list.contains(name));
    let AdminClients { change, read } = &admin.clients;
    if has(&admin.token) {
        Some(Actor::Token)
    } else if is_in(change) {
        Some(Actor::Certificate)
    } else if has(&admin.read_token) {
        Some(Actor::ReadToken)
    } else if is_in(read) {
        Some(Actor::ReadCertificate)
    } else {
        None
    }
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

    fn caller(via: Via) -> Caller {
        Caller { from: String::new(), via, certificate: None }
    }

    fn admin(keys: &str) -> Result<Admin, String> {
        let text = format!("admin: {{{keys}}}\nupstreams: {{u: {{builtin: echo}}}}\nroutes: [{{upstream: u}}]");
        Config::parse(&text, "f", Path::new("/")).map(|config| config.admin).map_err(|errors| errors.to_string())
    }

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        fields
            .iter()
            .map(|(name, value)| (header::HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect()
    }

    #[test]
    fn without_a_token_only_this_host_may_command() {
        let local = caller(Via::Loopback);
        let of = |caller: &Caller, fields: &[(&'static str, &'static str)]| {
            authorize(caller, Access::Command, &Admin::default(), &headers(fields))
        };
        for host in ["127.0.0.1:9901", "localhost", "LOCALHOST:1", "[::1]:9901", "127.8.8.8"] {
            assert_eq!(of(&local, &[("host", host)]), Ok(Actor::Loopback), "{host}");
        }
        for host in
            ["evil.example", "localhost.evil.example:9901", "127.0.0.1.evil.example", "u@localhost", "", "10.0.0.1"]
        {
            assert!(matches!(of(&local, &[("host", host)]), Err(Refusal::Host(_))), "{host}");
        }
        assert!(matches!(of(&local, &[]), Err(Refusal::Host(_))));
        assert!(matches!(of(&local, &[("host", "localhost"), ("host", "localhost")]), Err(Refusal::Host(_))));
        assert_eq!(of(&local, &[("host", "localhost:1"), ("origin", "http://localhost:1")]), Ok(Actor::Loopback));
        for origin in ["http://localhost:3000", "https://evil.example", "null", "localhost:1"] {
            let refused = of(&local, &[("host", "localhost:1"), ("origin", origin)]);
            assert!(matches!(refused, Err(Refusal::Origin(_))), "{origin}");
        }
        assert_eq!(of(&caller(Via::Network), &[("host", "localhost")]), Err(Refusal::NoToken));
    }

    #[test]
    fn with_a_token_only_its_holder_may_command() -> Result<(), String> {
        let admin = admin("address: \"0.0.0.0:1\", token: 0123456789abcdef")?;
        let public = caller(Via::Network);
        let of =
            |fields: &[(&'static str, &'static str)]| authorize(&public, Access::Command, &admin, &headers(fields));
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
        let both = &admin("token: 0123456789abcdef, read_token: 0123456789abcdee")?;
        let (all, read) = (&Admin { read_token: None, ..both.clone() }, &Admin { token: None, ..both.clone() });
        let writer = headers(&[("host", "a"), ("authorization", "Bearer 0123456789abcdef")]);
        let reader = headers(&[("host", "a"), ("authorization", "Bearer 0123456789abcdee")]);
        let nobody = headers(&[("host", "localhost")]);
        for caller in [&caller(Via::Loopback), &caller(Via::Network)] {
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
        assert_eq!(authorize(&caller(Via::Loopback), Access::Read, all, &nobody), Ok(Actor::Loopback));
        assert_eq!(authorize(&caller(Via::Network), Access::Read, all, &nobody), Err(Refusal::Token));
        assert_eq!(authorize(&caller(Via::Network), Access::Read, all, &writer), Ok(Actor::Token));
        Ok(())
    }

    #[test]
    fn a_certificate_has_the_role_of_its_names() -> Result<(), String> {
        let keys = "address: \"0.0.0.0:1\", tls: {certificates: [{certificate: c, key: k}], client_auth: {ca: a}}, clients: {change: [\"dns:ops.test\"], read: [CN=metrics]}";
        let admin = &admin(keys)?;
        let with = |names: &[&str]| Caller {
            certificate: Some(names.iter().map(|name| (*name).to_owned()).collect()),
            ..caller(Via::Network)
        };
        let none = headers(&[("host", "a")]);
        let of = |caller: &Caller, access| authorize(caller, access, admin, &none);
        let (ops, metrics, other) = (with(&["dns:ops.test", "CN=x"]), with(&["CN=metrics"]), with(&["CN=other"]));
        assert_eq!(of(&ops, Access::Command), Ok(Actor::Certificate));
        assert_eq!(of(&metrics, Access::Read), Ok(Actor::ReadCertificate));
        assert_eq!(of(&metrics, Access::Command), Err(Refusal::ReadOnly));
        assert_eq!(of(&other, Access::Read), Err(Refusal::Certificate("CN=other".into())));
        assert_eq!(of(&caller(Via::Loopback), Access::Read), Err(Refusal::Token), "this host has no precedence");
        let foreign = authorize(&ops, Access::Command, admin, &headers(&[("host", "a"), ("origin", "http://b")]));
        assert!(matches!(foreign, Err(Refusal::Origin(_))), "a browser may have the certificate, too");
        Ok(())
    }

    #[test]
    fn whoever_opens_the_socket_may_do_everything_but_no_web_page() -> Result<(), String> {
        let admin = &admin("token: 0123456789abcdef, read_token: 0123456789abcdee")?;
        let of = |fields: &[(&'static str, &'static str)]| {
            authorize(&caller(Via::Socket), Access::Command, admin, &headers(fields))
        };
        assert_eq!(of(&[("host", "localhost")]), Ok(Actor::Socket));
        assert!(matches!(of(&[("host", "evil.example")]), Err(Refusal::Host(_))));
        assert!(matches!(of(&[("host", "localhost"), ("origin", "http://b")]), Err(Refusal::Origin(_))));
        Ok(())
    }
}
