//! Compiled functions on disk: filters of one language share nearly all of their code, so a changed filter needs few new ones.
//!
//! A compilation that had to compile functions adds one segment: an index (key, place, keyed hash of each function), a keyed hash of the index, then the functions. Only the index is
//! read at the start; a function is read and authenticated when it is asked for. Segments are never changed; the ones unused for longest go when there are too many. Must not
//! know: what a function is.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Read as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use super::cache::Key;
use crate::process::private_folder::ensure_private_folder;
use witgate_runtime::chunks::CHUNK_BYTES;
use witgate_runtime::chunks::read_chunks;
use witgate_runtime::compiler::Functions;

const KEY_BYTES: usize = 32;
const MAC_BYTES: usize = 32;
/// Key, offset, length, keyed hash.
const ENTRY_BYTES: usize = KEY_BYTES + 8 + 4 + MAC_BYTES;
const FUNCTIONS_MAX: usize = 1 << 20;
const FUNCTION_BYTES_MAX: usize = 64 << 20;
/// All segments together.
const BYTES_MAX: u64 = 512 << 20;
const SEGMENTS_MAX: usize = 64;
/// A compilation that takes longer keeps what it has: it may be ended before its end.
const KEEP_INTERVAL: Duration = Duration::from_secs(15);

/// Every function of the folder's segments, and those that were compiled since.
#[derive(Debug)]
pub struct FunctionStore {
    folder: PathBuf,
    key: Key,
    fingerprint: String,
    segments: Vec<Segment>,
    known: HashMap<[u8; KEY_BYTES], Place>,
    new: Mutex<New>,
    found: AtomicUsize,
}

/// Compiled since, and not yet written.
#[derive(Debug)]
struct New {
    functions: HashMap<[u8; KEY_BYTES], Vec<u8>>,
    /// When some were last written.
    since: Instant,
    /// How many were.
    written: usize,
}

#[derive(Debug)]
struct Segment {
    file: File,
    is_used: AtomicBool,
}

#[derive(Debug, Clone, Copy)]
struct Place {
    segment: usize,
    offset: u64,
    length: u32,
    mac: [u8; MAC_BYTES],
}

impl FunctionStore {
    /// The functions of a state directory for one engine. A segment that was not written here is left out.
    pub fn open(state: &Path, key: Key, fingerprint: &[u8; 32]) -> Result<Self, String> {
        let folder = state.join("functions");
        ensure_private_folder(&folder)?;
        let fingerprint = hex::encode(&fingerprint[..8]);
        let mut store = Self {
            folder,
            key,
            fingerprint,
            segments: vec![],
            known: HashMap::new(),
            new: Mutex::new(New { functions: HashMap::new(), since: Instant::now(), written: 0 }),
            found: AtomicUsize::new(0),
        };
        for (_, _, path) in store.list() {
            if let Err(error) = store.read(&path) {
                eprintln!("{}: {error}: not used", path.display());
            }
        }
        Ok(store)
    }

    /// How many functions were found and how many had to be compiled.
    pub fn counts(&self) -> (usize, usize) {
        let new = self.new.lock().unwrap_or_else(PoisonError::into_inner);
        (self.found.load(Ordering::Relaxed), new.written + new.functions.len())
    }

    /// Writes what was compiled and deletes what is too much.
    pub fn save(&self) -> io::Result<()> {
        let now = SystemTime::now();
        for segment in self.segments.iter().filter(|segment| segment.is_used.load(Ordering::Relaxed)) {
            segment.file.set_modified(now)?;
        }
        let new = self.new.lock().unwrap_or_else(PoisonError::into_inner);
        if !new.functions.is_empty() {
            self.write(&new.functions)?;
        }
        let mut left = BYTES_MAX;
        for (at, (_, length, path)) in self.list().into_iter().enumerate() {
            if at >= SEGMENTS_MAX || left < length {
                // Another process may just have done it.
                let _ = fs::remove_file(path);
            }
            left = left.saturating_sub(length);
        }
        Ok(())
    }

    /// The folder's segments, the last used first.
    fn list(&self) -> Vec<(SystemTime, u64, PathBuf)> {
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

    fn read(&mut self, path: &Path) -> io::Result<()> {
        let mut file = File::open(path)?;
        let mut count = [0; 8];
        file.read_exact(&mut count)?;
        let count = usize::try_from(u64::from_le_bytes(count)).unwrap_or(usize::MAX);
        if count > FUNCTIONS_MAX {
            return Err(io::Error::other("it is damaged"));
        }
        let (mut index, mut mac) = (Vec::with_capacity(count * ENTRY_BYTES), [0; MAC_BYTES]);
        // Two megabytes for a Python filter. A file that ends in it has no keyed hash behind it.
        read_chunks((&mut file).take((count * ENTRY_BYTES) as u64), |piece| {
            index.extend_from_slice(piece);
            Ok(())
        })?;
        file.read_exact(&mut mac)?;
        if self.index_mac(&index) != mac {
            return Err(io::Error::other("it was not written by this gateway or is damaged"));
        }
        let segment = self.segments.len();
        for entry in index.chunks_exact(ENTRY_BYTES) {
            if let Some((key, place)) = entry_of(entry, segment) {
                // The last used segment has the word.
                self.known.entry(key).or_insert(place);
            }
        }
        self.segments.push(Segment { file, is_used: AtomicBool::new(false) });
        Ok(())
    }

    /// Writes what there is in the middle of a compilation.
    fn keep(&self, new: &mut New) {
        match self.write(&new.functions) {
            Ok(()) => {
                new.written += new.functions.len();
                new.functions.clear();
            }
            Err(error) => eprintln!("compiled functions cannot be kept: {error}"),
        }
        new.since = Instant::now();
    }

    fn write(&self, new: &HashMap<[u8; KEY_BYTES], Vec<u8>>) -> io::Result<()> {
        let mut offset = (8 + new.len() * ENTRY_BYTES + MAC_BYTES) as u64;
        let mut index = Vec::with_capacity(new.len() * ENTRY_BYTES);
        for (key, code) in new {
            index.extend_from_slice(key);
            index.extend_from_slice(&offset.to_le_bytes());
            index.extend_from_slice(&(code.len() as u32).to_le_bytes());
            index.extend_from_slice(&self.function_mac(key, code));
            offset += code.len() as u64;
        }
        let file = tempfile::Builder::new().prefix(".").tempfile_in(&self.folder)?;
        let mut out = BufWriter::new(file);
        out.write_all(&(new.len() as u64).to_le_bytes())?;
        index.chunks(CHUNK_BYTES).try_for_each(|piece| out.write_all(piece))?;
        out.write_all(&self.index_mac(&index))?;
        for code in new.values() {
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

fn entry_of(entry: &[u8], segment: usize) -> Option<([u8; KEY_BYTES], Place)> {
    let (key, rest) = entry.split_first_chunk()?;
    let (offset, rest) = rest.split_first_chunk()?;
    let (length, rest) = rest.split_first_chunk()?;
    let place = Place {
        segment,
        offset: u64::from_le_bytes(*offset),
        length: u32::from_le_bytes(*length),
        mac: rest.try_into().ok()?,
    };
    Some((*key, place))
}

impl Functions for FunctionStore {
    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        let place = self.known.get(key)?;
        let segment = self.segments.get(place.segment)?;
        let mut code = vec![0; place.length as usize];
        segment.file.read_exact_at(&mut code, place.offset).ok()?;
        if self.function_mac(key, &code) != place.mac {
            return None;
        }
        segment.is_used.store(true, Ordering::Relaxed);
        self.found.fetch_add(1, Ordering::Relaxed);
        Some(code)
    }

    fn insert(&self, key: &[u8], code: Vec<u8>) {
        if let Ok(key) = key.try_into()
            && code.len() <= FUNCTION_BYTES_MAX
        {
            let mut new = self.new.lock().unwrap_or_else(PoisonError::into_inner);
            if new.functions.len() < FUNCTIONS_MAX {
                new.functions.insert(key, code);
            }
            if new.since.elapsed() >= KEEP_INTERVAL {
                self.keep(&mut new);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use anyhow::Result;

    use super::*;

    #[test]
    fn functions_are_found_again_and_damaged_ones_are_not() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let fail = anyhow::Error::msg::<String>;
        let open = |fingerprint: u8| -> Result<FunctionStore> {
            let key = Key::of(folder.path()).map_err(fail)?;
            FunctionStore::open(folder.path(), key, &[fingerprint; 32]).map_err(fail)
        };
        let (a, b, c) = ([1; KEY_BYTES], [2; KEY_BYTES], [3; KEY_BYTES]);
        let store = open(7)?;
        store.insert(&a, b"aaaa".to_vec());
        store.insert(&b, b"bbbb".to_vec());
        store.save()?;
        let store = open(7)?;
        assert_eq!(
            (store.get(&a), store.get(&b), store.get(&c)),
            (Some(b"aaaa".to_vec()), Some(b"bbbb".to_vec()), None)
        );
        assert_eq!(store.counts(), (2, 0));
        store.insert(&c, b"c".to_vec());
        store.save()?;
        assert_eq!(open(7)?.get(&c), Some(b"c".to_vec()));
        let (long, d) = (open(7)?, [4; KEY_BYTES]);
        long.new.lock().unwrap_or_else(PoisonError::into_inner).since -= KEEP_INTERVAL;
        long.insert(&d, b"d".to_vec());
        assert_eq!(long.counts(), (0, 1), "it counts as compiled");
        assert_eq!(open(7)?.get(&d), Some(b"d".to_vec()), "a long compilation keeps what it has");
        assert_eq!(open(8)?.get(&a), None, "another engine's");

        let path = store.list().pop().map(|(_, _, path)| path).unwrap_or_default();
        let mut bytes = fs::read(&path)?;
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        fs::write(&path, &bytes)?;
        let store = open(7)?;
        assert_eq!([a, b].iter().filter(|key| store.get(*key).is_some()).count(), 1, "one of the two is damaged");
        bytes[9] ^= 1;
        fs::write(&path, &bytes)?;
        let store = open(7)?;
        assert_eq!((store.get(&a), store.get(&b)), (None, None), "a damaged index is not believed");
        Ok(())
    }
}
