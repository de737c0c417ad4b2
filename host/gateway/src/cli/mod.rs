//! The command line: the commands for operators (`run`, `check`, `ctl`, `tap`, `top`, `inspect`,
//! `precompile`, `publish`, `schema`) and those for authors of filters (`author`).
//!
//! The exit code is 0 on success, 1 for invalid input and failures, and 2 for an invalid command
//! line. This module does not know: how the commands work.

mod admin_client;
mod admin_connection;
mod author;
mod check;
mod ctl;
mod explain;
mod inspect;
mod output;
mod precompile;
mod publish;
mod run;
mod tap;
#[cfg(test)]
mod tests;
mod top;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};

use crate::process::priority::Priority;
use crate::releases::compiler_child;
use crate::telemetry::flush_log;

#[derive(Parser)]
#[command(name = "witgate", version, about = "An API gateway whose filters are WebAssembly components")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    #[command(flatten)]
    Author(author::Command),
    /// Run the gateway; without a configuration, run a demo with an embedded upstream
    Run {
        /// The configuration, gateway.yaml
        #[arg(long, short, value_name = "FILE")]
        config: Option<PathBuf>,
        /// Replace the gateway that runs with the same state directory, without losing a
        /// connection: it hands over its sockets and drains
        #[arg(long)]
        takeover: bool,
    },
    /// Check a configuration with its certificates and filters, and report all errors at once
    Check {
        /// The configuration, gateway.yaml
        #[arg(long, short, value_name = "FILE")]
        config: PathBuf,
    },
    /// Describe a .wasm file: world, phases, imports, the grants it needs, manifest, size, digest,
    /// SBOM
    Inspect {
        /// The component
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// The configuration, gateway.yaml: says whether its `deny` or `deny_packages` refuse the
        /// component
        #[arg(long, short, value_name = "FILE")]
        config: Option<PathBuf>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Compile filters into the cache of a state directory, so that a gateway on this host loads
    /// them at once
    Precompile {
        /// The configuration, gateway.yaml: its filters are compiled, with its state directory and
        /// limits
        #[arg(long, short, value_name = "FILE")]
        config: Option<PathBuf>,
        /// The state directory, instead of the configuration's
        #[arg(long, value_name = "DIR")]
        state: Option<PathBuf>,
        /// Components to compile
        #[arg(value_name = "FILE")]
        files: Vec<PathBuf>,
    },
    /// Print the JSON Schema of gateway.yaml, for editors
    Schema,
    /// Upload a filter under a name that does not exist yet: to s3://, gs:// or az://, or to a tag of
    /// oci://
    Publish {
        /// The component. FILE.minisig is uploaded with it if it exists
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Such as oci://registry.example.com/filters/api-key:1.4.0
        #[arg(value_name = "LOCATION")]
        location: String,
        /// The configuration, gateway.yaml: its `sources` have the endpoint and the credentials
        #[arg(long, short, value_name = "FILE")]
        config: Option<PathBuf>,
        /// Use a registry without TLS
        #[arg(long)]
        plain_http: bool,
    },
    /// Explain an error code of the gateway or the builder: its cause, and what to do
    Explain {
        /// A code such as `deadline`, or a status such as 502; without it, all codes are listed
        #[arg(value_name = "CODE")]
        code: Option<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Print the completions for a shell, or write the man pages
    Completions {
        /// The shell
        #[arg(required_unless_present = "man")]
        shell: Option<clap_complete::Shell>,
        /// Write the man pages into this folder
        #[arg(long, value_name = "DIR")]
        man: Option<PathBuf>,
    },
    /// Show the state of a running gateway, and give it commands
    Ctl(ctl::Options),
    /// Show exchanges of a running gateway as they end
    Tap(tap::Options),
    /// Show the routes, filters and upstreams of a running gateway, every second
    Top(top::Options),
    /// Compile the component on standard input; the gateway starts this command itself
    #[command(hide = true)]
    Compile {
        #[arg(long)]
        state: PathBuf,
        #[arg(long)]
        output: PathBuf,
        #[arg(long)]
        memory: u64,
        #[arg(long)]
        seconds: u64,
        #[arg(long)]
        priority: Priority,
    },
}

/// Parses the command line and runs its command. Errors go to standard error.
pub fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Author(command) => author::run(command),
        Command::Run { config, takeover } => run::run(config, takeover),
        Command::Check { config } => check::check(&config),
        Command::Schema => output::print(witgate_config::schema()),
        Command::Ctl(options) => ctl::run(options),
        Command::Tap(options) => tap::run(options),
        Command::Top(options) => top::run(options),
        Command::Inspect { file, config, json } => inspect::inspect(&file, config, json),
        Command::Precompile { config, state, files } => precompile::precompile(config, state, files),
        Command::Publish { file, location, config, plain_http } => {
            publish::publish(&file, &location, config, plain_http)
        }
        Command::Explain { code, json } => explain::explain(code.as_deref(), json),
        Command::Completions { shell, man } => completions(shell, man.as_deref()),
        Command::Compile { state, output, memory, seconds, priority } => {
            compiler_child::run(&state, &output, memory, seconds, priority)
        }
    };
    // The last lines of the log come before the error, which often follows from them.
    flush_log();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            output::print_error(message);
            ExitCode::from(1)
        }
    }
}

/// Prints the completions for a shell, and writes the man pages.
fn completions(shell: Option<clap_complete::Shell>, man: Option<&Path>) -> Result<(), String> {
    if let Some(folder) = man {
        let fail = |error: std::io::Error| format!("{}: {error}", folder.display());
        std::fs::create_dir_all(folder).map_err(fail)?;
        clap_mangen::generate_to(Cli::command(), folder).map_err(fail)?;
    }
    if let Some(shell) = shell {
        let mut script = vec![];
        clap_complete::generate(shell, &mut Cli::command(), "witgate", &mut script);
        String::from_utf8_lossy(&script).lines().try_for_each(output::print)?;
    }
    Ok(())
}
