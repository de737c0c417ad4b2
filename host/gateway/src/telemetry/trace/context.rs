//! The place of an exchange in a trace (W3C Trace Context).
//!
//! Without a parent the trace has the id of the exchange, so that log lines and traces can be found
//! by one number. This module does not know: what a span contains, where spans go.

use http::{HeaderMap, HeaderName, HeaderValue};

/// The field that names the trace and the parent's span.
pub(crate) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// The flags of `traceparent`.
const SAMPLED: u8 = 1;
const RANDOM: u8 = 2;

/// The place of an exchange in a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceContext {
    /// Names the trace. Not 0.
    pub trace_id: u128,
    /// Names the span of the exchange. Not 0.
    pub span_id: u64,
    /// The span of the client that sent the request, if it is traced.
    pub parent: Option<u64>,
    /// Whether the trace is recorded.
    pub is_sampled: bool,
    /// Whether the client says that it chose the trace's id at random (Trace Context Level 2).
    pub is_random: bool,
}

impl TraceContext {
    /// The context of an exchange. The trace goes on if the request has a valid `traceparent`;
    /// otherwise a new one begins, and `sample` is the probability that it is recorded. The
    /// request's fields then name the exchange's span.
    pub(crate) fn begin(headers: &mut HeaderMap, exchange_id: u128, sample: f64) -> Self {
        let mut values = headers.get_all(TRACEPARENT).iter();
        let parent = match (values.next(), values.next()) {
            (Some(only), None) => parse(only.as_bytes()),
            _ => None,
        };
        let span_id = new_span_id();
        let context = match parent {
            Some((trace_id, parent, flags)) => Self {
                trace_id,
                span_id,
                parent: Some(parent),
                is_sampled: flags & SAMPLED != 0,
                is_random: flags & RANDOM != 0,
            },
            None => {
                headers.remove(TRACESTATE);
                let is_sampled = is_in_share(exchange_id, sample);
                Self { trace_id: exchange_id.max(1), span_id, parent: None, is_sampled, is_random: false }
            }
        };
        headers.insert(TRACEPARENT, context.traceparent(span_id));
        context
    }

    /// The field of a request that belongs to `span_id`.
    pub(crate) fn traceparent(&self, span_id: u64) -> HeaderValue {
        let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
        write_hex(&mut text[3..35], self.trace_id);
        write_hex(&mut text[36..52], span_id.into());
        text[54] = b'0' + u8::from(self.is_sampled) * SAMPLED + u8::from(self.is_random) * RANDOM;
        HeaderValue::from_bytes(&text).unwrap_or(HeaderValue::from_static("-"))
    }
}

/// A random id of a span.
pub(crate) fn new_span_id() -> u64 {
    fastrand::u64(1..)
}

/// Whether an exchange is in a share of all exchanges. Its id decides, so that all consumers choose
/// the same exchanges.
pub(crate) fn is_in_share(exchange_id: u128, share: f64) -> bool {
    share >= 1.0 || f64::from(exchange_id as u32) < share * f64::from(u32::MAX)
}

/// Trace, parent and flags, if the field is valid. A later version may have more
/// fields after those of version 00.
fn parse(value: &[u8]) -> Option<(u128, u64, u8)> {
    let (version, rest) = (value.get(..2)?, value.get(2..)?);
    let is_known = version == b"00";
    let has_length = rest.len() == 53 || !is_known && rest.len() > 53 && rest[53] == b'-';
    if !has_length || version == b"ff" || rest[0] != b'-' || rest[33] != b'-' || rest[50] != b'-' {
        return None;
    }
    hex(version)?;
    let trace_id = hex(&rest[1..33]).filter(|id| *id != 0)?;
    let parent = hex(&rest[34..50]).filter(|id| *id != 0)? as u64;
    Some((trace_id, parent, hex(&rest[51..53])? as u8))
}

/// A number of lower-case hexadecimal digits.
fn hex(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0, |number, digit| {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u128::from(value))
    })
}

/// Fills `digits`, whose number is even, with the last digits of a number.
fn write_hex(digits: &mut [u8], value: u128) {
    for (pair, byte) in digits.rchunks_exact_mut(2).zip(value.to_le_bytes()) {
        pair.copy_from_slice(&[byte >> 4, byte & 15].map(|digit| b"0123456789abcdef"[usize::from(digit)]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn begin(fields: &[(&'static str, &'static str)], sample: f64) -> (TraceContext, HeaderMap) {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        (TraceContext::begin(&mut headers, 7, sample), headers)
    }

    #[test]
    fn a_valid_parent_is_continued_and_its_decision_kept() {
        let (context, headers) = begin(&[("traceparent", PARENT), ("tracestate", "a=b")], 0.0);
        assert_eq!(
            (context.trace_id, context.parent),
            (0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736, Some(0x00f0_67aa_0ba9_02b7))
        );
        assert!(context.is_sampled);
        let expected = format!("00-4bf92f3577b34da6a3ce929d0e0e4736-{:016x}-01", context.span_id);
        assert_eq!(headers["traceparent"], expected);
        assert_eq!(headers["tracestate"], "a=b");
        let random = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-03";
        let flags = begin(&[("traceparent", random)], 0.0).1["traceparent"].as_bytes()[53..].to_vec();
        assert_eq!(flags, b"03", "the id stays random; other flags are unknown");
        let unsampled = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";
        assert!(!begin(&[("traceparent", unsampled)], 1.0).0.is_sampled, "the parent decides");
    }

    #[test]
    fn an_invalid_parent_is_replaced_together_with_its_state() {
        for invalid in [
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "",
        ] {
            let (context, headers) = begin(&[("traceparent", invalid), ("tracestate", "a=b")], 1.0);
            assert_eq!((context.trace_id, context.parent), (7, None), "{invalid}");
            assert!(!headers.contains_key("tracestate"), "{invalid}");
        }
        let later = "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more";
        assert!(begin(&[("traceparent", later)], 0.0).0.parent.is_some(), "a later version");
        assert_eq!(begin(&[("traceparent", PARENT), ("traceparent", PARENT)], 1.0).0.parent, None, "two parents");
    }

    #[test]
    fn a_share_is_met_on_average() {
        let ids = (0..10_000).map(|_| super::super::super::exchange_id::new_exchange_id());
        let chosen = ids.filter(|id| is_in_share(*id, 0.1)).count();
        assert!((800..1200).contains(&chosen), "{chosen}");
        assert!(is_in_share(u128::MAX, 1.0) && !is_in_share(0, 0.0));
    }
}
