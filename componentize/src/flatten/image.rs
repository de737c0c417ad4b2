//! The memory of the merged module as one image: what its active segments write, one after the other.
//!
//! Must not know: what is in it.

use anyhow::{Context as _, Result, ensure};
use wasm_encoder::{ConstExpr, DataSection};

/// The most memory that an image may span.
const BYTES_MAX: usize = 256 << 20;
/// So many zeros in a row are left out of the segments.
const GAP: usize = 256;

/// Linear memory before the first call.
#[derive(Default)]
pub(super) struct Image(Vec<u8>);

impl Image {
    /// Writes a segment.
    pub(super) fn write(&mut self, offset: i32, data: &[u8]) -> Result<()> {
        let start = offset.cast_unsigned() as usize;
        let end =
            start.checked_add(data.len()).filter(|end| *end <= BYTES_MAX).context("a data segment lies too high")?;
        if self.0.len() < end {
            self.0.resize(end, 0);
        }
        self.0[start..end].copy_from_slice(data);
        Ok(())
    }

    pub(super) fn bytes(&mut self) -> &mut [u8] {
        &mut self.0
    }

    /// The segments that make this image: how many.
    pub(super) fn segments(&self, section: &mut DataSection) -> Result<u32> {
        let (mut count, mut at) = (0, 0);
        while let Some(start) = self.0[at..].iter().position(|byte| *byte != 0).map(|skip| at + skip) {
            let mut end = start + 1;
            for (index, byte) in self.0.iter().enumerate().skip(start) {
                if *byte != 0 {
                    end = index + 1;
                } else if index - end >= GAP {
                    break;
                }
            }
            section.active(0, &ConstExpr::i32_const(i32::try_from(start)?), self.0[start..end].iter().copied());
            count += 1;
            at = end;
        }
        ensure!(count < 100_000, "the memory is in too many pieces");
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_leave_out_only_zeros() -> Result<()> {
        let mut image = Image::default();
        image.write(5, &[1, 0, 0, 2])?;
        image.write(8, &[3])?;
        image.write(2000, &[4; 10])?;
        image.write(2100, &[0; 10])?;
        let mut section = DataSection::new();
        assert_eq!(image.segments(&mut section)?, 2);
        let mut module = wasm_encoder::Module::new();
        module.section(&section);
        let mut again = Image::default();
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
