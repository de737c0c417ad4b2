//! Builds a filter's source folder into a checked WebAssembly component.
//!
//! The modules in reading order:
//!
//! 1. `project`: a source folder, with its manifest from `filter_toml` and its `examples`.
//! 2. `build`: the steps for one filter. `batch`: many filters.
//! 3. `fingerprint`: whether a filter is unchanged.
//! 4. `wit`: the WIT that the tools read.
//! 5. `toolchain`: the tools of each language. `home`: the files that they need, embedded.
//! 6. `check`: whether the component agrees with its manifest.
//! 7. `optimize`: merges the core modules of a component into one and makes its calls cheaper.
//!
//! `scaffold` writes the folder of a new filter, and `unit_tests` runs the tests of its language.
//! `progress` reports all of this to people. This crate does not know: the gateway.

mod batch;
mod build;
mod check;
mod client_refusals;
mod embedded_files;
mod examples;
mod filter_toml;
mod fingerprint;
mod optimize;
mod progress;
mod project;
mod scaffold;
mod toolchain;
mod unit_tests;
mod wit;

pub use batch::{Built, BuiltComponent, build_all};
pub use build::BuildOptions;
pub use embedded_files::folder as user_folder;
pub use examples::{read_example_file, read_examples};
pub use optimize::{Optimized, optimize};
pub use project::{OutDir, filter_name, find_projects, is_left_out};
pub use scaffold::{TEMPLATES, new_filter};
pub use toolchain::folders::{repository, use_embedded_files};
pub use toolchain::install_tools;
pub use toolchain::language::Language;
pub use toolchain::rust::run_cargo;
pub use unit_tests::{UnitTests, run_unit_tests};
