//! Tells other gateways what was decided about the releases of filters, and hears from them.
//!
//! Each filter with `release.store` has a bulletin in that store, which this gateway reads and
//! writes at an interval. A decision that the store did not take stays pending, also over a
//! restart. While a store cannot be reached, the gateway decides alone, and says so. This module
//! does not know: how a decision is made.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, SystemTime};

use super::reload::Reloader;
use super::rollout;
use crate::pipeline::snapshot::{Shared, SharedReleases, StoreView};
use crate::releases::shared::{GatewayNotice, SharedDecision};
use crate::state::{Bulletin, NOTICE_BYTES_MAX};

/// How often a bulletin is read. A decision reaches the others within two intervals.
const INTERVAL: Duration = Duration::from_millis(500);
/// A gateway that wrote nothing for this long is not shown.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// Shares decisions until the gateway drains.
pub(super) async fn share_releases(shared: Arc<Shared>, reloader: Arc<Reloader>) {
    let mut draining = shared.draining.subscribe();
    loop {
        for (filter, bulletin) in reloader.bulletins() {
            exchange(&shared, &filter, &bulletin).await;
        }
        forget_removed(&shared);
        tokio::select! {
            () = rollout::wait_drain(&mut draining) => return,
            () = tokio::time::sleep(INTERVAL) => {}
        }
    }
}

/// Writes and reads the bulletin of one filter.
async fn exchange(shared: &Shared, filter: &str, bulletin: &Bulletin) {
    let Some((notice, state)) = rollout::lock(&shared.releases).shared_state(filter) else { return };
    let encoded = encode(&GatewayNotice { at: now(), ..notice });
    let decision = state.pending.as_ref().map(encode);
    let answer = bulletin.exchange(&shared.gateway_name, encoded, state.known, decision).await;
    let view = match answer {
        Ok(notices) => {
            let decision: Option<SharedDecision> = serde_json::from_slice(&notices.decision).ok();
            rollout::hear(shared, filter, notices.number, notices.taken, decision);
            StoreView { store: bulletin.store().to_owned(), error: None, gateways: gateways(&notices.gateways) }
        }
        Err(why) => StoreView { store: bulletin.store().to_owned(), error: Some(why), gateways: vec![] },
    };
    let before = lock(&shared.shared_releases).insert(filter.to_owned(), view.clone());
    report(filter, before.as_ref(), &view);
}

/// Logs when a store begins or ceases to answer.
fn report(filter: &str, before: Option<&StoreView>, view: &StoreView) {
    let was_alone = before.map(|before| before.error.is_some());
    match (&view.error, was_alone) {
        (Some(why), None | Some(false)) => {
            tracing::warn!(
                filter,
                store = view.store,
                why,
                "decisions about releases are not shared: this gateway decides alone"
            );
        }
        (None, None | Some(true)) => {
            tracing::info!(filter, store = view.store, "decisions about releases are shared");
        }
        _ => {}
    }
}

fn gateways(fields: &[(String, Vec<u8>)]) -> Vec<GatewayNotice> {
    let oldest = now().saturating_sub(SILENCE_MAX.as_secs());
    let parsed = fields.iter().filter_map(|(name, json)| {
        let notice: GatewayNotice = serde_json::from_slice(json).ok()?;
        (notice.at >= oldest).then(|| GatewayNotice { gateway: name.clone(), ..notice })
    });
    parsed.collect()
}

fn encode(value: &impl serde::Serialize) -> Vec<u8> {
    let json = serde_json::to_vec(value).unwrap_or_default();
    if json.len() <= NOTICE_BYTES_MAX { json } else { vec![] }
}

fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn forget_removed(shared: &Shared) {
    let config = shared.snapshot.load().config.clone();
    let is_shared =
        |name: &String| config.filters.get(name).and_then(|filter| filter.release.as_ref()?.store.as_ref()).is_some();
    lock(&shared.shared_releases).retain(|name, _| is_shared(name));
}

fn lock(views: &SharedReleases) -> std::sync::MutexGuard<'_, HashMap<String, StoreView>> {
    views.lock().unwrap_or_else(PoisonError::into_inner)
}
