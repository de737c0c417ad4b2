//! `witgate test --record`: writes the calls of a filter in a running gateway into an example file.
//!
//! The gateway makes the examples, leaves secrets out and ends the stream; this side writes one
//! example on each line, or a list. The file is bounded. This module does not know: what a call is.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};

use serde_json::Value;
use witgate_runtime::component::{self, FILE_BYTES_MAX};

use crate::cli::admin_client::TargetOptions;
use crate::cli::admin_connection::{Endpoint, TlsFiles};
use crate::cli::output::{print, print_error};
use crate::process::regular_file::read_regular;

/// The most bytes of a recording.
const RECORDING_BYTES_MAX: usize = 256 << 20;

/// The options of a recording.
#[derive(clap::Args)]
pub(in crate::cli) struct Options {
    /// Write the calls of the filter in a running gateway into this file, .jsonl or .json, in place
    /// of tests
    #[arg(long, value_name = "FILE", conflicts_with_all = ["replay", "fuzz", "examples", "junit"])]
    record: Option<PathBuf>,
    /// With --record: the filter's name in gateway.yaml, if it differs from that in filter.toml
    #[arg(long, value_name = "NAME", requires = "record")]
    filter: Option<String>,
    /// With --record: stop after so many calls
    #[arg(long, value_name = "N", requires = "record", default_value_t = 100,
        value_parser = clap::value_parser!(u64).range(1..=100_000))]
    count: u64,
    /// With --record: stop after so many seconds
    #[arg(long, value_name = "N", requires = "record", default_value_t = 60,
        value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,
    /// With --record: the admin address of the gateway or unix:PATH, if --config is not given
    #[arg(long, value_name = "ADDRESS", requires = "record", conflicts_with = "config", value_parser = Endpoint::parse)]
    admin: Option<Endpoint>,
}

impl Options {
    /// The file to write, if the command records.
    pub(super) fn file(&self) -> Option<&Path> {
        self.record.as_deref()
    }

    /// Records until the gateway ends the stream.
    pub(super) fn record(&self, file: &Path, target: &Path, config: Option<&Path>) -> Result<(), String> {
        let is_list = match file.extension().and_then(|extension| extension.to_str()) {
            Some("jsonl") => false,
            Some("json") => true,
            _ => return Err(format!("{}: a recording is a file .jsonl or .json", file.display())),
        };
        let name = match &self.filter {
            Some(name) => name.clone(),
            None => filter_name(target)?,
        };
        let (config, admin) = (config.map(Path::to_owned), self.admin.clone());
        let gateway = TargetOptions { config, admin, tls: TlsFiles::default() }.target()?;
        let shown = file.display();
        let fail = |error: std::io::Error| format!("{shown}: {error}");
        let mut out = Recording { out: BufWriter::new(File::create(file).map_err(fail)?), is_list, calls: 0, bytes: 0 };
        print_error(format_args!("recording calls of {name}: {} calls or {} s", self.count, self.seconds));
        let path = format!("/tap?filter={name}&count={}&seconds={}", self.count, self.seconds);
        let mut lost = 0;
        let streamed = gateway.stream(&path, |line| match serde_json::from_str::<Value>(line) {
            Ok(value) if value["lost"].is_u64() => {
                lost += value["lost"].as_u64().unwrap_or_default();
                Ok(())
            }
            Ok(_) => out.add(line).map_err(|error| format!("{shown}: {error}")),
            // An empty line finds out that a reader has gone.
            Err(_) if line.is_empty() => Ok(()),
            Err(error) => Err(format!("{}: {error}", gateway.endpoint)),
        });
        out.finish().map_err(fail)?;
        if out.calls == 0 {
            // An empty recording would pass every replay.
            let _ = std::fs::remove_file(file);
        }
        streamed?;
        if lost > 0 {
            print_error(format_args!("{lost} calls are missing: they had more than 64 KiB, or came too fast"));
        }
        match out.calls {
            0 => Err(format!("the gateway called {name} not once in {} s: send requests to its route", self.seconds)),
            calls => print(format_args!("recorded {calls} calls of {name} in {shown}")),
        }
    }
}

/// The file, while it is written.
struct Recording {
    out: BufWriter<File>,
    is_list: bool,
    calls: u64,
    bytes: usize,
}

impl Recording {
    fn add(&mut self, example: &str) -> std::io::Result<()> {
        self.bytes += example.len();
        if self.bytes > RECORDING_BYTES_MAX {
            let limit = format!("the recording has reached its limit of {} MiB", RECORDING_BYTES_MAX >> 20);
            return Err(std::io::Error::other(limit));
        }
        let before = match (self.is_list, self.calls) {
            (true, 0) => "[",
            (true, _) => ",\n ",
            (false, 0) => "",
            (false, _) => "\n",
        };
        self.calls += 1;
        write!(self.out, "{before}{example}")
    }

    fn finish(&mut self) -> std::io::Result<()> {
        writeln!(self.out, "{}", if self.is_list { "]" } else { "" })?;
        self.out.flush()
    }
}

/// The name of the filter in a folder, or of a component.
fn filter_name(target: &Path) -> Result<String, String> {
    if !target.is_file() {
        return componentize::filter_name(target);
    }
    let shown = target.display();
    let bytes = read_regular(target, FILE_BYTES_MAX).map_err(|error| format!("{shown}: {error}"))?;
    let info = component::describe(&bytes).map_err(|error| format!("{shown}: {error}"))?;
    let manifest = info.manifest.ok_or_else(|| format!("{shown}: the component has no name: add --filter NAME"))?;
    Ok(manifest.name)
}
