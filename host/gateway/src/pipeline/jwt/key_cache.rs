//! The key sets of issuers: fetched when they are needed, kept, and fetched again.
//!
//! A key set is fetched again after a time, and at once for a token with an unknown key id, because
//! the issuer may have a new key. Between two fetches there is a minimum interval, so tokens with
//! invented ids cause no flood. If a fetch fails, the old set is used for a while. A fetch is a
//! task of its own: a client that goes away does not stop it. This module does not know: tokens.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use http::header::{self, HeaderValue};
use tokio::sync::watch;

use crate::telemetry::UpstreamRecord;
use crate::upstream::{Cluster, SendOptions, UpstreamClient};
use witgate_config::Jwks;
use witgate_http::body::{Body, ReadError};
use witgate_http::error::{Error, Kind};
use witgate_runtime::crypto::{KeySet, SET_BYTES_MAX};

/// The time between two fetches while there is no key set at all.
const FIRST_INTERVAL: Duration = Duration::from_secs(1);

/// The key sets of all issuers. They outlive snapshots.
#[derive(Default)]
pub struct KeyCaches(Mutex<HashMap<Place, Weak<KeyCache>>>);

/// Upstream, path and host.
type Place = (String, String, String);

/// The key set of one issuer.
pub struct KeyCache {
    state: Mutex<State>,
    /// Changes when a fetch ends.
    ended: watch::Sender<()>,
}

#[derive(Default)]
struct State {
    keys: Option<Arc<KeySet>>,
    fetched_at: Option<Instant>,
    began_at: Option<Instant>,
    is_fetching: bool,
    /// Why the last fetch failed.
    error: String,
}

/// What to do for a token.
enum Step {
    Use(Arc<KeySet>),
    /// Begin a fetch, and use these keys meanwhile or wait.
    Fetch(Option<Arc<KeySet>>),
    /// A fetch runs.
    Wait,
    Fail(String),
}

impl KeyCaches {
    /// The cache of a place, which all routes with this place share.
    pub fn get(&self, jwks: &Jwks) -> Arc<KeyCache> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, cache| cache.strong_count() > 0);
        let place = (jwks.upstream.clone(), jwks.path.clone(), jwks.host.clone());
        if let Some(known) = all.get(&place).and_then(Weak::upgrade) {
            return known;
        }
        let cache = Arc::new(KeyCache { state: Mutex::default(), ended: watch::channel(()).0 });
        all.insert(place, Arc::downgrade(&cache));
        cache
    }
}

impl KeyCache {
    /// The keys for a token with this key id, as new as necessary.
    ///
    /// # Errors
    /// There are no keys, and the issuer does not answer.
    pub(super) async fn keys(
        self: &Arc<Self>,
        key_id: Option<&str>,
        jwks: &Jwks,
        cluster: &Arc<Cluster>,
        upstream: &Rc<UpstreamClient>,
    ) -> Result<Arc<KeySet>, Error> {
        let mut ended = self.ended.subscribe();
        let step = self.lock().step(key_id, jwks, Instant::now());
        match step {
            Step::Use(keys) => return Ok(keys),
            Step::Fail(why) => return Err(unavailable(&why)),
            Step::Fetch(meanwhile) => {
                self.begin(jwks, cluster, upstream);
                if let Some(keys) = meanwhile {
                    return Ok(keys);
                }
            }
            Step::Wait => {}
        }
        // The fetch has a time limit of its own.
        let _ = ended.changed().await;
        let state = self.lock();
        state.usable(jwks, Instant::now()).ok_or_else(|| unavailable(&state.error))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(self: &Arc<Self>, jwks: &Jwks, cluster: &Arc<Cluster>, upstream: &Rc<UpstreamClient>) {
        let fetching = Fetching { cache: self.clone(), result: Err("the fetch was aborted".into()) };
        let (jwks, cluster, upstream) = (jwks.clone(), cluster.clone(), upstream.clone());
        tokio::task::spawn_local(async move {
            let time = cluster.settings.timeout;
            let fetched = tokio::time::timeout(time, fetch(&jwks, &cluster, &upstream)).await;
            fetching.end_with(fetched.unwrap_or_else(|_| Err(format!("no complete response within {time:?}"))));
        });
    }
}

impl State {
    fn step(&mut self, key_id: Option<&str>, jwks: &Jwks, now: Instant) -> Step {
        let usable = self.usable(jwks, now);
        let has_key = usable.as_ref().is_some_and(|keys| key_id.is_none_or(|id| keys.contains(id)));
        let is_fresh = self.fetched_at.is_some_and(|at| now.saturating_duration_since(at) <= jwks.refresh);
        let interval = if usable.is_some() { jwks.min_interval } else { jwks.min_interval.min(FIRST_INTERVAL) };
        let is_due = self.began_at.is_none_or(|at| now.saturating_duration_since(at) >= interval);
        match usable {
            Some(keys) if has_key && (is_fresh || self.is_fetching || !is_due) => Step::Use(keys),
            usable if !self.is_fetching && is_due => {
                self.is_fetching = true;
                self.began_at = Some(now);
                Step::Fetch(usable.filter(|_| has_key))
            }
            _ if self.is_fetching => Step::Wait,
            Some(keys) => Step::Use(keys),
            None => Step::Fail(self.error.clone()),
        }
    }

    /// The keys, unless they are too old.
    fn usable(&self, jwks: &Jwks, now: Instant) -> Option<Arc<KeySet>> {
        let age = now.saturating_duration_since(self.fetched_at?);
        self.keys.clone().filter(|_| age <= jwks.refresh.saturating_add(jwks.stale))
    }
}

/// A fetch that runs. Its end is noticed however it ends.
struct Fetching {
    cache: Arc<KeyCache>,
    result: Result<KeySet, String>,
}

impl Fetching {
    fn end_with(mut self, result: Result<KeySet, String>) {
        self.result = result;
    }
}

impl Drop for Fetching {
    fn drop(&mut self) {
        let result = std::mem::replace(&mut self.result, Err(String::new()));
        let mut state = self.cache.lock();
        state.is_fetching = false;
        match result {
            Ok(keys) => {
                state.keys = Some(Arc::new(keys));
                state.fetched_at = Some(Instant::now());
                state.error.clear();
            }
            Err(why) => {
                tracing::warn!(why, "jwt: the key set of an issuer cannot be fetched; the last one stays in use");
                state.error = why;
            }
        }
        drop(state);
        self.cache.ended.send_replace(());
    }
}

/// Asks for a key set.
async fn fetch(jwks: &Jwks, cluster: &Cluster, upstream: &UpstreamClient) -> Result<KeySet, String> {
    let name = &cluster.name;
    let mut request = http::Request::new(Body::empty());
    *request.uri_mut() = jwks.path.parse().map_err(|_| format!("{}: is not a valid path", jwks.path))?;
    let host = HeaderValue::from_str(&jwks.host).map_err(|_| "the host is not a valid field value".to_owned())?;
    request.headers_mut().insert(header::HOST, host);
    request.headers_mut().insert(header::ACCEPT, HeaderValue::from_static("application/json"));
    let mut record = UpstreamRecord::default();
    let client = std::net::Ipv4Addr::LOCALHOST.into();
    let options = SendOptions { client, timeout: None, interim: None, budget: None, trace: None, record: &mut record };
    let response = upstream.send(cluster, options, request).await.map_err(|error| error.to_string())?;
    let status = response.status();
    if status != http::StatusCode::OK {
        return Err(format!("upstream {name}: {} got status {}", jwks.path, status.as_u16()));
    }
    let text = response.into_body().read(SET_BYTES_MAX).await.map_err(|error| match error {
        ReadError::TooLarge => format!("upstream {name}: the key set has more than {SET_BYTES_MAX} bytes"),
        ReadError::Broken(error) => format!("upstream {name}: {error}"),
    })?;
    KeySet::from_json(&text).map_err(|error| format!("upstream {name}: {error}"))
}

fn unavailable(why: &str) -> Error {
    Error::new(Kind::UpstreamUnavailable, format!("jwt: there is no key set of the issuer: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str =
        r#"{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"a","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;

    fn jwks() -> Jwks {
        Jwks {
            upstream: "id".into(),
            path: "/".into(),
            host: "id".into(),
            refresh: Duration::from_secs(600),
            min_interval: Duration::from_secs(10),
            stale: Duration::from_secs(3600),
        }
    }

    #[test]
    fn fetches_are_rare_and_old_keys_are_used_meanwhile() -> Result<(), String> {
        let (jwks, start) = (jwks(), Instant::now());
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let mut state = State::default();
        assert!(matches!(state.step(None, &jwks, at(0)), Step::Fetch(None)));
        assert!(matches!(state.step(None, &jwks, at(0)), Step::Wait));
        // The fetch fails: the next one comes after a second.
        state.is_fetching = false;
        state.error = "down".into();
        assert!(matches!(state.step(None, &jwks, at(0)), Step::Fail(why) if why == "down"));
        assert!(matches!(state.step(None, &jwks, at(1)), Step::Fetch(None)));
        state.is_fetching = false;
        state.keys = Some(Arc::new(KeySet::from_json(KEY.as_bytes()).map_err(|error| error.to_string())?));
        state.fetched_at = Some(at(1));
        assert!(matches!(state.step(Some("a"), &jwks, at(2)), Step::Use(_)));
        // Unknown ids: one fetch in ten seconds, whatever the ids are.
        assert!(matches!(state.step(Some("b"), &jwks, at(5)), Step::Use(_)));
        assert!(matches!(state.step(Some("b"), &jwks, at(11)), Step::Fetch(None)));
        assert!(matches!(state.step(Some("c"), &jwks, at(11)), Step::Wait));
        assert!(matches!(state.step(Some("a"), &jwks, at(11)), Step::Use(_)), "a known key never waits");
        state.is_fetching = false;
        assert!(matches!(state.step(Some("c"), &jwks, at(12)), Step::Use(_)));
        // Old keys are used while a fetch runs and after it failed, but not for ever.
        assert!(matches!(state.step(Some("a"), &jwks, at(700)), Step::Fetch(Some(_))));
        assert!(matches!(state.step(Some("a"), &jwks, at(701)), Step::Use(_)));
        state.is_fetching = false;
        assert!(matches!(state.step(Some("a"), &jwks, at(702)), Step::Use(_)));
        assert!(matches!(state.step(Some("a"), &jwks, at(4202)), Step::Fetch(None)));
        Ok(())
    }

    #[test]
    fn routes_with_the_same_place_share_a_cache() {
        let (caches, jwks) = (KeyCaches::default(), jwks());
        let (a, b) = (caches.get(&jwks), caches.get(&jwks));
        assert!(Arc::ptr_eq(&a, &b));
        assert!(!Arc::ptr_eq(&a, &caches.get(&Jwks { path: "/other".into(), ..jwks })));
    }
}
