//! `componentize`: a filter's source folder → a checked component, one command for each language.
//!
//! Read in this order: `manifest` (filter.toml), `world` (the WIT that the tools see), `language` (what each language's tools are told), `check` (is the
//! result what the manifest says), `build` (the steps in order), `setup` (installing the pinned tools once). Must not know: the gateway's host.

mod build;
mod check;
mod language;
mod manifest;
mod progress;
mod setup;
mod world;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(
    name = "componentize",
    version,
    about = "Turns a filter's source folder into a checked WebAssembly component"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Build filters; what has not changed is left alone
    Build {
        /// Source folders, each with a filter.toml; or folders that contain such folders
        #[arg(required = true, value_name = "DIR")]
        folders: Vec<PathBuf>,
        /// Where NAME.wasm goes; by default dist/LANGUAGE beside the language's folder
        #[arg(long, value_name = "DIR")]
        out_dir: Option<PathBuf>,
        /// Build even what has not changed
        #[arg(long)]
        force: bool,
    },
    /// Install the pinned TypeScript and Python tools, as `build` does when it needs them
    Setup,
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::from(1)
        }
    }
}

fn run(command: Command) -> Result<()> {
    match command {
        Command::Setup => {
            setup::typescript()?;
            setup::python()?;
            Ok(())
        }
        Command::Build { folders, out_dir, force } => {
            let mut sources = vec![];
            for folder in &folders {
                find(folder, 0, &mut sources).with_context(|| format!("{}", folder.display()))?;
            }
            if sources.is_empty() {
                bail!("no filter.toml in {}: name a filter's folder", folders[0].display());
            }
            sources.sort();
            let failed = sources.iter().filter(|source| !build::build(source, out_dir.as_deref(), force)).count();
            if failed > 0 {
                bail!("{failed} of {} filters could not be built", sources.len());
            }
            Ok(())
        }
    }
}

/// Folders with a filter.toml, at most three levels down.
fn find(folder: &std::path::Path, depth: usize, found: &mut Vec<PathBuf>) -> Result<()> {
    if folder.join("filter.toml").exists() {
        found.push(folder.to_owned());
        return Ok(());
    }
    if depth > 2 {
        return Ok(());
    }
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        if path.is_dir() && !hidden && !path.ends_with("node_modules") && !path.ends_with("target") {
            find(&path, depth + 1, found)?;
        }
    }
    Ok(())
}
