//! Checks passwords against their bcrypt hashes, off the serving threads.
//!
//! A check takes 50 ms of a core by design, so it runs in the blocking pool, a few at a time, and
//! only so many wait. One client has a share of the places, so that its guesses do not keep others
//! from theirs. Results are remembered under a keyed hash of password and bcrypt hash: the
//! clients of `basic_auth` send the same password with each request. A result depends on nothing
//! but these two, so it stays valid when the list of users changes. This module does not know:
//! users, requests.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Semaphore;

use crate::clients::fair_share;
use witgate_http::client_counts::ClientCounts;
use witgate_http::limiter::{Limiter, Permit};

/// Checks that run or wait at the same time. Further ones fail as [`Busy`].
const QUEUE_MAX: usize = 64;
/// Each client may have so many of them, however many others there are.
const CLIENT_FLOOR: usize = 4;
const CLIENT_COUNTERS: usize = 256;
/// Remembered results of one kind; up to twice as many.
const KNOWN_MAX: usize = 4096;

/// The checks of all threads.
pub struct PasswordChecks {
    queue: Limiter,
    clients: ClientCounts,
    running: Arc<Semaphore>,
    /// None if the system has no random numbers: then nothing is remembered.
    key: Option<[u8; 32]>,
    right: Mutex<Recent>,
    wrong: Mutex<Recent>,
}

/// Too many checks wait.
#[derive(Debug)]
pub struct Busy;

impl Default for PasswordChecks {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let mut key = [0; 32];
        Self {
            queue: Limiter::default(),
            clients: ClientCounts::new(CLIENT_COUNTERS),
            running: Arc::new(Semaphore::new((cores / 2).max(1))),
            key: getrandom::fill(&mut key).is_ok().then_some(key),
            right: Mutex::default(),
            wrong: Mutex::default(),
        }
    }
}

impl PasswordChecks {
    /// Whether `password` has this bcrypt hash, which is the hash of `user` or, if there is no such
    /// user, another one. The user is a part of what is remembered: otherwise a quick answer would
    /// say that a user does not exist.
    ///
    /// # Errors
    ///
    /// Too many other checks wait, or too many of this client.
    pub async fn check(&self, client: IpAddr, (user, hash): (&str, &str), password: &[u8]) -> Result<bool, Busy> {
        let id = self.key.map(|key| {
            let mut hasher = blake3::Hasher::new_keyed(&key);
            *hasher
                .update(&(user.len() as u64).to_le_bytes())
                .update(user.as_bytes())
                .update(&(hash.len() as u64).to_le_bytes())
                .update(hash.as_bytes())
                .update(password)
                .finalize()
                .as_bytes()
        });
        if let Some(id) = id {
            if contains(&self.right, id) {
                return Ok(true);
            }
            if contains(&self.wrong, id) {
                return Ok(false);
            }
        }
        let waiting = self.enter(client)?;
        let permit = self.running.clone().acquire_owned().await.map_err(|_| Busy)?;
        let (hash, password) = (hash.to_owned(), password.to_owned());
        let check = move || {
            // Held to the end of the check, even if the client is gone.
            let _held = (waiting, permit);
            bcrypt::verify(&password, &hash).unwrap_or(false)
        };
        let is_right = tokio::task::spawn_blocking(check).await.unwrap_or(false);
        if let Some(id) = id {
            let known = if is_right { &self.right } else { &self.wrong };
            known.lock().unwrap_or_else(PoisonError::into_inner).insert(id);
        }
        Ok(is_right)
    }

    /// Takes a place in the queue.
    fn enter(&self, client: IpAddr) -> Result<[Permit; 2], Busy> {
        let share = fair_share(QUEUE_MAX, self.queue.in_use(), CLIENT_FLOOR);
        let own = self.clients.of(client).try_acquire(share).map_err(|_| Busy)?;
        Ok([own, self.queue.try_acquire(QUEUE_MAX).map_err(|_| Busy)?])
    }
}

fn contains(known: &Mutex<Recent>, id: [u8; 32]) -> bool {
    known.lock().unwrap_or_else(PoisonError::into_inner).contains(id)
}

/// A bounded set that forgets what was not asked for lately.
#[derive(Default)]
struct Recent {
    young: HashSet<[u8; 32]>,
    old: HashSet<[u8; 32]>,
}

impl Recent {
    fn contains(&mut self, id: [u8; 32]) -> bool {
        if self.young.contains(&id) {
            return true;
        }
        let is_old = self.old.contains(&id);
        if is_old {
            self.insert(id);
        }
        is_old
    }

    fn insert(&mut self, id: [u8; 32]) {
        if self.young.len() >= KNOWN_MAX {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

    #[test]
    fn what_is_asked_for_is_kept_and_the_rest_is_forgotten() {
        let id = |number: usize| *blake3::hash(&number.to_le_bytes()).as_bytes();
        let mut recent = Recent::default();
        for number in 0..10 * KNOWN_MAX {
            recent.insert(id(number));
            assert!(recent.contains(id(0)), "{number}");
        }
        assert!(!recent.contains(id(1)));
        assert!(recent.young.len() + recent.old.len() <= 2 * KNOWN_MAX);
    }

    #[test]
    fn one_client_leaves_places_to_others() {
        let checks = PasswordChecks::default();
        let take = |client: IpAddr| (0..QUEUE_MAX).map_while(|_| checks.enter(client).ok()).collect::<Vec<_>>();
        let first = take(CLIENT);
        assert_eq!(first.len(), QUEUE_MAX / 2);
        // The counters of clients are chosen at random, so one of two others has another one.
        let others = ["192.0.2.2", "192.0.2.3"].map(|client| client.parse().map_or(0, |client| take(client).len()));
        assert!(others.iter().sum::<usize>() >= CLIENT_FLOOR, "{others:?}");
        drop(first);
        assert_eq!(checks.queue.in_use(), 0);
    }

    #[test]
    fn a_password_is_right_or_wrong_and_the_answer_is_remembered() -> Result<(), Box<dyn std::error::Error>> {
        let runtime = tokio::runtime::Builder::new_current_thread().build()?;
        let checks = PasswordChecks::default();
        let hash = bcrypt::hash("secret", 4)?;
        for _ in 0..2 {
            assert!(matches!(runtime.block_on(checks.check(CLIENT, ("user", &hash), b"secret")), Ok(true)));
            assert!(matches!(runtime.block_on(checks.check(CLIENT, ("user", &hash), b"wrong")), Ok(false)));
        }
        assert_eq!(checks.right.lock().map(|known| known.young.len()).ok(), Some(1));
        assert!(matches!(runtime.block_on(checks.check(CLIENT, ("user", "not a hash"), b"secret")), Ok(false)));
        // With no permit free, so many wait and the next one is refused.
        let _all = checks.running.clone().try_acquire_many_owned(checks.running.available_permits() as u32)?;
        let waiting: Vec<_> = (0..QUEUE_MAX).map_while(|_| checks.queue.try_acquire(QUEUE_MAX).ok()).collect();
        assert_eq!(waiting.len(), QUEUE_MAX);
        assert!(matches!(runtime.block_on(checks.check(CLIENT, ("user", &hash), b"third")), Err(Busy)));
        assert!(
            matches!(runtime.block_on(checks.check(CLIENT, ("user", &hash), b"secret")), Ok(true)),
            "it is remembered"
        );
        Ok(())
    }
}
