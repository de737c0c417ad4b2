//! The listening sockets: bound here or taken over from a running gateway (`handover.rs`), and shared out to the serving threads.
//!
//! Each serving thread has a socket of its own for every listener (SO_REUSEPORT), and the kernel keeps a queue for each of them: connections that nobody accepted yet.
//! A queue lives as long as any process holds its socket, so a hand-over must pass every single one. Must not know: what is said on a connection.

use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

use witgate_config::Config;

const BACKLOG: i32 = 4096;
/// What the kernel keeps of an answer that the client's window does not let through: without it up to `tcp_wmem` (4 MB) for each client that reads slowly, which no limit
/// of this process counts. What is on its way is not limited by it, so a fast client loses nothing.
const UNSENT_BYTES_MAX: u32 = 128 << 10;

/// All sockets of one listener.
#[derive(Debug)]
pub struct Group {
    /// For messages.
    pub name: String,
    /// As configured; port 0 lets the system choose.
    pub configured: SocketAddr,
    /// Where it is.
    pub address: SocketAddr,
    /// At least one.
    pub sockets: Vec<TcpListener>,
}

/// Every listening socket of the gateway.
#[derive(Debug)]
pub struct Sockets {
    /// In the order of the configuration.
    pub listeners: Vec<Group>,
    /// The admin listener's only socket.
    pub admin: Option<Group>,
}

impl Sockets {
    /// Binds every listener once for each worker, and the admin listener.
    pub fn bind(config: &Config) -> Result<Self, String> {
        let shared = |listener: &witgate_config::Listener| {
            // Alone at first: two gateways that shared a port would each get half of the connections, and nobody would know why.
            let alone = bind(&listener.name, listener.address, false)?;
            // With port 0 this bind chooses, the threads share.
            let address = alone.local_addr().map_err(|error| error.to_string())?;
            drop(alone);
            let sockets = (0..config.workers).map(|_| bind(&listener.name, address, true)).collect::<Result<_, _>>()?;
            Ok(Group { name: listener.name.clone(), configured: listener.address, address, sockets })
        };
        let listeners = config.listeners.iter().map(shared).collect::<Result<_, String>>()?;
        let alone = |configured: SocketAddr| {
            let socket = bind("admin", configured, false)?;
            let address = socket.local_addr().map_err(|error| error.to_string())?;
            Ok::<_, String>(Group { name: "admin".into(), configured, address, sockets: vec![socket] })
        };
        Ok(Self { listeners, admin: config.admin.map(alone).transpose()? })
    }

    /// Each listener's name and address.
    pub fn addresses(&self) -> Vec<(String, SocketAddr)> {
        self.listeners.iter().map(|group| (group.name.clone(), group.address)).collect()
    }

    /// For each worker its sockets, each with its listener's place in the configuration, every socket with at least one worker. Workers above the number of sockets share.
    pub fn for_workers(&self, workers: usize) -> std::io::Result<Vec<Vec<(usize, TcpListener)>>> {
        let mut shares: Vec<Vec<(usize, TcpListener)>> = (0..workers).map(|_| vec![]).collect();
        for (place, group) in self.listeners.iter().enumerate() {
            for (worker, socket) in share(group.sockets.len(), workers) {
                shares[worker].push((place, group.sockets[socket].try_clone()?));
            }
        }
        Ok(shares)
    }

    /// The admin listener's socket.
    pub fn for_admin(&self) -> std::io::Result<Option<TcpListener>> {
        self.admin.as_ref().and_then(|group| group.sockets.first()).map(TcpListener::try_clone).transpose()
    }
}

/// Who serves which socket, as (worker, socket).
fn share(sockets: usize, workers: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..sockets.max(workers)).map(move |at| (at % workers.max(1), at % sockets.max(1)))
}

fn bind(name: &str, address: SocketAddr, shared: bool) -> Result<TcpListener, String> {
    let listen = || {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(shared)?;
        socket.set_nonblocking(true)?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        // Connections inherit it.
        socket.set_tcp_notsent_lowat(UNSENT_BYTES_MAX)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        Ok(socket.into())
    };
    listen().map_err(|error: std::io::Error| {
        format!(
            "listener {name}: {address}: {error}; is another process using it? (ss -ltnp; a gateway is replaced with --takeover)"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_socket_has_a_worker_and_every_worker_a_socket() {
        let of = |sockets, workers| share(sockets, workers).collect::<Vec<_>>();
        assert_eq!(of(2, 2), [(0, 0), (1, 1)]);
        assert_eq!(of(3, 2), [(0, 0), (1, 1), (0, 2)], "fewer workers take several");
        assert_eq!(of(2, 3), [(0, 0), (1, 1), (2, 0)], "more workers share");
    }
}
