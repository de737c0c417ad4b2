//! Which endpoint takes the next request: in turn by weight, the less busy of two, or by a hash of the request.
//!
//! Everything here is arithmetic over what the caller saw of each endpoint, so that it can be tested without one. Who is looked at, in this order: endpoints that are
//! in service, without those that this request tried before; those that it tried; and where every endpoint is out of service, all of them as
//! if none were ("panic"): what health checks and failures say then is more likely wrong than true, and a request that is sent may succeed. Must not
//! know: connections, clocks, where the numbers come from.

use smallvec::SmallVec;

/// What the choice needs to know of an endpoint.
#[derive(Debug, Clone, Copy)]
pub(super) struct Candidate {
    /// 0 is never chosen.
    pub(super) weight: u32,
    /// Whether it can be used.
    pub(super) availability: Availability,
    /// Requests that it has not finished, of all threads.
    pub(super) in_flight: usize,
    /// A number that stands for the endpoint, the same in every gateway.
    pub(super) seed: u64,
}

/// Whether an endpoint can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Availability {
    /// In service.
    Available,
    /// In service, with as many requests as it may have.
    Full,
    /// Unhealthy or ejected.
    OutOfService,
}

/// Why no endpoint can be chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ChooseError {
    /// Those in service have as many requests as they may.
    Saturated,
    /// No endpoint has a weight.
    NoEndpoint,
}

/// Places in the list of candidates.
pub(super) type Places = SmallVec<[usize; 8]>;

/// How to choose among several.
pub(super) enum Policy<'a> {
    /// Whose turn it is: a number for each candidate, kept from one choice to the next.
    RoundRobin(&'a mut [i64]),
    /// Few requests in flight.
    LeastRequests,
    /// The request's key.
    Hash(u64),
}

/// The place of the endpoint that takes a request.
pub(super) fn choose(all: &[Candidate], tried: &[usize], way: Policy) -> Result<usize, ChooseError> {
    let places = eligible(all, tried)?;
    if let [only] = places[..] {
        return Ok(only);
    }
    Ok(match way {
        Policy::RoundRobin(current) => in_turn(all, &places, current),
        Policy::LeastRequests => less_busy(all, &places, |total| fastrand::u64(..total)),
        Policy::Hash(key) => by_key(all, &places, key),
    })
}

/// The candidates that come into question; at least one.
fn eligible(all: &[Candidate], tried: &[usize]) -> Result<Places, ChooseError> {
    let having = |availability: Availability| -> Places {
        let fits = |(_, one): &(usize, &Candidate)| one.weight > 0 && one.availability == availability;
        all.iter().enumerate().filter(fits).map(|(place, _)| place).collect()
    };
    let mut places = having(Availability::Available);
    if places.is_empty() {
        if !having(Availability::Full).is_empty() {
            return Err(ChooseError::Saturated);
        }
        places = having(Availability::OutOfService);
    }
    if places.is_empty() {
        return Err(ChooseError::NoEndpoint);
    }
    if places.iter().any(|place| !tried.contains(place)) {
        places.retain(|place| !tried.contains(place));
    }
    Ok(places)
}

/// Smooth weighted round robin: each choice gives every candidate its weight, and takes the sum from the chosen one. So the heavy one's turns are spread, and who is
/// left out leaves its share to the others in proportion.
fn in_turn(all: &[Candidate], places: &[usize], current: &mut [i64]) -> usize {
    let mut total = 0;
    let mut best = places[0];
    for place in places {
        let weight = i64::from(all[*place].weight);
        current[*place] += weight;
        total += weight;
        if current[*place] > current[best] {
            best = *place;
        }
    }
    current[best] -= total;
    best
}

/// Two picks by weight; the one with fewer requests in flight for its weight, the first where they are equal. `random` gives a number below its argument.
fn less_busy(all: &[Candidate], places: &[usize], random: impl Fn(u64) -> u64) -> usize {
    let pick = |without: Option<usize>| {
        let others = || places.iter().copied().filter(|place| Some(*place) != without);
        let total: u64 = others().map(|place| u64::from(all[place].weight)).sum();
        let mut at = random(total.max(1));
        for place in others() {
            let weight = u64::from(all[place].weight);
            if at < weight {
                return place;
            }
            at -= weight;
        }
        places[0]
    };
    let first = pick(None);
    let second = pick(Some(first));
    let load = |place: usize, other: usize| all[place].in_flight as u128 * u128::from(all[other].weight);
    if load(second, first) < load(first, second) { second } else { first }
}

/// Weighted rendezvous: each candidate draws a number from its seed and the key, the best one wins. An endpoint that comes or goes moves only the keys that it takes or
/// had, and no table is built; the price is one draw for each endpoint, of which there are few.
fn by_key(all: &[Candidate], places: &[usize], key: u64) -> usize {
    let draw = |place: usize| {
        let bits = mix(key ^ all[place].seed) >> 11;
        let uniform = (bits as f64 + 0.5) / (1_u64 << 53) as f64;
        -uniform.ln() / f64::from(all[place].weight)
    };
    let mut best = (places[0], f64::INFINITY);
    for place in places {
        let drawn = draw(*place);
        if drawn < best.1 {
            best = (*place, drawn);
        }
    }
    best.0
}

/// A hash that every gateway computes alike (FNV-1a, then mixed): the standard library's may change with its version.
pub(super) fn hash(bytes: &[u8]) -> u64 {
    let fnv = bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3));
    mix(fnv)
}

/// The finalizer of splitmix64: every bit of the input changes half of the output's.
const fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn one(weight: u32, availability: Availability) -> Candidate {
        Candidate { weight, availability, in_flight: 0, seed: 0 }
    }

    fn fit(weights: &[u32]) -> Vec<Candidate> {
        let seeded = |(place, weight): (usize, &u32)| Candidate {
            seed: hash(format!("10.0.0.{place}:80").as_bytes()),
            ..one(*weight, Availability::Available)
        };
        weights.iter().enumerate().map(seeded).collect()
    }

    fn turns(all: &[Candidate], count: usize) -> Vec<usize> {
        let mut current = vec![0; all.len()];
        (0..count).filter_map(|_| choose(all, &[], Policy::RoundRobin(&mut current)).ok()).collect()
    }

    #[test]
    fn a_heavy_endpoints_turns_are_spread() {
        assert_eq!(turns(&fit(&[5, 1, 1]), 7), [0, 0, 1, 0, 2, 0, 0]);
    }

    #[test]
    fn who_is_out_full_or_tried_is_passed_over_until_nobody_is_left() {
        use Availability::{Available as Fit, Full, OutOfService as Out};
        let chosen = |all: &[Candidate], tried: &[usize]| choose(all, tried, Policy::RoundRobin(&mut vec![0; all.len()]));
        let all = [one(1, Out), one(1, Fit), one(1, Full), one(0, Fit), one(1, Fit)];
        assert_eq!((chosen(&all, &[]), chosen(&all, &[1])), (Ok(1), Ok(4)));
        assert_eq!(chosen(&all, &[1, 4]), Ok(1), "one that failed before is better than one that is out");
        assert_eq!(chosen(&[one(1, Out), one(1, Out)], &[0]), Ok(1), "where all are out all are taken");
        assert_eq!(chosen(&[one(1, Out), one(1, Full)], &[]), Err(ChooseError::Saturated), "but not where some are only full");
        assert_eq!(chosen(&[one(0, Fit)], &[]), Err(ChooseError::NoEndpoint));
    }

    #[test]
    fn the_less_busy_of_two_is_taken() {
        let mut all = fit(&[1, 1]);
        all[0].in_flight = 3;
        assert!((0..100).all(|_| choose(&all, &[], Policy::LeastRequests) == Ok(1)));
        all = fit(&[3, 1]);
        all[0].in_flight = 2;
        all[1].in_flight = 1;
        assert!((0..100).all(|_| choose(&all, &[], Policy::LeastRequests) == Ok(0)), "two of three are fewer than one of one");
    }

    #[test]
    fn an_endpoint_that_goes_moves_only_its_own_keys() {
        let all = fit(&[1, 1, 2, 1]);
        let mut less = all.clone();
        less[1].availability = Availability::OutOfService;
        let place = |all: &[Candidate], key: u64| choose(all, &[], Policy::Hash(hash(&key.to_le_bytes()))).unwrap_or(99);
        let mut counts = [0_u32; 4];
        for key in 0..10_000 {
            let (before, after) = (place(&all, key), place(&less, key));
            counts[before] += 1;
            assert!(before == after || before == 1, "key {key} moved from {before} to {after}");
        }
        for (count, expected) in counts.iter().zip([2000, 2000, 4000, 2000]) {
            assert!(count.abs_diff(expected) < 300, "{counts:?}");
        }
    }

    fn standings() -> impl Strategy<Value = Vec<Candidate>> {
        let availability = prop_oneof![Just(Availability::Available), Just(Availability::Full), Just(Availability::OutOfService)];
        let candidate = (0..5_u32, availability, 0..9_usize, any::<u64>())
            .prop_map(|(weight, availability, in_flight, seed)| Candidate { weight, availability, in_flight, seed });
        prop::collection::vec(candidate, 1..9)
    }

    proptest! {
        #[test]
        fn shares_are_the_weights(weights in prop::collection::vec(1..20_u32, 1..8)) {
            let total: u32 = weights.iter().sum();
            let found = turns(&fit(&weights), total as usize);
            for (place, weight) in weights.iter().enumerate() {
                prop_assert_eq!(found.iter().filter(|chosen| **chosen == place).count(), *weight as usize);
            }
        }

        #[test]
        fn every_way_keeps_to_who_is_eligible(all in standings(), tried in prop::collection::vec(0..9_usize, 0..4), key: u64) {
            let mut current = vec![0; all.len()];
            let ways = [Policy::RoundRobin(&mut current), Policy::LeastRequests, Policy::Hash(key)];
            let any = |availability| all.iter().any(|one| one.weight > 0 && one.availability == availability);
            for way in ways {
                match choose(&all, &tried, way) {
                    Ok(place) => {
                        prop_assert!(all[place].weight > 0 && all[place].availability != Availability::Full);
                        prop_assert!(all[place].availability == Availability::Available || !(any(Availability::Available) || any(Availability::Full)));
                        let same = |(other, one): (usize, &Candidate)| one.weight > 0 && one.availability == all[place].availability && !tried.contains(&other);
                        prop_assert!(!tried.contains(&place) || !all.iter().enumerate().any(same));
                    }
                    Err(ChooseError::Saturated) => prop_assert!(any(Availability::Full) && !any(Availability::Available)),
                    Err(ChooseError::NoEndpoint) => prop_assert!(all.iter().all(|one| one.weight == 0)),
                }
            }
        }
    }
}
