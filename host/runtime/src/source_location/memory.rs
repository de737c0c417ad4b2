//! Checked reads of a guest's memory.
//!
//! This module does not know: what is in the memory.

/// The most bytes of a text that is read.
const TEXT_BYTES_MAX: usize = 256;

/// The linear memory of an instance whose pointers have 32 bits.
#[derive(Clone, Copy)]
pub(super) struct Memory<'a>(pub(super) &'a [u8]);

impl<'a> Memory<'a> {
    /// So many bytes from an address. `None` if they are not all in the memory.
    pub(super) fn bytes(self, address: u32, length: usize) -> Option<&'a [u8]> {
        let start = address as usize;
        self.0.get(start..start.checked_add(length)?)
    }

    fn array<const N: usize>(self, address: u32) -> Option<[u8; N]> {
        self.bytes(address, N)?.try_into().ok()
    }

    /// A number or pointer of 32 bits.
    pub(super) fn u32(self, address: u32) -> Option<u32> {
        self.array(address).map(u32::from_le_bytes)
    }

    pub(super) fn u64(self, address: u32) -> Option<u64> {
        self.array(address).map(u64::from_le_bytes)
    }

    /// A pointer that is not null.
    pub(super) fn pointer(self, address: u32) -> Option<u32> {
        self.u32(address).filter(|&pointer| pointer != 0)
    }

    /// Text in ASCII. Any other byte becomes `?`.
    pub(super) fn ascii(self, address: u32, length: u32) -> Option<String> {
        let bytes = self.bytes(address, (length as usize).min(TEXT_BYTES_MAX))?;
        Some(bytes.iter().map(|&byte| if matches!(byte, b' '..=b'~') { char::from(byte) } else { '?' }).collect())
    }
}

/// Reads numbers of variable length from a table of positions.
pub(super) struct Table<'a> {
    bytes: &'a [u8],
}

impl<'a> Table<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    pub(super) fn byte(&mut self) -> Option<u8> {
        let (&first, rest) = self.bytes.split_first()?;
        self.bytes = rest;
        Some(first)
    }

    pub(super) fn skip(&mut self, count: usize) -> Option<()> {
        self.bytes = self.bytes.get(count..)?;
        Some(())
    }

    /// A number whose bytes hold `bits` bits each, the lowest first. The next higher bit of a byte
    /// says that another follows.
    pub(super) fn number(&mut self, bits: u32) -> Option<u32> {
        let (mut value, mut shift) = (0_u32, 0);
        loop {
            let byte = u32::from(self.byte()?);
            value |= (byte & ((1 << bits) - 1)).checked_shl(shift)?;
            if byte & (1 << bits) == 0 {
                return Some(value);
            }
            shift += bits;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_outside_of_the_memory_fail() {
        let memory = Memory(&[1, 0, 0, 0, 2]);
        assert_eq!((memory.u32(0), memory.u32(2), memory.u32(u32::MAX)), (Some(1), None, None));
        assert_eq!((memory.pointer(0), memory.u64(0)), (Some(1), None));
        assert_eq!(Memory(b"a\xffb\0").ascii(0, 4).as_deref(), Some("a?b?"));
        assert_eq!(Memory(b"ab").ascii(0, 3), None);
    }

    #[test]
    fn numbers_of_variable_length_end() {
        let number = |bytes, bits| Table::new(bytes).number(bits);
        assert_eq!(
            (number(&[0x05], 7), number(&[0x85, 0x01], 7), number(&[0x45, 0x01], 6)),
            (Some(5), Some(133), Some(69))
        );
        assert_eq!((number(&[0xff; 9], 7), number(&[0x80], 7)), (None, None));
    }
}
