//! The command line: `run`, `check`, `inspect`, `precompile`. Exit code 0 means that it worked, 1 that the input is at fault, 2 that the command line is.

mod check;
mod compile;
mod inspect;
mod run;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::process::priority::Priority;

#[derive(Parser)]
#[command(name = "witgate", version, about = "An API gateway whose filters are WebAssembly components")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the gateway; without a configuration, a demo on an embedded upstream
    Run {
        /// gateway.yaml
        #[arg(long, short, value_name = "FILE")]
        config: Option<PathBuf>,
        /// Replace the running gateway of the same state directory without losing a connection: it hands over its sockets and drains
        #[arg(long)]
        takeover: bool,
    },
    /// Check a configuration and its filters: every error at once
    Check {
        /// gateway.yaml
        #[arg(long, short, value_name = "FILE")]
        config: PathBuf,
    },
    /// Show what a .wasm file is: world, phases, imports, manifest, size, digest
    Inspect {
        /// The component
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Compile filters into the cache of a state directory, so that a gateway on this host takes them at once
    Precompile {
        /// gateway.yaml: its state directory, its limits, its filters
        #[arg(long, short, value_name = "FILE")]
        config: Option<PathBuf>,
        /// The state directory, instead of the configuration's
        #[arg(long, value_name = "DIR")]
        state: Option<PathBuf>,
        /// Components
        #[arg(value_name = "FILE")]
        files: Vec<PathBuf>,
    },
    /// What the gateway starts to compile the component on standard input
    #[command(hide = true)]
    Compile {
        #[arg(long)]
        state: PathBuf,
        #[arg(long)]
        memory: u64,
        #[arg(long)]
        seconds: u64,
        #[arg(long)]
        priority: Priority,
    },
}

/// Reads the command line and does what it says.
pub fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Run { config, takeover } => run::run(config, takeover),
        Command::Check { config } => check::check(&config),
        Command::Inspect { file, json } => inspect::inspect(&file, json),
        Command::Precompile { config, state, files } => compile::precompile(config, state, files),
        Command::Compile { state, memory, seconds, priority } => {
            compile::compile_child(&state, memory, seconds, priority)
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::from(1)
        }
    }
}
