//! A log file that can be opened again after another program renamed it.
//!
//! This module does not know: what is written, who asks to open it again.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Appends to a file.
pub(super) struct ReopenableFile {
    path: PathBuf,
    file: File,
    asked: Arc<AtomicBool>,
    has_failed: bool,
}

/// Asks for the file to be opened again.
pub(super) struct Reopener(Arc<AtomicBool>);

impl ReopenableFile {
    /// Opens the file, which is created for this user and its group if it does not exist.
    pub(super) fn open(path: &Path) -> io::Result<(Self, Reopener)> {
        let asked = Arc::new(AtomicBool::new(false));
        let opened =
            Self { path: path.to_owned(), file: open_to_append(path)?, asked: asked.clone(), has_failed: false };
        Ok((opened, Reopener(asked)))
    }

    /// If the path cannot be opened, the open file stays in use.
    fn reopen(&mut self) {
        match open_to_append(&self.path) {
            Ok(file) => self.file = file,
            Err(error) => {
                let file = self.path.display();
                tracing::error!(%file, %error, "a log file cannot be opened again: lines go to the old one");
            }
        }
    }
}

impl Reopener {
    /// Opens the file again before the next line.
    pub(super) fn reopen(&self) {
        self.0.store(true, Ordering::Release);
    }
}

impl Write for ReopenableFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.asked.swap(false, Ordering::Acquire) {
            self.reopen();
        }
        let written = self.file.write(bytes);
        // A full disk must not fill the other log as well.
        match &written {
            Err(error) if !self.has_failed => {
                let file = self.path.display();
                tracing::error!(%file, %error, "lines of a log file cannot be written and are lost");
            }
            _ => {}
        }
        self.has_failed = written.is_err();
        written
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn open_to_append(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt as _;
    OpenOptions::new().create(true).append(true).mode(0o640).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_renamed_file_is_opened_again() -> io::Result<()> {
        let folder = tempfile::tempdir()?;
        let (path, old) = (folder.path().join("log"), folder.path().join("log.1"));
        let (mut file, reopener) = ReopenableFile::open(&path)?;
        file.write_all(b"one\n")?;
        std::fs::rename(&path, &old)?;
        file.write_all(b"two\n")?;
        reopener.reopen();
        file.write_all(b"three\n")?;
        assert_eq!(
            (std::fs::read_to_string(old)?, std::fs::read_to_string(path)?),
            ("one\ntwo\n".into(), "three\n".into())
        );
        Ok(())
    }
}
