//! The programs that generate load beside the benchmark's own: curl, h2load and wrk.
//!
//! h2load and wrk are unpacked from Debian's packages below target/bench; curl must be installed.
//! Each function checks that all responses were complete and had the right status, because a
//! gateway that refuses requests is fast.
//!
//! This module does not know: gateways.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::machine;
use crate::peers::{Environment, Root};

/// Streams and connections of a measurement over HTTP/2.
const H2_CONNECTIONS: usize = 16;
const H2_STREAMS: usize = 16;
/// Connections of a measurement over HTTP/1.1.
const H1_CONNECTIONS: usize = 64;

/// The installed programs, and the core that they use.
#[derive(Debug)]
pub(crate) struct Generators {
    h2load: Root,
    wrk: Root,
    folder: PathBuf,
    core: usize,
}

impl Generators {
    /// Installs what is missing.
    pub(crate) fn install(environment: &Environment) -> Result<Self> {
        ensure!(machine::first_line(Command::new("curl").arg("--version")).is_some(), "curl is not installed");
        let with = ["libbpf", "libc-ares", "libelf", "libev4", "libjansson", "libjemalloc", "libnghttp2"];
        Ok(Self {
            h2load: environment.debian("h2load", &["nghttp2-client"], &with)?,
            wrk: environment.debian("wrk", &["wrk"], &["libluajit"])?,
            folder: environment.folder.join("wrk"),
            core: environment.cores.load,
        })
    }

    /// The versions for the report.
    pub(crate) fn versions(&self) -> Vec<String> {
        let h2load = machine::first_line(self.h2load.command("usr/bin/h2load").arg("--version"));
        let wrk = machine::first_line(self.wrk.command("usr/bin/wrk").arg("-v"));
        let wrk = wrk
            .and_then(|line| Some(line.split(' ').take(2).collect::<Vec<_>>().join(" ")).filter(|it| !it.is_empty()));
        h2load.map(|line| line.replace('/', " ")).into_iter().chain(wrk).collect()
    }

    /// Sends `requests` GETs over HTTP/2 and returns their number.
    pub(crate) fn http2(&self, url: &str, requests: u64) -> Result<u64> {
        self.h2load(url, requests, &["-c", &H2_CONNECTIONS.to_string(), "-m", &H2_STREAMS.to_string()])
    }

    /// Sends `requests` GETs over HTTP/1.1 and returns their number.
    pub(crate) fn http1(&self, url: &str, requests: u64) -> Result<u64> {
        self.h2load(url, requests, &["--h1", "-c", &H1_CONNECTIONS.to_string(), "-m", "1"])
    }

    fn h2load(&self, url: &str, requests: u64, options: &[&str]) -> Result<u64> {
        let mut command = self.h2load.command("usr/bin/h2load");
        let text = self.run(command.args(["-n", &requests.to_string()]).args(options).arg(url))?;
        ensure!(text.contains(&format!("{requests} 2xx")), "not all responses were 2xx: {}", summary(&text, "status"));
        let failed = summary(&text, "requests:");
        ensure!(failed.contains(" 0 failed, 0 errored, 0 timeout"), "{failed}");
        Ok(requests)
    }

    /// Sends requests over 64 connections for this time, with a body and a field line if there is
    /// one, and returns their number.
    pub(crate) fn wrk(&self, url: &str, body: Option<&str>, field: Option<&str>, length: Duration) -> Result<u64> {
        fs::create_dir_all(&self.folder)?;
        let script = self.folder.join("post.lua");
        let mut command = self.wrk.command("usr/bin/wrk");
        command.args(["-t1", &format!("-c{H1_CONNECTIONS}"), &format!("-d{}s", length.as_secs().max(1))]);
        if let Some(body) = body {
            fs::write(&script, format!("wrk.method = \"POST\"\nwrk.body = \"{body}\"\n"))?;
            command.arg("-s").arg(&script);
        }
        if let Some(field) = field {
            command.args(["-H", field]);
        }
        let text = self.run(command.arg(url))?;
        for bad in ["Non-2xx", "Socket errors"] {
            ensure!(!text.contains(bad), "{}", summary(&text, bad));
        }
        let line = summary(&text, "requests in");
        line.split(' ').next().and_then(|count| count.parse().ok()).with_context(|| format!("wrk printed {line:?}"))
    }

    /// Downloads a body of `bytes` some times over one connection.
    pub(crate) fn download(&self, url: &str, bytes: u64, times: usize) -> Result<()> {
        let mut command = Command::new("curl");
        command.args(["-sk", "--http1.1", "-w", "%{http_code} %{size_download}\n"]);
        for _ in 0..times {
            command.args(["-o", "/dev/null", url]);
        }
        let text = self.run(&mut command)?;
        let complete = text.lines().filter(|line| *line == format!("200 {bytes}")).count();
        ensure!(complete == times, "{complete} of {times} downloads were complete: {text}");
        Ok(())
    }

    /// Uploads a file once.
    pub(crate) fn upload(&self, url: &str, file: &std::path::Path, bytes: u64) -> Result<()> {
        let mut command = Command::new("curl");
        command.args(["-sk", "--http1.1", "-H", "expect:", "-w", " %{http_code} %{size_upload}", "-T"]).arg(file);
        let text = self.run(command.arg(url))?;
        // The upstream answers with the number of bytes that it received.
        ensure!(text.trim() == format!("{bytes} 200 {bytes}"), "the upload was not complete: {text}");
        Ok(())
    }

    fn run(&self, command: &mut Command) -> Result<String> {
        let program = command.get_program().to_string_lossy().into_owned();
        let output =
            machine::run_on_core(self.core, || command.output().with_context(|| format!("cannot run {program}")))?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let error = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{program} failed: {} {}", text.trim(), error.trim());
        Ok(text)
    }
}

/// The first line that contains `what`.
fn summary<'a>(text: &'a str, what: &str) -> &'a str {
    text.lines().find(|line| line.contains(what)).unwrap_or_default().trim()
}
