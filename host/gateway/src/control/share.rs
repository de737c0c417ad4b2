//! Tells other gateways what was decided about the releases of filters, and hears from them.
//!
//! Each filter with `release.store` has a page there ([`DecisionStore`]), which this gateway reads
//! and writes at an interval. A decision that the store did not take stays pending, also over a
//! restart. While a store cannot be reached, the gateway decides alone, and says so. This module
//! does not know: how a decision is made.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;

use super::reload::Reloader;
use super::rollout;
use crate::pipeline::snapshot::{Shared, SharedReleases, StoreView};
use crate::releases::decision_store::{BucketDecisions, DecisionStore, Stored};
use crate::releases::shared::GatewayNotice;

/// How often a page on a server of `stores` is read. A decision reaches the others within two
/// intervals.
const INTERVAL: Duration = Duration::from_millis(500);
/// How often a page in a bucket is read. Each read is a request that the provider counts.
const BUCKET_INTERVAL: Duration = Duration::from_secs(2);

/// Shares decisions until the gateway drains. A slow bucket does not delay the servers of `stores`.
pub(super) async fn share_releases(shared: Arc<Shared>, reloader: Arc<Reloader>) {
    let of_stores = || {
        let decision_stores = reloader.decision_stores().into_iter();
        decision_stores.map(|(filter, redis)| (filter, Ok(DecisionStore::Redis(redis)))).collect()
    };
    let mut buckets = BucketDecisions::default();
    let in_buckets = || buckets.of(&shared.snapshot.load().config);
    tokio::join!(share_at(INTERVAL, &shared, of_stores), share_at(BUCKET_INTERVAL, &shared, in_buckets));
}

/// The page of each filter, or why it cannot be used.
type Pages = Vec<(String, Result<DecisionStore, String>)>;

async fn share_at(interval: Duration, shared: &Shared, mut pages: impl FnMut() -> Pages) {
    let mut draining = shared.draining.subscribe();
    loop {
        let pages = pages();
        join_all(pages.iter().map(|(filter, page)| exchange(shared, filter, page.as_ref()))).await;
        forget_removed(shared);
        tokio::select! {
            () = rollout::wait_drain(&mut draining) => return,
            () = tokio::time::sleep(interval) => {}
        }
    }
}

/// Writes and reads the page of one filter.
async fn exchange(shared: &Shared, filter: &str, page: Result<&DecisionStore, &String>) {
    let Some((notice, state)) = rollout::lock(&shared.releases).shared_state(filter) else { return };
    let notice = GatewayNotice { gateway: shared.gateway_name.clone(), ..notice };
    let store = page.map(|page| page.store().to_owned()).unwrap_or_default();
    let answer = match page {
        Ok(page) => page.exchange(notice, &state).await,
        Err(why) => Err(why.clone()),
    };
    let view = match answer {
        Ok(Stored { number, taken, decision, gateways }) => {
            rollout::hear(shared, filter, number, taken, decision);
            StoreView { store, error: None, gateways }
        }
        Err(why) => StoreView { store, error: Some(why), gateways: vec![] },
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

fn forget_removed(shared: &Shared) {
    let config = shared.snapshot.load().config.clone();
    let is_shared =
        |name: &String| config.filters.get(name).and_then(|filter| filter.release.as_ref()?.store.as_ref()).is_some();
    lock(&shared.shared_releases).retain(|name, _| is_shared(name));
}

fn lock(views: &SharedReleases) -> std::sync::MutexGuard<'_, HashMap<String, StoreView>> {
    views.lock().unwrap_or_else(PoisonError::into_inner)
}
