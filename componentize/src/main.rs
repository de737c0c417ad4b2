//! The command line of componentize.
//!
//! This module does not know: how a filter is built.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};
use componentize::{BuildOptions, OutDir};

#[derive(Parser)]
#[command(
    name = "componentize",
    version,
    about = "Builds a filter's source folder into a checked WebAssembly component"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Build filters; unchanged filters are skipped
    Build {
        /// Folders of filters, or folders to search for filters
        #[arg(required_unless_present = "all", value_name = "DIR")]
        folders: Vec<PathBuf>,
        /// Build every filter below DIR, or without DIR every filter in this repository's guests/
        #[arg(long)]
        all: bool,
        /// Where NAME.wasm goes; the default is dist/LANGUAGE beside the language's folder
        #[arg(long, value_name = "DIR")]
        out_dir: Option<PathBuf>,
        /// Build unchanged filters too
        #[arg(long)]
        force: bool,
        /// Keep the component as the language's tools made it; it is slower to instantiate
        #[arg(long)]
        no_optimize: bool,
        /// The state directory of a gateway; its cache receives each component before the component
        /// is put in place; ignored if DIR does not exist
        #[arg(long, value_name = "DIR")]
        precompile: Option<PathBuf>,
    },
    /// Install the pinned TypeScript and Python tools; `build` does this when it needs them
    Setup,
    /// Optimize a component of any world, as `build` does for filters
    Optimize {
        /// The component as a language's tools made it
        #[arg(value_name = "FILE")]
        component: PathBuf,
        /// The folder with the WIT of the world
        #[arg(long, value_name = "DIR")]
        wit: PathBuf,
        /// The world of the component
        #[arg(long, value_name = "NAME")]
        world: String,
        /// Where the result goes
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Run cargo with the Rust for WebAssembly that `build` uses, for example
    /// `componentize cargo clippy --target wasm32-unknown-unknown`
    Cargo {
        /// The arguments of cargo
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        arguments: Vec<std::ffi::OsString>,
    },
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::from(1)
        }
    }
}

/// Returns false if a filter or cargo failed. The reason has been printed.
fn run(command: Command) -> Result<bool> {
    match command {
        Command::Setup => componentize::install_tools().map(|()| true),
        Command::Cargo { arguments } => componentize::run_cargo(&arguments),
        Command::Optimize { component, wit, world, out } => optimize(&component, &wit, &world, &out).map(|()| true),
        Command::Build { mut folders, out_dir, force, no_optimize, precompile, .. } => {
            if folders.is_empty() {
                folders.push(componentize::repository().join("guests"));
            }
            let options = BuildOptions {
                force,
                optimize: !no_optimize,
                precompile: precompile.as_deref(),
                progress: true,
                keep_tools: false,
            };
            let out_dir = out_dir.as_deref().map_or(OutDir::BesideLanguage, OutDir::Folder);
            let built = componentize::build_all(&componentize::find_projects(&folders)?, out_dir, options);
            Ok(built.failures.is_empty())
        }
    }
}

fn optimize(component: &Path, wit: &Path, world: &str, out: &Path) -> Result<()> {
    let bytes = std::fs::read(component).with_context(|| format!("{}", component.display()))?;
    let optimized = componentize::optimize(&bytes, wit, world).with_context(|| format!("{}", component.display()))?;
    if let Err(error) = optimized.immortal_objects {
        eprintln!("{}: calls cost more, because objects stay reference-counted: {error:#}", component.display());
    }
    std::fs::write(out, optimized.component).with_context(|| format!("{}", out.display()))
}
