//! Compiled filters on disk, believed only where this user's gateway wrote them.
//!
//! An entry is two files named by the component's content and the engine: `.cwasm`, machine code that nobody may write to (mode 400), and `.json`, a note with the component's
//! description, the keyed hash of the code, and what the system said about the code's file: device, inode, length, times, and in which boot. The note is authenticated by a keyed hash whenever
//! it is read. The code is hashed too, all of it, unless the file is the one of the note in every respect: changing a file's content changes its change time, which nobody but root can
//! set, and nobody but this user and root can replace a file here; both could read the key as well. After a boot every byte is hashed again: a power cut may lose data that a file's
//! times do not show. The file that was checked is the one that is mapped: it is opened once. Must not know: how code is made, who uses it.

use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::process::private_folder::ensure_private_folder;
use witgate_runtime::chunks::for_each_chunk;
use witgate_runtime::chunks::read_chunks;
use witgate_runtime::component::ComponentInfo;
use witgate_runtime::engine::{Artifact, Engine};

const KEY_BYTES: usize = 32;
/// Entries above this are deleted, the longest ago written first.
const CACHE_BYTES_MAX: u64 = 2 << 30;
const NOTE_BYTES_MAX: u64 = 4 << 20;

/// A secret of this state directory, to know again what was written here.
#[derive(Clone)]
pub struct Key([u8; KEY_BYTES]);

impl std::fmt::Debug for Key {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Key(…)")
    }
}

impl Key {
    /// The key of a state directory; made where there is none. The directory must be this user's own.
    pub fn of(state: &Path) -> Result<Self, String> {
        let folder = state.join("artifacts");
        ensure_private_folder(&folder)?;
        let path = folder.join("key");
        read_key(&path).map(Self).map_err(|error| format!("{}: {error}", path.display()))
    }

    /// A keyed hash to be fed, different for every purpose.
    pub fn hasher(&self, purpose: &str) -> blake3::Hasher {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        hasher.update(&(purpose.len() as u64).to_le_bytes());
        hasher.update(purpose.as_bytes());
        hasher
    }
}

/// Names a component by its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Content(blake3::Hash);

impl Content {
    /// Of bytes in memory.
    pub fn of(bytes: &[u8]) -> Self {
        let mut hasher = blake3::Hasher::new();
        for_each_chunk(bytes, |piece| {
            hasher.update(piece);
        });
        Self(hasher.finalize())
    }

    /// Of a file, read in pieces.
    pub fn of_file(file: &File) -> io::Result<Self> {
        let mut hasher = blake3::Hasher::new();
        feed(&mut hasher, file)?;
        Ok(Self(hasher.finalize()))
    }
}

fn feed(hasher: &mut blake3::Hasher, file: &File) -> io::Result<()> {
    read_chunks(file, |piece| {
        hasher.update(piece);
        Ok(())
    })
    .map(drop)
}

/// Compiled filters by content, in a folder of this user's own.
pub struct Cache {
    folder: PathBuf,
    key: Key,
    fingerprint: String,
    boot: String,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Note {
    content: String,
    description: ComponentInfo,
    code: String,
    stamp: Stamp,
}

/// Which file it was, and that nothing was written to it since.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Stamp {
    device: u64,
    inode: u64,
    length: u64,
    modified: (i64, i64),
    changed: (i64, i64),
    boot: String,
}

impl Cache {
    /// The cache in a state directory, for engines with this fingerprint.
    pub fn open(state: &Path, fingerprint: &[u8; 32]) -> Result<Self, String> {
        let key = Key::of(state)?;
        // Where it cannot be read every check is a whole one.
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let fingerprint = hex::encode(&fingerprint[..8]);
        Ok(Self { folder: state.join("artifacts"), key, fingerprint, boot: boot.trim().to_owned() })
    }

    /// A cached filter; none where there is none that was written here. An error says why one that was cannot run.
    pub fn get(&self, engine: &Engine, content: &Content) -> Result<Option<(ComponentInfo, Artifact)>, String> {
        let Some(mut note) = self.note(content) else { return Ok(None) };
        let path = self.path(content, "cwasm");
        let Ok(code) = File::open(&path) else { return Ok(None) };
        let Some(stamp) = self.stamp(&code) else { return Ok(None) };
        if stamp.boot.is_empty() || stamp != note.stamp {
            if !self.hash_of(content, &code).is_ok_and(|hash| hash == note.code) {
                tracing::warn!(file = %path.display(), "a cached filter was not written by this gateway or is damaged: it is not used");
                return Ok(None);
            }
            note.stamp = stamp;
            if let Err(error) = self.write_note(content, &note) {
                tracing::debug!(%error, "a note of the cache cannot be renewed");
            }
        }
        let artifact =
            if may_be_executed(&code) { map(engine, &code) } else { self.copy(engine, content, &code, &note) }?;
        Ok(Some((note.description, artifact)))
    }

    /// For a file system without executable files: reads what cannot be mapped.
    fn copy(&self, engine: &Engine, content: &Content, file: &File, note: &Note) -> Result<Artifact, String> {
        tracing::info!(folder = %self.folder.display(), "mounted noexec: compiled filters are copied into memory rather than mapped");
        let mut code = vec![];
        let mut reader = file;
        reader.rewind().and_then(|()| reader.read_to_end(&mut code)).map_err(|error| error.to_string())?;
        if self.code_hasher(content).update(&code).finalize().to_hex().as_str() != note.code {
            return Err("the file changed while it was read".into());
        }
        // SAFETY: the keyed hash says that this user wrote these very bytes for this engine.
        #[allow(unsafe_code)]
        unsafe {
            engine.deserialize(&code)
        }
    }

    /// Whether there is an entry, without looking at its code.
    pub fn has(&self, content: &Content) -> bool {
        self.note(content).is_some() && self.path(content, "cwasm").exists()
    }

    /// Adds a filter.
    pub fn put(&self, content: &Content, description: ComponentInfo, code: &[u8]) -> Result<(), String> {
        self.write(content, description, code).map_err(|error| format!("{}: {error}", self.folder.display()))?;
        self.prune();
        Ok(())
    }

    fn write(&self, content: &Content, description: ComponentInfo, code: &[u8]) -> io::Result<()> {
        let mut file = tempfile::Builder::new().prefix(".").tempfile_in(&self.folder)?;
        let mut hasher = self.code_hasher(content);
        // One system call with all of it would keep the core for so long.
        read_chunks(code, |piece| {
            hasher.update(piece);
            file.write_all(piece)
        })?;
        file.as_file().set_permissions(fs::Permissions::from_mode(0o400))?;
        let file = file.persist(self.path(content, "cwasm")).map_err(|error| error.error)?;
        let stamp =
            self.stamp(&file).ok_or_else(|| io::Error::other("the file that was just written is not a file"))?;
        let code = hasher.finalize().to_hex().to_string();
        self.write_note(content, &Note { content: content.0.to_hex().to_string(), description, code, stamp })
    }

    fn note(&self, content: &Content) -> Option<Note> {
        let path = self.path(content, "json");
        let mut text = vec![];
        File::open(&path).ok()?.take(NOTE_BYTES_MAX).read_to_end(&mut text).ok()?;
        let end = text.iter().position(|byte| *byte == b'\n')?;
        let (mac, json) = (blake3::Hash::from_hex(&text[..end]).ok()?, &text[end + 1..]);
        // blake3's comparison of hashes takes constant time.
        if self.note_mac(json) != mac {
            tracing::warn!(file = %path.display(), "a note of the cache was not written by this gateway or is damaged: it is not used");
            return None;
        }
        let note: Note = serde_json::from_slice(json).ok()?;
        (note.content == content.0.to_hex().as_str()).then_some(note)
    }

    fn write_note(&self, content: &Content, note: &Note) -> io::Result<()> {
        let json = serde_json::to_vec(note)?;
        let mut file = tempfile::Builder::new().prefix(".").tempfile_in(&self.folder)?;
        writeln!(file, "{}", self.note_mac(&json).to_hex())?;
        file.write_all(&json)?;
        file.persist(self.path(content, "json")).map_err(|error| error.error)?;
        Ok(())
    }

    fn note_mac(&self, json: &[u8]) -> blake3::Hash {
        self.key.hasher(&format!("note {}", self.fingerprint)).update(json).finalize()
    }

    fn code_hasher(&self, content: &Content) -> blake3::Hasher {
        self.key.hasher(&format!("code {} {}", self.fingerprint, content.0.to_hex()))
    }

    fn hash_of(&self, content: &Content, code: &File) -> io::Result<String> {
        let mut hasher = self.code_hasher(content);
        feed(&mut hasher, code)?;
        Ok(hasher.finalize().to_hex().to_string())
    }

    /// None where it is not a file of this user's that nobody else may write to.
    fn stamp(&self, file: &File) -> Option<Stamp> {
        let metadata = file.metadata().ok()?;
        let is_own =
            metadata.uid() == rustix::process::geteuid().as_raw() && metadata.permissions().mode() & 0o022 == 0;
        (is_own && metadata.is_file()).then(|| Stamp {
            device: metadata.dev(),
            inode: metadata.ino(),
            length: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
            boot: self.boot.clone(),
        })
    }

    fn path(&self, content: &Content, extension: &str) -> PathBuf {
        self.folder.join(format!("{}.{}.{extension}", content.0.to_hex(), self.fingerprint))
    }

    /// Deletes the entries that were written longest ago, until the rest fits.
    fn prune(&self) {
        let Ok(entries) = fs::read_dir(&self.folder) else { return };
        let mut files: Vec<(SystemTime, u64, PathBuf)> = entries
            .filter_map(Result::ok)
            .filter(|entry| entry.path().extension().is_some_and(|extension| extension == "cwasm"))
            .filter_map(|entry| {
                let metadata = entry.metadata().ok()?;
                Some((metadata.modified().ok()?, metadata.len(), entry.path()))
            })
            .collect();
        files.sort_unstable();
        let mut total: u64 = files.iter().map(|(_, length, _)| length).sum();
        for (_, length, path) in files {
            if total <= CACHE_BYTES_MAX {
                break;
            }
            // What is mapped stays until it is not.
            if fs::remove_file(&path).is_ok() {
                total -= length;
                let _ = fs::remove_file(path.with_extension("json"));
            }
        }
    }
}

fn may_be_executed(file: &File) -> bool {
    rustix::fs::fstatvfs(file).is_ok_and(|system| !system.f_flag.contains(rustix::fs::StatVfsMountFlags::NOEXEC))
}

/// Maps a file that was authenticated.
fn map(engine: &Engine, code: &File) -> Result<Artifact, String> {
    // The very file that was checked, whatever its name leads to by now.
    let checked = PathBuf::from(format!("/proc/self/fd/{}", code.as_raw_fd()));
    // SAFETY: the keyed hash says that this user wrote these bytes for this engine; its mode and its folder's keep all others from writing to it.
    #[allow(unsafe_code)]
    unsafe {
        engine.deserialize_file(&checked)
    }
}

/// Reads the key, or makes one: readable for this user alone.
fn read_key(path: &Path) -> io::Result<[u8; KEY_BYTES]> {
    let mut key = [0; KEY_BYTES];
    match File::open(path) {
        Ok(mut file) => {
            if file.metadata()?.permissions().mode() & 0o077 != 0 {
                return Err(io::Error::other("can be read by others: delete it, a new one is made"));
            }
            file.read_exact(&mut key)?;
            Ok(key)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            getrandom::fill(&mut key).map_err(io::Error::other)?;
            // Whole before it has its name: another gateway may read it at once.
            let own = path.with_extension(std::process::id().to_string());
            let made = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&own);
            made.and_then(|mut file| file.write_all(&key))?;
            let linked = fs::hard_link(&own, path);
            fs::remove_file(&own)?;
            match linked {
                Ok(()) => Ok(key),
                // Another one was quicker.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => read_key(path),
                Err(error) => Err(error),
            }
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use anyhow::{Context as _, Result};

    use super::*;
    use witgate_runtime::compiler::{Compiler, Functions};

    #[derive(Debug)]
    struct Nothing;

    impl Functions for Nothing {
        fn get(&self, _: &[u8]) -> Option<Vec<u8>> {
            None
        }
        fn insert(&self, _: &[u8], _: Vec<u8>) {}
    }

    fn description() -> Result<ComponentInfo> {
        Ok(serde_json::from_str(
            r#"{"digest":"d","size":8,"manifest":null,"request_phase":true,"response_phase":false,"imports":[],"exports":[],"core_modules":0,"functions":0,"largest_function":0,"starts_code":false}"#,
        )?)
    }

    #[test]
    fn what_was_not_written_here_is_not_run() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let fail = anyhow::Error::msg::<String>;
        let engine = Engine::new(2).map_err(fail)?;
        let cache = Cache::open(folder.path(), &engine.fingerprint()).map_err(fail)?;
        let component = b"\0asm\x0d\0\x01\0";
        let code = Compiler::new(Arc::new(Nothing)).and_then(|compiler| compiler.compile(component)).map_err(fail)?;
        let (content, other) = (Content::of(component), Content::of(b"x"));
        cache.put(&content, description()?, &code).map_err(fail)?;
        let is_there = |content| cache.get(&engine, content).is_ok_and(|found| found.is_some());
        assert!(is_there(&content) && cache.has(&content) && !is_there(&other));

        // Where files cannot be executed it is copied, and authenticated all the same.
        let (note, file) = (cache.note(&content).context("the note")?, File::open(cache.path(&content, "cwasm"))?);
        assert!(cache.copy(&engine, &content, &file, &note).is_ok());
        assert!(cache.copy(&engine, &other, &file, &note).is_err());

        // Another component's name.
        for extension in ["cwasm", "json"] {
            fs::copy(cache.path(&content, extension), cache.path(&other, extension))?;
        }
        assert!(!is_there(&other));

        // The same bytes in another file: hashed, and taken.
        let path = cache.path(&content, "cwasm");
        fs::rename(cache.path(&other, "cwasm"), &path)?;
        let before = cache.note(&content).context("the note")?.stamp;
        assert!(is_there(&content));
        assert_ne!(cache.note(&content).context("the note")?.stamp, before, "and remembered");

        // One flipped bit, with the modification time put back.
        let modified = fs::metadata(&path)?.modified()?;
        let mut bytes = fs::read(&path)?;
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        fs::write(&path, &bytes)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o400))?;
        File::open(&path)?.set_modified(modified)?;
        assert!(!is_there(&content));

        // A note that says so.
        cache.put(&content, description()?, &code).map_err(fail)?;
        assert!(is_there(&content));
        let note = cache.path(&content, "json");
        let forged = fs::read_to_string(&note)?.replace("\"request_phase\":true", "\"request_phase\":null");
        fs::write(&note, forged)?;
        assert!(!is_there(&content) && !cache.has(&content));
        Ok(())
    }

    #[test]
    fn the_key_stays_and_is_nobody_elses() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let fail = anyhow::Error::msg::<String>;
        let key = Key::of(folder.path()).map_err(fail)?;
        assert_eq!(Key::of(folder.path()).map_err(fail)?.0, key.0);
        fs::set_permissions(folder.path().join("artifacts/key"), fs::Permissions::from_mode(0o644))?;
        assert!(Key::of(folder.path()).is_err());
        Ok(())
    }
}
