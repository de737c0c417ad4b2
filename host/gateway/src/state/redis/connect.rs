//! Connects to the server: TCP, TLS if it is configured, and the login. With Sentinels, asks them
//! for the master first.
//!
//! This module does not know: when to connect, what the connection is for.

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
use witgate_config::{Redis, RedisAddress};
use witgate_http::text::bounded;

/// For one server, with the lookup of its name.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// A connection, and the task that reads and writes it.
pub(super) struct Connected {
    pub(super) connection: MultiplexedConnection,
    pub(super) driver: JoinHandle<()>,
    /// Notified when the connection ends.
    pub(super) lost: Arc<Notify>,
}

impl Drop for Connected {
    fn drop(&mut self) {
        // The library keeps a connection open while replies are missing.
        self.driver.abort();
        self.lost.notify_one();
    }
}

/// Connects to the server of these settings.
///
/// # Errors
///
/// Why there is no connection.
pub(super) async fn connect(settings: &Redis, tls: Option<&Arc<ClientTls>>) -> Result<Connected, String> {
    let mut info = RedisConnectionInfo::default().set_skip_set_lib_name();
    if let Some(username) = &settings.username {
        info = info.set_username(username);
    }
    if let Some(password) = &settings.password {
        info = info.set_password(password.expose());
    }
    info = info.set_db(settings.database.into());
    let Some(master) = &settings.master else {
        let address = settings.addresses.first().ok_or("no address is configured")?;
        return connect_to(address, tls, &info).await;
    };
    let mut last = "no Sentinel is configured".to_owned();
    for sentinel in &settings.addresses {
        match find_master(sentinel, tls, master).await {
            Ok(address) => return connect_to(&address, tls, &info).await,
            Err(why) => last = why,
        }
    }
    Err(last)
}

/// Asks a Sentinel for the address of the master.
async fn find_master(
    sentinel: &RedisAddress,
    tls: Option<&Arc<ClientTls>>,
    master: &str,
) -> Result<RedisAddress, String> {
    let info = RedisConnectionInfo::default().set_skip_set_lib_name();
    let mut connected = connect_to(sentinel, tls, &info).await?;
    let mut ask = redis::cmd("SENTINEL");
    ask.arg("get-master-addr-by-name").arg(master);
    let reply = timeout(CONNECT_TIMEOUT, ask.query_async::<Option<(String, u16)>>(&mut connected.connection)).await;
    match reply {
        Ok(Ok(Some((host, port)))) if is_host(&host) && port > 0 => Ok(RedisAddress { host, port }),
        Ok(Ok(Some(_))) => Err(format!("the Sentinel {sentinel} names an invalid address")),
        Ok(Ok(None)) => Err(format!("the Sentinel {sentinel} knows no master {master}")),
        Ok(Err(error)) => Err(bounded(format_args!("the Sentinel {sentinel}: {error}"))),
        Err(_) => Err(format!("the Sentinel {sentinel} did not answer within {CONNECT_TIMEOUT:?}")),
    }
}

fn is_host(text: &str) -> bool {
    text.parse::<IpAddr>().is_ok()
        || (1..=253).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
}

async fn connect_to(
    address: &RedisAddress,
    tls: Option<&Arc<ClientTls>>,
    info: &RedisConnectionInfo,
) -> Result<Connected, String> {
    match timeout(CONNECT_TIMEOUT, open(address, tls, info)).await {
        Ok(Ok(connected)) => Ok(connected),
        Ok(Err(why)) => Err(format!("{address}: {why}")),
        Err(_) => Err(format!("{address}: no connection within {CONNECT_TIMEOUT:?}")),
    }
}

async fn open(
    address: &RedisAddress,
    tls: Option<&Arc<ClientTls>>,
    info: &RedisConnectionInfo,
) -> Result<Connected, String> {
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
    let lost = Arc::new(Notify::new());
    let ended = lost.clone();
    let driver = tokio::spawn(async move {
        driver.await;
        ended.notify_one();
    });
    Ok(Connected { connection, driver, lost })
}
