//! Folders that only the gateway's user may write to.
//!
//! The gateway trusts the content of its state directory: machine code and the socket of a
//! takeover. So it refuses a folder that other users can write to, and one below a folder in which
//! they could put another folder in its place.
//!
//! This module does not know: what the folders contain.

use std::fs;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::Path;

/// Creates the folder with mode 700 if it does not exist. Then checks the owner and the permissions
/// of the folder and of those above it.
///
/// # Errors
/// A message for the operator if the folder cannot be created, or belongs to or can be written by
/// other users.
pub fn ensure_private_folder(folder: &Path) -> Result<(), String> {
    let shown = folder.display();
    let fail = |error: std::io::Error| format!("{shown}: {error}");
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(fail)?;
    let metadata = fs::metadata(folder).map_err(fail)?;
    let me = rustix::process::geteuid().as_raw();
    if metadata.uid() != me || metadata.permissions().mode() & 0o022 != 0 {
        return Err(format!(
            "{shown} belongs to another user, or other users can write to it: chmod 700 it, or set state.directory"
        ));
    }
    check_parents(folder, me)
}

/// Others may write to a parent only if it is sticky, such as /tmp: then they cannot rename what
/// belongs to this user.
fn check_parents(folder: &Path, me: u32) -> Result<(), String> {
    const STICKY: u32 = 0o1000;
    const OTHERS_WRITE: u32 = 0o022;
    let shown = folder.display();
    let real = fs::canonicalize(folder).map_err(|error| format!("{shown}: {error}"))?;
    for parent in real.ancestors().skip(1) {
        let metadata = fs::metadata(parent).map_err(|error| format!("{}: {error}", parent.display()))?;
        let mode = metadata.permissions().mode();
        let is_open = mode & OTHERS_WRITE != 0 && mode & STICKY == 0;
        if is_open || (metadata.uid() != me && metadata.uid() != 0) {
            return Err(format!(
                "{} belongs to another user, or other users can write to it, so they could replace {shown}: chmod go-w it, or set state.directory",
                parent.display()
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_other_users_can_write_to_is_refused() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let own = folder.path().join("a/b");
        ensure_private_folder(&own).map_err(anyhow::Error::msg)?;
        assert_eq!(fs::metadata(&own)?.permissions().mode() & 0o777, 0o700);
        fs::set_permissions(&own, fs::Permissions::from_mode(0o777))?;
        assert!(ensure_private_folder(&own).is_err());
        Ok(())
    }

    #[test]
    fn a_folder_below_one_that_other_users_can_write_to_is_refused_unless_that_is_sticky() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let (parent, own) = (folder.path().join("a"), folder.path().join("a/b/c"));
        ensure_private_folder(&own).map_err(anyhow::Error::msg)?;
        for (mode, is_accepted) in [(0o777, false), (0o770, false), (0o1777, true), (0o755, true)] {
            fs::set_permissions(&parent, fs::Permissions::from_mode(mode))?;
            assert_eq!(ensure_private_folder(&own).is_ok(), is_accepted, "{mode:o}");
        }
        // A symbolic link leads to the real folder, whose parents count.
        fs::set_permissions(&parent, fs::Permissions::from_mode(0o777))?;
        std::os::unix::fs::symlink(&own, folder.path().join("link"))?;
        assert!(ensure_private_folder(&folder.path().join("link")).is_err());
        Ok(())
    }
}
