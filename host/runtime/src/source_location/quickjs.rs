//! The frames of QuickJS.
//!
//! The offsets are those of the QuickJS in the pinned componentize-qjs, for pointers of 32 bits
//! (`struct JSRuntime`, `JSContext`, `JSStackFrame`, `JSObject`, `JSFunctionBytecode` in
//! quickjs.c). The runtime and its one context refer to each other, which identifies them. If a
//! memory does not look like this, nothing is found.
//!
//! A frame says where it is in the bundle. The SDK keeps a table in the memory that leads from
//! there to the author's files (`__WITGATE_LINES`). This module does not know: filters.

use serde::Deserialize;

use super::memory::{Memory, Table};
use super::place::{FRAMES_MAX, Place};

/// In the runtime: the list of contexts, and the innermost frame.
const RUNTIME_CONTEXTS: u32 = 588;
const RUNTIME_FRAME: u32 = 652;
/// In a context: its runtime, and its entry in that list.
const CONTEXT_RUNTIME: u32 = 8;
const CONTEXT_LINK: u32 = 12;
/// In a frame: the one that called it, its function, and the next instruction.
const FRAME_PREVIOUS: u32 = 0;
const FRAME_FUNCTION: u32 = 8;
const FRAME_NEXT: u32 = 28;
/// In a function: its code.
const FUNCTION_CODE: u32 = 24;
/// In the code: the instructions, the context, the position at which it begins in the bundle, and
/// the table of positions.
const CODE_START: u32 = 12;
const CODE_CONTEXT: u32 = 48;
const CODE_LINE: u32 = 60;
const CODE_COLUMN: u32 = 64;
const CODE_TABLE_LENGTH: u32 = 72;
const CODE_TABLE: u32 = 76;

/// The runtime is one of the first allocations of the heap.
const SEARCH_BYTES_MAX: usize = 32 << 20;
const TABLE_BYTES_MAX: u32 = 1 << 20;
/// How the SDK's table of lines begins.
const LINES_BEGIN: &[u8] = b"{\"witgateLines\":1,";
const LINES_BYTES_MAX: usize = 4 << 20;
const LINES_COPIES_MAX: usize = 8;

pub(super) struct QuickJs {
    runtime: u32,
    context: u32,
    /// Where the SDK's table of lines begins.
    lines: Option<u32>,
}

/// The source files, and for each line of the bundle the columns from which another line of a
/// source applies: column, index of the file, line, one after the other.
#[derive(Deserialize)]
struct Lines {
    files: Vec<String>,
    lines: Vec<Changes>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Changes {
    Some(Vec<u32>),
    None(#[expect(dead_code, reason = "a line without a source has the number 0")] u32),
}

impl QuickJs {
    /// Finds the runtime in a memory.
    pub(super) fn find(memory: Memory<'_>) -> Option<Self> {
        let end = memory.0.len().min(SEARCH_BYTES_MAX) as u32;
        let (list, link) = (0..end / 4).map(|word| word * 4).find_map(|list| {
            let link = memory.pointer(list)?;
            let is_pair = list >= RUNTIME_CONTEXTS && link >= CONTEXT_LINK && link != list;
            (is_pair && is_cycle(memory, list, link)).then_some((list, link))
        })?;
        // Copies that the parser of the bundle left behind are incomplete.
        let mut copies = positions(&memory.0[..end as usize], LINES_BEGIN).map(|at| at as u32);
        let lines = copies.find(|&at| read_lines(memory, at).is_some());
        Some(Self { runtime: list - RUNTIME_CONTEXTS, context: link - CONTEXT_LINK, lines })
    }

    /// The places in the author's source, the innermost first.
    pub(super) fn places(&self, memory: Memory<'_>) -> Vec<Place> {
        let Some(lines) = self.lines.and_then(|at| read_lines(memory, at)) else { return vec![] };
        let mut places = vec![];
        let mut frame = self.runtime.checked_add(RUNTIME_FRAME).and_then(|at| memory.pointer(at));
        for _ in 0..FRAMES_MAX {
            let Some(address) = frame else { break };
            places.extend(self.position(memory, address).and_then(|position| place(&lines, position)));
            frame = address.checked_add(FRAME_PREVIOUS).and_then(|at| memory.pointer(at));
        }
        places
    }

    /// Whether a function in JavaScript is running, the SDK's among them.
    pub(super) fn is_running(&self, memory: Memory<'_>) -> bool {
        self.runtime.checked_add(RUNTIME_FRAME).and_then(|at| memory.pointer(at)).is_some()
    }

    /// The line and column in the bundle of a frame, and whether they are those of the running
    /// instruction. Before its first call, a function has only the position where it begins.
    fn position(&self, memory: Memory<'_>, frame: u32) -> Option<(u32, u32, bool)> {
        // The lower half of a value is its pointer.
        let function = memory.pointer(frame.checked_add(FRAME_FUNCTION)?)?;
        let code = memory.pointer(function.checked_add(FUNCTION_CODE)?)?;
        let field = |offset: u32| memory.u32(code.checked_add(offset)?);
        if field(CODE_CONTEXT)? != self.context {
            return None;
        }
        let first = (field(CODE_LINE)?, field(CODE_COLUMN)?);
        let Some(next) = memory.pointer(frame.checked_add(FRAME_NEXT)?) else { return Some((first.0, first.1, false)) };
        let at = next.checked_sub(field(CODE_START)?)?.saturating_sub(1);
        let length = field(CODE_TABLE_LENGTH)?.min(TABLE_BYTES_MAX);
        let table = memory.bytes(field(CODE_TABLE)?, length as usize)?;
        let (line, column) = position_at(table, first, at)?;
        Some((line, column, true))
    }
}

/// Whether two list heads refer to each other, and the second one's context to the runtime of the
/// first.
fn is_cycle(memory: Memory<'_>, list: u32, link: u32) -> bool {
    let both = |at: u32, target: u32| memory.u32(at) == Some(target) && memory.u32(at + 4) == Some(target);
    let own = memory.u32(link - CONTEXT_LINK + CONTEXT_RUNTIME) == Some(list - RUNTIME_CONTEXTS);
    own && link.checked_add(8).is_some() && both(list, link) && both(link, list)
}

/// The line and column of the instruction at this byte of the code (`find_line_num` in quickjs.c).
fn position_at(table: &[u8], first: (u32, u32), at: u32) -> Option<(u32, u32)> {
    let (mut table, mut end) = (Table::new(table), 0_u32);
    let (mut line, mut column) = first;
    while let Some(operator) = table.byte() {
        let next_line = match operator {
            0 => {
                end = end.saturating_add(table.number(7)?);
                line.wrapping_add_signed(signed(&mut table)?)
            }
            _ => {
                let packed = u32::from(operator) - 1;
                end = end.saturating_add(packed / 5);
                line.wrapping_add(packed % 5).wrapping_sub(1)
            }
        };
        let next_column = column.wrapping_add_signed(signed(&mut table)?);
        if at < end {
            break;
        }
        (line, column) = (next_line, next_column);
    }
    Some((line, column))
}

/// A number whose lowest bit is the sign.
fn signed(table: &mut Table<'_>) -> Option<i32> {
    let value = table.number(7)?;
    Some((value >> 1) as i32 ^ -((value & 1) as i32))
}

fn read_lines(memory: Memory<'_>, at: u32) -> Option<Lines> {
    let bytes = memory.0.get(at as usize..)?;
    let bytes = &bytes[..bytes.len().min(LINES_BYTES_MAX)];
    // The bytes after the table belong to something else.
    serde_json::Deserializer::from_slice(bytes).into_iter::<Lines>().next()?.ok()
}

/// The author's line of a position in the bundle. `None` for the SDK and packages.
fn place(lines: &Lines, (line, column, is_running): (u32, u32, bool)) -> Option<Place> {
    let Changes::Some(changes) = lines.lines.get(line.checked_sub(1)? as usize)? else { return None };
    let [_, file, line] =
        *changes.chunks_exact(3).take_while(|change| change[0] < column).last().or(changes.get(..3))?
    else {
        return None;
    };
    let file = lines.files.get(file as usize).filter(|file| file.starts_with("src/"))?;
    let file = if is_running { file.clone() } else { format!("the function at {file}") };
    Some(Place { file, line, function: String::new() })
}

/// The first few positions of `wanted`.
fn positions<'a>(bytes: &'a [u8], wanted: &'a [u8]) -> impl Iterator<Item = usize> + 'a {
    let windows = bytes.windows(wanted.len()).enumerate();
    windows.filter(move |(_, window)| *window == wanted).map(|(at, _)| at).take(LINES_COPIES_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_read_from_the_table() {
        // Three bytes further: the next line, two columns on. Then an entry of the long form.
        let table = [1 + 3 * 5 + 2, 4, 0, 10, 6, 1];
        let positions = [0, 2, 3, 12, 13].map(|at| position_at(&table, (7, 5), at));
        assert_eq!(positions, [(7, 5), (7, 5), (8, 7), (8, 7), (11, 6)].map(Some));
        assert_eq!(position_at(&[0, 0x80], (1, 1), 0), None);
    }

    #[test]
    fn a_position_in_the_bundle_leads_to_the_authors_line() {
        let table = br#"{"witgateLines":1,"files":["src/filter.ts","@witgate/filter/entry.ts"],"lines":[[1,0,4,9,0,5],0,[1,1,7]]}x"#;
        let lines = read_lines(Memory(table), 0).expect("the text above is a table");
        let found = |line, column| place(&lines, (line, column, true)).map(|place| place.line);
        assert_eq!(
            [found(1, 1), found(1, 8), found(1, 10), found(2, 1), found(3, 1), found(4, 1)],
            [Some(4), Some(4), Some(5), None, None, None]
        );
    }

    #[test]
    fn a_memory_of_noise_has_no_runtime() {
        let noise: Vec<u8> = (0..65_536_u32).flat_map(|word| (word * 4).to_le_bytes()).collect();
        assert!(QuickJs::find(Memory(&noise)).is_none());
    }
}
