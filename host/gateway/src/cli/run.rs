//! `witgate run`: starts the gateway. The addresses go to standard output, logs to standard error.
//! With `log.format: json` the lines of standard output are JSON too.
//!
//! This module does not know: how the gateway starts.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::output::print;
use crate::control::config_source::{self, ConfigSource};
use crate::gateway::Gateway;
use crate::process::hardening::warn_of_root;
use crate::process::memory::allow_huge_pages;
use crate::telemetry::init_log;
use witgate_config::LogFormat;

/// The demo with three filters. It needs `just build-guests`.
const DEMO: &str = include_str!("demo.yaml");
/// The demo without filters: a proxy in front of the echo upstream.
const DEMO_PLAIN: &str = include_str!("demo-plain.yaml");
/// The files of the demo, relative to the working directory.
const DEMO_GUESTS: [&str; 3] =
    ["guests/dist/typescript/api-key.wasm", "guests/dist/typescript/rate-limit.wasm", "guests/dist/python/redact.wasm"];

pub(super) fn run(file: Option<PathBuf>, take_over_running: bool) -> Result<(), String> {
    let is_demo = file.is_none();
    let has_guests = DEMO_GUESTS.iter().all(|guest| Path::new(guest).exists());
    let source = match file {
        Some(path) => ConfigSource::file(path),
        None => {
            let base = std::env::current_dir().map_err(|error| format!("the working directory: {error}"))?;
            ConfigSource::text(if has_guests { DEMO } else { DEMO_PLAIN }, base)
        }
    };
    let text = source.read()?;
    let config = source.parse(&text)?;
    let json = match config.log.format {
        LogFormat::Json => true,
        LogFormat::Text => false,
        LogFormat::Auto => !std::io::stderr().is_terminal(),
    };
    init_log(&config.log.level, json)?;
    config_source::log_warnings(&config);
    warn_of_root();
    if let Err(error) = allow_huge_pages(false) {
        tracing::debug!(%error, "huge pages cannot be disabled");
    }
    let prints_json = config.log.format == LogFormat::Json;
    let gateway = Gateway::start(config, source, text, take_over_running).map_err(|error| error.to_string())?;
    print_addresses(&gateway, prints_json)?;
    if is_demo && let Some((_, url)) = gateway.listeners.first() {
        print_demo_commands(url, has_guests)?;
    }
    gateway.run().map_err(|error| error.to_string())
}

/// Prints a line for each address, then `ready`, for which scripts and tests wait.
fn print_addresses(gateway: &Gateway, as_json: bool) -> Result<(), String> {
    let listeners = gateway.listeners.iter().map(|(name, url)| (name.as_str(), url));
    for (name, url) in listeners.chain(gateway.admin.iter().map(|(name, url)| (*name, url))) {
        if as_json {
            print(json!({"level": "INFO", "message": "listening", "listener": name, "url": url}))?;
        } else {
            print(format_args!("listening {name} {url}"))?;
        }
    }
    if as_json { print(json!({"level": "INFO", "message": "ready"})) } else { print("ready") }
}

/// Prints commands to try.
fn print_demo_commands(base: &str, has_guests: bool) -> Result<(), String> {
    print("")?;
    print("Try:")?;
    if !has_guests {
        return print(format_args!(
            "  curl -s {base}/hello        # the embedded echo; for filters run `just build-guests` and start again"
        ));
    }
    print(format_args!("  curl -i {base}/                                    # 401: the TypeScript filter api-key"))?;
    print(format_args!(
        "  curl -s -H 'x-api-key: demo' -H 'cookie: id=1' {base}/     # forwarded, redacted by the Python filter redact"
    ))?;
    print(format_args!(
        "  for i in 1 2 3 4 5 6; do curl -s -o /dev/null -w '%{{http_code}}\\n' {base}/limited; done   # the sixth: 429"
    ))
}
