//! `witgate ctl`: asks a running gateway for its state, and gives it commands.
//!
//! It uses the paths of the admin listener, so everything that it does can be done with curl. This
//! module does not know: what the gateway does with a command.

mod failures;
mod history;
mod table;

use clap::{Args, Subcommand};

use super::admin_client::{Target, TargetOptions};
use super::output;

/// The options of `ctl`.
#[derive(Args)]
pub(super) struct Options {
    #[command(flatten)]
    gateway: TargetOptions,
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
        /// The earlier version to go back to: its version, or the first digits of its digest
        #[arg(long, value_name = "VERSION")]
        to: Option<String>,
    },
    /// List what was decided about the versions of filters, newest first
    History {
        /// Only of this filter
        filter: Option<String>,
        /// How many decisions
        #[arg(long, value_name = "NUMBER", default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=1000))]
        limit: u16,
    },
    /// List the loaded filters
    Filters,
    /// List the endpoints of upstreams
    Upstreams,
    /// List the routes
    Routes,
    /// Explain the last failures, or the one with this id
    Failures {
        /// The value of `x-request-id` in the response
        id: Option<String>,
    },
    /// Change the level of the gateway's own log, such as info,filter=debug
    Level {
        /// Without it, the level of gateway.yaml
        level: Option<String>,
    },
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
const UPSTREAMS: List = List {
    path: "/upstreams",
    columns: &[
        "name",
        "endpoint",
        "host",
        "healthy",
        "failures",
        "ejected_for_seconds",
        "in_flight",
        "connections",
        "pending",
        "weight",
        "unresolved",
    ],
    inner: Some("endpoints"),
};
const ROUTES: List = List { path: "/routes", columns: &["name", "filters", "upstreams"], inner: None };

pub(super) fn run(options: Options) -> Result<(), String> {
    let Options { gateway, json, request } = options;
    let target = gateway.target()?;
    match &request {
        Request::Releases => list(&target, RELEASES, json),
        Request::Filters => list(&target, FILTERS, json),
        Request::Upstreams => list(&target, UPSTREAMS, json),
        Request::Routes => list(&target, ROUTES, json),
        Request::Failures { id } => explain(&target, id.as_deref(), json),
        Request::Level { level } => set_level(&target, level.as_deref()),
        Request::Ready => {
            let answer = target.get("/readyz")?;
            if answer.status == 200 { print(&answer.body) } else { Err(answer.text()) }
        }
        Request::Promote { filter } => command(&target, filter, "promote", json),
        Request::Pause { filter } => command(&target, filter, "pause", json),
        Request::Resume { filter } => command(&target, filter, "resume", json),
        Request::Rollback { filter, to: None } => command(&target, filter, "rollback", json),
        Request::Rollback { filter, to: Some(to) } => {
            check_name(to, "a version")?;
            // A `+` begins the metadata of a version's build. It would be a space in some queries.
            command(&target, filter, &format!("rollback?to={}", to.replace('+', "%2B")), json)
        }
        Request::History { filter, limit } => history(&target, filter.as_deref(), *limit, json),
    }
}

fn list(target: &Target, List { path, columns, inner }: List, json: bool) -> Result<(), String> {
    let answer = target.get(path)?;
    if answer.status != 200 {
        return Err(answer.text());
    }
    if json {
        return print(&answer.body);
    }
    let value = serde_json::from_slice(&answer.body).map_err(|error| format!("{path} is not JSON: {error}"))?;
    print(table::render(&value, columns, inner).as_bytes())
}

fn explain(target: &Target, id: Option<&str>, json: bool) -> Result<(), String> {
    let answer = target.get("/exchanges?failed")?;
    if answer.status != 200 {
        return Err(answer.text());
    }
    if json && id.is_none() {
        return print(&answer.body);
    }
    let lists = serde_json::from_slice(&answer.body).map_err(|error| format!("/exchanges is not JSON: {error}"))?;
    print(failures::describe(&lists, id)?.as_bytes())
}

/// Prints the level that the log has then.
fn set_level(target: &Target, level: Option<&str>) -> Result<(), String> {
    // A directive has characters that a URL gives another meaning.
    let query = level.map(|level| {
        let encoded: String = level.bytes().map(|byte| format!("%{byte:02x}")).collect();
        format!("?level={encoded}")
    });
    let answer = target.send("POST", &format!("/log{}", query.unwrap_or_default()))?;
    if answer.status == 200 { print(&answer.body) } else { Err(answer.text()) }
}

/// The name becomes a part of a URL.
fn check_name(name: &str, what: &str) -> Result<(), String> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || "._-+".contains(c);
    if name.is_empty() || !name.chars().all(is_name) {
        return Err(format!("{name:?} is not {what}"));
    }
    Ok(())
}

/// Prints the history as blocks of lines, because reasons and differences are long.
fn history(target: &Target, filter: Option<&str>, limit: u16, json: bool) -> Result<(), String> {
    let mut path = format!("/releases/history?limit={limit}");
    if let Some(filter) = filter {
        check_name(filter, "a filter's name")?;
        path += &format!("&filter={filter}");
    }
    let answer = target.get(&path)?;
    if answer.status != 200 {
        return Err(answer.text());
    }
    if json {
        return print(&answer.body);
    }
    let value = serde_json::from_slice(&answer.body).map_err(|error| format!("{path} is not JSON: {error}"))?;
    print(history::render(&value).as_bytes())
}

fn command(target: &Target, filter: &str, command: &str, json: bool) -> Result<(), String> {
    check_name(filter, "a filter's name")?;
    let path = format!("/releases/{filter}/{command}");
    let answer = target.send("POST", &path)?;
    if answer.status != 200 {
        return Err(answer.text());
    }
    if json {
        return print(&answer.body);
    }
    let value: serde_json::Value =
        serde_json::from_slice(&answer.body).map_err(|error| format!("{path}: the response is not JSON: {error}"))?;
    let field = |key: &str| value[key].as_str().unwrap_or_default().to_owned();
    let line = format!("{filter}: {} {}: {}\n", field("decision").replace('_', " "), field("version"), field("why"));
    print(line.as_bytes())
}

fn print(bytes: &[u8]) -> Result<(), String> {
    String::from_utf8_lossy(bytes).lines().try_for_each(output::print)
}
