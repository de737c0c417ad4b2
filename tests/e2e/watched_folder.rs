//! What somebody puts into the watched folder: a pipe, a device or a hostile filter in one place
//! never ends or delays the reloads of another.

use std::os::unix::fs::symlink;
use std::path::Path;

use anyhow::{Result, ensure};
use harness::wat::{responder, with_functions_of};
use harness::{Gateway, Setup, repository, wait_until, wait_up_to};

const YAML: &str = "filters: {f: {source: f.wasm}, g: {source: g.wasm}}\nupstreams: {echo: {builtin: echo}}\n\
    routes: [{name: f, match: {path: /f}, filters: [f], upstream: echo}, {name: g, filters: [g], upstream: echo}]";

fn start() -> Result<Gateway> {
    Setup::new(YAML)?
        .with("f.wasm", responder(200, None, "one")?)?
        .with("g.wasm", responder(200, None, "one")?)?
        .start()
}

fn responds_with(gateway: &Gateway, path: &str, text: &str) -> bool {
    gateway.get(path, &[]).is_ok_and(|response| response.text() == text)
}

/// Puts a pipe that nobody writes to, or an endless device, in the place of a file.
fn replace_by(gateway: &Gateway, name: &str, kind: &str) -> Result<()> {
    let beside = gateway.path(&format!(".{name}.new"));
    match kind {
        "a named pipe" => {
            let mode = rustix::fs::Mode::from_bits_truncate(0o600);
            rustix::fs::mknodat(rustix::fs::CWD, &beside, rustix::fs::FileType::Fifo, mode, 0)?;
        }
        _ => symlink("/dev/zero", &beside)?,
    }
    Ok(std::fs::rename(beside, gateway.path(name))?)
}

#[test]
fn a_pipe_or_a_device_in_the_folder_does_not_end_the_reloads() -> Result<()> {
    let gateway = start()?;
    let yaml = std::fs::read(gateway.path("gateway.yaml"))?;
    let mut version = 1;
    for kind in ["a named pipe", "a device"] {
        for name in ["f.wasm", "gateway.yaml"] {
            let before = gateway.logged(kind).len();
            replace_by(&gateway, name, kind)?;
            let lines = gateway.wait_logged(kind, before + 1);
            ensure!(lines[before].contains("not a regular file") && lines[before].contains("was refused"), "{lines:?}");
            ensure!(responds_with(&gateway, "/f", "one"), "{name}: the previous version stays");
            version += 1;
            gateway.replace("g.wasm", responder(200, None, &version.to_string())?)?;
            wait_until(&format!("another filter is reloaded beside {kind} as {name}"), || {
                responds_with(&gateway, "/g", &version.to_string())
            });
        }
        gateway.replace("gateway.yaml", &yaml)?;
        gateway.replace("f.wasm", responder(200, None, "one")?)?;
    }
    for files in ["certificates", "configuration"] {
        let checked = gateway.metric(&format!("witgate_files_checked_timestamp_seconds{{files=\"{files}\"}}"))?;
        ensure!(checked > 1.7e9, "{files} were checked at {checked}");
    }
    Ok(())
}

#[test]
fn a_slow_compilation_does_not_delay_another_filter() -> Result<()> {
    let gateway = start()?;
    // The compilation takes many seconds, and then it is refused or serves.
    gateway.replace("f.wasm", with_functions_of(std::iter::repeat_n(20_000, 400))?)?;
    let compiles = || -> bool {
        let children = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", gateway.id()));
        let of_threads = std::fs::read_dir(format!("/proc/{}/task", gateway.id())).into_iter().flatten();
        let all = of_threads.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("children")).ok());
        all.chain(children).any(|list| !list.trim().is_empty())
    };
    wait_until("the compiler runs", compiles);
    gateway.replace("g.wasm", responder(200, None, "two")?)?;
    wait_until("the other filter serves", || responds_with(&gateway, "/g", "two"));
    ensure!(compiles(), "the first compilation ended too early for this test");
    Ok(())
}

#[test]
fn commands_refuse_a_pipe_and_a_device() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (pipe, zero) = (folder.path().join("p.wasm"), folder.path().join("z.wasm"));
    let mode = rustix::fs::Mode::from_bits_truncate(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0)?;
    symlink("/dev/zero", &zero)?;
    let state = folder.path().join("state");
    let state = state.to_string_lossy();
    for (path, kind) in [(&pipe, "a named pipe"), (&zero, "a device")] {
        for before in [&["inspect"][..], &["precompile", "--state", &state], &["check", "--config"]] {
            let text = run(before, path)?;
            ensure!(text.contains(&format!("not a regular file but {kind}")), "{before:?}: {text}");
        }
    }
    Ok(())
}

/// The standard error of a command, which ends by itself.
fn run(arguments: &[&str], file: &Path) -> Result<String> {
    let mut child = std::process::Command::new(repository().join("target/release/witgate"))
        .args(arguments)
        .arg(file)
        .stderr(std::process::Stdio::piped())
        .spawn()?;
    wait_up_to(std::time::Duration::from_secs(10), "the command ends", || {
        child.try_wait().is_ok_and(|status| status.is_some())
    });
    Ok(String::from_utf8_lossy(&child.wait_with_output()?.stderr).into_owned())
}
