//! Writes messages of Protocol Buffers into a buffer that is used again.
//!
//! Gain: the spans of an exchange cost no allocation; with the types that `prost` generates, each
//! attribute costs two. Price: only what a span needs exists here.
//! This module does not know: what a message contains.

use witgate_http::text::bounded;

/// A text that is longer than this is cut.
const TEXT_MAX: usize = 4 << 10;

/// How the value of a field is written; the low bits of its tag.
const VARINT: u8 = 0;
const FIXED_64: u8 = 1;
const LENGTH: u8 = 2;
const FIXED_32: u8 = 5;

/// Fields above this number have a longer tag.
const SHORT_TAG_MAX: u8 = 15;

/// Appends a number, seven bits in each byte.
pub(in super::super) fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn tag(out: &mut Vec<u8>, field: u8, kind: u8) {
    if field <= SHORT_TAG_MAX {
        out.push(field << 3 | kind);
    } else {
        varint(out, u64::from(field) << 3 | u64::from(kind));
    }
}

/// A number, or a value of an enumeration.
pub(in super::super) fn number(out: &mut Vec<u8>, field: u8, value: u64) {
    tag(out, field, VARINT);
    varint(out, value);
}

/// A number of eight bytes.
pub(in super::super) fn fixed64(out: &mut Vec<u8>, field: u8, value: u64) {
    tag(out, field, FIXED_64);
    out.extend_from_slice(&value.to_le_bytes());
}

/// A number of four bytes.
pub(in super::super) fn fixed32(out: &mut Vec<u8>, field: u8, value: u32) {
    tag(out, field, FIXED_32);
    out.extend_from_slice(&value.to_le_bytes());
}

/// Bytes, or text that the gateway wrote itself.
pub(in super::super) fn bytes(out: &mut Vec<u8>, field: u8, value: &[u8]) {
    tag(out, field, LENGTH);
    varint(out, value.len() as u64);
    out.extend_from_slice(value);
}

/// Text that an outsider shaped. Control characters are escaped, and what is not UTF-8 is replaced.
pub(in super::super) fn text(out: &mut Vec<u8>, field: u8, value: &[u8]) {
    let is_plain = value.len() <= TEXT_MAX && value.iter().fold(true, |all, byte| all & (0x20..0x7f).contains(byte));
    if is_plain {
        bytes(out, field, value);
    } else {
        bytes(out, field, bounded(String::from_utf8_lossy(value)).as_bytes());
    }
}

/// A message inside of a message.
pub(in super::super) fn message(out: &mut Vec<u8>, field: u8, write: impl FnOnce(&mut Vec<u8>)) {
    tag(out, field, LENGTH);
    let at = out.len();
    // Most messages are shorter than 128 bytes, whose length is one byte.
    out.push(0);
    write(out);
    let length = out.len() - at - 1;
    let longer = (1..5).take_while(|bytes| length >> (7 * bytes) > 0).count();
    if longer > 0 {
        out.resize(out.len() + longer, 0);
        out.copy_within(at + 1..=at + length, at + 1 + longer);
    }
    for (index, byte) in out[at..=at + longer].iter_mut().enumerate() {
        let more = if index < longer { 0x80 } else { 0 };
        *byte = (length >> (7 * index)) as u8 & 0x7f | more;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry_proto::tonic::trace::v1::{Span, span};
    use prost::Message as _;

    #[test]
    fn what_is_written_can_be_read() -> Result<(), prost::DecodeError> {
        for length in [0, 1, 127, 128, 20_000] {
            let mut out = vec![];
            bytes(&mut out, 1, &[7; 16]);
            text(&mut out, 5, b"a\n\xff");
            number(&mut out, 6, 3);
            fixed64(&mut out, 7, 1 << 60);
            message(&mut out, 11, |event| text(event, 2, &vec![b'x'; length]));
            fixed32(&mut out, 16, 0x101);
            let read = Span::decode(out.as_slice())?;
            let name = "x".repeat(length.min(TEXT_MAX)) + if length > TEXT_MAX { "…" } else { "" };
            let expected = Span {
                trace_id: vec![7; 16],
                name: "a\\n\u{fffd}".into(),
                kind: 3,
                start_time_unix_nano: 1 << 60,
                events: vec![span::Event { name, ..Default::default() }],
                flags: 0x101,
                ..Default::default()
            };
            assert_eq!(read, expected);
        }
        Ok(())
    }
}
