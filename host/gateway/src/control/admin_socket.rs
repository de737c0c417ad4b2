//! The UNIX socket of the admin listener: a file that only its owner may open.
//!
//! A socket is bound under a temporary name, gets its mode, begins to listen, and then takes its
//! place by a rename. So nobody can connect before the mode holds, and a successor replaces the
//! socket of the gateway that it takes over without a gap. This module does not know: who accepts
//! connections.

use std::fs::{self, Permissions};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use socket2::{Domain, SockAddr, Socket, Type};

const BACKLOG: i32 = 128;
const MODE: u32 = 0o600;

/// The file of a bound socket. Its drop removes the file, unless another gateway replaced it.
#[derive(Debug)]
pub struct AdminSocket {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl AdminSocket {
    /// Binds a socket at this path. `replaces_running` allows to replace a socket that is in use.
    ///
    /// # Errors
    /// Why that is not possible, with the path and what to do.
    pub fn bind(path: &Path, replaces_running: bool) -> Result<(UnixListener, Self), String> {
        let fail = |why: String| format!("admin.socket: {}: {why}", path.display());
        match fs::symlink_metadata(path) {
            Ok(found) if !found.file_type().is_socket() => {
                return Err(fail("there is a file that is no socket: remove it, or choose another path".into()));
            }
            Ok(_) if !replaces_running && UnixStream::connect(path).is_ok() => {
                return Err(fail("another process listens there; a gateway is replaced with --takeover".into()));
            }
            _ => {}
        }
        let mut temporary = path.as_os_str().to_owned();
        temporary.push(format!(".{}", std::process::id()));
        let temporary = PathBuf::from(temporary);
        let listener = listen(&temporary).and_then(|listener| {
            let found = fs::metadata(&temporary)?;
            fs::rename(&temporary, path)?;
            Ok((listener, Self { path: path.to_owned(), device: found.dev(), inode: found.ino() }))
        });
        listener.map_err(|error| {
            let _ = fs::remove_file(&temporary);
            fail(format!("{error}; does its folder exist, and may this user write there?"))
        })
    }
}

impl Drop for AdminSocket {
    fn drop(&mut self) {
        let is_own =
            fs::metadata(&self.path).is_ok_and(|found| (found.dev(), found.ino()) == (self.device, self.inode));
        if is_own {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn listen(path: &Path) -> std::io::Result<UnixListener> {
    let _ = fs::remove_file(path);
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::unix(path)?)?;
    fs::set_permissions(path, Permissions::from_mode(MODE))?;
    socket.listen(BACKLOG)?;
    Ok(std::os::fd::OwnedFd::from(socket).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_in_use_is_replaced_by_a_successor_only() -> Result<(), String> {
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        let path = folder.path().join("s");
        let (_first, file) = AdminSocket::bind(&path, false)?;
        assert_eq!(fs::metadata(&path).map(|found| found.mode() & 0o777).ok(), Some(MODE));
        let why = AdminSocket::bind(&path, false).err().unwrap_or_default();
        assert!(why.contains("another process listens"), "{why}");
        let (second, own) = AdminSocket::bind(&path, true)?;
        drop(file);
        assert!(UnixStream::connect(&path).is_ok(), "the predecessor leaves the file of its successor");
        drop((second, own));
        assert!(!path.exists());
        fs::write(&path, "x").map_err(|error| error.to_string())?;
        assert!(AdminSocket::bind(&path, true).err().is_some_and(|why| why.contains("no socket")));
        Ok(())
    }
}
