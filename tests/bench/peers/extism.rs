//! A gateway in Go with the Extism SDK on wazero and a plugin in AssemblyScript, which exchange
//! JSON. Its source is in extism/ in this folder. It rebuilds the gateway of a published article
//! that witgate answers to.

use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};

use super::install::{run, source};
use super::process::{Environment, Peer, running_case};
use crate::machine;

pub(crate) const SETTINGS: &str = "GOMAXPROCS=1, no access log, 512 idle connections to the upstream, module compiled once, two shared instances or one per request, plugin in AssemblyScript (`-O3`, json-as with its transform), timeout and memory limit of the original";

pub(super) fn start(environment: &Environment) -> Result<Peer> {
    let version = machine::first_line(Command::new("go").arg("version")).context("cannot run Go")?;
    let folder = environment.folder_of("extism")?;
    let program = folder.join("gateway");
    let mut build = Command::new("go");
    build
        .args(["build", "-trimpath", "-o"])
        .arg(&program)
        .arg(".")
        .env("GOFLAGS", "-mod=readonly")
        .env("GOTOOLCHAIN", "local");
    run(build.current_dir(source("extism"))).context("building the gateway")?;
    let plugin = environment.npm("extism", &source("extism/plugin"), &["plugin.ts"])?;
    let mut compile = Command::new(plugin.join("node_modules/.bin/asc"));
    compile.args(["plugin.ts", "-O3", "--transform", "json-as/transform", "--use", "abort=plugin/stop"]);
    run(compile.args(["-o", "plugin.wasm"]).current_dir(&plugin)).context("building the plugin")?;
    let mut command = Command::new(&program);
    command.arg(plugin.join("plugin.wasm")).arg(format!("http://{}", environment.upstream));
    let mut process = environment.spawn("extism", command.env("GOMAXPROCS", "1").stdout(Stdio::piped()))?;
    let address = process.port()?;
    Ok(Peer {
        version: format!(
            "Go {}, Extism go-sdk 1.7.1",
            version.split(' ').nth(2).unwrap_or_default().trim_start_matches("go")
        ),
        cases: vec![
            running_case("extism", address, "/plain", &process),
            running_case("extism-shared", address, "/shared", &process),
            running_case("extism-fresh", address, "/fresh", &process),
        ],
        ports: None,
        _process: process,
    })
}
