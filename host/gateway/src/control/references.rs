//! The values of `{env: NAME}` and `{file: PATH}` in gateway.yaml, and the files that it includes.
//!
//! The list of files is kept, so that a reload notices when one of them changes. A value appears in
//! no message.
//!
//! This module does not know: where a reference stands, what an included file contains.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sha2::{Digest as _, Sha256};

use crate::process::regular_file::read_regular;
use witgate_config::References;

/// The maximum size of a file with a value.
const VALUE_BYTES_MAX: u64 = 64 << 10;

/// The maximum size of an included file.
const INCLUDED_BYTES_MAX: u64 = 4 << 20;
/// The most files that one pattern matches. The configuration has a smaller bound.
const INCLUDED_FILES_MAX: usize = 1000;

/// Looks up references, and remembers the files.
#[derive(Debug, Clone, Default)]
pub(super) struct FileReferences(Arc<Mutex<Vec<(Source, Digest)>>>);

type Digest = [u8; 32];

/// What the configuration was made from, besides gateway.yaml.
#[derive(Debug, Clone)]
enum Source {
    /// A file of at most so many bytes.
    File(PathBuf, u64),
    /// The names in a folder that match a pattern.
    Names(PathBuf, String),
}

impl Source {
    /// Its digest as it is now.
    fn digest(&self) -> Digest {
        match self {
            Self::File(path, bytes_max) => digest_of(&read_regular(path, *bytes_max)),
            Self::Names(folder, pattern) => digest_of_names(&matching_files(folder, pattern)),
        }
    }

    /// The folder to watch.
    fn folder(&self) -> Option<PathBuf> {
        match self {
            Self::File(path, _) => path.parent().map(Path::to_owned),
            Self::Names(folder, _) => Some(folder.clone()),
        }
    }
}

impl FileReferences {
    /// Empties the list of files, before a text is parsed.
    pub(super) fn forget(&self) {
        self.lock().clear();
    }

    /// The folders of the files that were asked for, whether these exist or not.
    pub(super) fn folders(&self) -> Vec<PathBuf> {
        self.lock().iter().filter_map(|(source, _)| source.folder()).collect()
    }

    /// A digest of the files' content as it is. It differs from that of the values in use when a
    /// file appears, changes or disappears.
    pub(super) fn digest(&self) -> Digest {
        let sources: Vec<Source> = self.lock().iter().map(|(source, _)| source.clone()).collect();
        combine(sources.iter().map(Source::digest))
    }

    /// The digest of the values in use.
    pub(super) fn digest_in_use(&self) -> Digest {
        combine(self.lock().iter().map(|(_, digest)| *digest))
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(Source, Digest)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl References for FileReferences {
    fn env(&self, name: &str) -> Result<String, String> {
        std::env::var(name).map_err(|error| match error {
            std::env::VarError::NotPresent => "the environment variable is not set for the gateway: set it".into(),
            std::env::VarError::NotUnicode(_) => "the value of the environment variable is not UTF-8".into(),
        })
    }

    fn file(&self, path: &Path) -> Result<String, String> {
        let read = read_regular(path, VALUE_BYTES_MAX);
        self.lock().push((Source::File(path.to_owned(), VALUE_BYTES_MAX), digest_of(&read)));
        let bytes = read.map_err(|error| format!("{}: {error}; let the gateway's user read it", path.display()))?;
        let mut text = String::from_utf8(bytes).map_err(|_| format!("{}: is not UTF-8", path.display()))?;
        // Editors and `echo` add a line break, which belongs to no secret.
        if text.ends_with('\n') {
            text.pop();
            if text.ends_with('\r') {
                text.pop();
            }
        }
        Ok(text)
    }

    fn include(&self, pattern: &Path) -> Result<Vec<(String, String)>, String> {
        let name = pattern.file_name().and_then(|name| name.to_str()).ok_or("is not the path of a file")?;
        let folder = pattern.parent().unwrap_or(Path::new(""));
        let files = matching_files(folder, name);
        self.lock().push((Source::Names(folder.to_owned(), name.to_owned()), digest_of_names(&files)));
        let files = files.map_err(|error| format!("{}: {error}; let the gateway's user read it", folder.display()))?;
        let mut texts = vec![];
        for path in &files {
            let read = read_regular(path, INCLUDED_BYTES_MAX);
            self.lock().push((Source::File(path.clone(), INCLUDED_BYTES_MAX), digest_of(&read)));
            let shown = path.display();
            let bytes = read.map_err(|error| format!("{shown}: {error}; let the gateway's user read it"))?;
            let text = String::from_utf8(bytes).map_err(|_| format!("{shown}: is not UTF-8"))?;
            texts.push((shown.to_string(), text));
        }
        if texts.is_empty() && !name.contains('*') {
            return Err("there is no such file".into());
        }
        Ok(texts)
    }
}

/// The files of the folder whose names match `pattern`, in which `*` stands for any characters.
/// Sorted. Hidden files match only a pattern that begins with a dot.
fn matching_files(folder: &Path, pattern: &str) -> std::io::Result<Vec<PathBuf>> {
    let mut found = vec![];
    for entry in std::fs::read_dir(folder)? {
        let name = entry?.file_name();
        let Some(name) = name.to_str() else { continue };
        if name.starts_with('.') == pattern.starts_with('.') && matches(pattern, name) {
            found.push(folder.join(name));
        }
        if found.len() > INCLUDED_FILES_MAX {
            break;
        }
    }
    found.sort();
    Ok(found)
}

fn matches(pattern: &str, name: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else { return pattern == name };
    let Some(name) = name.strip_prefix(start) else { return false };
    (0..=name.len()).filter(|at| name.is_char_boundary(*at)).any(|at| matches(rest, &name[at..]))
}

fn digest_of(read: &std::io::Result<Vec<u8>>) -> Digest {
    match read {
        Ok(bytes) => Sha256::digest(bytes).into(),
        Err(error) => Sha256::digest(format!("error {error}")).into(),
    }
}

fn digest_of_names(files: &std::io::Result<Vec<PathBuf>>) -> Digest {
    let names = files.as_ref().map(|files| files.iter().map(|file| file.display().to_string()).collect::<Vec<_>>());
    Sha256::digest(format!("{names:?}")).into()
}

fn combine(digests: impl Iterator<Item = Digest>) -> Digest {
    digests.fold(Sha256::new(), |hash, digest| hash.chain_update(digest)).finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_includes_the_files_of_a_folder() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let references = FileReferences::default();
        for (name, text) in [("b.yaml", "B"), ("a.yaml", "A"), (".hidden.yaml", "H"), ("c.yml", "C")] {
            std::fs::write(folder.path().join(name), text)?;
        }
        let texts = |pattern: &str| {
            let files = references.include(&folder.path().join(pattern));
            files.map(|files| files.into_iter().map(|(_, text)| text).collect::<String>())
        };
        assert_eq!(texts("*.yaml"), Ok("AB".into()));
        assert_eq!(texts("c.yml"), Ok("C".into()));
        assert_eq!(texts("x*y"), Ok(String::new()));
        assert_eq!(texts("none.yaml"), Err("there is no such file".into()));
        assert_eq!(references.digest(), references.digest_in_use());
        std::fs::write(folder.path().join("d.yaml"), "D")?;
        assert_ne!(references.digest(), references.digest_in_use(), "a new file");
        assert!(
            references.include(Path::new("/no/such/folder/*.yaml")).is_err_and(|why| why.contains("/no/such/folder"))
        );
        Ok(())
    }

    #[test]
    fn a_file_gives_its_text_without_the_last_line_break() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let (path, references) = (folder.path().join("secret"), FileReferences::default());
        let missing = references.file(&path).err().unwrap_or_default();
        assert!(missing.contains("No such file"), "{missing}");
        assert_eq!(references.digest(), references.digest_in_use());
        for (content, value) in [("a", "a"), ("a\n", "a"), ("a\r\n", "a"), ("a\n\n", "a\n"), ("", "")] {
            std::fs::write(&path, content)?;
            assert_eq!(references.file(&path), Ok(value.to_owned()), "{content:?}");
        }
        assert_ne!(references.digest(), references.digest_in_use(), "the first read found no file");
        std::fs::write(&path, vec![b'x'; VALUE_BYTES_MAX as usize + 1])?;
        assert!(references.file(&path).is_err_and(|why| why.contains("larger than the limit of 65536 bytes")));
        assert!(references.env("WITGATE_NO_SUCH_VARIABLE").is_err_and(|why| why.contains("is not set")));
        Ok(())
    }
}
