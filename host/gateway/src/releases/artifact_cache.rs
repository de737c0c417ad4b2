//! Compiled components on disk. The gateway loads only machine code that its own user wrote.
//!
//! An entry has two files, named by the component's hash and the engine's fingerprint: `.cwasm` is
//! machine code with mode 400, and `.json` is its [`EntryMetadata`]. A keyed hash authenticates the
//! metadata at every read.
//!
//! The machine code is hashed only if its file is not the one that the metadata describes (device,
//! inode, length, times, boot). Gain: a start maps 33 MiB of a Python filter without reading it.
//! Price: the gateway trusts the change time of a file in its own folder, which only root can set.
//! After a boot the code is hashed once more, because a power cut may lose data without a trace in
//! the times. A file is opened once, so the checked file is the mapped one.
//!
//! This module does not know: the compiler, who uses the code.

use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;

use super::cache_retention::kept_contents;
use super::content_hash::{ContentHash, update_from_file};
use super::state_key::StateKey;
use crate::process::regular_file::open_regular;
use witgate_runtime::component::ComponentInfo;
use witgate_runtime::engine::{Artifact, Engine};
use witgate_runtime::load_error::LoadError;

/// The maximum size of all entries. Above it the oldest ones are deleted.
const CACHE_BYTES_MAX: u64 = 2 << 30;
const METADATA_BYTES_MAX: u64 = 4 << 20;

/// The compiled components of a state directory, for one engine.
pub struct ArtifactCache {
    folder: PathBuf,
    key: StateKey,
    fingerprint: String,
    /// The identifier of the system's boot. Empty if it cannot be read: then every load hashes the
    /// code.
    boot: String,
}

/// What is known of an entry's machine code.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct EntryMetadata {
    /// The component's hash.
    content: String,
    info: ComponentInfo,
    /// The keyed hash of the machine code.
    code: String,
    stamp: FileStamp,
}

/// Identifies a file and its last change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct FileStamp {
    device: u64,
    inode: u64,
    length: u64,
    modified: (i64, i64),
    changed: (i64, i64),
    boot: String,
}

/// The largest machine code of one component. Its compiling process cannot write a larger file.
pub(super) const CODE_BYTES_MAX: u64 = 1 << 30;

impl ArtifactCache {
    /// Opens the cache of a state directory for engines with this fingerprint.
    ///
    /// # Errors
    /// A message for the operator if the folder is not private or the key cannot be read.
    pub fn open(state: &Path, fingerprint: &[u8; 32]) -> Result<Self, String> {
        let key = StateKey::open(state)?;
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let fingerprint = hex::encode(&fingerprint[..8]);
        Ok(Self { folder: state.join("artifacts"), key, fingerprint, boot: boot.trim().to_owned() })
    }

    /// Loads a component. `None` if the cache has no authentic entry for it.
    ///
    /// # Errors
    /// Why the engine refuses an authentic entry.
    pub fn get(&self, engine: &Engine, content: &ContentHash) -> Result<Option<(ComponentInfo, Artifact)>, LoadError> {
        let Some(mut metadata) = self.read_metadata(content) else { return Ok(None) };
        let path = self.path(content, "cwasm");
        let Ok(code) = open_regular(&path) else { return Ok(None) };
        let Some(stamp) = self.stamp(&code) else { return Ok(None) };
        if stamp.boot.is_empty() || stamp != metadata.stamp {
            if !self.hash_code(content, &code).is_ok_and(|hash| hash == metadata.code) {
                tracing::warn!(file = %path.display(), "a cached filter was not written by this gateway or is damaged: it is not used");
                return Ok(None);
            }
            metadata.stamp = stamp;
            if let Err(error) = self.write_metadata(content, &metadata) {
                tracing::debug!(%error, "the metadata of a cached filter cannot be updated");
            }
        }
        if is_executable(&code) {
            return Ok(Some((metadata.info, map(engine, &code)?)));
        }
        let Some(bytes) = self.read_code(content, &code, &metadata) else { return Ok(None) };
        // SAFETY: the keyed hash proves that this user wrote exactly these bytes for this engine.
        #[allow(unsafe_code)]
        let artifact = unsafe { engine.deserialize(&bytes) }?;
        Ok(Some((metadata.info, artifact)))
    }

    /// Reads and authenticates machine code, for a file system that does not allow to map it.
    fn read_code(&self, content: &ContentHash, file: &File, metadata: &EntryMetadata) -> Option<Vec<u8>> {
        tracing::info!(folder = %self.folder.display(), "mounted noexec: compiled filters are copied into memory rather than mapped");
        let mut code = vec![];
        let mut reader = file;
        reader.rewind().and_then(|()| reader.read_to_end(&mut code)).ok()?;
        let hash = self.code_hasher(content).update(&code).finalize();
        (hash.to_hex().as_str() == metadata.code).then_some(code)
    }

    /// Whether there is an entry. Its machine code is not checked.
    pub fn contains(&self, content: &ContentHash) -> bool {
        self.read_metadata(content).is_some() && self.path(content, "cwasm").exists()
    }

    /// A file for the machine code of a component. It has no entry before [`put`](Self::put).
    ///
    /// # Errors
    /// A message for the operator if it cannot be created.
    pub(super) fn new_file(&self) -> Result<NamedTempFile, String> {
        let created = tempfile::Builder::new().prefix(".").tempfile_in(&self.folder);
        created.map_err(|error| format!("{}: {error}", self.folder.display()))
    }

    /// The key that a compiling process needs.
    pub(super) fn functions_key(&self) -> StateKey {
        self.key.for_functions()
    }

    /// Adds a component whose machine code a compiling process wrote to `file`, and deletes the
    /// oldest entries above the limit.
    ///
    /// # Errors
    /// A message for the operator if the files cannot be written, or the code is too large.
    pub(super) fn put(&self, content: &ContentHash, info: ComponentInfo, file: NamedTempFile) -> Result<(), String> {
        self.adopt(content, info, file).map_err(|error| format!("{}: {error}", self.folder.display()))?;
        self.prune();
        Ok(())
    }

    fn adopt(&self, content: &ContentHash, info: ComponentInfo, file: NamedTempFile) -> io::Result<()> {
        file.as_file().set_permissions(fs::Permissions::from_mode(0o400))?;
        let length = file.as_file().metadata()?.len();
        if length > CODE_BYTES_MAX {
            return Err(io::Error::other(format!(
                "{length} bytes of machine code are above the limit of {CODE_BYTES_MAX}"
            )));
        }
        let mut reader = file.as_file();
        reader.rewind()?;
        let code = self.hash_code(content, file.as_file())?;
        let file = file.persist(self.path(content, "cwasm")).map_err(|error| error.error)?;
        let stamp = self.stamp(&file).ok_or_else(|| io::Error::other("the written file belongs to another user"))?;
        self.write_metadata(content, &EntryMetadata { content: content.to_hex(), info, code, stamp })
    }

    fn read_metadata(&self, content: &ContentHash) -> Option<EntryMetadata> {
        let path = self.path(content, "json");
        let mut text = vec![];
        open_regular(&path).ok()?.take(METADATA_BYTES_MAX).read_to_end(&mut text).ok()?;
        let end = text.iter().position(|byte| *byte == b'\n')?;
        let (mac, json) = (blake3::Hash::from_hex(&text[..end]).ok()?, &text[end + 1..]);
        // This comparison takes constant time.
        if self.metadata_mac(json) != mac {
            tracing::warn!(file = %path.display(), "the metadata of a cached filter was not written by this gateway or is damaged: it is not used");
            return None;
        }
        let metadata: EntryMetadata = serde_json::from_slice(json).ok()?;
        (metadata.content == content.to_hex()).then_some(metadata)
    }

    fn write_metadata(&self, content: &ContentHash, metadata: &EntryMetadata) -> io::Result<()> {
        let json = serde_json::to_vec(metadata)?;
        let mut file = tempfile::Builder::new().prefix(".").tempfile_in(&self.folder)?;
        writeln!(file, "{}", self.metadata_mac(&json).to_hex())?;
        file.write_all(&json)?;
        file.persist(self.path(content, "json")).map_err(|error| error.error)?;
        Ok(())
    }

    // The purposes of the keyed hashes are part of the format of the files.

    fn metadata_mac(&self, json: &[u8]) -> blake3::Hash {
        self.key.hasher(&format!("note {}", self.fingerprint)).update(json).finalize()
    }

    fn code_hasher(&self, content: &ContentHash) -> blake3::Hasher {
        self.key.hasher(&format!("code {} {}", self.fingerprint, content.to_hex()))
    }

    fn hash_code(&self, content: &ContentHash, code: &File) -> io::Result<String> {
        let mut hasher = self.code_hasher(content);
        update_from_file(&mut hasher, code)?;
        Ok(hasher.finalize().to_hex().to_string())
    }

    /// The stamp of a regular file. `None` if another user owns it or may write to it.
    fn stamp(&self, file: &File) -> Option<FileStamp> {
        let metadata = file.metadata().ok()?;
        let is_own =
            metadata.uid() == rustix::process::geteuid().as_raw() && metadata.permissions().mode() & 0o022 == 0;
        (is_own && metadata.is_file()).then(|| FileStamp {
            device: metadata.dev(),
            inode: metadata.ino(),
            length: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
            boot: self.boot.clone(),
        })
    }

    fn path(&self, content: &ContentHash, extension: &str) -> PathBuf {
        self.folder.join(format!("{}.{}.{extension}", content.to_hex(), self.fingerprint))
    }

    /// Deletes the oldest entries until the rest fits, but not those to which a rollback may lead.
    fn prune(&self) {
        let kept = self.folder.parent().map(kept_contents).unwrap_or_default();
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
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if name.split('.').next().is_some_and(|content| kept.contains(content)) {
                continue;
            }
            // A mapped file keeps its content until it is unmapped.
            if fs::remove_file(&path).is_ok() {
                total -= length;
                let _ = fs::remove_file(path.with_extension("json"));
            }
        }
    }
}

fn is_executable(file: &File) -> bool {
    rustix::fs::fstatvfs(file).is_ok_and(|system| !system.f_flag.contains(rustix::fs::StatVfsMountFlags::NOEXEC))
}

/// Maps authenticated machine code.
fn map(engine: &Engine, code: &File) -> Result<Artifact, LoadError> {
    // This path leads to the checked file, even if its name leads to another one.
    let checked = PathBuf::from(format!("/proc/self/fd/{}", code.as_raw_fd()));
    // SAFETY: the keyed hash proves that this user wrote these bytes for this engine. The modes of
    // the file and its folder keep other users from writing to it.
    #[allow(unsafe_code)]
    unsafe {
        engine.deserialize_file(&checked)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use anyhow::{Context as _, Result};

    use super::*;
    use witgate_runtime::compiler::{Compiler, Functions};

    #[derive(Debug)]
    struct NoCache;

    impl Functions for NoCache {
        fn get(&self, _: &[u8]) -> Option<Vec<u8>> {
            None
        }
        fn insert(&self, _: &[u8], _: Vec<u8>) {}
    }

    fn component_info() -> Result<ComponentInfo, String> {
        serde_json::from_str(
            r#"{"digest":"d","size":8,"manifest":null,"request_phase":true,"response_phase":false,"handles_http":false,"imports":[],"exports":[],"core_modules":0,"functions":0,"largest_function":0,"starts_code":false,"packages":[]}"#,
        )
        .map_err(|error| error.to_string())
    }

    #[test]
    fn only_authentic_entries_are_loaded() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let fail = anyhow::Error::msg::<String>;
        let engine = Engine::new(2).map_err(fail)?;
        let cache = ArtifactCache::open(folder.path(), &engine.fingerprint()).map_err(fail)?;
        let component = b"\0asm\x0d\0\x01\0";
        let code = Compiler::new(Arc::new(NoCache)).and_then(|compiler| compiler.compile(component)).map_err(fail)?;
        let (content, other) = (ContentHash::of(component), ContentHash::of(b"x"));
        let put = || {
            let mut file = cache.new_file()?;
            file.write_all(&code).map_err(|error| error.to_string())?;
            cache.put(&content, component_info()?, file)
        };
        put().map_err(fail)?;
        let is_there = |content| cache.get(&engine, content).is_ok_and(|found| found.is_some());
        assert!(is_there(&content) && cache.contains(&content) && !is_there(&other));

        // Without execution, the code is copied and authenticated as well.
        let (metadata, file) =
            (cache.read_metadata(&content).context("the metadata")?, File::open(cache.path(&content, "cwasm"))?);
        assert!(cache.read_code(&content, &file, &metadata).is_some());
        assert!(cache.read_code(&other, &file, &metadata).is_none());

        // The entry of another component.
        for extension in ["cwasm", "json"] {
            fs::copy(cache.path(&content, extension), cache.path(&other, extension))?;
        }
        assert!(!is_there(&other));

        // The same bytes in another file are hashed and loaded.
        let path = cache.path(&content, "cwasm");
        fs::rename(cache.path(&other, "cwasm"), &path)?;
        let before = cache.read_metadata(&content).context("the metadata")?.stamp;
        assert!(is_there(&content));
        assert_ne!(cache.read_metadata(&content).context("the metadata")?.stamp, before, "the new stamp is stored");

        // One flipped bit, with the original modification time.
        let modified = fs::metadata(&path)?.modified()?;
        let mut bytes = fs::read(&path)?;
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        fs::write(&path, &bytes)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o400))?;
        File::open(&path)?.set_modified(modified)?;
        assert!(!is_there(&content));

        // Forged metadata.
        put().map_err(fail)?;
        assert!(is_there(&content));
        let path = cache.path(&content, "json");
        let forged = fs::read_to_string(&path)?.replace("\"request_phase\":true", "\"request_phase\":null");
        fs::write(&path, forged)?;
        assert!(!is_there(&content) && !cache.contains(&content));
        Ok(())
    }
}
