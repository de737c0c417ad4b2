//! Rust: cargo compiles for wasm32-unknown-unknown, then the core module is wrapped into a
//! component.
//!
//! The target is not a WASI one, because a filter must not import WASI. The SDK's bindings write
//! the world into a custom section of the module, and the encoder keeps only the imports that the
//! code uses. This module does not know: the SDK.

use std::ffi::{OsStr, OsString};
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, anyhow};
use wit_component::ComponentEncoder;

use super::cargo::{CargoSetup, INSTALL_RUST, sysroot};
use super::command::run;
use super::debian;
use super::language::{BuildError, Job};
use crate::progress::{self, Progress};

const TARGET: &str = "wasm32-unknown-unknown";
/// The crate `getrandom` then calls the SDK. Cargo adds these flags to those of
/// `.cargo/config.toml`.
const RUSTFLAGS_VARIABLE: &str = "CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUSTFLAGS";
const RUSTFLAGS: &str = "--cfg getrandom_backend=\"custom\"";
/// The environment variable that selects the compiler. `debian` ignores rustup.
const COMPILER_VARIABLE: &str = "COMPONENTIZE_RUST";

/// Builds the package in `job.source`.
pub(crate) fn build(job: &Job, progress: &mut Progress) -> Result<Vec<u8>, BuildError> {
    let setup = cargo_setup(job.source)?;
    progress.step("cargo");
    let output = Command::new("cargo")
        .args(["build", "--release", "--lib", "--quiet", "--target", TARGET])
        .args(["--message-format", "json-render-diagnostics"])
        .args(["--color", if std::io::stderr().is_terminal() { "always" } else { "never" }])
        .args(&setup.arguments)
        .envs(setup.environment)
        .env(RUSTFLAGS_VARIABLE, RUSTFLAGS)
        .current_dir(job.source)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cargo cannot be run: {INSTALL_RUST}"))?;
    let messages = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(BuildError::Author(messages.into_owned()));
    }
    progress.warnings(&messages);
    let module = artifact(&output.stdout, job.source).ok_or_else(|| {
        let cargo_toml = job.source.join("Cargo.toml");
        BuildError::Author(format!(
            "{}: cargo made no .wasm: set `crate-type = [\"cdylib\"]` under [lib]",
            cargo_toml.display()
        ))
    })?;
    progress.step("component");
    let module = std::fs::read(&module).with_context(|| format!("{}", module.display()))?;
    encode(&module).map_err(|error| BuildError::Author(format!("{}: {error:#}", job.source.display())))
}

/// Runs cargo in the current folder, set up to compile for WebAssembly.
///
/// Returns false if cargo failed; cargo has printed the reason.
///
/// # Errors
///
/// There is no Rust for WebAssembly, or cargo cannot be run.
pub fn run_cargo(arguments: &[OsString]) -> Result<bool> {
    let setup = cargo_setup(&std::env::current_dir()?)?;
    let mut cargo = Command::new("cargo");
    cargo.args(arguments).args(&setup.arguments).envs(setup.environment).env(RUSTFLAGS_VARIABLE, RUSTFLAGS);
    let status = cargo.status();
    Ok(status.with_context(|| format!("cargo cannot be run: {INSTALL_RUST}"))?.success())
}

/// Whether the environment selects Debian's compiler.
pub(crate) fn debian_is_forced() -> bool {
    std::env::var_os(COMPILER_VARIABLE).is_some_and(|compiler| compiler == "debian")
}

/// Wraps a core module whose custom section names its world.
fn encode(module: &[u8]) -> Result<Vec<u8>> {
    let encoder = ComponentEncoder::default().validate(true).module(module);
    let component = encoder.and_then(|mut encoder| encoder.encode());
    component.map_err(|error| {
        error.context(
            "the module does not have the world of a filter: does src/lib.rs call `witgate_filter::filter!`, \
            and does the module import nothing else?",
        )
    })
}

/// The .wasm of the package in `source`, from cargo's messages.
fn artifact(messages: &[u8], source: &Path) -> Option<PathBuf> {
    let manifest = source.join("Cargo.toml");
    String::from_utf8_lossy(messages)
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|message| message["manifest_path"].as_str().is_some_and(|path| Path::new(path) == manifest))
        .filter_map(|message| message["filenames"].as_array().cloned())
        .flatten()
        .filter_map(|file| file.as_str().map(PathBuf::from))
        .find(|file| file.extension() == Some(OsStr::new("wasm")))
}

/// The target of rustup, which is added if it is missing. If that fails, Debian's compiler.
fn cargo_setup(source: &Path) -> Result<CargoSetup> {
    if debian_is_forced() {
        return debian::cargo_setup();
    }
    if sysroot(source)?.join("lib/rustlib").join(TARGET).join("lib").is_dir() {
        return Ok(CargoSetup::default());
    }
    progress::setup_notice("adding the wasm target (rustup target add)");
    let mut rustup = Command::new("rustup");
    rustup.args(["target", "add", TARGET]).current_dir(source);
    match run(&mut rustup, "is Rust installed by rustup, and can it reach its server?") {
        Ok(()) => Ok(CargoSetup::default()),
        Err(rustup) => {
            progress::setup_notice("rustup could not add the target: using Debian's compiler");
            debian::cargo_setup().map_err(|debian| {
                anyhow!("there is no Rust for {TARGET}\nrustup: {rustup:#}\nDebian's packages: {debian:#}")
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_module_is_that_of_this_package() {
        let messages =
            br#"{"reason":"compiler-artifact","manifest_path":"/w/sdk/Cargo.toml","filenames":["/t/libsdk.rlib"]}
not json
{"reason":"compiler-artifact","manifest_path":"/w/b/Cargo.toml","filenames":["/t/b.wasm"]}
{"reason":"compiler-artifact","manifest_path":"/w/a/Cargo.toml","filenames":["/t/liba.rlib","/t/a.wasm"]}
{"reason":"build-finished","success":true}"#;
        assert_eq!(artifact(messages, Path::new("/w/a")), Some(PathBuf::from("/t/a.wasm")));
        assert_eq!(artifact(messages, Path::new("/w/c")), None);
    }

    #[test]
    fn the_error_for_a_module_without_a_world_says_what_to_do() {
        let module = wat(r#"(module (import "env" "now" (func)))"#);
        let error = encode(&module).err().map(|error| format!("{error:#}")).unwrap_or_default();
        assert!(error.contains("witgate_filter::filter!"), "{error}");
    }

    fn wat(text: &str) -> Vec<u8> {
        wat::parse_str(text).expect("the text above is a module")
    }
}
