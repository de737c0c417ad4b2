//! `componentize`: a filter's source folder → a checked component, one command for each language.
//!
//! Read in this order: `manifest` (filter.toml), `world` (the WIT that the tools see), `build` (the steps of one filter), `language` (whose
//! tools run: `script` for TypeScript and Python, `rust` and its fallback `debian`), `check` (is the result what the manifest says), `flatten` (its core modules into one), `digest`
//! (what a result depends on), `batch` (many filters), `setup` (installing the pinned tools once). Must not know: the gateway's host.

mod batch;
mod build;
mod check;
mod debian;
mod digest;
mod flatten;
mod language;
mod manifest;
mod progress;
mod rust;
mod script;
mod setup;
mod world;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
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
        /// Folders with a filter.toml, or folders to search for them
        #[arg(required_unless_present = "all", value_name = "DIR")]
        folders: Vec<PathBuf>,
        /// Build every filter below DIR; without DIR, below this repository's guests/
        #[arg(long)]
        all: bool,
        /// Where NAME.wasm goes; by default dist/LANGUAGE beside the language's folder
        #[arg(long, value_name = "DIR")]
        out_dir: Option<PathBuf>,
        /// Build even what has not changed
        #[arg(long)]
        force: bool,
        /// Leave the core modules as the language's tools made them: slower to instantiate, for comparison
        #[arg(long)]
        no_flatten: bool,
        /// Where DIR exists: a gateway's state directory, whose cache gets each component before it is put in place
        #[arg(long, value_name = "DIR")]
        precompile: Option<PathBuf>,
    },
    /// Install the pinned TypeScript and Python tools, as `build` does when it needs them
    Setup,
    /// Merge the core modules of a component for any world into one, as `build` does with filters
    Flatten {
        /// What a language's tools made
        #[arg(value_name = "FILE")]
        component: PathBuf,
        /// The folder with the world
        #[arg(long, value_name = "DIR")]
        wit: PathBuf,
        /// The world that it was built for
        #[arg(long, value_name = "NAME")]
        world: String,
        /// Where the result goes
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Run cargo with the Rust for WebAssembly that `build` uses: `componentize cargo clippy --target wasm32-unknown-unknown`
    Cargo {
        /// What cargo gets
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

/// False where a filter could not be built; why was said when it happened.
fn run(command: Command) -> Result<bool> {
    match command {
        Command::Setup => {
            setup::typescript()?;
            setup::python()?;
            Ok(true)
        }
        Command::Cargo { arguments } => rust::cargo(&arguments),
        Command::Flatten { component, wit, world, out } => {
            let bytes = std::fs::read(&component).with_context(|| format!("{}", component.display()))?;
            let flat = flatten::flatten(&bytes, &wit, &world).with_context(|| format!("{}", component.display()))?;
            if let Err(why) = flat.pinned {
                eprintln!("{}: objects of the image are counted, so a call costs more: {why:#}", component.display());
            }
            std::fs::write(&out, flat.component).with_context(|| format!("{}", out.display()))?;
            Ok(true)
        }
        Command::Build { mut folders, out_dir, force, no_flatten, precompile, .. } => {
            if folders.is_empty() {
                folders.push(setup::repository().join("guests"));
            }
            let how = build::How { force, flatten: !no_flatten, precompile: precompile.as_deref() };
            batch::build(&batch::find(&folders)?, out_dir.as_deref(), how)
        }
    }
}
