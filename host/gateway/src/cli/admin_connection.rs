//! Connections of the commands to an admin listener.
//!
//! This module does not know: requests.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs as _};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};

use crate::tls::command_client_config;

/// The files for TLS.
#[derive(Args, Default)]
pub(super) struct TlsFiles {
    /// PEM file with the authority of the admin listener's certificate (default: the system's)
    #[arg(long = "admin-ca", value_name = "FILE", global = true)]
    ca: Option<PathBuf>,
    /// PEM file with the client certificate for the admin listener
    #[arg(long = "admin-cert", value_name = "FILE", global = true, requires = "key")]
    certificate: Option<PathBuf>,
    /// PEM file with the key of the client certificate
    #[arg(id = "key", long = "admin-key", value_name = "FILE", global = true, requires = "certificate")]
    key: Option<PathBuf>,
}

/// Where an admin listener is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Endpoint {
    /// An address without TLS.
    Tcp(SocketAddr),
    /// A host and a port with TLS.
    Tls(String, u16),
    /// The path of a UNIX socket.
    Unix(PathBuf),
}

/// A connection to an admin listener.
pub(super) enum Connection {
    Tcp(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
    Unix(UnixStream),
}

impl Endpoint {
    /// Reads `127.0.0.1:9901`, `https://host:9901` or `unix:/run/witgate/admin.sock`.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        const ADVICE: &str = "write an address such as 127.0.0.1:9901, https://HOST:PORT or unix:PATH";
        if let Some(path) = text.strip_prefix("unix:").filter(|path| !path.is_empty()) {
            return Ok(Self::Unix(path.into()));
        }
        if let Some(rest) = text.strip_prefix("https://") {
            let (host, port) = rest.trim_end_matches('/').rsplit_once(':').ok_or(ADVICE)?;
            let host = host.trim_start_matches('[').trim_end_matches(']');
            return Ok(Self::Tls(host.to_owned(), port.parse().map_err(|_| ADVICE.to_owned())?));
        }
        text.strip_prefix("http://").unwrap_or(text).parse().map(Self::Tcp).map_err(|_| ADVICE.to_owned())
    }

    /// An address with TLS.
    pub(super) fn of_tls(address: SocketAddr) -> Self {
        Self::Tls(address.ip().to_string(), address.port())
    }

    /// The value of the field `host`.
    pub(super) fn host(&self) -> String {
        match self {
            Self::Tcp(address) => address.to_string(),
            Self::Tls(host, port) if host.contains(':') => format!("[{host}]:{port}"),
            Self::Tls(host, port) => format!("{host}:{port}"),
            Self::Unix(_) => "localhost".into(),
        }
    }

    /// Connects. `timeout` is for the connection and each write.
    ///
    /// # Errors
    /// Why that is not possible, for people.
    pub(super) fn connect(
        &self,
        files: &TlsFiles,
        timeout: Duration,
        read_timeout: Duration,
    ) -> Result<Connection, String> {
        let fail = |error: io::Error| self.failure(&error);
        let over_tcp = |address: SocketAddr| -> io::Result<TcpStream> {
            let stream = TcpStream::connect_timeout(&address, timeout)?;
            stream.set_read_timeout(Some(read_timeout))?;
            stream.set_write_timeout(Some(timeout))?;
            Ok(stream)
        };
        match self {
            Self::Tcp(address) => over_tcp(*address).map(Connection::Tcp).map_err(fail),
            Self::Tls(host, port) => {
                let config =
                    command_client_config(files.ca.as_deref(), files.certificate.as_deref().zip(files.key.as_deref()))?;
                let name = ServerName::try_from(host.clone()).map_err(|_| format!("{host} is not a host name"))?;
                let mut addresses = (host.as_str(), *port).to_socket_addrs().map_err(fail)?;
                let address = addresses.next().ok_or_else(|| format!("{host} has no address"))?;
                let stream = over_tcp(address).map_err(fail)?;
                let session = ClientConnection::new(Arc::clone(&config), name).map_err(|error| error.to_string())?;
                Ok(Connection::Tls(Box::new(StreamOwned::new(session, stream))))
            }
            Self::Unix(path) => {
                let stream = UnixStream::connect(path).map_err(fail)?;
                stream.set_read_timeout(Some(read_timeout)).map_err(fail)?;
                stream.set_write_timeout(Some(timeout)).map_err(fail)?;
                Ok(Connection::Unix(stream))
            }
        }
    }

    /// A failed connection, for people.
    pub(super) fn failure(&self, error: &io::Error) -> String {
        let advice = match self {
            Self::Tls(..) if error.get_ref().is_some_and(|cause| cause.is::<rustls::Error>()) => {
                "does it trust the authority of --admin-cert, and --admin-ca that of its certificate?"
            }
            Self::Unix(_) => "does the gateway run as this user, and is this its admin socket (--admin, --config)?",
            _ => "does the gateway run, and is this its admin address (--admin, --config)?",
        };
        format!("{self}: {error}; {advice}")
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(formatter),
            Self::Tls(..) => write!(formatter, "https://{}", self.host()),
            Self::Unix(path) => write!(formatter, "unix:{}", path.display()),
        }
    }
}

impl Read for Connection {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(buffer),
            Self::Tls(stream) => stream.read(buffer),
            Self::Unix(stream) => stream.read(buffer),
        }
    }
}

impl Write for Connection {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(bytes),
            Self::Tls(stream) => stream.write(bytes),
            Self::Unix(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.flush(),
            Self::Tls(stream) => stream.flush(),
            Self::Unix(stream) => stream.flush(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_an_address_a_url_or_a_path() {
        let shown = |text: &str| Endpoint::parse(text).map(|endpoint| endpoint.to_string());
        for (text, expected) in [
            ("127.0.0.1:9901", "127.0.0.1:9901"),
            ("http://127.0.0.1:9901", "127.0.0.1:9901"),
            ("https://admin.test:9901/", "https://admin.test:9901"),
            ("https://[::1]:9901", "https://[::1]:9901"),
            ("unix:/run/a.sock", "unix:/run/a.sock"),
        ] {
            assert_eq!(shown(text).as_deref(), Ok(expected));
        }
        for bad in ["", "unix:", "admin.test:9901", "https://admin.test", "ftp://a:1"] {
            assert!(shown(bad).is_err(), "{bad}");
        }
    }
}
