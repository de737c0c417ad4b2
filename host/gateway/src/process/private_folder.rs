//! Folders that only the gateway's user may write to.
//!
//! The gateway trusts the content of its state directory: machine code and the socket of a
//! takeover. So it refuses a folder that other users can write to.
//!
//! This module does not know: what the folders contain.

use std::fs;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::Path;

/// Creates the folder with mode 700 if it does not exist. Then checks its owner and permissions.
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
}
