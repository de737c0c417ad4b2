//! What a request has passed on its way, as its `via` field says (RFC 9110, section 7.6.3). It
//! bounds loops.
//!
//! A call of a filter carries a random mark of this process. Only who got such a call knows the
//! mark, so a client cannot make a request look like one that calls of filters led to. Marks of
//! other gateways mean nothing here, but they travel on: each gateway finds the loops that lead
//! back to it. The entry `witgate` of a forwarded request can be forged. It only counts against the
//! request that carries it, and calls do not pass it on. This module does not know: what happens to
//! a request in a loop.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::LazyLock;

use http::HeaderMap;
use http::header::{self, HeaderValue};

/// Marks that a call passes on. The oldest ones are dropped: they could be a client's.
const MARKS_MAX: usize = 32;
const MARK_START: &[u8] = b"1.1 witgate (call ";
/// Hexadecimal digits of a mark.
const MARK_DIGITS: usize = 32;

/// The `via` entry of a call of this process.
static MARK: LazyLock<String> = LazyLock::new(|| {
    let mut random = [0; MARK_DIGITS / 2];
    if getrandom::fill(&mut random).is_err() {
        // The keys of a hasher are random, too.
        let number = || RandomState::new().hash_one(()).to_be_bytes();
        random = [number(), number()].concat().try_into().unwrap_or(random);
    }
    format!("{}{})", String::from_utf8_lossy(MARK_START), hex::encode(random))
});

/// What a request has passed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Passed {
    /// Gateways that forwarded it. A client can forge the entries.
    pub gateways: u8,
    /// Calls of filters of this process that led to it, one after the other.
    pub calls: u8,
    /// The entries of calls, those of other gateways among them.
    marks: Option<HeaderValue>,
}

impl Passed {
    /// What the `via` lines of a request say. More than 255 count as 255.
    pub fn of(headers: &HeaderMap) -> Self {
        let lines = headers.get_all(header::VIA).iter().flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
        let (mut gateways, mut calls, mut marks) = (0_u8, 0_u8, vec![]);
        for hop in lines.map(<[u8]>::trim_ascii) {
            gateways = gateways.saturating_add(u8::from(hop.ends_with(b" witgate")));
            if is_mark(hop) {
                calls = calls.saturating_add(u8::from(hop == MARK.as_bytes()));
                marks.push(hop);
            }
        }
        let kept = marks.split_at(marks.len().saturating_sub(MARKS_MAX)).1;
        let marks = if kept.is_empty() { None } else { HeaderValue::from_bytes(&kept.join(&b", "[..])).ok() };
        Self { gateways, calls, marks }
    }

    /// The `via` field of a call that the request leads to.
    pub(crate) fn via_of_call(&self) -> HeaderValue {
        let earlier = self.marks.iter().flat_map(|marks| [marks.as_bytes(), b", "]).flatten();
        let bytes: Vec<u8> = earlier.chain(MARK.as_bytes()).copied().collect();
        HeaderValue::from_bytes(&bytes).unwrap_or_else(|_| HeaderValue::from_static("1.1 witgate"))
    }

    /// What a request has passed that `calls` calls of this process led to.
    #[cfg(test)]
    pub(crate) fn after_calls(calls: usize) -> Self {
        let via = vec![MARK.as_str(); calls].join(", ");
        let via = HeaderValue::from_str(&via).unwrap_or_else(|_| HeaderValue::from_static(""));
        Self::of(&HeaderMap::from_iter([(header::VIA, via)]))
    }
}

fn is_mark(hop: &[u8]) -> bool {
    let digits = hop.strip_prefix(MARK_START).and_then(|rest| rest.strip_suffix(b")"));
    digits.is_some_and(|digits| digits.len() == MARK_DIGITS && digits.iter().all(u8::is_ascii_hexdigit))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passed(via: &str) -> Passed {
        let via = HeaderValue::from_str(via).unwrap_or_else(|_| HeaderValue::from_static(""));
        Passed::of(&HeaderMap::from_iter([(header::VIA, via)]))
    }

    #[test]
    fn only_the_mark_of_this_process_counts_as_a_call() {
        let foreign = format!("1.1 witgate (call {})", "0".repeat(MARK_DIGITS));
        for forged in ["1.1 witgate (call)", "1.1 witgate (call 1)", &foreign] {
            assert_eq!(passed(&[forged; 5].join(",")).calls, 0, "{forged}");
        }
        assert_eq!(Passed::after_calls(2).calls, 2);
        assert_eq!(passed("1.0 other, 2.0 witgate, 1.1 witgate").gateways, 2);
    }

    #[test]
    fn a_loop_over_another_gateway_comes_back_with_the_mark() {
        let foreign = format!("1.1 witgate (call {})", "a".repeat(MARK_DIGITS));
        let mut seen = passed(&[foreign.as_str(); 100].join(", "));
        for turn in 1..=3 {
            let via = seen.via_of_call();
            assert!(via.len() <= (MARKS_MAX + 1) * (foreign.len() + 2), "{} bytes", via.len());
            // The other gateway calls back.
            seen = passed(&format!("{}, 1.1 witgate, {foreign}", via.to_str().unwrap_or_default()));
            assert_eq!(seen.calls, turn);
        }
    }

    #[test]
    fn a_call_does_not_pass_on_what_a_client_wrote() {
        let forged = passed(&["1.1 witgate"; 7].join(", "));
        assert_eq!((forged.gateways, forged.via_of_call().to_str().ok()), (7, Some(MARK.as_str())));
    }
}
