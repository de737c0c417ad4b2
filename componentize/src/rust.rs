//! Rust: cargo for wasm32-unknown-unknown, then the core module is wrapped into a component.
//!
//! That target and not a WASI one: a filter that needs nothing of WASI shall import nothing of it. The module carries its world in a custom section
//! that the SDK's bindings wrote; the encoder keeps only the imports that the code uses. Must not know: the SDK.

use std::ffi::{OsStr, OsString};
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, anyhow};
use wit_component::ComponentEncoder;

use crate::language::{Failure, Job};
use crate::progress::{self, Progress};
use crate::{debian, setup};

const TARGET: &str = "wasm32-unknown-unknown";
/// `debian`: build as if rustup could not bring the target.
const CHOICE: &str = "COMPONENTIZE_RUST";

/// What cargo needs to compile for the target.
#[derive(Debug, Default)]
pub(crate) struct Toolchain {
    pub(crate) arguments: Vec<String>,
    pub(crate) environment: Vec<(String, String)>,
}

/// Whether the environment asks for Debian's compiler.
pub(crate) fn debian_is_forced() -> bool {
    std::env::var_os(CHOICE).is_some_and(|choice| choice == "debian")
}

/// The component of the package in `job.source`.
pub(crate) fn build(job: &Job, progress: &mut Progress) -> Result<Vec<u8>, Failure> {
    let toolchain = toolchain(job.source)?;
    progress.step("cargo");
    let output = Command::new("cargo")
        .args(["build", "--release", "--lib", "--quiet", "--target", TARGET])
        .args(["--message-format", "json-render-diagnostics"])
        .args(["--color", if std::io::stderr().is_terminal() { "always" } else { "never" }])
        .args(&toolchain.arguments)
        .envs(toolchain.environment)
        .current_dir(job.source)
        .stdin(Stdio::null())
        .output()
        .context("cargo cannot be run: install Rust (https://rustup.rs)")?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(Failure::Author(said.into_owned()));
    }
    progress.warned(&said);
    let module = artifact(&output.stdout, job.source).ok_or_else(|| {
        let cargo_toml = job.source.join("Cargo.toml");
        Failure::Author(format!(
            "{}: no .wasm came of it: set `crate-type = [\"cdylib\"]` under [lib]",
            cargo_toml.display()
        ))
    })?;
    progress.step("component");
    let module = std::fs::read(&module).with_context(|| format!("{}", module.display()))?;
    encode(&module).map_err(|error| Failure::Author(format!("{}: {error:#}", job.source.display())))
}

/// Cargo in the current folder with these arguments, set up to compile for the target. False where it failed; it said why.
pub(crate) fn cargo(arguments: &[OsString]) -> Result<bool> {
    let toolchain = toolchain(&std::env::current_dir()?)?;
    let mut cargo = Command::new("cargo");
    let status = cargo.args(arguments).args(&toolchain.arguments).envs(toolchain.environment).status();
    Ok(status.context("cargo cannot be run: install Rust (https://rustup.rs)")?.success())
}

/// Wraps a core module that says in itself which world it is for.
fn encode(module: &[u8]) -> Result<Vec<u8>> {
    let encoder = ComponentEncoder::default().validate(true).module(module);
    let component = encoder.and_then(|mut encoder| encoder.encode());
    component.map_err(|error| {
        error.context(
            "the module does not fit a filter's world: does src/lib.rs call `witgate_filter::filter!`, and does it import nothing else?",
        )
    })
}

/// The .wasm that cargo's messages name for the package in `source`.
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

/// rustup's own target, added where it is missing; else Debian's compiler.
fn toolchain(source: &Path) -> Result<Toolchain> {
    if debian_is_forced() {
        return debian::toolchain();
    }
    if sysroot(source)?.join("lib/rustlib").join(TARGET).join("lib").is_dir() {
        return Ok(Toolchain::default());
    }
    progress::once("adding the wasm target (rustup target add)");
    let mut rustup = Command::new("rustup");
    rustup.args(["target", "add", TARGET]).current_dir(source);
    match setup::run(&mut rustup, "is Rust installed by rustup, and can it reach its server?") {
        Ok(()) => Ok(Toolchain::default()),
        Err(rustup) => {
            progress::once("rustup could not add it: taking Debian's compiler");
            debian::toolchain()
                .map_err(|debian| anyhow!("no Rust for {TARGET}\nrustup: {rustup:#}\nDebian's packages: {debian:#}"))
        }
    }
}

/// Where the compiler that cargo will use in `source` is installed.
pub(crate) fn sysroot(source: &Path) -> Result<PathBuf> {
    let mut rustc = Command::new("rustc");
    rustc.args(["--print", "sysroot"]).current_dir(source);
    let printed = rustc.output().context("rustc cannot be run: install Rust (https://rustup.rs)")?;
    Ok(PathBuf::from(String::from_utf8_lossy(&printed.stdout).trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cargos_messages_name_the_module_of_this_package_only() {
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
    fn a_module_without_a_world_is_refused_with_what_to_do() {
        let module = wat(r#"(module (import "env" "now" (func)))"#);
        let error = encode(&module).err().map(|error| format!("{error:#}")).unwrap_or_default();
        assert!(error.contains("witgate_filter::filter!"), "{error}");
    }

    fn wat(text: &str) -> Vec<u8> {
        wat::parse_str(text).expect("the text above is a module")
    }
}
