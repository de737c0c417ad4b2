//! The folder of the gateway's own: what is in it is believed (machine code, the socket of a hand-over), so nobody else may write there.

use std::fs;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::Path;

/// Makes the folder if need be and checks that it is this user's and that only this user can write to it. The error is for the operator.
pub fn private_folder(folder: &Path) -> Result<(), String> {
    let shown = folder.display();
    let fail = |error: std::io::Error| format!("{shown}: {error}");
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(fail)?;
    let metadata = fs::metadata(folder).map_err(fail)?;
    let me = rustix::process::geteuid().as_raw();
    if metadata.uid() != me || metadata.permissions().mode() & 0o022 != 0 {
        return Err(format!(
            "{shown} belongs to another user or can be written by others: chmod 700 it, or set state.directory"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_others_can_write_is_not_trusted() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let own = folder.path().join("a/b");
        private_folder(&own).map_err(anyhow::Error::msg)?;
        assert_eq!(fs::metadata(&own)?.permissions().mode() & 0o777, 0o700);
        fs::set_permissions(&own, fs::Permissions::from_mode(0o777))?;
        assert!(private_folder(&own).is_err());
        Ok(())
    }
}
