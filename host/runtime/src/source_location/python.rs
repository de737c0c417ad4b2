//! The frames of CPython.
//!
//! CPython begins its static state with a table of offsets for debuggers of another process
//! (PEP 768, `Include/internal/pycore_debug_offsets.h`). The table says where the interpreter, its
//! thread, the thread's frames and the code of each frame are. Its layout belongs to one minor
//! version. This module does not know: filters.

use super::memory::{Memory, Table};
use super::place::{FRAMES_MAX, Place};

/// The first bytes of the table.
const COOKIE: &[u8; 8] = b"xdebugpy";
/// The two upper bytes of the version whose table this module reads.
const VERSION: u64 = 0x030e;
/// The table is in the data of the component, below its heap.
const SEARCH_BYTES_MAX: usize = 32 << 20;
/// The largest table of lines that is read.
const LINES_BYTES_MAX: u32 = 64 << 10;

/// Where CPython keeps what leads to the running line. Offsets in bytes, but for `runtime`.
pub(super) struct Python {
    runtime: u32,
    interpreters: u32,
    threads: u32,
    current_frame: u32,
    previous: u32,
    executable: u32,
    instruction: u32,
    file: u32,
    name: u32,
    lines: u32,
    first_line: u32,
    code: u32,
    bytes_length: u32,
    bytes: u32,
    text_length: u32,
    text: u32,
}

impl Python {
    /// Finds the table in a memory.
    pub(super) fn find(memory: Memory<'_>) -> Option<Self> {
        let searched = &memory.0[..memory.0.len().min(SEARCH_BYTES_MAX)];
        let tables = searched.chunks_exact(COOKIE.len()).enumerate().filter(|(_, chunk)| chunk == COOKIE);
        tables.map(|(index, _)| (index * COOKIE.len()) as u32).find_map(|address| Self::read(memory, address))
    }

    fn read(memory: Memory<'_>, runtime: u32) -> Option<Self> {
        // The entries after the cookie have 64 bits each.
        let entry = |index: u32| memory.u64(runtime + 8 + 8 * index);
        let offset =
            |index: u32| entry(index).and_then(|value| u32::try_from(value).ok()).filter(|&value| value < 1 << 20);
        if entry(0)? >> 16 != VERSION {
            return None;
        }
        Some(Self {
            runtime,
            interpreters: offset(4)?,
            threads: offset(8)?,
            current_frame: offset(25)?,
            previous: offset(31)?,
            executable: offset(32)?,
            instruction: offset(33)?,
            file: offset(39)?,
            name: offset(40)?,
            lines: offset(42)?,
            first_line: offset(43)?,
            code: offset(47)?,
            bytes_length: offset(74)?,
            bytes: offset(75)?,
            text_length: offset(78)?,
            text: offset(79)?,
        })
    }

    /// The places in the author's source, the innermost first.
    pub(super) fn places(&self, memory: Memory<'_>) -> Vec<Place> {
        let mut places = vec![];
        let mut frame = self.innermost(memory);
        for _ in 0..FRAMES_MAX {
            let Some(address) = frame else { break };
            places.extend(self.place(memory, address));
            frame = address.checked_add(self.previous).and_then(|at| memory.pointer(at));
        }
        places
    }

    fn innermost(&self, memory: Memory<'_>) -> Option<u32> {
        let interpreter = memory.pointer(self.runtime.checked_add(self.interpreters)?)?;
        let thread = memory.pointer(interpreter.checked_add(self.threads)?)?;
        memory.pointer(thread.checked_add(self.current_frame)?)
    }

    /// The place of a frame, if its code is the author's.
    fn place(&self, memory: Memory<'_>, frame: u32) -> Option<Place> {
        // The low bits of this pointer are a tag.
        let code = memory.u32(frame.checked_add(self.executable)?)? & !3;
        let text = |offset: u32| self.text(memory, memory.pointer(code.checked_add(offset)?)?);
        let file = author_file(&text(self.file)?)?;
        let at = memory.u32(frame.checked_add(self.instruction)?)?.checked_sub(code.checked_add(self.code)?)?;
        let line = self.line(memory, code, at)?;
        Some(Place { file, line, function: text(self.name)? })
    }

    fn text(&self, memory: Memory<'_>, object: u32) -> Option<String> {
        let length = memory.u32(object.checked_add(self.text_length)?)?;
        memory.ascii(object.checked_add(self.text)?, length)
    }

    /// The line of the instruction at this byte of the code (`Objects/locations.md` in CPython).
    fn line(&self, memory: Memory<'_>, code: u32, at: u32) -> Option<u32> {
        let first = memory.u32(code.checked_add(self.first_line)?)?;
        let object = memory.pointer(code.checked_add(self.lines)?)?;
        let length = memory.u32(object.checked_add(self.bytes_length)?)?.min(LINES_BYTES_MAX);
        let table = memory.bytes(object.checked_add(self.bytes)?, length as usize)?;
        line_at(table, first, at)
    }
}

/// The line in a table of locations. An entry covers up to eight code units of two bytes.
fn line_at(table: &[u8], first: u32, at: u32) -> Option<u32> {
    let (mut table, mut line, mut end) = (Table::new(table), first, 0_u32);
    while end <= at {
        let entry = table.byte()?;
        let kind = entry >> 3 & 15;
        match kind {
            // A position without a line, whose line is that of the entry before.
            15 => {}
            13 | 14 => {
                let delta = table.number(6)?;
                line = if delta & 1 == 0 { line.wrapping_add(delta >> 1) } else { line.wrapping_sub(delta >> 1) };
                if kind == 14 {
                    (0..3).try_for_each(|_| table.number(6).map(drop))?;
                }
            }
            10..=12 => {
                line = line.wrapping_add(u32::from(kind) - 10);
                table.skip(2)?;
            }
            _ => table.skip(1)?,
        }
        end = end.saturating_add((u32::from(entry & 7) + 1) * 2);
    }
    Some(line)
}

/// The name of an author's file within the filter's folder. `None` for the standard library, the
/// SDK and packages.
fn author_file(path: &str) -> Option<String> {
    let is_library = path.starts_with(['<', '_'])
        || path.starts_with("/python/")
        || ["/witgate/", "/site-packages/", "/_witgate_app"].iter().any(|part| path.contains(part));
    // The folder of the source has a number as its name in the component.
    let inner = path.strip_prefix('/').and_then(|path| path.split_once('/')).map_or(path, |(_, inner)| inner);
    (!is_library && inner.ends_with(".py")).then(|| inner.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_from_the_table_of_locations() {
        // Line 10 for two bytes, a short entry, then two lines further, then two lines back.
        let table = [0x80 | 13 << 3, 0x00, 0x80, 0x11, 0x80 | 12 << 3 | 1, 1, 2, 0x80 | 13 << 3, 0x05];
        let lines = [0, 1, 2, 4, 7, 8, 9, 10].map(|at| line_at(&table, 10, at));
        assert_eq!(lines, [10, 10, 10, 12, 12, 10, 10].map(Some).into_iter().chain([None]).collect::<Vec<_>>()[..]);
        assert_eq!(line_at(&[0x80 | 14 << 3, 0x02], 1, 0), None);
    }

    #[test]
    fn only_files_of_the_author_are_places() {
        for (path, expected) in [
            ("/1/filter.py", Some("filter.py")),
            ("/1/lib/steps.py", Some("lib/steps.py")),
            ("/python/json/decoder.py", None),
            ("/0/witgate/_entry.py", None),
            ("/0/_witgate_app.py", None),
            ("<frozen importlib._bootstrap>", None),
            ("/2/site-packages/a/b.py", None),
        ] {
            assert_eq!(author_file(path).as_deref(), expected, "{path}");
        }
    }

    #[test]
    fn a_memory_of_noise_gives_no_place() {
        let mut noise = vec![0_u8; 4096];
        noise[64..72].copy_from_slice(COOKIE);
        assert!(Python::find(Memory(&noise)).is_none());
        noise[72..80].copy_from_slice(&0x030e_00f0_u64.to_le_bytes());
        noise[80..].fill(0);
        assert!(Python::find(Memory(&noise)).is_some_and(|python| python.places(Memory(&noise)).is_empty()));
    }
}
