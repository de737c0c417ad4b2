//! `witgate build`: builds the filters in a folder.
//!
//! The paths of the components go to standard output, progress and mistakes to standard error. This
//! module does not know: how a filter is built.

use std::path::{Path, PathBuf};

use componentize::{BuildOptions, Built, BuiltComponent, OutDir};
use serde_json::json;

use crate::cli::output::{print, shown_path};

/// The options of `witgate build`.
#[derive(clap::Args)]
pub(in crate::cli) struct Options {
    /// The folder of a filter, or a folder to search for filters
    #[arg(default_value = ".", value_name = "FOLDER")]
    folders: Vec<PathBuf>,
    /// Where NAME.wasm goes; the default is dist in the folder of the filter
    #[arg(long, value_name = "DIR")]
    out_dir: Option<PathBuf>,
    /// Build unchanged filters too
    #[arg(long)]
    force: bool,
    /// Keep the component as the language's tools made it; it is slower to instantiate
    #[arg(long)]
    no_optimize: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Print no progress
    #[arg(long, short)]
    quiet: bool,
}

pub(super) fn build(options: &Options) -> Result<(), String> {
    componentize::use_embedded_files().map_err(|error| format!("{error:#}"))?;
    let sources = componentize::find_projects(&options.folders).map_err(|error| format!("{error:#}"))?;
    let out_dir = options.out_dir.as_deref().map_or(OutDir::InSource, OutDir::Folder);
    let settings = BuildOptions {
        force: options.force,
        optimize: !options.no_optimize,
        precompile: None,
        progress: !options.quiet,
        keep_tools: false,
    };
    let built = componentize::build_all(&sources, out_dir, settings);
    for component in &built.components {
        if options.json {
            let BuiltComponent { source, file, manifest, .. } = component;
            let (name, version) = (&manifest.name, &manifest.version);
            print(json!({ "name": name, "version": version, "folder": source, "component": file }))?;
        } else {
            print(shown_path(&component.file))?;
        }
    }
    result_of(&built)
}

/// Builds the one filter in `folder` and reports mistakes on standard error.
pub(super) fn build_one(folder: &Path, quiet: bool) -> Result<BuiltComponent, String> {
    componentize::use_embedded_files().map_err(|error| format!("{error:#}"))?;
    if !folder.exists() {
        return Err(format!("{}: there is no such file or folder", folder.display()));
    }
    if !folder.join("filter.toml").exists() {
        return Err(format!(
            "{}: there is no filter.toml: name the folder of a filter, or make one with `witgate new`",
            folder.display()
        ));
    }
    let settings = BuildOptions { force: false, optimize: true, precompile: None, progress: !quiet, keep_tools: false };
    let built = componentize::build_all(&[folder.to_owned()], OutDir::InSource, settings);
    result_of(&built)?;
    built.components.into_iter().next().ok_or_else(|| format!("{}: nothing was built", folder.display()))
}

/// Builds for `witgate dev`: without the optimizer, and with tools that stay for the next build.
/// The component goes into `out_dir`. Mistakes are reported on standard error.
pub(super) fn build_dev(folder: &Path, out_dir: &Path, progress: bool) -> Result<BuiltComponent, String> {
    let settings = BuildOptions { force: false, optimize: false, precompile: None, progress, keep_tools: true };
    let built = componentize::build_all(&[folder.to_owned()], OutDir::Folder(out_dir), settings);
    result_of(&built)?;
    built.components.into_iter().next().ok_or_else(|| format!("{}: nothing was built", folder.display()))
}

/// The reasons have been printed.
fn result_of(built: &Built) -> Result<(), String> {
    match built.failures.len() {
        0 => Ok(()),
        1 => Err("the filter was not built".into()),
        count => Err(format!("{count} filters were not built")),
    }
}
