//! The commands for authors of filters: `new`, `build`, `dev`, `test`, `bench`.
//!
//! They work in any folder, as any user, and without a checkout of this repository: the builder
//! (`componentize`) carries its files inside the program. A filter is tested with the code that
//! serves it in the gateway: same compiler, same limits, same host functions.
//! This module does not know: how a filter is built, how an example is run.

mod bench;
mod build;
mod dev;
mod flame_graph;
mod fuzz;
mod load;
mod record;
mod replay;
mod report;
mod scaffold;
mod test;

use std::path::PathBuf;

use clap::{Subcommand, ValueEnum};
use componentize::Language;

/// A command for authors.
#[derive(Subcommand)]
pub(super) enum Command {
    /// Write the folder of a new filter, which builds and passes its tests
    New {
        /// The folder; its last part is the name of the filter
        #[arg(value_name = "NAME")]
        folder: PathBuf,
        /// The language
        #[arg(long, short, value_name = "ts|py|rust", ignore_case = true)]
        lang: LanguageName,
        /// What the filter starts from
        #[arg(long, short, default_value = "blank", value_parser = template_names())]
        template: String,
    },
    /// Build the filter in a folder into dist/NAME.wasm, and print that path
    Build(build::Options),
    /// Build and run a filter, and reload it when a file changes
    Dev(dev::Options),
    /// Run the unit tests and the examples of a filter
    Test(test::Options),
    /// Measure what each example of a component costs
    Bench(bench::Options),
}

/// The languages as the command line names them.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum LanguageName {
    /// TypeScript
    #[value(name = "ts", alias = "typescript")]
    TypeScript,
    /// Python
    #[value(name = "py", alias = "python")]
    Python,
    /// Rust
    #[value(name = "rust", alias = "rs")]
    Rust,
}

impl From<LanguageName> for Language {
    fn from(name: LanguageName) -> Self {
        match name {
            LanguageName::TypeScript => Self::TypeScript,
            LanguageName::Python => Self::Python,
            LanguageName::Rust => Self::Rust,
        }
    }
}

fn template_names() -> clap::builder::PossibleValuesParser {
    let values = componentize::TEMPLATES.iter().map(|(name, help)| clap::builder::PossibleValue::new(name).help(help));
    values.collect::<Vec<_>>().into()
}

pub(super) fn run(command: Command) -> Result<(), String> {
    match command {
        Command::New { folder, lang, template } => scaffold::new(&folder, lang.into(), &template),
        Command::Build(options) => build::build(&options),
        Command::Dev(options) => dev::dev(&options),
        Command::Test(options) => test::test(&options),
        Command::Bench(options) => bench::bench(&options),
    }
}
