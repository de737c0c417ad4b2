//! `listeners:`: the sockets for clients.
//!
//! This module does not know: how a socket is opened, what TLS files contain.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use http::StatusCode;
use ipnet::IpNet;

use crate::listen_address::{ListenAddress, socket_mode};
use crate::tls::ListenerTls;
use crate::values::name;
use crate::yaml::Section;

/// A socket that accepts clients.
#[derive(Debug, Clone, PartialEq)]
pub struct Listener {
    /// Its label in logs and metrics; unique. Default `main`, then `listener-2`, …
    pub name: String,
    /// Unique, except for port 0, which lets the system choose a port.
    pub address: ListenAddress,
    /// The permissions of the file of a UNIX socket. Default 600.
    pub mode: u32,
    /// Whether every connection begins with a PROXY header (version 1 or 2). Default false.
    pub proxy_protocol: bool,
    /// `None` for plain text.
    pub tls: Option<ListenerTls>,
    /// Answers every request that came by http with a redirect to https. Not with `tls`.
    pub redirect_to_https: Option<RedirectToHttps>,
    /// Adds `strict-transport-security` to every response. Only with `tls`.
    pub hsts: Option<Hsts>,
    /// What a client gets that closed its sending direction. Default [`HalfClose::Cancel`].
    pub half_close: HalfClose,
}

/// What happens to the exchange of an HTTP/1.1 client that has sent FIN, or close_notify over TLS,
/// after a whole request. Either the client only ended its sending direction, or it is gone: the
/// bytes are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HalfClose {
    /// The exchange has 50 ms to answer, then it is cancelled.
    Cancel,
    /// The exchange goes on until a write fails.
    Serve,
}

/// A redirect to the same host and path by https.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedirectToHttps {
    /// 301 or 308. Default 308, which keeps the method.
    pub status: StatusCode,
    /// The port of https. Default 443.
    pub port: u16,
}

/// HTTP Strict Transport Security (RFC 6797).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hsts {
    /// How long a browser uses only https. Default one year; 0 makes browsers forget the host.
    pub max_age: Duration,
    /// Whether it holds for all names below the host. Default false.
    pub include_subdomains: bool,
    /// Whether browsers may put the host on their built-in lists. Default false.
    pub preload: bool,
}

/// Only the gateway's user may connect.
const SOCKET_MODE: u32 = 0o600;
const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
const HALF_CLOSE: [(&str, HalfClose); 2] = [("cancel", HalfClose::Cancel), ("serve", HalfClose::Serve)];

/// Reads the list. Without one there is a plain-text listener at 127.0.0.1:8080.
pub(crate) fn read(top: &Section, base: &Path) -> Vec<Listener> {
    let listeners = top.each("listeners", |index, section| Listener::read(index, section, base));
    check_unique(top, &listeners);
    warn_of_ipv6_only(top, &listeners);
    if !listeners.is_empty() {
        return listeners;
    }
    let address = SocketAddr::from(([127, 0, 0, 1], 8080));
    vec![Listener {
        name: "main".into(),
        address: address.into(),
        mode: SOCKET_MODE,
        proxy_protocol: false,
        tls: None,
        redirect_to_https: None,
        hsts: None,
        half_close: HalfClose::Cancel,
    }]
}

impl Listener {
    fn read(index: usize, section: &Section, base: &Path) -> Self {
        let default_name = || if index == 0 { "main".into() } else { format!("listener-{}", index + 1) };
        section.require("address", "write an address and a port, such as 0.0.0.0:8080, or unix:/path");
        let address = section.scalar("address", str::parse);
        let mode = section
            .number("mode", 600, 777)
            .map(socket_mode)
            .and_then(|mode| mode.map_err(|why| section.error_at(&["mode"], why)).ok());
        let is_unix = matches!(address, Some(ListenAddress::Unix(_)));
        if mode.is_some() && address.is_some() && !is_unix {
            section.error_at(&["mode"], "only the file of a UNIX socket has permissions: remove it");
        }
        let tls = section.optional("tls", |section| ListenerTls::read(section, base));
        if tls.is_some() && is_unix {
            section.error_at(&["tls"], "a UNIX socket has no TLS, because it does not leave this host: remove it");
        }
        let redirect_to_https = RedirectToHttps::read(section);
        if tls.is_some() && redirect_to_https.is_some() {
            let message = "all requests of a listener with tls come by https: write it at the listener without tls";
            section.error_at(&["redirect_to_https"], message);
        }
        let hsts = section.optional("hsts", Hsts::read);
        if tls.is_none() && hsts.is_some() {
            let message = "browsers ignore it over http (RFC 6797, section 8.1): write it at the listener with tls";
            section.error_at(&["hsts"], message);
        }
        Self {
            name: section.scalar("name", name).unwrap_or_else(default_name),
            address: address.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0)).into()),
            mode: mode.unwrap_or(SOCKET_MODE),
            proxy_protocol: section.bool("proxy_protocol").unwrap_or(false),
            tls,
            redirect_to_https,
            hsts,
            half_close: section
                .choice("half_close", &HALF_CLOSE, "write cancel (the default) or serve")
                .unwrap_or(HalfClose::Cancel),
        }
    }
}

impl RedirectToHttps {
    /// `true`, or a mapping.
    fn read(section: &Section) -> Option<Self> {
        let default = Self { status: StatusCode::PERMANENT_REDIRECT, port: 443 };
        let key = "redirect_to_https";
        if !section.is_mapping(key) {
            return section.bool(key).unwrap_or(false).then_some(default);
        }
        let statuses = [("301", StatusCode::MOVED_PERMANENTLY), ("308", StatusCode::PERMANENT_REDIRECT)];
        section.optional(key, |own| Self {
            status: own.choice("status", &statuses, "write 308, or 301 for old clients").unwrap_or(default.status),
            port: own.number("port", 1, u16::MAX).unwrap_or(default.port),
        })
    }
}

impl Hsts {
    fn read(section: &Section) -> Self {
        Self {
            max_age: section.duration("max_age", Duration::ZERO, 10 * YEAR).unwrap_or(YEAR),
            include_subdomains: section.bool("include_subdomains").unwrap_or(false),
            preload: section.bool("preload").unwrap_or(false),
        }
    }

    /// The value of the field `strict-transport-security`.
    pub fn field_value(&self) -> String {
        let subdomains = if self.include_subdomains { "; includeSubDomains" } else { "" };
        let preload = if self.preload { "; preload" } else { "" };
        format!("max-age={}{subdomains}{preload}", self.max_age.as_secs())
    }
}

/// In other servers `[::]` also accepts IPv4, depending on the system's settings.
fn warn_of_ipv6_only(top: &Section, listeners: &[Listener]) {
    for (index, Listener { address, .. }) in listeners.iter().enumerate() {
        let Some(address) = address.tcp() else { continue };
        let twin = SocketAddr::from(([0, 0, 0, 0], address.port())).into();
        if address.is_ipv6() && address.ip().is_unspecified() && !listeners.iter().any(|other| other.address == twin) {
            let message = format!("{address} accepts IPv6 only: add a listener at {twin} for IPv4");
            top.warn_at(&[&format!("listeners[{index}]"), "address"], message);
        }
    }
}

/// Warns of listeners that accept no connection.
pub(crate) fn check_trust(top: &Section, listeners: &[Listener], trusted_proxies: &[IpNet]) {
    if !trusted_proxies.is_empty() {
        return;
    }
    for (index, _) in listeners.iter().enumerate().filter(|(_, listener)| listener.proxy_protocol) {
        top.warn_at(
            &[&format!("listeners[{index}]"), "proxy_protocol"],
            "every connection is closed, because trusted_proxies is empty: list there the load balancers that send PROXY headers",
        );
    }
}

fn check_unique(top: &Section, listeners: &[Listener]) {
    let (mut names, mut addresses) = (HashSet::new(), HashSet::new());
    for (index, Listener { name, address, .. }) in listeners.iter().enumerate() {
        let path = format!("listeners[{index}]");
        if !names.insert(name) {
            top.error_at(&[&path, "name"], format!("{name}: another listener has this name"));
        }
        if address.tcp().is_none_or(|address| address.port() != 0) && !addresses.insert(address) {
            top.error_at(&[&path, "address"], format!("{address}: another listener has this address"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Config;

    fn parse(listeners: &str) -> Result<Vec<Listener>, String> {
        let text = format!("listeners: [{listeners}]\nupstreams: {{u: {{builtin: echo}}}}\nroutes: [{{upstream: u}}]");
        let config = Config::parse(&text, "f", Path::new("/")).map_err(|errors| errors.to_string())?;
        Ok(config.listeners)
    }

    const TLS: &str = "tls: {certificates: [{certificate: a, key: b}]}";

    #[test]
    fn http_can_lead_to_https() -> Result<(), String> {
        let plain = parse("{address: \"[::1]:1\", redirect_to_https: true, half_close: serve}")?;
        assert_eq!(
            plain[0].redirect_to_https,
            Some(RedirectToHttps { status: StatusCode::PERMANENT_REDIRECT, port: 443 })
        );
        assert_eq!(plain[0].half_close, HalfClose::Serve);
        let plain = parse("{address: \"[::1]:1\", redirect_to_https: {port: 8443, status: 301}}")?;
        assert_eq!(
            plain[0].redirect_to_https,
            Some(RedirectToHttps { status: StatusCode::MOVED_PERMANENTLY, port: 8443 })
        );
        let off = parse("{address: \"[::1]:1\", redirect_to_https: false}")?;
        assert_eq!((&off[0].redirect_to_https, off[0].half_close), (&None, HalfClose::Cancel));
        let hsts = parse(&format!("{{address: \"[::1]:1\", {TLS}, hsts: {{include_subdomains: true}}}}"))?;
        let value = hsts[0].hsts.as_ref().map(Hsts::field_value);
        assert_eq!(value.as_deref(), Some("max-age=31536000; includeSubDomains"));
        Ok(())
    }

    #[test]
    fn keys_at_the_wrong_listener_are_refused() {
        for (listener, part) in [
            (format!("{TLS}, redirect_to_https: true"), "at the listener without tls"),
            ("hsts: {}".into(), "at the listener with tls"),
            ("redirect_to_https: {status: 302}".into(), "write 308"),
            ("redirect_to_https: maybe".into(), "true or false"),
            ("half_close: ignore".into(), "write cancel"),
        ] {
            let refused = parse(&format!("{{address: \"[::1]:1\", {listener}}}")).err().unwrap_or_default();
            assert!(refused.contains(part), "{listener}: {refused}");
        }
    }
}
