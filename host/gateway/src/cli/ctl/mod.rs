//! `witgate ctl`: asks a running gateway for its state, and gives it commands.
//!
//! It uses the paths of the admin listener, so everything that it does can be done with curl. This
//! module does not know: what the gateway does with a command.

mod client;
mod table;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::output;
use crate::control::config_source::ConfigSource;
use client::{Answer, send};

/// The admin listener's default address.
const DEFAULT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9901);
/// The environment variable with the token, for calls without `--config`.
const TOKEN_VARIABLE: &str = "WITGATE_ADMIN_TOKEN";

/// The options of `ctl`.
#[derive(Args)]
pub(super) struct Options {
    /// The gateway's configuration: its admin address and token are used
    #[arg(long, short, value_name = "FILE", global = true, conflicts_with = "admin")]
    config: Option<PathBuf>,
    /// The admin address; the token is taken from WITGATE_ADMIN_TOKEN
    #[arg(long, value_name = "ADDRESS", global = true)]
    admin: Option<SocketAddr>,
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    request: Request,
}

#[derive(Subcommand)]
enum Request {
    /// List the versions of each filter and the releases that run
    Releases,
    /// Give all exchanges to the version that is released, or to the quarantined one
    Promote {
        /// The filter
        filter: String,
    },
    /// Stop the steps of a release
    Pause {
        /// The filter
        filter: String,
    },
    /// Let the steps of a release go on
    Resume {
        /// The filter
        filter: String,
    },
    /// End a release, or go back to the version before the one in service
    Rollback {
        /// The filter
        filter: String,
    },
    /// List the loaded filters
    Filters,
    /// List the endpoints of upstreams
    Upstreams,
    /// List the routes
    Routes,
    /// Exit with 0 if the gateway accepts connections, else with 1
    Ready,
}

/// A resource that is a list, and how it is shown as a table.
struct List {
    path: &'static str,
    /// Empty: every column that occurs.
    columns: &'static [&'static str],
    /// The list inside an entry whose items are rows.
    inner: Option<&'static str>,
}

const RELEASES: List =
    List { path: "/releases", columns: &["name", "state", "version", "step", "share", "verdict"], inner: None };
const FILTERS: List =
    List { path: "/filters", columns: &["name", "state", "version", "digest", "instances_kept"], inner: None };
const UPSTREAMS: List = List { path: "/upstreams", columns: &[], inner: Some("endpoints") };
const ROUTES: List = List { path: "/routes", columns: &["name", "filters", "upstreams"], inner: None };

struct Target {
    address: SocketAddr,
    token: Option<String>,
}

pub(super) fn run(options: Options) -> Result<(), String> {
    let Options { config, admin, json, request } = options;
    let target = target(config, admin)?;
    match &request {
        Request::Releases => list(&target, RELEASES, json),
        Request::Filters => list(&target, FILTERS, json),
        Request::Upstreams => list(&target, UPSTREAMS, json),
        Request::Routes => list(&target, ROUTES, json),
        Request::Ready => {
            let answer = get(&target, "/readyz")?;
            if answer.status == 200 { print(&answer.body) } else { Err(answer.text()) }
        }
        Request::Promote { filter } => command(&target, filter, "promote", json),
        Request::Pause { filter } => command(&target, filter, "pause", json),
        Request::Resume { filter } => command(&target, filter, "resume", json),
        Request::Rollback { filter } => command(&target, filter, "rollback", json),
    }
}

fn target(config: Option<PathBuf>, admin: Option<SocketAddr>) -> Result<Target, String> {
    let token = std::env::var(TOKEN_VARIABLE).ok();
    let Some(path) = config else { return Ok(Target { address: admin.unwrap_or(DEFAULT), token }) };
    let shown = path.display().to_string();
    let source = ConfigSource::file(path);
    let config = source.parse(&source.read()?)?;
    let address = config.admin.ok_or_else(|| format!("{shown}: admin is off, so the gateway takes no commands"))?;
    let token = config.admin_token.map(|token| token.expose().to_owned()).or(token);
    Ok(Target { address: reachable(address), token })
}

/// An address that stands for all of a host is reached by its loopback address.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        let loopback = if address.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() };
        address.set_ip(loopback);
    }
    address
}

fn get(target: &Target, path: &str) -> Result<Answer, String> {
    send(target.address, "GET", path, target.token.as_deref())
}

fn list(target: &Target, List { path, columns, inner }: List, json: bool) -> Result<(), String> {
    let answer = get(target, path)?;
    if answer.status != 200 {
        return Err(answer.text());
    }
    if json {
        return print(&answer.body);
    }
    let value = serde_json::from_slice(&answer.body).map_err(|error| format!("{path} is not JSON: {error}"))?;
    print(table::render(&value, columns, inner).as_bytes())
}

fn command(target: &Target, filter: &str, command: &str, json: bool) -> Result<(), String> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if filter.is_empty() || !filter.chars().all(is_name) {
        return Err(format!("{filter:?} is not a filter's name"));
    }
    let path = format!("/releases/{filter}/{command}");
    let answer = send(target.address, "POST", &path, target.token.as_deref())?;
    if answer.status != 200 {
        return Err(answer.text());
    }
    if json {
        return print(&answer.body);
    }
    let value: serde_json::Value =
        serde_json::from_slice(&answer.body).map_err(|error| format!("{path}: the answer is not JSON: {error}"))?;
    let field = |key: &str| value[key].as_str().unwrap_or_default().to_owned();
    let line = format!("{filter}: {} {}: {}\n", field("decision").replace('_', " "), field("version"), field("why"));
    print(line.as_bytes())
}

fn print(bytes: &[u8]) -> Result<(), String> {
    String::from_utf8_lossy(bytes).lines().try_for_each(output::print)
}
