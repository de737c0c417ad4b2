//! An origin (RFC 6454): scheme, host and port of a URL, in one normal form.
//!
//! Configuration and filters write origins and URLs in many ways. Two of them name the same server
//! if, and only if, their normal forms are equal: scheme and host in lower case, and no port that
//! is the scheme's own. A host is a DNS name or an IP address; nothing that some parsers take for
//! an address (`0x7f.1`, `2130706433`) is either.
//! This module does not know: who may call which origin.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use http::Uri;

/// The longest host name (RFC 1035, section 2.3.4).
const HOST_BYTES_MAX: usize = 253;

/// An origin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// Whether the scheme is `https`.
    pub tls: bool,
    /// A name in lower case, or an IP address; IPv6 without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl Origin {
    /// The origin of an absolute URL.
    ///
    /// # Errors
    ///
    /// The URL has none, or one that the gateway does not call; the text says why.
    pub fn of(url: &Uri) -> Result<Self, &'static str> {
        let tls = match url.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err("write http:// or https:// and a host"),
        };
        let authority = url.authority().ok_or("write http:// or https:// and a host")?;
        let (host, text) = (authority.host(), authority.as_str());
        if text.contains('@') {
            return Err("a URL must not contain a user name or a password");
        }
        if text.len() > host.len() && authority.port_u16().is_none() {
            return Err("the port is not between 1 and 65535");
        }
        let port = authority.port_u16().unwrap_or(if tls { 443 } else { 80 });
        if port == 0 {
            return Err("the port is not between 1 and 65535");
        }
        Ok(Self { tls, host: normal_host(host)?, port })
    }

    /// Parses a text that is an origin and nothing more, such as `https://example.com`.
    ///
    /// # Errors
    ///
    /// It is none; the text says why.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let url: Uri = text.parse().map_err(|_| "write http:// or https:// and a host")?;
        let origin = Self::of(&url)?;
        let has_more = url.path_and_query().is_some_and(|rest| rest.as_str() != "/") || text.contains('#');
        if has_more || text.ends_with('/') {
            return Err("an origin has no path: write the scheme, the host and, if needed, the port");
        }
        Ok(origin)
    }

    /// The address, if the host is one.
    pub fn ip(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }

    /// Host and port as in a `host` field: without the scheme's own port.
    pub fn authority(&self) -> String {
        let Self { tls, host, port } = self;
        let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
        if *port == if *tls { 443 } else { 80 } { host } else { format!("{host}:{port}") }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}://{}", if self.tls { "https" } else { "http" }, self.authority())
    }
}

fn normal_host(host: &str) -> Result<String, &'static str> {
    if let Some(address) = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        let address: Ipv6Addr = address.parse().map_err(|_| "the brackets do not contain an IPv6 address")?;
        return Ok(address.to_string());
    }
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(address.to_string());
    }
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    if host.len() > HOST_BYTES_MAX || !host.split('.').all(is_label) {
        return Err("the host is neither a DNS name nor an IP address");
    }
    // Such a host is an IP address for many resolvers (`inet_aton`).
    let last = host.rsplit('.').next().unwrap_or_default();
    if last.starts_with(|first: char| first.is_ascii_digit()) {
        return Err("the host ends in a number, but is not an IP address: write four decimal numbers, or a DNS name");
    }
    Ok(host.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_one_origin_are_equal() {
        for (text, expected) in [
            ("https://Example.COM", "https://example.com"),
            ("HTTPS://example.com:443", "https://example.com"),
            ("http://example.com:80", "http://example.com"),
            ("https://example.com:8443", "https://example.com:8443"),
            ("http://10.0.0.1", "http://10.0.0.1"),
            ("http://[0:0:0:0:0:0:0:1]:80", "http://[::1]"),
            ("http://[::FFFF:127.0.0.1]", "http://[::ffff:127.0.0.1]"),
        ] {
            assert_eq!(Origin::parse(text).map(|origin| origin.to_string()), Ok(expected.to_owned()), "{text}");
            assert_eq!(Origin::parse(expected), Origin::parse(text), "{text}: the normal form stays");
        }
        let url: Uri = "https://a.example:443/path?query".parse().unwrap_or_default();
        assert_eq!(Origin::of(&url).map(|origin| origin.authority()), Ok("a.example".to_owned()));
    }

    #[test]
    fn what_only_some_parsers_understand_is_refused() {
        for text in [
            "",
            "example.com",
            "ftp://example.com",
            "https://user@example.com",
            "https://example.com@evil.example",
            "https://example.com/path",
            "https://example.com/",
            "https://example.com?query",
            "https://example.com:0",
            "https://example.com:99999",
            "https://example.com.",
            "http://2130706433",
            "http://0x7f000001",
            "http://0x7f.1",
            "http://0177.0.0.1",
            "http://127.1",
            "http://127.0.0.1.",
            "http://[::1",
            "http://[fe80::1%25eth0]",
            "http://a..b",
            "http://a%2eb",
        ] {
            assert!(Origin::parse(text).is_err(), "{text}: {:?}", Origin::parse(text));
        }
    }
}
