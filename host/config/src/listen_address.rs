//! Where a listener waits for connections: an IP address and a port, or the path of a UNIX socket.
//!
//! This module does not know: how a socket is opened.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// The address of a UNIX socket has at most 107 bytes, and the gateway creates the socket under a
/// longer name first.
const PATH_BYTES_MAX: usize = 90;

/// The address of a listener: `127.0.0.1:8080`, `[::]:8080` or `unix:/run/witgate/http.sock`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ListenAddress {
    /// An IP address and a port.
    Tcp(SocketAddr),
    /// The absolute path of a UNIX socket.
    Unix(PathBuf),
}

impl ListenAddress {
    /// The IP address and port. `None` for a UNIX socket.
    pub fn tcp(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(address) => Some(*address),
            Self::Unix(_) => None,
        }
    }

    /// The path of the socket. `None` for an IP address.
    pub fn unix(&self) -> Option<&Path> {
        match self {
            Self::Tcp(_) => None,
            Self::Unix(path) => Some(path),
        }
    }
}

impl From<SocketAddr> for ListenAddress {
    fn from(address: SocketAddr) -> Self {
        Self::Tcp(address)
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(formatter),
            Self::Unix(path) => write!(formatter, "unix:{}", path.display()),
        }
    }
}

impl FromStr for ListenAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some(path) = text.strip_prefix("unix:") else {
            return text.parse().map(Self::Tcp).map_err(|_| advice(text));
        };
        if !path.starts_with('/') || path.ends_with('/') || path.contains('\0') {
            return Err("write unix: and the absolute path of the socket, such as unix:/run/witgate/http.sock".into());
        }
        if path.len() > PATH_BYTES_MAX {
            return Err(format!("the path of a socket has at most {PATH_BYTES_MAX} bytes"));
        }
        Ok(Self::Unix(format!("/{}", path.trim_start_matches('/')).into()))
    }
}

fn advice(text: &str) -> String {
    if text.starts_with('/') {
        return format!("for a UNIX socket write unix:{text}");
    }
    let (host, port) = text.rsplit_once(':').unwrap_or(("", text));
    match (host, port.parse::<u16>()) {
        ("" | "*", Ok(port)) => format!("write 0.0.0.0:{port} for all interfaces, or 127.0.0.1:{port} for this host"),
        ("localhost", Ok(port)) => format!("write 127.0.0.1:{port}, or [::1]:{port} for IPv6"),
        (_, Ok(_)) if !host.starts_with('[') && host.contains(':') => {
            format!("an IPv6 address has brackets: write [{host}]:{port}")
        }
        _ if text.parse::<std::net::Ipv4Addr>().is_ok() => format!("has no port: write {text}:8080"),
        _ => "write an IP address and a port, such as 127.0.0.1:8080 or [::]:8080, or unix:/path".into(),
    }
}

/// The permissions that a number between 600 and 777 stands for, whose digits are octal.
pub(crate) fn socket_mode(digits: u32) -> Result<u32, String> {
    match u32::from_str_radix(&digits.to_string(), 8) {
        Ok(mode) if mode & 0o600 == 0o600 => Ok(mode),
        _ => Err("write octal digits, such as 600 (this user), 660 (and its group) or 666 (everybody)".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_modes_are_checked() {
        for good in ["127.0.0.1:80", "[::]:0", "unix:/run/a.sock", "unix:///run/a.sock"] {
            let shown = good.parse::<ListenAddress>().map(|address| address.to_string());
            assert_eq!(shown, Ok(good.replace("///", "/")));
        }
        let long = format!("unix:/{}", "x".repeat(PATH_BYTES_MAX));
        for bad in ["", "80", "localhost:80", "unix:", "unix:a.sock", "unix:/run/", "unix:/a\0", &long] {
            assert!(bad.parse::<ListenAddress>().is_err(), "{bad}");
        }
        for (text, advice) in [
            (":8080", "0.0.0.0:8080"),
            ("*:80", "0.0.0.0:80"),
            ("8080", "0.0.0.0:8080"),
            ("localhost:80", "127.0.0.1:80"),
            ("0.0.0.0", "0.0.0.0:8080"),
            ("::1:80", "[::1]:80"),
        ] {
            assert!(text.parse::<ListenAddress>().is_err_and(|why| why.contains(advice)), "{text}");
        }
        assert!("/run/a.sock".parse::<ListenAddress>().is_err_and(|why| why.contains("unix:/run/a.sock")));
        assert_eq!((socket_mode(660), socket_mode(777)), (Ok(0o660), Ok(0o777)));
        assert!(socket_mode(680).is_err());
    }
}
