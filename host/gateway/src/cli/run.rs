//! `witgate run`: starts the gateway and says on standard output where it listens. Logs go to standard error.

use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};

use crate::Gateway;
use crate::control::reload::Source;
use crate::process::memory;
use crate::telemetry::init_log;
use witgate_config::LogFormat;

/// Filters of all three languages; needs `just build-guests`.
const DEMO: &str = include_str!("demo.yaml");
/// Without filters: just a proxy in front of the echo.
const DEMO_PLAIN: &str = include_str!("demo-plain.yaml");
/// What the demo needs, relative to the working directory.
const DEMO_GUESTS: [&str; 3] =
    ["guests/dist/typescript/api-key.wasm", "guests/dist/typescript/rate-limit.wasm", "guests/dist/python/redact.wasm"];

pub(super) fn run(file: Option<PathBuf>, takes_over: bool) -> Result<(), String> {
    let is_demo = file.is_none();
    let has_guests = DEMO_GUESTS.iter().all(|guest| Path::new(guest).exists());
    let source = match file {
        Some(path) => Source::File(path),
        None => {
            let base = std::env::current_dir().map_err(|error| format!("the working directory: {error}"))?;
            Source::Text { text: if has_guests { DEMO } else { DEMO_PLAIN }.to_owned(), base }
        }
    };
    let text = source.text()?;
    let config = source.parse(&text)?;
    let json = match config.log.format {
        LogFormat::Json => true,
        LogFormat::Text => false,
        LogFormat::Auto => !std::io::stderr().is_terminal(),
    };
    init_log(&config.log.level, json)?;
    if let Err(error) = memory::allow_huge_pages(false) {
        tracing::debug!(%error, "huge pages stay allowed");
    }
    let gateway = Gateway::start(config, source, text, takes_over)?;
    announce(&gateway).map_err(|error| format!("standard output: {error}"))?;
    if is_demo && let Some((_, url)) = gateway.listeners.first() {
        invite(url, has_guests).map_err(|error| format!("standard output: {error}"))?;
    }
    gateway.run()
}

/// A line for each address, then `ready`: what scripts and tests wait for.
fn announce(gateway: &Gateway) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    for (name, url) in &gateway.listeners {
        writeln!(out, "listening {name} {url}")?;
    }
    if let Some(address) = gateway.admin {
        writeln!(out, "listening admin http://{address}")?;
    }
    writeln!(out, "ready")?;
    out.flush()
}

/// What to type next.
fn invite(base: &str, has_guests: bool) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "\nTry:")?;
    if has_guests {
        writeln!(out, "  curl -i {base}/                                    # 401: the TypeScript filter api-key")?;
        writeln!(
            out,
            "  curl -s -H 'x-api-key: demo' -H 'cookie: id=1' {base}/     # passed on, redacted by the Python filter redact"
        )?;
        writeln!(
            out,
            "  for i in 1 2 3 4 5 6; do curl -s -o /dev/null -w '%{{http_code}}\\n' {base}/limited; done   # the sixth: 429"
        )?;
    } else {
        writeln!(
            out,
            "  curl -s {base}/hello        # the embedded echo; `just build-guests` and start again for filters"
        )?;
    }
    out.flush()
}
