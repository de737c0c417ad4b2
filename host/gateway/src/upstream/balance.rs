//! Chooses the endpoint for the next request: round robin by weight, least requests, or a hash.
//!
//! All functions are arithmetic over [`Candidate`]s, so tests need no endpoints. The choice is made
//! among the endpoints in service that this request has not tried yet. If it has tried all of them,
//! it is made among those again. If no endpoint is in service, all of them are candidates (Envoy
//! calls this panic mode): a verdict that every endpoint is bad is more likely wrong than true, and
//! a request that is sent may succeed. This module does not know: connections, clocks, where the
//! numbers come from.

use smallvec::SmallVec;

/// What the choice needs to know about one endpoint.
#[derive(Debug, Clone, Copy)]
pub(super) struct Candidate {
    /// Its share of the requests. An endpoint of weight 0 is never chosen.
    pub(super) weight: u32,
    pub(super) availability: Availability,
    /// Requests of all threads that it has not finished.
    pub(super) in_flight: usize,
    /// A hash of the endpoint's address, the same in every gateway.
    pub(super) seed: u64,
}

/// Whether an endpoint can take a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Availability {
    /// In service and below its limit of requests.
    Available,
    /// In service and at its limit of requests.
    Full,
    /// Unhealthy or ejected.
    OutOfService,
}

/// Why no endpoint can be chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ChooseError {
    /// All endpoints in service are at their limit of requests.
    Saturated,
    /// No endpoint has a weight above 0.
    NoEndpoint,
}

/// How to choose among several candidates.
pub(super) enum Policy<'a> {
    /// Smooth weighted round robin. Holds one counter per candidate, kept between choices.
    RoundRobin(&'a mut [i64]),
    /// The less busy of two random candidates.
    LeastRequests,
    /// Rendezvous hashing of the request's key.
    Hash(u64),
}

/// Indices into the list of candidates.
type Indices = SmallVec<[usize; 8]>;

/// Returns the index of the candidate that takes the request. `tried` holds the indices of the
/// candidates that this request was sent to before.
pub(super) fn choose(candidates: &[Candidate], tried: &[usize], policy: Policy) -> Result<usize, ChooseError> {
    let eligible = eligible(candidates, tried)?;
    if let [only] = eligible[..] {
        return Ok(only);
    }
    Ok(match policy {
        Policy::RoundRobin(counters) => round_robin(candidates, &eligible, counters),
        Policy::LeastRequests => least_requests(candidates, &eligible, |total| fastrand::u64(..total)),
        Policy::Hash(key) => rendezvous(candidates, &eligible, key),
    })
}

/// Returns the candidates to choose from, at least one.
fn eligible(candidates: &[Candidate], tried: &[usize]) -> Result<Indices, ChooseError> {
    let with = |availability: Availability| -> Indices {
        let matches = |(_, one): &(usize, &Candidate)| one.weight > 0 && one.availability == availability;
        candidates.iter().enumerate().filter(matches).map(|(index, _)| index).collect()
    };
    let mut indices = with(Availability::Available);
    if indices.is_empty() {
        if !with(Availability::Full).is_empty() {
            return Err(ChooseError::Saturated);
        }
        indices = with(Availability::OutOfService);
    }
    if indices.is_empty() {
        return Err(ChooseError::NoEndpoint);
    }
    if indices.iter().any(|index| !tried.contains(index)) {
        indices.retain(|index| !tried.contains(index));
    }
    Ok(indices)
}

/// Smooth weighted round robin, as nginx does it: each choice adds every candidate's weight to its
/// counter, chooses the highest counter and subtracts the sum of the weights from it. This spreads
/// the turns of a heavy candidate, and divides the share of a missing one in proportion.
fn round_robin(candidates: &[Candidate], eligible: &[usize], counters: &mut [i64]) -> usize {
    let mut total = 0;
    let mut best = eligible[0];
    for index in eligible {
        let weight = i64::from(candidates[*index].weight);
        counters[*index] += weight;
        total += weight;
        if counters[*index] > counters[best] {
            best = *index;
        }
    }
    counters[best] -= total;
    best
}

/// Picks two candidates at random by weight and returns the one with fewer requests in flight in
/// proportion to its weight, or the first if they are equal. `random` returns a number below its
/// argument.
fn least_requests(candidates: &[Candidate], eligible: &[usize], random: impl Fn(u64) -> u64) -> usize {
    let pick = |except: Option<usize>| {
        let others = || eligible.iter().copied().filter(|index| Some(*index) != except);
        let total: u64 = others().map(|index| u64::from(candidates[index].weight)).sum();
        let mut at = random(total.max(1));
        for index in others() {
            let weight = u64::from(candidates[index].weight);
            if at < weight {
                return index;
            }
            at -= weight;
        }
        eligible[0]
    };
    let first = pick(None);
    let second = pick(Some(first));
    // Compares in_flight / weight without a division.
    let load = |index: usize, other: usize| candidates[index].in_flight as u128 * u128::from(candidates[other].weight);
    if load(second, first) < load(first, second) { second } else { first }
}

/// Weighted rendezvous hashing: each candidate draws a number from its seed and the key, and the
/// lowest number wins. An endpoint that is added or removed moves only its own keys, and no table
/// is built. The price is one draw per candidate, of which there are few.
fn rendezvous(candidates: &[Candidate], eligible: &[usize], key: u64) -> usize {
    let draw = |index: usize| {
        let bits = mix(key ^ candidates[index].seed) >> 11;
        let uniform = (bits as f64 + 0.5) / (1_u64 << 53) as f64;
        -uniform.ln() / f64::from(candidates[index].weight)
    };
    let mut best = (eligible[0], f64::INFINITY);
    for index in eligible {
        let drawn = draw(*index);
        if drawn < best.1 {
            best = (*index, drawn);
        }
    }
    best.0
}

/// A hash that is the same in every gateway and version: FNV-1a, then [`mix`]. The standard
/// library's hash may change with its version.
pub(crate) fn hash(bytes: &[u8]) -> u64 {
    let fnv = bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3));
    mix(fnv)
}

/// The finalizer of splitmix64: every input bit changes half of the output bits.
const fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn candidate(weight: u32, availability: Availability) -> Candidate {
        Candidate { weight, availability, in_flight: 0, seed: 0 }
    }

    fn available(weights: &[u32]) -> Vec<Candidate> {
        let seeded = |(index, weight): (usize, &u32)| Candidate {
            seed: hash(format!("10.0.0.{index}:80").as_bytes()),
            ..candidate(*weight, Availability::Available)
        };
        weights.iter().enumerate().map(seeded).collect()
    }

    fn in_turn(candidates: &[Candidate], count: usize) -> Vec<usize> {
        let mut counters = vec![0; candidates.len()];
        (0..count).filter_map(|_| choose(candidates, &[], Policy::RoundRobin(&mut counters)).ok()).collect()
    }

    #[test]
    fn the_turns_of_a_heavy_endpoint_are_spread() {
        assert_eq!(in_turn(&available(&[5, 1, 1]), 7), [0, 0, 1, 0, 2, 0, 0]);
    }

    #[test]
    fn endpoints_that_are_out_full_or_tried_are_skipped_while_there_are_others() {
        use Availability::{Available, Full, OutOfService};
        let chosen = |candidates: &[Candidate], tried: &[usize]| {
            choose(candidates, tried, Policy::RoundRobin(&mut vec![0; candidates.len()]))
        };
        let out = candidate(1, OutOfService);
        let all = [out, candidate(1, Available), candidate(1, Full), candidate(0, Available), candidate(1, Available)];
        assert_eq!((chosen(&all, &[]), chosen(&all, &[1])), (Ok(1), Ok(4)));
        assert_eq!(chosen(&all, &[1, 4]), Ok(1), "an endpoint that failed once is better than one out of service");
        assert_eq!(chosen(&[out, out], &[0]), Ok(1), "if all are out of service, all are candidates");
        assert_eq!(chosen(&[out, candidate(1, Full)], &[]), Err(ChooseError::Saturated), "some are only full");
        assert_eq!(chosen(&[candidate(0, Available)], &[]), Err(ChooseError::NoEndpoint));
    }

    #[test]
    fn the_less_busy_of_two_is_chosen() {
        let mut all = available(&[1, 1]);
        all[0].in_flight = 3;
        assert!((0..100).all(|_| choose(&all, &[], Policy::LeastRequests) == Ok(1)));
        all = available(&[3, 1]);
        all[0].in_flight = 2;
        all[1].in_flight = 1;
        assert!((0..100).all(|_| choose(&all, &[], Policy::LeastRequests) == Ok(0)), "2 of 3 is less than 1 of 1");
    }

    #[test]
    fn an_endpoint_that_goes_moves_only_its_own_keys() {
        let all = available(&[1, 1, 2, 1]);
        let mut fewer = all.clone();
        fewer[1].availability = Availability::OutOfService;
        let index =
            |all: &[Candidate], key: u64| choose(all, &[], Policy::Hash(hash(&key.to_le_bytes()))).unwrap_or(99);
        let mut counts = [0_u32; 4];
        for key in 0..10_000 {
            let (before, after) = (index(&all, key), index(&fewer, key));
            counts[before] += 1;
            assert!(before == after || before == 1, "key {key} moved from {before} to {after}");
        }
        for (count, expected) in counts.iter().zip([2000, 2000, 4000, 2000]) {
            assert!(count.abs_diff(expected) < 300, "{counts:?}");
        }
    }

    fn candidates() -> impl Strategy<Value = Vec<Candidate>> {
        let availability =
            prop_oneof![Just(Availability::Available), Just(Availability::Full), Just(Availability::OutOfService)];
        let candidate = (0..5_u32, availability, 0..9_usize, any::<u64>())
            .prop_map(|(weight, availability, in_flight, seed)| Candidate { weight, availability, in_flight, seed });
        prop::collection::vec(candidate, 1..9)
    }

    proptest! {
        #[test]
        fn shares_are_the_weights(weights in prop::collection::vec(1..20_u32, 1..8)) {
            let total: u32 = weights.iter().sum();
            let found = in_turn(&available(&weights), total as usize);
            for (index, weight) in weights.iter().enumerate() {
                prop_assert_eq!(found.iter().filter(|chosen| **chosen == index).count(), *weight as usize);
            }
        }

        #[test]
        fn every_policy_chooses_an_eligible_endpoint(
            all in candidates(),
            tried in prop::collection::vec(0..9_usize, 0..4),
            key: u64,
        ) {
            let mut counters = vec![0; all.len()];
            let policies = [Policy::RoundRobin(&mut counters), Policy::LeastRequests, Policy::Hash(key)];
            let any = |availability| all.iter().any(|one| one.weight > 0 && one.availability == availability);
            let in_service = any(Availability::Available) || any(Availability::Full);
            for policy in policies {
                match choose(&all, &tried, policy) {
                    Ok(index) => {
                        let chosen = all[index];
                        prop_assert!(chosen.weight > 0 && chosen.availability != Availability::Full);
                        prop_assert!(chosen.availability == Availability::Available || !in_service);
                        let is_untried_alike = |(other, one): (usize, &Candidate)| {
                            one.weight > 0 && one.availability == chosen.availability && !tried.contains(&other)
                        };
                        prop_assert!(!tried.contains(&index) || !all.iter().enumerate().any(is_untried_alike));
                    }
                    Err(ChooseError::Saturated) => {
                        prop_assert!(any(Availability::Full) && !any(Availability::Available));
                    }
                    Err(ChooseError::NoEndpoint) => prop_assert!(all.iter().all(|one| one.weight == 0)),
                }
            }
        }
    }
}
