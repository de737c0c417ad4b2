//! Connections to servers: TCP, TLS if it is configured, and the login.
//!
//! This module does not know: which servers there are, when to connect, what a connection is for.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, RedisConnectionInfo};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::reply_guard::ReplyGuard;
use crate::net::Stream;
use crate::net::tls::{ClientTls, connect_tls_without_alpn};
use witgate_config::RedisAddress;
use witgate_http::text::bounded;

/// For one server, with the lookup of its name.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Slots of a cluster (Redis Cluster specification, key distribution model).
pub(super) const SLOTS: usize = 16_384;

/// The connection to a server, or those to the masters of a cluster.
pub(super) struct Connected {
    /// At least one.
    pub(super) nodes: Vec<Node>,
    /// The node of each slot of a cluster; empty otherwise.
    pub(super) slots: Vec<u8>,
    /// Notified when a connection ends.
    pub(super) lost: Arc<Notify>,
}

/// A connection, and the task that reads and writes it.
pub(super) struct Node {
    connection: MultiplexedConnection,
    driver: JoinHandle<()>,
}

impl Connected {
    /// The connection to the server that has a key.
    pub(super) fn connection(&self, key: &str) -> MultiplexedConnection {
        let node = match &self.slots[..] {
            [] => 0,
            slots => slots[slot(key) % slots.len()],
        };
        self.nodes[usize::from(node)].connection.clone()
    }

    /// All connections.
    pub(super) fn connections(&self) -> impl Iterator<Item = MultiplexedConnection> {
        self.nodes.iter().map(|node| node.connection.clone())
    }

    /// Ends all connections, also while replies are missing.
    pub(super) fn abort(&self) {
        self.nodes.iter().for_each(|node| node.driver.abort());
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.abort();
        self.lost.notify_one();
    }
}

pub(super) fn is_host(text: &str) -> bool {
    text.parse::<IpAddr>().is_ok()
        || (1..=253).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
}

pub(super) async fn connect_to(
    address: &RedisAddress,
    tls: Option<&Arc<ClientTls>>,
    info: &RedisConnectionInfo,
) -> Result<Connected, String> {
    let lost = Arc::new(Notify::new());
    let nodes = vec![connect_node(address, tls, info, &lost).await?];
    Ok(Connected { nodes, slots: vec![], lost })
}

pub(super) async fn connect_node(
    address: &RedisAddress,
    tls: Option<&Arc<ClientTls>>,
    info: &RedisConnectionInfo,
    lost: &Arc<Notify>,
) -> Result<Node, String> {
    match timeout(CONNECT_TIMEOUT, open(address, tls, info, lost.clone())).await {
        Ok(Ok(node)) => Ok(node),
        Ok(Err(why)) => Err(format!("{address}: {why}")),
        Err(_) => Err(format!("{address}: no connection within {CONNECT_TIMEOUT:?}")),
    }
}

async fn open(
    address: &RedisAddress,
    tls: Option<&Arc<ClientTls>>,
    info: &RedisConnectionInfo,
    lost: Arc<Notify>,
) -> Result<Node, String> {
    let stream = TcpStream::connect((address.host.as_str(), address.port)).await.map_err(|error| error.to_string())?;
    stream.set_nodelay(true).map_err(|error| error.to_string())?;
    let stream = match tls {
        None => Stream::Tcp(stream),
        Some(tls) => {
            let name = tls.name_for(&address.host).map_err(|error| error.to_string())?;
            connect_tls_without_alpn(stream, tls.current(), name).await.map_err(|error| format!("TLS: {error}"))?
        }
    };
    // The caller of an operation limits its time.
    let config = AsyncConnectionConfig::new().set_response_timeout(None).set_connection_timeout(None);
    let connected = MultiplexedConnection::new_with_config(info, ReplyGuard::new(stream), config).await;
    let (connection, driver) = connected.map_err(|error| bounded(format_args!("{error}")))?;
    let driver = tokio::spawn(async move {
        driver.await;
        lost.notify_one();
    });
    Ok(Node { connection, driver })
}

/// The slot of a key: the CRC-16 (XMODEM) of its hash tag, which is the text in the first braces,
/// or of the whole key.
fn slot(key: &str) -> usize {
    let tag = key.split_once('{').and_then(|(_, rest)| rest.split_once('}')).map(|(tag, _)| tag);
    let hashed = tag.filter(|tag| !tag.is_empty()).unwrap_or(key);
    let step = |crc: u16, byte: u8| {
        let mixed = crc ^ (u16::from(byte) << 8);
        (0..8).fold(mixed, |crc, _| if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 })
    };
    usize::from(hashed.bytes().fold(0, step)) % SLOTS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_the_slots_of_the_specification() {
        for (key, expected) in [("123456789", 12_739), ("foo", 12_182), ("bar", 5061), ("{foo}.bar", 12_182)] {
            assert_eq!(slot(key), expected, "{key}");
        }
        assert_eq!(slot("{}foo"), slot("{}foo"), "an empty tag counts as none");
        assert_ne!(slot("{}foo"), slot("foo"));
    }
}
