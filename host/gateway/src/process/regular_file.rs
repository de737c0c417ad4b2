//! Opens and reads files that an operator or a build names: regular files only, and bounded.
//!
//! A plain open of a pipe waits for its writer, and a read of `/dev/zero` never ends. Either would
//! stop the thread that looks at files, and so every later reload. The kind is checked on the
//! descriptor and not on the path, which may change in between.
//!
//! This module does not know: what the files contain.

use std::fs::{File, OpenOptions};
use std::io::{Error, ErrorKind, Read as _, Result};
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::Path;

/// Opens a file for reading. Never waits for a writer of a pipe or for a device.
///
/// # Errors
/// The file cannot be opened, or it is not a regular file; the message names its kind.
pub fn open_regular(path: &Path) -> Result<File> {
    // `OpenOptions` adds O_CLOEXEC. Without O_NOCTTY a terminal could become the gateway's own.
    let opened = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path);
    let file = match opened {
        // What open(2) says of a socket: "no such device or address".
        Err(error) if error.raw_os_error() == Some(libc::ENXIO) => return Err(not_regular("a socket or a device")),
        opened => opened?,
    };
    let kind = file.metadata()?.file_type();
    if kind.is_file() {
        return Ok(file);
    }
    Err(not_regular(match kind {
        kind if kind.is_dir() => "a folder",
        kind if kind.is_fifo() => "a named pipe",
        kind if kind.is_char_device() || kind.is_block_device() => "a device",
        _ => "of an unknown kind",
    }))
}

/// Reads a whole file of at most `bytes_max` bytes.
///
/// # Errors
/// Those of [`open_regular`]; the file cannot be read; it is larger than the bound, which the
/// message names.
pub fn read_regular(path: &Path, bytes_max: u64) -> Result<Vec<u8>> {
    let mut bytes = vec![];
    // The length is not trusted: files of /proc say 0, and a file may grow.
    open_regular(path)?.take(bytes_max.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > bytes_max {
        return Err(Error::new(ErrorKind::FileTooLarge, format!("larger than the limit of {bytes_max} bytes")));
    }
    Ok(bytes)
}

fn not_regular(kind: &str) -> Error {
    Error::new(ErrorKind::InvalidInput, format!("not a regular file but {kind}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipe_a_device_and_a_folder_are_refused_at_once() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let (pipe, zero) = (folder.path().join("pipe"), folder.path().join("zero"));
        let mode = rustix::fs::Mode::from_bits_truncate(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0)?;
        std::os::unix::fs::symlink("/dev/zero", &zero)?;
        for (path, kind) in [(pipe.as_path(), "a named pipe"), (&zero, "a device"), (folder.path(), "a folder")] {
            let error = read_regular(path, 10).err().map(|error| error.to_string()).unwrap_or_default();
            assert_eq!(error, format!("not a regular file but {kind}"));
        }
        Ok(())
    }

    #[test]
    fn a_file_above_the_bound_is_refused() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("f");
        std::fs::write(&path, "12345")?;
        assert_eq!(read_regular(&path, 5)?, b"12345");
        let error = read_regular(&path, 4).err().map(|error| error.to_string()).unwrap_or_default();
        assert_eq!(error, "larger than the limit of 4 bytes");
        // A file of /proc has the length 0 whatever its content.
        assert!(!read_regular(Path::new("/proc/self/status"), 1 << 20)?.is_empty());
        Ok(())
    }
}
