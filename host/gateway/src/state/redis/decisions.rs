//! The last decision about a filter's release, and the state of each gateway, for all gateways.
//!
//! A gateway that writes a decision says which one it knows. If another came first, the server
//! refuses, and the gateway reads the other one. So no gateway overwrites what it has not seen.
//! This module does not know: what a decision means.

use std::sync::{Arc, LazyLock};

use redis::Script;
use redis::aio::MultiplexedConnection;

use super::client::RedisClient;

static DECISIONS: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/decisions.lua")));

/// The largest state of a gateway and the largest decision, in bytes.
pub const NOTICE_BYTES_MAX: usize = 4 << 10;
/// Begins the fields of gateways.
const GATEWAY: &[u8] = b"g:";

/// The decisions about one filter.
#[derive(Clone)]
pub struct RedisDecisions {
    pub(in crate::state) client: Arc<RedisClient>,
    pub(in crate::state) key: Arc<str>,
}

/// What the server has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notices {
    /// The number of the last decision. 0 if there is none.
    pub number: u64,
    /// Whether the decision of this gateway was taken.
    pub taken: bool,
    /// The last decision. Empty if there is none.
    pub decision: Vec<u8>,
    /// The name and the state of each gateway.
    pub gateways: Vec<(String, Vec<u8>)>,
}

impl RedisDecisions {
    /// The name of the store.
    pub fn store(&self) -> &str {
        &self.client.name
    }

    /// Writes the state of this gateway, and a decision if nobody else decided since `known`. Reads
    /// the rest.
    ///
    /// # Errors
    /// Why the server did not answer, for people.
    pub async fn exchange(
        &self,
        gateway: &str,
        state: Vec<u8>,
        known: u64,
        decision: Option<Vec<u8>>,
    ) -> Result<Notices, String> {
        let (stored, gateway) = (self.key.clone(), gateway.to_owned());
        let ask = |mut connection: MultiplexedConnection| async move {
            let mut call = DECISIONS.key(&*stored);
            call.arg(gateway).arg(state).arg(known).arg(decision.unwrap_or_default());
            call.invoke_async::<(u64, u64, Vec<u8>, Vec<Vec<u8>>)>(&mut connection).await
        };
        let (number, taken, decision, fields) = self.client.run("decisions", &self.key, ask).await?;
        let gateways = fields.chunks_exact(2).filter_map(|pair| {
            let name = pair[0].strip_prefix(GATEWAY)?;
            let is_small = pair[1].len() <= NOTICE_BYTES_MAX;
            is_small.then(|| (String::from_utf8_lossy(name).into_owned(), pair[1].clone()))
        });
        let gateways = gateways.collect();
        let decision = if decision.len() <= NOTICE_BYTES_MAX { decision } else { vec![] };
        Ok(Notices { number, taken: taken == 1, decision, gateways })
    }
}
