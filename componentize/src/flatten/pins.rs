//! Words of a guest's memory that the guest asks to be overwritten in its image.
//!
//! A reference-counted interpreter writes into every object that it looks at, and each page that a call writes has to be copied back after it. An object that
//! lives as long as the image need not be counted, but only whoever writes the image can say so. A guest leaves a table in its memory: `MAGIC`, a version,
//! the new value, the number of entries, and for each an address and what stands in the word after it; all `u32`, little-endian. Nothing is
//! believed: a word is overwritten only where the word after it is what the table says and it is itself a small count; where less than nine in ten
//! entries fit, the layout is not what the guest thinks, and that is an error. The table is erased. Must not know: interpreters.

use std::ops::Range;

use anyhow::{Result, ensure};

const MAGIC: &[u8; 16] = b"witgate pins:\0\xfe\xff";
const VERSION: u32 = 1;
/// What a count that is worth overwriting cannot be above: else it is pinned already, or no count.
const COUNT_MAX: u32 = 1 << 20;
const ENTRIES_MAX: usize = 4 << 20;

/// Overwrites what the tables in `memory` ask for: how many words.
pub(super) fn pin(memory: &mut [u8]) -> Result<usize> {
    let mut pinned = 0;
    for table in tables(memory) {
        pinned += pin_table(memory, table)?;
    }
    Ok(pinned)
}

/// Where tables are, header included. The magic alone may stand elsewhere too: in the source of whoever writes the table.
fn tables(memory: &[u8]) -> Vec<Range<usize>> {
    let mut found = vec![];
    for at in (0..memory.len().saturating_sub(MAGIC.len() + 12)).step_by(4) {
        if memory[at..at + MAGIC.len()] != MAGIC[..] || word(memory, at + 16) != Some(VERSION) {
            continue;
        }
        let entries = word(memory, at + 24).unwrap_or(0) as usize;
        let end = at + MAGIC.len() + 12 + entries.min(ENTRIES_MAX) * 8;
        if entries > 0 && entries <= ENTRIES_MAX && end <= memory.len() {
            found.push(at..end);
        }
    }
    found
}

fn pin_table(memory: &mut [u8], table: Range<usize>) -> Result<usize> {
    let value = word(memory, table.start + 20).unwrap_or(0);
    let entries: Vec<(usize, u32)> = memory[table.start + MAGIC.len() + 12..table.end]
        .chunks_exact(8)
        .map(|entry| (word(entry, 0).unwrap_or(0) as usize, word(entry, 4).unwrap_or(0)))
        .collect();
    let fits = |(at, next): &(usize, u32)| word(memory, at + 4) == Some(*next) && !table.contains(at);
    let fitting: Vec<usize> = entries.iter().filter(|entry| fits(entry)).map(|entry| entry.0).collect();
    ensure!(
        fitting.len() * 10 >= entries.len() * 9,
        "of {} objects that should not be counted only {} are where they should be",
        entries.len(),
        fitting.len()
    );
    let mut pinned = 0;
    for at in fitting {
        if word(memory, at).is_some_and(|count| count > 0 && count <= COUNT_MAX) {
            memory[at..at + 4].copy_from_slice(&value.to_le_bytes());
            pinned += 1;
        }
    }
    memory[table].fill(0);
    Ok(pinned)
}

fn word(memory: &[u8], at: usize) -> Option<u32> {
    memory.get(at..at.checked_add(4)?)?.try_into().ok().map(u32::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: usize = 64;

    /// A memory with objects of two words (a count, a kind) and a table that names them.
    fn memory(objects: &[(u32, u32)], entries: &[(u32, u32)]) -> Vec<u8> {
        let mut words: Vec<u32> = objects.iter().flat_map(|(count, kind)| [*count, *kind]).collect();
        words.resize(TABLE / 4, 0);
        let mut memory: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        memory.extend(MAGIC);
        let head = [VERSION, 0x5000_0000, entries.len() as u32];
        let entries = entries.iter().flat_map(|(at, kind)| [*at, *kind]);
        memory.extend(head.into_iter().chain(entries).flat_map(u32::to_le_bytes));
        memory
    }

    #[test]
    fn counts_are_overwritten_and_the_table_is_erased() -> Result<()> {
        let mut memory = memory(&[(3, 77), (0, 77), (0x4000_0000, 78), (9, 79)], &[(0, 77), (8, 77), (16, 78)]);
        assert_eq!(pin(&mut memory)?, 1, "what is free or pinned already stays");
        let words: Vec<Option<u32>> = (0..8).map(|index| word(&memory, index * 4)).collect();
        assert_eq!(words, [0x5000_0000, 77, 0, 77, 0x4000_0000, 78, 9, 79].map(Some));
        assert!(memory[TABLE..].iter().all(|byte| *byte == 0));
        Ok(())
    }

    #[test]
    fn another_layout_is_an_error_and_changes_nothing() {
        let before = memory(&[(77, 3), (77, 4)], &[(0, 77), (8, 77), (0xffff_fffe, 1)]);
        let mut after = before.clone();
        let why = pin(&mut after).err().map(|error| error.to_string()).unwrap_or_default();
        assert!(why.contains("of 3 objects") && why.contains("only 0"), "{why}");
        assert_eq!(before, after);
    }

    #[test]
    fn the_magic_alone_is_no_table() -> Result<()> {
        let mut lone = vec![1; 64];
        lone.extend(MAGIC);
        lone.extend([0xff; 64]);
        assert_eq!(pin(&mut lone)?, 0);
        let mut cut = memory(&[(1, 7)], &[(0, 7), (8, 7)]);
        cut.truncate(cut.len() - 4);
        assert_eq!(pin(&mut cut)?, 0, "a table that does not end");
        Ok(())
    }
}
