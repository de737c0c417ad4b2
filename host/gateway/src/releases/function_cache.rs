//! Compiled functions on disk.
//!
//! Gain: filters of one language share nearly all of their code, so a changed filter compiles few
//! functions. Price: up to 512 MiB of disk, and a compilation reads the index of every segment.
//!
//! A compilation with new functions adds one segment: an index (key, position and keyed hash of
//! each function), a keyed hash of the index, then the functions. A compilation reads only the
//! indexes at its start, and authenticates a function when it reads it. Segments are never changed;
//! the least recently used ones are deleted above the limits.
//!
//! This module does not know: what a function is.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Read as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use super::state_key::StateKey;
use crate::process::private_folder::ensure_private_folder;
use crate::process::regular_file::open_regular;
use witgate_runtime::chunks::{CHUNK_BYTES, read_chunks};
use witgate_runtime::compiler::Functions;

const KEY_BYTES: usize = 32;
const MAC_BYTES: usize = 32;
/// The size of an index entry: key, offset, length, keyed hash.
const ENTRY_BYTES: usize = KEY_BYTES + 8 + 4 + MAC_BYTES;
const FUNCTIONS_MAX: usize = 1 << 20;
const FUNCTION_BYTES_MAX: usize = 64 << 20;
/// The maximum size of all segments.
const SEGMENT_BYTES_MAX: u64 = 512 << 20;
const SEGMENTS_MAX: usize = 64;
/// A compilation that takes longer saves its functions in between, because it may be killed before
/// its end.
const SAVE_INTERVAL: Duration = Duration::from_secs(15);

/// The functions of all segments, and the unsaved ones of this process.
#[derive(Debug)]
pub(super) struct FunctionCache {
    folder: PathBuf,
    key: StateKey,
    fingerprint: String,
    segments: Vec<Segment>,
    index: HashMap<[u8; KEY_BYTES], Position>,
    unsaved: Mutex<Unsaved>,
    hits: AtomicUsize,
}

/// Functions that are compiled and not saved.
#[derive(Debug)]
struct Unsaved {
    functions: HashMap<[u8; KEY_BYTES], Vec<u8>>,
    /// The time of the last save.
    last_save: Instant,
    /// The number of functions that this process saved before.
    saved: usize,
}

#[derive(Debug)]
struct Segment {
    file: File,
    is_used: AtomicBool,
}

#[derive(Debug, Clone, Copy)]
struct Position {
    segment: usize,
    offset: u64,
    length: u32,
    mac: [u8; MAC_BYTES],
}

impl FunctionCache {
    /// Opens the cache of a state directory for one engine. Segments that are not authentic are
    /// skipped with a message.
    ///
    /// # Errors
    /// A message for the operator if the folder is not private.
    pub(super) fn open(state: &Path, key: StateKey, fingerprint: &[u8; 32]) -> Result<Self, String> {
        let folder = state.join("functions");
        ensure_private_folder(&folder)?;
        let fingerprint = hex::encode(&fingerprint[..8]);
        let mut cache = Self {
            folder,
            key,
            fingerprint,
            segments: vec![],
            index: HashMap::new(),
            unsaved: Mutex::new(Unsaved { functions: HashMap::new(), last_save: Instant::now(), saved: 0 }),
            hits: AtomicUsize::new(0),
        };
        for (_, _, path) in cache.segments_by_use() {
            if let Err(error) = cache.read_index(&path) {
                eprintln!("{}: skipped: {error}; its functions are compiled again", path.display());
            }
        }
        Ok(cache)
    }

    /// The folder of the segments.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The number of functions found in the cache, and the number of compiled ones.
    pub(super) fn counts(&self) -> (usize, usize) {
        let unsaved = self.unsaved.lock().unwrap_or_else(PoisonError::into_inner);
        (self.hits.load(Ordering::Relaxed), unsaved.saved + unsaved.functions.len())
    }

    /// Writes the unsaved functions, and deletes the least recently used segments above the limits.
    ///
    /// # Errors
    /// The error of the file system.
    pub(super) fn save(&self) -> io::Result<()> {
        let now = SystemTime::now();
        for segment in self.segments.iter().filter(|segment| segment.is_used.load(Ordering::Relaxed)) {
            segment.file.set_modified(now)?;
        }
        let unsaved = self.unsaved.lock().unwrap_or_else(PoisonError::into_inner);
        if !unsaved.functions.is_empty() {
            self.write_segment(&unsaved.functions)?;
        }
        let mut left = SEGMENT_BYTES_MAX;
        for (at, (_, length, path)) in self.segments_by_use().into_iter().enumerate() {
            if at >= SEGMENTS_MAX || left < length {
                // Another process may have deleted it.
                let _ = fs::remove_file(path);
            }
            left = left.saturating_sub(length);
        }
        Ok(())
    }

    /// The segments, most recently used first.
    fn segments_by_use(&self) -> Vec<(SystemTime, u64, PathBuf)> {
        let Ok(entries) = fs::read_dir(&self.folder) else { return vec![] };
        let extension = format!(".{}.functions", self.fingerprint);
        let mut found: Vec<_> = entries
            .filter_map(Result::ok)
            .filter(|entry| entry.file_name().to_string_lossy().ends_with(&extension))
            .filter_map(|entry| {
                let metadata = entry.metadata().ok()?;
                Some((metadata.modified().ok()?, metadata.len(), entry.path()))
            })
            .collect();
        found.sort_unstable();
        found.reverse();
        found
    }

    fn read_index(&mut self, path: &Path) -> io::Result<()> {
        let mut file = open_regular(path)?;
        let mut count = [0; 8];
        file.read_exact(&mut count)?;
        let count = usize::try_from(u64::from_le_bytes(count)).unwrap_or(usize::MAX);
        if count > FUNCTIONS_MAX {
            return Err(io::Error::other("the file is damaged"));
        }
        let (mut index, mut mac) = (Vec::with_capacity(count * ENTRY_BYTES), [0; MAC_BYTES]);
        // The index of a Python filter has 2 MB. A truncated index has no keyed hash after it.
        read_chunks((&mut file).take((count * ENTRY_BYTES) as u64), |chunk| {
            index.extend_from_slice(chunk);
            Ok(())
        })?;
        file.read_exact(&mut mac)?;
        if self.index_mac(&index) != mac {
            return Err(io::Error::other("it was not written by this gateway, or it is damaged"));
        }
        let segment = self.segments.len();
        for entry in index.chunks_exact(ENTRY_BYTES) {
            if let Some((key, position)) = parse_entry(entry, segment) {
                // The most recently used segment takes precedence.
                self.index.entry(key).or_insert(position);
            }
        }
        self.segments.push(Segment { file, is_used: AtomicBool::new(false) });
        Ok(())
    }

    /// Saves during a compilation.
    fn save_early(&self, unsaved: &mut Unsaved) {
        match self.write_segment(&unsaved.functions) {
            Ok(()) => {
                unsaved.saved += unsaved.functions.len();
                unsaved.functions.clear();
            }
            Err(error) => eprintln!(
                "{}: compiled functions cannot be saved: {error}; the next compilation takes longer",
                self.folder.display()
            ),
        }
        unsaved.last_save = Instant::now();
    }

    fn write_segment(&self, functions: &HashMap<[u8; KEY_BYTES], Vec<u8>>) -> io::Result<()> {
        let mut offset = (8 + functions.len() * ENTRY_BYTES + MAC_BYTES) as u64;
        let mut index = Vec::with_capacity(functions.len() * ENTRY_BYTES);
        for (key, code) in functions {
            index.extend_from_slice(key);
            index.extend_from_slice(&offset.to_le_bytes());
            index.extend_from_slice(&(code.len() as u32).to_le_bytes());
            index.extend_from_slice(&self.function_mac(key, code));
            offset += code.len() as u64;
        }
        let file = tempfile::Builder::new().prefix(".").tempfile_in(&self.folder)?;
        let mut out = BufWriter::new(file);
        out.write_all(&(functions.len() as u64).to_le_bytes())?;
        index.chunks(CHUNK_BYTES).try_for_each(|chunk| out.write_all(chunk))?;
        out.write_all(&self.index_mac(&index))?;
        for code in functions.values() {
            out.write_all(code)?;
        }
        let file = out.into_inner().map_err(|error| error.into_error())?;
        let name = blake3::hash(&index).to_hex();
        let path = self.folder.join(format!("{}.{}.functions", &name[..16], self.fingerprint));
        file.persist(path).map_err(|error| error.error)?;
        Ok(())
    }

    fn index_mac(&self, index: &[u8]) -> [u8; MAC_BYTES] {
        *self.key.hasher(&format!("functions {}", self.fingerprint)).update(index).finalize().as_bytes()
    }

    fn function_mac(&self, key: &[u8], code: &[u8]) -> [u8; MAC_BYTES] {
        *self.key.hasher("function").update(key).update(code).finalize().as_bytes()
    }
}

fn parse_entry(entry: &[u8], segment: usize) -> Option<([u8; KEY_BYTES], Position)> {
    let (key, rest) = entry.split_first_chunk()?;
    let (offset, rest) = rest.split_first_chunk()?;
    let (length, rest) = rest.split_first_chunk()?;
    let position = Position {
        segment,
        offset: u64::from_le_bytes(*offset),
        length: u32::from_le_bytes(*length),
        mac: rest.try_into().ok()?,
    };
    Some((*key, position))
}

impl Functions for FunctionCache {
    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        let position = self.index.get(key)?;
        let segment = self.segments.get(position.segment)?;
        let mut code = vec![0; position.length as usize];
        segment.file.read_exact_at(&mut code, position.offset).ok()?;
        if self.function_mac(key, &code) != position.mac {
            return None;
        }
        segment.is_used.store(true, Ordering::Relaxed);
        self.hits.fetch_add(1, Ordering::Relaxed);
        Some(code)
    }

    fn insert(&self, key: &[u8], code: Vec<u8>) {
        if let Ok(key) = key.try_into()
            && code.len() <= FUNCTION_BYTES_MAX
        {
            let mut unsaved = self.unsaved.lock().unwrap_or_else(PoisonError::into_inner);
            if unsaved.functions.len() < FUNCTIONS_MAX {
                unsaved.functions.insert(key, code);
            }
            if unsaved.last_save.elapsed() >= SAVE_INTERVAL {
                self.save_early(&mut unsaved);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use anyhow::Result;

    use super::*;

    #[test]
    fn saved_functions_are_found_and_damaged_ones_are_not() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let fail = anyhow::Error::msg::<String>;
        let open = |fingerprint: u8| -> Result<FunctionCache> {
            let key = StateKey::open(folder.path()).map_err(fail)?;
            FunctionCache::open(folder.path(), key, &[fingerprint; 32]).map_err(fail)
        };
        let (a, b, c) = ([1; KEY_BYTES], [2; KEY_BYTES], [3; KEY_BYTES]);
        let cache = open(7)?;
        cache.insert(&a, b"aaaa".to_vec());
        cache.insert(&b, b"bbbb".to_vec());
        cache.save()?;
        let cache = open(7)?;
        assert_eq!(
            (cache.get(&a), cache.get(&b), cache.get(&c)),
            (Some(b"aaaa".to_vec()), Some(b"bbbb".to_vec()), None)
        );
        assert_eq!(cache.counts(), (2, 0));
        cache.insert(&c, b"c".to_vec());
        cache.save()?;
        assert_eq!(open(7)?.get(&c), Some(b"c".to_vec()));
        let (long, d) = (open(7)?, [4; KEY_BYTES]);
        long.unsaved.lock().unwrap_or_else(PoisonError::into_inner).last_save -= SAVE_INTERVAL;
        long.insert(&d, b"d".to_vec());
        assert_eq!(long.counts(), (0, 1), "a saved function counts as compiled");
        assert_eq!(open(7)?.get(&d), Some(b"d".to_vec()), "a long compilation saves its functions");
        assert_eq!(open(8)?.get(&a), None, "functions of another engine");

        // The segment of two functions is the longest. Its time may equal those of the others.
        let segments = cache.segments_by_use();
        let path =
            segments.into_iter().max_by_key(|(_, length, _)| *length).map(|(_, _, path)| path).unwrap_or_default();
        let mut bytes = fs::read(&path)?;
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        fs::write(&path, &bytes)?;
        let cache = open(7)?;
        assert_eq!([a, b].iter().filter(|key| cache.get(*key).is_some()).count(), 1, "one of the two is damaged");
        bytes[9] ^= 1;
        fs::write(&path, &bytes)?;
        let cache = open(7)?;
        assert_eq!((cache.get(&a), cache.get(&b)), (None, None), "a damaged index is skipped");
        Ok(())
    }
}
