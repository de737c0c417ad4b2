//! Which exchanges use the new version of a filter while it is released.
//!
//! A stable hash of the request's key decides, so a client stays with its version, on every thread
//! and on every gateway. The hash contains the new version's digest: each release begins with other
//! clients. A larger share contains every client of a smaller one, so nobody goes back to the old
//! version between two steps. A client can choose its own header or cookie, and so its version;
//! both versions are trusted alike. This module does not know: what a version does.

use std::net::IpAddr;

use http::HeaderMap;

use crate::upstream::{cookie, hash};
use witgate_config::{Share, Sticky};

/// Divides exchanges between the old and the new version.
#[derive(Debug)]
pub struct Split {
    share: Share,
    sticky: Sticky,
    seed: u64,
}

impl Split {
    /// Gives `share` of the exchanges to the new version. `digest` is that version's.
    pub fn new(share: Share, sticky: Sticky, digest: &str) -> Self {
        Self { share, sticky, seed: hash(digest.as_bytes()) }
    }

    /// The new version's share.
    pub fn share(&self) -> Share {
        self.share
    }

    /// Whether an exchange uses the new version. A request without the key is distributed by the
    /// exchange's id, which is random.
    pub fn picks_new(&self, headers: &HeaderMap, client: IpAddr, exchange: u128) -> bool {
        if self.share.0 == 0 {
            return false; // the shadow step
        }
        let key = match &self.sticky {
            Sticky::Client => Some(hash_address(client)),
            Sticky::Header(name) => headers.get(name).map(|value| hash(value.as_bytes())),
            Sticky::Cookie(name) => cookie(headers, name).map(hash),
        };
        let key = key.unwrap_or_else(|| hash(&exchange.to_le_bytes()));
        // Hashed again, because `key ^ seed` alone would give neighbours the same order in every
        // release.
        let point = hash(&(key ^ self.seed).to_le_bytes());
        (u128::from(point) * u128::from(Share::ALL.0)) >> 64 < u128::from(self.share.0)
    }
}

fn hash_address(address: IpAddr) -> u64 {
    match address.to_canonical() {
        IpAddr::V4(address) => hash(&address.octets()),
        IpAddr::V6(address) => hash(&address.octets()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn address(index: u32) -> IpAddr {
        IpAddr::from(index.to_be_bytes())
    }

    fn users(split: &Split) -> Vec<u32> {
        (0..20_000).filter(|index| split.picks_new(&HeaderMap::new(), address(*index), 0)).collect()
    }

    #[test]
    fn the_share_is_kept_and_a_larger_one_contains_a_smaller_one() {
        let of = |share| users(&Split::new(Share(share), Sticky::Client, "abc"));
        assert!(of(0).is_empty());
        assert_eq!(of(10_000).len(), 20_000);
        let (small, large) = (of(1000), of(5000));
        assert!((1800..2200).contains(&small.len()), "{}", small.len());
        assert!((9600..10_400).contains(&large.len()), "{}", large.len());
        assert!(small.iter().all(|client| large.contains(client)));
        let other = users(&Split::new(Share(1000), Sticky::Client, "abd"));
        let both = small.iter().filter(|client| other.contains(client)).count();
        assert!(both < 400, "another release begins with other clients: {both}");
    }

    #[test]
    fn a_header_or_a_cookie_is_the_key_and_without_it_the_exchange_decides() {
        let header = Split::new(Share(5000), Sticky::Header(http::HeaderName::from_static("x-user")), "abc");
        let cookie = Split::new(Share(5000), Sticky::Cookie("user".into()), "abc");
        let mut new = 0;
        for user in 0..200 {
            let mut headers = HeaderMap::new();
            headers.insert("x-user", HeaderValue::from(user));
            let picks = |client, exchange| header.picks_new(&headers, address(client), exchange);
            assert_eq!(picks(1, 1), picks(2, 2), "neither the address nor the exchange counts");
            let mut cookies = HeaderMap::new();
            let line = format!("a=1; user={user}");
            cookies.insert("cookie", HeaderValue::from_str(&line).unwrap_or(HeaderValue::from_static("-")));
            assert_eq!(cookie.picks_new(&cookies, address(1), 1), picks(1, 1), "the same key, the same version");
            new += u32::from(picks(1, 1));
        }
        assert!((60..140).contains(&new), "{new}");
        let by_exchange = (0..1000).filter(|id| header.picks_new(&HeaderMap::new(), address(1), *id)).count();
        assert!((400..600).contains(&by_exchange), "{by_exchange}");
    }
}
