//! The listening sockets: bound here or received in a takeover, and distributed to serving threads.
//!
//! Each serving thread has its own socket for every listener (SO_REUSEPORT). Gain: the kernel
//! distributes connections, so threads share no lock. Price: each socket has its own queue of
//! connections, which are lost with its last descriptor, so a takeover must pass every socket.
//! A UNIX listener has one socket, which all threads share.
//!
//! The file of a UNIX socket gets its name once the gateway listens, and replaces the file of a
//! process that has ended. It stays when the gateway ends, so that a takeover needs no second name.
//!
//! This module does not know: the protocols on a connection.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::net::listening::ListeningSocket;
use witgate_config::{Config, ListenAddress, Listener};

/// The length of each queue of connections.
const BACKLOG: i32 = 4096;
/// Bytes of a response that the kernel holds although the client's window is closed. The default is
/// `tcp_wmem`, up to 4 MB for each slow client, which no limit of this process counts. Bytes in
/// flight are not limited, so a fast client is not slowed down.
const UNSENT_BYTES_MAX: u32 = 128 << 10;

/// A listener's address cannot be bound.
#[derive(Debug, thiserror::Error)]
#[error("listener {name}: {address}: {source}; {}", advice(source.kind()))]
pub struct BindError {
    name: String,
    address: ListenAddress,
    source: std::io::Error,
}

fn advice(kind: std::io::ErrorKind) -> &'static str {
    match kind {
        std::io::ErrorKind::AddrNotAvailable => {
            "no interface of this host has this address: write one that `ip address` shows, or 0.0.0.0 or [::] for all"
        }
        std::io::ErrorKind::PermissionDenied => {
            "ports below 1024 need the capability CAP_NET_BIND_SERVICE: grant it, or use another port"
        }
        _ => "is another process using it? (ss -ltnp; a gateway is replaced with --takeover)",
    }
}

/// All sockets of one listener.
#[derive(Debug)]
pub struct ListenerSockets {
    /// The listener's name, for messages.
    pub name: String,
    /// The configured address. The system chooses for port 0.
    pub configured: ListenAddress,
    /// The bound address.
    pub address: ListenAddress,
    /// At least one.
    pub sockets: Vec<ListeningSocket>,
    /// The present name of a UNIX socket's file, until the gateway listens.
    pub unnamed: Option<PathBuf>,
}

/// Every listening socket of the gateway.
#[derive(Debug)]
pub struct Sockets {
    /// In the order of the configuration.
    pub listeners: Vec<ListenerSockets>,
    /// The admin listener, with one socket.
    pub admin: Option<ListenerSockets>,
}

impl Sockets {
    /// Binds each listener once for each worker, and the admin listener. No client can connect
    /// before [`listen`](Self::listen).
    ///
    /// # Errors
    /// The first address that cannot be bound.
    pub fn bind(config: &Config) -> Result<Self, BindError> {
        let listeners = config.listeners.iter().map(|listener| bind_listener(listener, config.workers));
        Ok(Self {
            listeners: listeners.collect::<Result<_, _>>()?,
            admin: config.admin.address.map(bind_admin).transpose()?,
        })
    }

    /// Lets clients connect. It does nothing to received sockets, which listen already.
    ///
    /// # Errors
    /// The first address at which another process began to listen in the meantime.
    pub fn listen(&self) -> Result<(), BindError> {
        for listener in self.listeners.iter().chain(&self.admin) {
            let failed = |source| BindError { name: listener.name.clone(), address: listener.address.clone(), source };
            for socket in &listener.sockets {
                rustix::net::listen(socket, BACKLOG).map_err(|error| failed(error.into()))?;
            }
            if let (Some(unnamed), Some(path)) = (&listener.unnamed, listener.address.unix()) {
                fs::rename(unnamed, path).map_err(failed)?;
            }
        }
        Ok(())
    }

    /// The name and address of each listener.
    pub fn addresses(&self) -> Vec<(String, ListenAddress)> {
        self.listeners.iter().map(|listener| (listener.name.clone(), listener.address.clone())).collect()
    }

    /// Descriptors for each worker, each with the index of its listener in the configuration.
    ///
    /// Every socket has at least one worker. Workers above the number of sockets share sockets.
    ///
    /// # Errors
    /// The process has too many descriptors.
    pub fn for_workers(&self, workers: usize) -> std::io::Result<Vec<Vec<(usize, ListeningSocket)>>> {
        let mut shares: Vec<Vec<(usize, ListeningSocket)>> = (0..workers).map(|_| vec![]).collect();
        for (index, listener) in self.listeners.iter().enumerate() {
            for (worker, socket) in assign(listener.sockets.len(), workers) {
                shares[worker].push((index, listener.sockets[socket].try_clone()?));
            }
        }
        Ok(shares)
    }

    /// A descriptor of the admin listener's socket.
    ///
    /// # Errors
    /// The process has too many descriptors.
    pub fn for_admin(&self) -> std::io::Result<Option<TcpListener>> {
        match self.admin.as_ref().and_then(|listener| listener.sockets.first()) {
            Some(ListeningSocket::Tcp(socket)) => socket.try_clone().map(Some),
            Some(ListeningSocket::Unix(_)) | None => Ok(None),
        }
    }
}

/// The pairs (worker, socket) of one listener.
fn assign(sockets: usize, workers: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..sockets.max(workers)).map(move |at| (at % workers.max(1), at % sockets.max(1)))
}

fn bind_listener(listener: &Listener, workers: usize) -> Result<ListenerSockets, BindError> {
    let Listener { name, address, mode, .. } = listener;
    let configured = match address {
        ListenAddress::Tcp(configured) => configured,
        ListenAddress::Unix(path) => return bind_unix(name, path, *mode),
    };
    // The first bind is exclusive. Otherwise a second gateway could share the port unnoticed, and
    // each would get half of the connections. For port 0 it also chooses the port that the workers
    // share. Only a socket that listens excludes others with the same options.
    let (exclusive, address) = bind(name, *configured, false)?;
    rustix::net::listen(&exclusive, BACKLOG).map_err(|error| BindError {
        name: name.clone(),
        address: address.into(),
        source: error.into(),
    })?;
    drop(exclusive);
    let sockets = (0..workers).map(|_| bind(name, address, true).map(|(socket, _)| ListeningSocket::Tcp(socket)));
    let sockets = sockets.collect::<Result<_, _>>()?;
    let (configured, address) = ((*configured).into(), address.into());
    Ok(ListenerSockets { name: name.clone(), configured, address, sockets, unnamed: None })
}

/// Binds a UNIX socket under another name than its own.
fn bind_unix(name: &str, path: &Path, mode: u32) -> Result<ListenerSockets, BindError> {
    let address = ListenAddress::Unix(path.to_owned());
    let bind = || {
        check_unused(path)?;
        let mut unnamed = path.as_os_str().to_owned();
        unnamed.push(format!(".{}", std::process::id()));
        let unnamed = PathBuf::from(unnamed);
        // A process with this number that did not finish may have left it.
        let _ = fs::remove_file(&unnamed);
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        socket.bind(&SockAddr::unix(&unnamed)?)?;
        fs::set_permissions(&unnamed, fs::Permissions::from_mode(mode))?;
        Ok((ListeningSocket::Unix(OwnedFd::from(socket).into()), unnamed))
    };
    match bind() {
        Ok((socket, unnamed)) => Ok(ListenerSockets {
            name: name.to_owned(),
            configured: address.clone(),
            address,
            sockets: vec![socket],
            unnamed: Some(unnamed),
        }),
        Err(source) => Err(BindError { name: name.to_owned(), address, source }),
    }
}

/// Refuses a path that another process listens at, or that is another kind of file. The socket of a
/// process that has ended may be replaced.
fn check_unused(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(found) if !found.file_type().is_socket() => {
            Err(io::Error::other("the file is not a socket, so it is not replaced"))
        }
        Ok(_) => match UnixStream::connect(path) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
            Err(error) => Err(error),
            Ok(_) => Err(io::ErrorKind::AddrInUse.into()),
        },
    }
}

fn bind_admin(configured: SocketAddr) -> Result<ListenerSockets, BindError> {
    let (socket, address) = bind("admin", configured, false)?;
    let sockets = vec![ListeningSocket::Tcp(socket)];
    let (configured, address) = (configured.into(), address.into());
    Ok(ListenerSockets { name: "admin".into(), configured, address, sockets, unnamed: None })
}

/// Binds one socket. `shared` allows more sockets at the same address. Returns the bound address.
fn bind(name: &str, address: SocketAddr, shared: bool) -> Result<(TcpListener, SocketAddr), BindError> {
    let bind = || {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(shared)?;
        socket.set_nonblocking(true)?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        // Accepted connections inherit this value.
        socket.set_tcp_notsent_lowat(UNSENT_BYTES_MAX)?;
        socket.bind(&address.into())?;
        let listener: TcpListener = socket.into();
        let bound = listener.local_addr()?;
        Ok((listener, bound))
    };
    bind().map_err(|source: std::io::Error| BindError { name: name.to_owned(), address: address.into(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_socket_has_a_worker_and_every_worker_a_socket() {
        let pairs = |sockets, workers| assign(sockets, workers).collect::<Vec<_>>();
        assert_eq!(pairs(2, 2), [(0, 0), (1, 1)]);
        assert_eq!(pairs(3, 2), [(0, 0), (1, 1), (0, 2)], "with fewer workers, some have several sockets");
        assert_eq!(pairs(2, 3), [(0, 0), (1, 1), (2, 0)], "with more workers, some share a socket");
    }
}
