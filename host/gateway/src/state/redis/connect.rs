//! Connects to a store: to its server, to the master that Sentinels name, or to all masters of a
//! cluster.
//!
//! This module does not know: when to connect, what the connection is for.

use std::sync::Arc;

use redis::RedisConnectionInfo;
use tokio::time::timeout;

use super::cluster;
use super::connection::{CONNECT_TIMEOUT, Connected, connect_to, is_host};
use crate::net::tls::ClientTls;
use witgate_config::{Redis, RedisAddress};
use witgate_http::text::bounded;

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
    if settings.is_cluster {
        return cluster::connect(&settings.addresses, tls, &info).await;
    }
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
    let connected = connect_to(sentinel, tls, &info).await?;
    let mut ask = redis::cmd("SENTINEL");
    ask.arg("get-master-addr-by-name").arg(master);
    let reply = timeout(CONNECT_TIMEOUT, ask.query_async::<Option<(String, u16)>>(&mut connected.connection(""))).await;
    match reply {
        Ok(Ok(Some((host, port)))) if is_host(&host) && port > 0 => Ok(RedisAddress { host, port }),
        Ok(Ok(Some(_))) => Err(format!("the Sentinel {sentinel} names an invalid address")),
        Ok(Ok(None)) => Err(format!("the Sentinel {sentinel} knows no master {master}")),
        Ok(Err(error)) => Err(bounded(format_args!("the Sentinel {sentinel}: {error}"))),
        Err(_) => Err(format!("the Sentinel {sentinel} did not answer within {CONNECT_TIMEOUT:?}")),
    }
}
