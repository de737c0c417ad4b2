//! Builds a filter's source folder into a checked WebAssembly component.
//!
//! The modules in reading order:
//!
//! 1. `project`: a source folder, with its manifest from `filter_toml`.
//! 2. `build`: the steps for one filter. `batch`: many filters.
//! 3. `fingerprint`: whether a filter is unchanged.
//! 4. `wit`: the WIT that the tools read.
//! 5. `toolchain`: the tools of each language.
//! 6. `check`: whether the component agrees with its manifest.
//! 7. `optimize`: merges the core modules of a component into one and makes its calls cheaper.
//!
//! `progress` reports all of this to people. This crate does not know: the gateway.

mod batch;
mod build;
mod check;
mod filter_toml;
mod fingerprint;
mod optimize;
mod progress;
mod project;
mod refusals;
mod toolchain;
mod wit;

pub use batch::build_all;
pub use build::BuildOptions;
pub use optimize::{Optimized, optimize};
pub use project::find_projects;
pub use toolchain::folders::repository;
pub use toolchain::install_tools;
pub use toolchain::rust::run_cargo;
