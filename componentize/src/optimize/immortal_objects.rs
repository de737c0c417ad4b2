//! Makes objects of a reference-counted interpreter immortal in its memory image.
//!
//! Gain: calls write fewer pages. Such an interpreter writes a count into every object that it
//! uses, and each written page is copied back after the call; an immortal object is not counted.
//! Price: an immortal object is never freed, and the guest must know the layout of its objects.
//!
//! The guest leaves a table in its memory (`guests/sdk/python/witgate/_image.py`): [`MAGIC`], a
//! version, the new count, the number of entries, and for each entry an address and the word that
//! follows the count there. All are little-endian `u32`. A count is overwritten only if the next
//! word agrees with the table and the count is small. If fewer than nine in ten entries agree, the
//! guest is wrong about the layout of its objects, and that is an error. The table is erased
//! afterwards. This module does not know: interpreters.

use std::ops::Range;

use anyhow::{Result, ensure};

const MAGIC: &[u8; 16] = b"immortal table\xfe\xff";
const VERSION: u32 = 1;
/// A larger word is not a count, or belongs to an object that is immortal already.
const COUNT_MAX: u32 = 1 << 20;
const ENTRIES_MAX: usize = 4 << 20;

/// Applies the tables in `memory`, and returns the number of objects made immortal.
///
/// # Errors
///
/// A table does not agree with the memory. Its entries are then not applied.
pub(super) fn apply(memory: &mut [u8]) -> Result<usize> {
    let mut count = 0;
    for table in tables(memory) {
        count += apply_table(memory, table)?;
    }
    Ok(count)
}

/// The position of each table, including its header. The magic alone is not enough: it also stands
/// in the code that writes the table.
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

fn apply_table(memory: &mut [u8], table: Range<usize>) -> Result<usize> {
    let value = word(memory, table.start + 20).unwrap_or(0);
    let entries: Vec<(usize, u32)> = memory[table.start + MAGIC.len() + 12..table.end]
        .chunks_exact(8)
        .map(|entry| (word(entry, 0).unwrap_or(0) as usize, word(entry, 4).unwrap_or(0)))
        .collect();
    let agrees = |(at, next): &(usize, u32)| word(memory, at + 4) == Some(*next) && !table.contains(at);
    let agreeing: Vec<usize> = entries.iter().filter(|entry| agrees(entry)).map(|entry| entry.0).collect();
    ensure!(
        agreeing.len() * 10 >= entries.len() * 9,
        "of {} objects in the table only {} are at their address: the layout of objects is unknown",
        entries.len(),
        agreeing.len()
    );
    let mut count = 0;
    for at in agreeing {
        if word(memory, at).is_some_and(|references| references > 0 && references <= COUNT_MAX) {
            memory[at..at + 4].copy_from_slice(&value.to_le_bytes());
            count += 1;
        }
    }
    memory[table].fill(0);
    Ok(count)
}

fn word(memory: &[u8], at: usize) -> Option<u32> {
    memory.get(at..at.checked_add(4)?)?.try_into().ok().map(u32::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: usize = 64;

    /// A memory with objects of two words (a count and a kind) and a table with `entries`.
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
        assert_eq!(apply(&mut memory)?, 1, "a free object and an immortal one stay as they are");
        let words: Vec<Option<u32>> = (0..8).map(|index| word(&memory, index * 4)).collect();
        assert_eq!(words, [0x5000_0000, 77, 0, 77, 0x4000_0000, 78, 9, 79].map(Some));
        assert!(memory[TABLE..].iter().all(|byte| *byte == 0));
        Ok(())
    }

    #[test]
    fn another_layout_is_an_error_and_changes_nothing() {
        let before = memory(&[(77, 3), (77, 4)], &[(0, 77), (8, 77), (0xffff_fffe, 1)]);
        let mut after = before.clone();
        let error = apply(&mut after).err().map(|error| error.to_string()).unwrap_or_default();
        assert!(error.contains("of 3 objects") && error.contains("only 0"), "{error}");
        assert_eq!(before, after);
    }

    #[test]
    fn the_magic_alone_is_not_a_table() -> Result<()> {
        let mut lone = vec![1; 64];
        lone.extend(MAGIC);
        lone.extend([0xff; 64]);
        assert_eq!(apply(&mut lone)?, 0);
        let mut cut = memory(&[(1, 7)], &[(0, 7), (8, 7)]);
        cut.truncate(cut.len() - 4);
        assert_eq!(apply(&mut cut)?, 0, "the table is truncated");
        Ok(())
    }
}
