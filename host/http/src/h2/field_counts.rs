//! Counts the fields of the header blocks that a peer sends, to find those that the library drops.
//!
//! The `h2` crate drops some fields without an error: pseudo-header fields in trailers, those of a
//! request in a response, and what exceeds the allowed size of trailers. Such a message is
//! malformed (RFC 9113, section 8.1), or it would be forwarded without a part of it. The number of
//! fields in a block (RFC 7541, section 6) can be found without decoding a name or a value. So a
//! message is well-formed only if the library returns as many fields as were counted. This module
//! does not know: requests, connections.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use smallvec::SmallVec;

const FRAME_HEAD_BYTES: usize = 9;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
const PRIORITY: u8 = 32;
/// Streams with a block that nobody has compared.
const STREAMS_MAX: usize = 256;

/// The counts of a connection. Its reader fills them, and its streams take them.
#[derive(Clone, Default)]
pub struct SharedCounts(Rc<RefCell<FieldCounts>>);

/// The counts of one stream. Dropping it forgets them.
pub struct StreamCounts {
    shared: SharedCounts,
    stream: u32,
}

/// The header blocks of a connection.
#[derive(Default)]
struct FieldCounts {
    blocks: HashMap<u32, SmallVec<[usize; 2]>>,
    scan: Option<(u32, BlockScan)>,
    /// The head of the current frame, of which `head_bytes` have arrived.
    head: [u8; FRAME_HEAD_BYTES],
    head_bytes: usize,
    payload_left: usize,
}

impl SharedCounts {
    /// Counts the blocks of a stream that begins.
    pub fn begin(&self, stream: u32) -> StreamCounts {
        self.0.borrow_mut().blocks.entry(stream).or_default();
        StreamCounts { shared: self.clone(), stream }
    }

    /// Reads the next bytes that arrived, beginning with the first frame of the connection. Blocks
    /// of streams that have not begun or have ended are skipped.
    pub fn received(&self, mut bytes: &[u8]) {
        let this = &mut *self.0.borrow_mut();
        while !bytes.is_empty() {
            if this.payload_left > 0 {
                let (now, rest) = bytes.split_at(this.payload_left.min(bytes.len()));
                this.payload_left -= now.len();
                this.payload(now);
                bytes = rest;
                continue;
            }
            let taken = (FRAME_HEAD_BYTES - this.head_bytes).min(bytes.len());
            this.head[this.head_bytes..this.head_bytes + taken].copy_from_slice(&bytes[..taken]);
            this.head_bytes += taken;
            bytes = &bytes[taken..];
            if this.head_bytes == FRAME_HEAD_BYTES {
                this.head_bytes = 0;
                let [high, middle, low, kind, flags, stream @ ..] = this.head;
                this.payload_left = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
                let stream = u32::from_be_bytes(stream) & 0x7fff_ffff;
                let length = this.payload_left;
                if kind == HEADERS && !this.blocks.contains_key(&stream) {
                    this.scan = None;
                } else {
                    this.frame((kind, flags, stream), length);
                }
            }
        }
    }

    /// A frame of this kind, with these flags, begins on a stream: for a reader that finds the
    /// frames itself.
    pub fn frame(&self, head: (u8, u8, u32), payload_bytes: usize) {
        let mut this = self.0.borrow_mut();
        if this.blocks.len() > STREAMS_MAX {
            // Blocks of streams that had ended. Others of that moment count as malformed.
            this.blocks.clear();
        }
        this.frame(head, payload_bytes);
    }

    /// The next bytes of the payload of that frame.
    pub fn payload(&self, bytes: &[u8]) {
        self.0.borrow_mut().payload(bytes);
    }

    /// The blocks of a stream whose first block is not counted.
    pub fn later_blocks(&self, stream: u32) -> StreamCounts {
        StreamCounts { shared: self.clone(), stream }
    }
}

impl StreamCounts {
    /// Compares the stream's next block with what the library made of it.
    ///
    /// # Errors
    ///
    /// The library dropped a field: the message is malformed.
    pub fn compare(&self, fields: usize) -> Result<(), &'static str> {
        let mut counts = self.shared.0.borrow_mut();
        let blocks = counts.blocks.get_mut(&self.stream).filter(|blocks| !blocks.is_empty());
        if blocks.map(|blocks| blocks.remove(0)) == Some(fields) {
            return Ok(());
        }
        Err("it has a pseudo-header field that does not belong there (RFC 9113, section 8.3), or too many fields")
    }
}

impl Drop for StreamCounts {
    fn drop(&mut self) {
        let mut counts = self.shared.0.borrow_mut();
        if !counts.blocks.is_empty() {
            counts.blocks.remove(&self.stream);
        }
    }
}

impl FieldCounts {
    fn frame(&mut self, (kind, flags, stream): (u8, u8, u32), payload_bytes: usize) {
        match kind {
            HEADERS => self.scan = Some((stream, BlockScan::new(flags, payload_bytes))),
            CONTINUATION => {
                if let Some((_, scan)) = &mut self.scan {
                    scan.continuation(flags, payload_bytes);
                }
            }
            _ => return,
        }
        self.keep_finished();
    }

    fn payload(&mut self, bytes: &[u8]) {
        let Some((_, scan)) = &mut self.scan else { return };
        scan.read(bytes);
        self.keep_finished();
    }

    fn keep_finished(&mut self) {
        if let Some((stream, scan)) = self.scan.take_if(|(_, scan)| scan.is_finished()) {
            self.blocks.entry(stream).or_default().push(scan.fields);
        }
    }
}

/// Counts the fields of a block, which arrives in pieces and may span frames.
struct BlockScan {
    fields: usize,
    state: State,
    /// Strings that are left of the current field.
    strings: u8,
    ends_headers: bool,
    has_padding_length: bool,
    priority_left: usize,
    /// Bytes of the current frame's payload before its padding, and all of them.
    block_left: usize,
    payload_left: usize,
}

/// What the next byte of a block is.
#[derive(Clone, Copy)]
enum State {
    Field,
    /// A further byte of the integer that begins a field.
    Index,
    /// The length of a string, and a further byte of it.
    Length,
    LongLength {
        value: usize,
        shift: u32,
    },
    Text {
        left: usize,
    },
}

impl BlockScan {
    fn new(flags: u8, payload_bytes: usize) -> Self {
        Self {
            fields: 0,
            state: State::Field,
            strings: 0,
            ends_headers: flags & END_HEADERS != 0,
            has_padding_length: flags & PADDED != 0,
            priority_left: if flags & PRIORITY == 0 { 0 } else { 5 },
            block_left: payload_bytes,
            payload_left: payload_bytes,
        }
    }

    fn continuation(&mut self, flags: u8, payload_bytes: usize) {
        self.ends_headers = flags & END_HEADERS != 0;
        (self.has_padding_length, self.priority_left) = (false, 0);
        (self.block_left, self.payload_left) = (payload_bytes, payload_bytes);
    }

    fn is_finished(&self) -> bool {
        self.ends_headers && self.payload_left == 0
    }

    fn read(&mut self, bytes: &[u8]) {
        let mut bytes = &bytes[..bytes.len().min(self.payload_left)];
        self.payload_left -= bytes.len();
        while let Some((byte, rest)) = bytes.split_first()
            && self.block_left > 0
        {
            if let (State::Text { left }, false) = (self.state, self.has_padding_length || self.priority_left > 0) {
                let skipped = left.min(bytes.len()).min(self.block_left);
                self.block_left -= skipped;
                bytes = &bytes[skipped..];
                self.text(left - skipped);
                continue;
            }
            self.block_left -= 1;
            bytes = rest;
            if std::mem::take(&mut self.has_padding_length) {
                self.block_left = self.block_left.saturating_sub(usize::from(*byte));
            } else if self.priority_left > 0 {
                self.priority_left -= 1;
            } else {
                self.step(*byte);
            }
        }
    }

    fn step(&mut self, byte: u8) {
        match self.state {
            State::Field => {
                let (prefix, is_literal) = match byte {
                    0x80.. => (0x7f, false),
                    0x40.. => (0x3f, true),
                    // An update of the table's size is no field.
                    0x20.. => (0x1f, false),
                    _ => (0x0f, true),
                };
                self.fields += usize::from(byte & 0b1110_0000 != 0b0010_0000);
                self.strings = if !is_literal {
                    0
                } else if byte & prefix == 0 {
                    2
                } else {
                    1
                };
                self.state = if byte & prefix == prefix { State::Index } else { self.next_string() };
            }
            State::Index if byte & 0x80 == 0 => self.state = self.next_string(),
            State::Index => {}
            State::Length if byte & 0x7f == 0x7f => self.state = State::LongLength { value: 0x7f, shift: 0 },
            State::Length => self.text(usize::from(byte & 0x7f)),
            State::LongLength { value, shift } => {
                // The library refuses integers that are longer.
                let value = value.saturating_add(usize::from(byte & 0x7f) << shift.min(28));
                if byte & 0x80 == 0 {
                    self.text(value);
                } else {
                    self.state = State::LongLength { value, shift: shift + 7 };
                }
            }
            State::Text { .. } => {}
        }
    }

    /// A string has so many bytes left.
    fn text(&mut self, left: usize) {
        if left > 0 {
            self.state = State::Text { left };
            return;
        }
        self.strings = self.strings.saturating_sub(1);
        self.state = self.next_string();
    }

    fn next_string(&self) -> State {
        if self.strings > 0 { State::Length } else { State::Field }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        [&[0, 0, payload.len() as u8, kind, flags, 0, 0, 0, 1], payload].concat()
    }

    /// The counts of stream 1 after these bytes, which arrive `piece` at a time.
    fn counted(bytes: &[u8], piece: usize) -> Vec<usize> {
        let counts = SharedCounts::default();
        let _stream = counts.begin(1);
        bytes.chunks(piece).for_each(|bytes| counts.received(bytes));
        counts.0.borrow().blocks.get(&1).map(|blocks| blocks.to_vec()).unwrap_or_default()
    }

    #[test]
    fn each_representation_is_one_field() {
        let long = [&[0x00, 0x7f, 0x01][..], &[b'x'; 128], &[1, b'y']].concat();
        for (block, fields) in [
            (&[0x88][..], 1),                           // indexed
            (&[0xff, 0x80, 0x01], 1),                   // a long index
            (&[0x48, 3, b'2', b'0', b'1'], 1),          // an indexed name
            (&[0x40, 1, b'a', 0x81, 0xff, 0x88], 2),    // a new name, a value in Huffman code
            (&[0x3f, 0xe1, 0x1f, 0x20, 0x88], 1),       // updates of the table's size
            (&[0x0f, 0x01, 0, 0x10, 1, b'a', 0], 2),    // without indexing, never indexed
            (&[0x00, 1, b':', 1, b'b', 0xbe, 0xbe], 3), // entries of the dynamic table
            (&long, 1),
            (&[], 0),
        ] {
            for piece in [1, 2, 7, 1000] {
                assert_eq!(counted(&frame(1, 4, block), piece), [fields], "{block:x?} by {piece}");
            }
        }
    }

    #[test]
    fn padding_priority_and_continuation_are_no_fields() {
        let padded = frame(1, 4 | PADDED | PRIORITY, &[2, 0, 0, 0, 1, 9, 0x88, 0x89, 0x88, 0x88]);
        let split = [frame(1, PADDED, &[1, 0x00, 1, b'a', 0x88]), frame(9, 0, &[]), frame(9, 4, &[1, b'b', 0x88])];
        let other = frame(0, 0, &[0x88; 20]);
        for piece in [1, 3, 1000] {
            assert_eq!(counted(&padded, piece), [2]);
            assert_eq!(counted(&[split.concat(), other.clone(), padded.clone()].concat(), piece), [2, 2]);
        }
    }

    #[test]
    fn a_stream_compares_its_blocks_in_order_and_forgets_the_rest() {
        let counts = SharedCounts::default();
        let stream = counts.begin(1);
        counts.received(&[frame(1, 4, &[0x88, 0x88]), frame(1, 4, &[0x88])].concat());
        assert_eq!((stream.compare(2), stream.compare(1)), (Ok(()), Ok(())));
        assert!(stream.compare(0).is_err(), "there was no further block");
        counts.received(&frame(1, 4, &[0x88, 0x80]));
        assert!(stream.compare(1).is_err(), "the library dropped a field");
        drop(stream);
        counts.received(&frame(1, 4, &[0x88]));
        assert!(counts.0.borrow().blocks.is_empty(), "the stream has ended");
    }
}
