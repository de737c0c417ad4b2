//! `witgate new`: writes the folder of a new filter.
//!
//! This module does not know: what a template contains.

use std::path::Path;

use componentize::Language;

use crate::cli::output::{print, shown_path};

pub(super) fn new(folder: &Path, language: Language, template: &str) -> Result<(), String> {
    let folder = std::path::absolute(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let written = componentize::new_filter(&folder, language, template)?;
    let folder = shown_path(&folder);
    for file in written {
        print(format_args!("  {folder}/{}", file.display()))?;
    }
    print("")?;
    print("Next:")?;
    print(format_args!("  cd {folder}"))?;
    print(
        "  witgate dev      # builds and runs it, and again after each change; the first time it installs the tools",
    )?;
    print("  witgate test     # runs the unit tests and the examples")?;
    print("  witgate build    # writes the component for the gateway")
}
