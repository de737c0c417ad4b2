//! The initial memory of the merged module: its active data segments written into one image.
//!
//! Gain: the image has few segments, so the runtime maps it copy-on-write and an instance copies
//! nothing at its start. Price: the builder holds the image in memory, and runs of up to 256 zero
//! bytes stay in the file. This module does not know: the content of the memory.

use anyhow::{Context as _, Result, ensure};
use wasm_encoder::{ConstExpr, DataSection};

/// The largest image, in bytes.
const BYTES_MAX: usize = 256 << 20;
/// The most data segments that engines accept.
const SEGMENTS_MAX: u32 = 100_000;
/// A longer run of zero bytes ends a segment.
const ZERO_RUN: usize = 256;

/// The linear memory before the first call.
#[derive(Default)]
pub(super) struct MemoryImage(Vec<u8>);

impl MemoryImage {
    /// Writes a data segment.
    pub(super) fn write(&mut self, offset: i32, data: &[u8]) -> Result<()> {
        let start = offset.cast_unsigned() as usize;
        let end = start
            .checked_add(data.len())
            .filter(|end| *end <= BYTES_MAX)
            .with_context(|| format!("a data segment ends above the limit of {BYTES_MAX} bytes"))?;
        if self.0.len() < end {
            self.0.resize(end, 0);
        }
        self.0[start..end].copy_from_slice(data);
        Ok(())
    }

    pub(super) fn bytes(&mut self) -> &mut [u8] {
        &mut self.0
    }

    /// Adds segments with the content of the image to `section`, and returns their number.
    pub(super) fn segments(&self, section: &mut DataSection) -> Result<u32> {
        let (mut count, mut at) = (0, 0);
        while let Some(start) = self.0[at..].iter().position(|byte| *byte != 0).map(|skip| at + skip) {
            let mut end = start + 1;
            for (index, byte) in self.0.iter().enumerate().skip(start) {
                if *byte != 0 {
                    end = index + 1;
                } else if index - end >= ZERO_RUN {
                    break;
                }
            }
            section.active(0, &ConstExpr::i32_const(i32::try_from(start)?), self.0[start..end].iter().copied());
            count += 1;
            at = end;
        }
        ensure!(
            count < SEGMENTS_MAX,
            "the memory image has {count} segments, and the limit of engines is {SEGMENTS_MAX}"
        );
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_omit_only_zeros() -> Result<()> {
        let mut image = MemoryImage::default();
        image.write(5, &[1, 0, 0, 2])?;
        image.write(8, &[3])?;
        image.write(2000, &[4; 10])?;
        image.write(2100, &[0; 10])?;
        let mut section = DataSection::new();
        assert_eq!(image.segments(&mut section)?, 2);
        let mut module = wasm_encoder::Module::new();
        module.section(&section);
        let mut again = MemoryImage::default();
        for payload in wasmparser::Parser::new(0).parse_all(&module.finish()) {
            let wasmparser::Payload::DataSection(reader) = payload? else { continue };
            for data in reader {
                let data = data?;
                let wasmparser::DataKind::Active { offset_expr, .. } = &data.kind else { continue };
                let wasmparser::Operator::I32Const { value } = offset_expr.get_operators_reader().read()? else {
                    continue;
                };
                again.write(value, data.data)?;
            }
        }
        assert_eq!((again.0.len(), again.0[5..9].to_vec()), (2010, vec![1, 0, 0, 3]));
        assert_eq!(again.0[..], image.0[..2010]);
        assert!(image.write(-1, &[1]).is_err());
        Ok(())
    }
}
