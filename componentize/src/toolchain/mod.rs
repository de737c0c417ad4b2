//! Runs the tools of each language, which turn source and WIT into a component without a manifest.
//!
//! TypeScript and Python have a script beside their lock files (`script`). Rust uses cargo and the
//! component encoder (`rust`). Missing tools are installed first (`install`).
//! This module does not know: what happens to the component afterwards.

mod cargo;
mod command;
mod debian;
pub(crate) mod folders;
pub(crate) mod install;
pub(crate) mod language;
pub(crate) mod rust;
mod script;

use anyhow::Result;

use crate::progress::Progress;
use language::{BuildError, Job, Language};

/// Runs the tools of `language`. Installs them first if they are missing.
pub(crate) fn build(language: Language, job: &Job, progress: &mut Progress) -> Result<Vec<u8>, BuildError> {
    let tools = folders::tools(language.name());
    match language {
        Language::TypeScript => {
            install::typescript()?;
            script::build("node".as_ref(), &tools.join("build.mjs"), job, progress)
        }
        Language::Python => {
            install::python()?;
            script::build(tools.join(".venv/bin/python").as_os_str(), &tools.join("build.py"), job, progress)
        }
        Language::Rust => rust::build(job, progress),
    }
}

/// Installs the pinned tools of TypeScript and Python if they are missing or out of date.
///
/// # Errors
///
/// Node.js or Python is missing or too old, or the packages cannot be installed.
pub fn install_tools() -> Result<()> {
    install::typescript()?;
    install::python()
}
