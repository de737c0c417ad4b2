//! The page on which gateways tell each other what was decided about a filter's release.
//!
//! It is on a Redis server or an object in a bucket. On both, a decision is written only if no
//! other came first. This module does not know: what a decision means, when a page is read.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::remote::BucketPage;
use super::shared::{GatewayNotice, Page, SILENCE_MAX, SharedDecision, SharedState};
use crate::state::{NOTICE_BYTES_MAX, RedisDecisions};
use witgate_config::{Config, ReleaseBucket};

/// Writes to a bucket collide if several gateways write at once.
const ATTEMPTS_MAX: u32 = 4;
/// How long a gateway waits for a bucket.
const BUCKET_TIMEOUT: Duration = Duration::from_secs(10);
/// A gateway in a bucket writes its unchanged state again after this time, so that the others see
/// that it lives.
const REFRESH: Duration = Duration::from_secs(20);

/// The page of one filter.
#[derive(Clone)]
pub enum DecisionStore {
    /// A hash on a Redis server.
    Redis(RedisDecisions),
    /// An object in a bucket.
    Bucket(Arc<BucketPage>),
}

/// What the page says.
#[derive(Debug, Clone, PartialEq)]
pub struct Stored {
    /// The number of the last decision. 0 if there is none.
    pub number: u64,
    /// Whether the decision of this gateway was taken.
    pub taken: bool,
    /// The last decision.
    pub decision: Option<SharedDecision>,
    /// The gateways that wrote lately.
    pub gateways: Vec<GatewayNotice>,
}

impl DecisionStore {
    /// The name of the store, or the location of the object.
    pub fn store(&self) -> &str {
        match self {
            Self::Redis(redis) => redis.store(),
            Self::Bucket(page) => page.location(),
        }
    }

    /// Writes the state of this gateway, and its pending decision if nobody else decided since the
    /// last one that it knows. Reads the rest.
    ///
    /// # Errors
    /// Why the store did not answer, for people.
    pub async fn exchange(&self, notice: GatewayNotice, state: &SharedState) -> Result<Stored, String> {
        let notice = GatewayNotice { at: now(), ..notice };
        match self {
            Self::Redis(redis) => exchange_redis(redis, &notice, state).await,
            Self::Bucket(page) => {
                let result = tokio::time::timeout(BUCKET_TIMEOUT, exchange_bucket(page, &notice, state)).await;
                result.unwrap_or_else(|_| Err(format!("no answer within {} s", BUCKET_TIMEOUT.as_secs())))
            }
        }
    }
}

/// The pages in buckets. Each remembers what it read, so that an unchanged object is not sent
/// again.
#[derive(Default)]
pub struct BucketDecisions(HashMap<String, (ReleaseBucket, Result<Arc<BucketPage>, String>)>);

impl BucketDecisions {
    /// The page of each filter whose `release.store` is a bucket, or why it cannot be used.
    pub fn of(&mut self, config: &Config) -> Vec<(String, Result<DecisionStore, String>)> {
        let wanted = config
            .filters
            .iter()
            .filter_map(|(name, filter)| Some((name, filter.release.as_ref()?.store.as_ref()?.bucket()?)));
        let wanted: HashMap<&String, &ReleaseBucket> = wanted.collect();
        self.0.retain(|name, (known, _)| wanted.get(name).is_some_and(|bucket| *bucket == known));
        for (name, bucket) in wanted {
            let open = || (bucket.clone(), BucketPage::open(bucket).map(Arc::new));
            self.0.entry(name.clone()).or_insert_with(open);
        }
        let pages = self.0.iter().map(|(name, (_, page))| (name.clone(), page.clone().map(DecisionStore::Bucket)));
        pages.collect()
    }
}

async fn exchange_redis(redis: &RedisDecisions, notice: &GatewayNotice, state: &SharedState) -> Result<Stored, String> {
    let decision = state.pending.as_ref().map(encode);
    let notices = redis.exchange(&notice.gateway, encode(notice), state.known, decision).await?;
    let gateways = notices.gateways.iter().filter_map(|(name, json)| {
        let notice: GatewayNotice = serde_json::from_slice(json).ok()?;
        Some(GatewayNotice { gateway: name.clone(), ..notice })
    });
    Ok(Stored {
        number: notices.number,
        taken: notices.taken,
        decision: serde_json::from_slice(&notices.decision).ok(),
        gateways: gateways.filter(is_fresh).collect(),
    })
}

/// Reads the object, and writes it if this gateway has something to say. If another gateway wrote
/// in between, both steps are repeated.
async fn exchange_bucket(page: &BucketPage, notice: &GatewayNotice, state: &SharedState) -> Result<Stored, String> {
    let mut attempt = 0;
    loop {
        let read = page.read().await?.bounded();
        let taken = state.pending.is_some() && read.number == state.known;
        let known = read.gateways.iter().find(|other| other.gateway == notice.gateway);
        let heard = |page: Page| Stored {
            number: page.number,
            taken,
            decision: page.decision,
            gateways: page.gateways.into_iter().filter(is_fresh).collect(),
        };
        if !taken && known.is_some_and(|known| says_the_same(known, notice)) {
            return Ok(heard(read));
        }
        let next = read.with(notice, state.pending.as_ref().filter(|_| taken), now());
        if page.write(&next).await? {
            return Ok(heard(next));
        }
        attempt += 1;
        if attempt == ATTEMPTS_MAX {
            return Err("other gateways write at the same time: trying again".into());
        }
        tokio::time::sleep(Duration::from_millis(fastrand::u64(20..200))).await;
    }
}

/// Whether a notice on the page needs no update.
fn says_the_same(known: &GatewayNotice, notice: &GatewayNotice) -> bool {
    let is_recent = notice.at.saturating_sub(known.at) < REFRESH.as_secs();
    is_recent && *known == GatewayNotice { at: known.at, ..notice.clone() }
}

fn is_fresh(notice: &GatewayNotice) -> bool {
    notice.at.saturating_add(SILENCE_MAX.as_secs()) >= now()
}

fn encode(value: &impl serde::Serialize) -> Vec<u8> {
    let json = serde_json::to_vec(value).unwrap_or_default();
    if json.len() <= NOTICE_BYTES_MAX { json } else { vec![] }
}

fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
