//! Finds pseudo-header fields in trailers, which make a request malformed (RFC 9113, section 8.1).
//!
//! The `h2` crate refuses a pseudo-header field behind another field, but drops one at the start of
//! trailers silently. So the first field decides, and it can be judged without a table: its name is
//! an index of the static table or a literal (RFC 7541, section 6). A name in the dynamic table is
//! not judged: the library drops such a field. This module does not know: streams, budgets.

use super::frame::{PADDED, PRIORITY_FLAG};

/// Enough for padding length, priority, two table size updates and the start of a name.
const BLOCK_BYTES_MAX: usize = 24;
/// Indexes 1 to 14 of the static table are pseudo-header fields.
const STATIC_PSEUDO_MAX: u8 = 14;
/// The Huffman code of a colon.
const HUFFMAN_COLON: u8 = 0b101_1100;

/// Reads the start of a header block, which arrives in pieces and may span frames.
pub(super) struct TrailerScan {
    block: [u8; BLOCK_BYTES_MAX],
    length: usize,
    frame: Frame,
}

/// What is left of the current frame's payload.
struct Frame {
    has_padding_length: bool,
    priority_left: usize,
    /// Bytes of the payload that are neither read nor padding.
    left: usize,
}

impl TrailerScan {
    /// Starts with the payload of a HEADERS frame.
    pub(super) fn new(flags: u8, payload_bytes: usize) -> Self {
        let priority_left = if flags & PRIORITY_FLAG == 0 { 0 } else { 5 };
        let frame = Frame { has_padding_length: flags & PADDED != 0, priority_left, left: payload_bytes };
        Self { block: [0; BLOCK_BYTES_MAX], length: 0, frame }
    }

    /// Goes on with the payload of a CONTINUATION frame.
    pub(super) fn continuation(&mut self, payload_bytes: usize) {
        self.frame = Frame { has_padding_length: false, priority_left: 0, left: payload_bytes };
    }

    /// Reads the next bytes of the payload. Returns whether the first field is a pseudo-header
    /// field, once that is known.
    pub(super) fn read(&mut self, payload: &[u8]) -> Option<bool> {
        for byte in payload {
            if self.frame.left == 0 {
                return None;
            }
            self.frame.left -= 1;
            if std::mem::take(&mut self.frame.has_padding_length) {
                self.frame.left = self.frame.left.saturating_sub(usize::from(*byte));
            } else if self.frame.priority_left > 0 {
                self.frame.priority_left -= 1;
            } else {
                let Some(place) = self.block.get_mut(self.length) else { return Some(false) };
                *place = *byte;
                self.length += 1;
                if let Some(found) = begins_with_pseudo_field(&self.block[..self.length]) {
                    return Some(found);
                }
            }
        }
        None
    }
}

/// Whether the first field of a header block is a pseudo-header field. `None` if that depends on
/// further bytes.
fn begins_with_pseudo_field(block: &[u8]) -> Option<bool> {
    let (mut first, mut rest) = block.split_first()?;
    while first & 0b1110_0000 == 0b0010_0000 {
        // An update of the table's size.
        rest = skip_integer(*first, 0b0001_1111, rest)?;
        (first, rest) = rest.split_first()?;
    }
    let index = match first {
        0x80.. => first & 0x7f,
        0x40.. => first & 0x3f,
        _ => first & 0x0f,
    };
    if index > 0 || *first >= 0x80 {
        return Some((1..=STATIC_PSEUDO_MAX).contains(&index));
    }
    let (length, rest) = rest.split_first()?;
    if length & 0x7f == 0 {
        return Some(false);
    }
    let name = skip_integer(*length, 0x7f, rest)?;
    let start = name.first()?;
    Some(if length & 0x80 == 0 { *start == b':' } else { start >> 1 == HUFFMAN_COLON })
}

/// The bytes behind an integer whose prefix is `first` (RFC 7541, section 5.1).
fn skip_integer(first: u8, prefix: u8, rest: &[u8]) -> Option<&[u8]> {
    if first & prefix < prefix {
        return Some(rest);
    }
    let end = rest.iter().position(|byte| byte & 0x80 == 0)?;
    Some(&rest[end + 1..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_field_of_a_block_decides() {
        for (block, expected) in [
            (&[0x82][..], Some(true)),            // :method GET, indexed
            (&[0x8e], Some(true)),                // :status 500, indexed
            (&[0x8f], Some(false)),               // accept-charset
            (&[0xbe], Some(false)),               // the dynamic table
            (&[0x44, 1, b'/'], Some(true)),       // :path /, added to the table
            (&[0x04, 1, b'/'], Some(true)),       // :path /, not added
            (&[0x14, 1, b'/'], Some(true)),       // :path /, never indexed
            (&[0x40, 5, b':', b'p'], Some(true)), // a new name
            (&[0x40, 5, b'x', b'-'], Some(false)),
            (&[0x00, 0x84, 0b1011_1000], Some(true)), // a new name in Huffman code
            (&[0x00, 0x84, 0b1111_0010], Some(false)), // x
            (&[0x3f, 0xe1, 0x1f, 0x20, 0x82], Some(true)), // behind updates of the table's size
            (&[0x00, 0x7f, 0x80, 0x01, b':'], Some(true)), // a long name
            (&[0x00, 0], Some(false)),
            (&[0x40], None),
            (&[0x3f, 0xe1], None),
            (&[], None),
        ] {
            assert_eq!(begins_with_pseudo_field(block), expected, "{block:x?}");
        }
    }

    #[test]
    fn padding_priority_and_continuation_do_not_hide_a_field() {
        let mut padded = TrailerScan::new(PADDED | PRIORITY_FLAG, 1 + 5 + 1 + 2);
        assert_eq!([&[2, 0, 0][..], &[0, 1, 9, 0x82, 0, 0]].map(|piece| padded.read(piece)), [None, Some(true)]);
        let mut split = TrailerScan::new(PADDED, 3);
        assert_eq!(split.read(&[2, 0x82, 0x82]), None, "padding is no field");
        split.continuation(1);
        assert_eq!(split.read(&[0x82]), Some(true));
        let mut endless = TrailerScan::new(0, 100);
        assert_eq!(endless.read(&[0x20; 100]), Some(false), "the library refuses so many updates");
    }
}
