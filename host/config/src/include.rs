//! `include:`: further files with filters and routes, and what a team may write in its own.
//!
//! The entries of the files are appended to `filters` and `routes` of the tree before anything is
//! read, so every rule holds for them too. Lines carry the number of their file (`yaml/tree.rs`),
//! so that a message names the right one. This module does not know: how files are found and read.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use crate::error::ConfigError;
use crate::filters::{Capability, Filter, capabilities};
use crate::references::References;
use crate::routes::Route;
use crate::routes::conditions::PathMatch;
use crate::sources::Sources;
use crate::values::{HOUR, MILLISECOND, display_size, host, path};
use crate::yaml::{self, Key, Node, Section, Value};

const FILES_MAX: usize = 256;
const FILTERS_MAX: u32 = 1000;
/// What the store of a team's filter may take in memory.
const STORE_KEYS_MAX: usize = 100_000;
const STORE_BYTES_MAX: usize = 64 << 20;
/// The end of a message about a limit of a team.
const OPERATOR_RAISES: &str = "the team's entry of include in gateway.yaml decides";
/// What a team may write about its filters and routes. A key that is not listed could reach beyond
/// the team's limits.
const FILTER_KEYS: &[&str] = &[
    "source",
    "version",
    "sha256",
    "timeout",
    "memory",
    "body",
    "concurrency",
    "on_error",
    "reuse",
    "capabilities",
    "keyvalue",
    "limiter",
    "config",
    "release",
];
const ROUTE_KEYS: &[&str] = &[
    "name",
    "match",
    "filters",
    "upstream",
    "upstreams",
    "redirect",
    "respond",
    "timeout",
    "limits",
    "rate_limit",
    "rewrite",
    "headers",
    "cors",
    "compression",
];

/// What one entry of `include` allows its files. Each bound is for one filter.
#[derive(Debug)]
pub(crate) struct Team {
    filters: u32,
    memory: usize,
    timeout: Duration,
    concurrency: usize,
    capabilities: Vec<Capability>,
    stores: Vec<String>,
    upstreams: Vec<String>,
    shared_filters: Vec<String>,
    hosts: Vec<String>,
    paths: Vec<String>,
}

/// The files of the configuration: gateway.yaml, then the included ones, and whose they are.
#[derive(Debug, Default)]
pub(crate) struct Included {
    /// The names of the included files; the first has number 1.
    pub(crate) files: Vec<String>,
    /// The team of a filter and of a route, by name and by index.
    filters: BTreeMap<String, usize>,
    routes: BTreeMap<usize, usize>,
    teams: Vec<Team>,
}

/// One entry: a pattern of file names, and the team if it has limits.
type Entry = (usize, String, Option<Team>);

/// Reads `include` in the first place, because its files extend the other keys.
pub(crate) fn read(top: &Section) -> Vec<Entry> {
    let entries = top.nodes_or_value("include").iter().enumerate();
    entries.filter_map(|(index, node)| read_entry(top, index, node)).collect()
}

fn read_entry<'a>(top: &Section<'a>, index: usize, node: &'a Node) -> Option<Entry> {
    if matches!(node.value, Value::Scalar { .. }) {
        let pattern = top.value(&format!("include[{index}]"), node, |text| Ok(text.to_owned()))?;
        return Some((node.line, pattern, None));
    }
    top.item("include", index, node, |entry| {
        entry.require("files", "write the path of a file, or a pattern such as teams/payments/*.yaml");
        Some((node.line, entry.string("files")?, Some(Team::read(entry))))
    })
}

impl Team {
    fn read(entry: &Section) -> Self {
        let names = |key| entry.list(key, |text| Ok(text.to_owned()));
        Self {
            filters: entry.number("filters", 0, FILTERS_MAX).unwrap_or(20),
            memory: entry.size("memory", 64 << 10, 256 << 20).unwrap_or(64 << 20),
            timeout: entry.duration("timeout", MILLISECOND, HOUR).unwrap_or(Duration::from_millis(100)),
            concurrency: entry.number("concurrency", 1, 1_000_000).unwrap_or(256),
            capabilities: capabilities(entry),
            stores: names("stores"),
            upstreams: names("upstreams"),
            shared_filters: names("shared_filters"),
            hosts: entry.list("hosts", host),
            paths: entry.list("paths", path),
        }
    }
}

impl Included {
    /// Appends the content of all files to `root`. Mistakes go to `errors`.
    pub(crate) fn append(
        root: &mut Node,
        entries: Vec<Entry>,
        references: &dyn References,
        base: &Path,
        errors: &mut Vec<ConfigError>,
    ) -> Self {
        let mut included = Self::default();
        for (line, pattern, team) in entries {
            let team = team.map(|team| {
                included.teams.push(team);
                included.teams.len() - 1
            });
            match references.include(&base.join(&pattern)) {
                Ok(files) if included.files.len() + files.len() > FILES_MAX => {
                    let message = format!("{pattern}: more than {FILES_MAX} files are included");
                    errors.push(ConfigError::new(line, "include", message));
                }
                Ok(files) => {
                    for (name, text) in files {
                        included.append_file(root, name, &text, team, errors);
                    }
                }
                Err(why) => errors.push(ConfigError::new(line, "include", format!("{pattern}: {why}"))),
            }
        }
        included
    }

    fn append_file(
        &mut self,
        root: &mut Node,
        name: String,
        text: &str,
        team: Option<usize>,
        errors: &mut Vec<ConfigError>,
    ) {
        self.files.push(name);
        let tree = match yaml::parse_file(text, self.files.len()) {
            Ok(Node { value: Value::Map(entries), .. }) => entries,
            Ok(node) if node.is_null() => vec![],
            Ok(node) => {
                return errors.push(ConfigError::new(node.line, "", "expected a mapping with filters and routes"));
            }
            Err(error) => return errors.push(error),
        };
        for (key, node) in tree {
            match (key.text.as_str(), node.value) {
                ("filters", Value::Map(filters)) => self.append_filters(root, key.line, filters, team, errors),
                ("routes", Value::List(routes)) => self.append_routes(root, key.line, routes, team, errors),
                ("filters" | "routes", _) => {
                    errors.push(ConfigError::new(
                        key.line,
                        &key.text,
                        "expected filters as a mapping, and routes as a list",
                    ));
                }
                _ => {
                    let message = "an included file has only filters and routes: write the key in gateway.yaml";
                    errors.push(ConfigError::new(key.line, &key.text, message));
                }
            }
        }
    }

    fn append_filters(
        &mut self,
        root: &mut Node,
        line: usize,
        filters: Vec<(Key, Node)>,
        team: Option<usize>,
        errors: &mut Vec<ConfigError>,
    ) {
        let Some(Value::Map(all)) = root.entry("filters", line, Value::Map(vec![])) else { return };
        for (key, node) in filters {
            let path = format!("filters.{}", key.text);
            if all.iter().any(|(other, _)| other.text == key.text) {
                errors.push(ConfigError::new(
                    key.line,
                    &path,
                    "another file has a filter of this name: choose another",
                ));
                continue;
            }
            if let Some(team) = team {
                check_keys(&path, &node, FILTER_KEYS, errors);
                self.filters.insert(key.text.clone(), team);
            }
            all.push((key, node));
        }
    }

    fn append_routes(
        &mut self,
        root: &mut Node,
        line: usize,
        routes: Vec<Node>,
        team: Option<usize>,
        errors: &mut Vec<ConfigError>,
    ) {
        let Some(Value::List(all)) = root.entry("routes", line, Value::List(vec![])) else { return };
        for node in routes {
            if let Some(team) = team {
                check_keys(&format!("routes[{}]", all.len()), &node, ROUTE_KEYS, errors);
                self.routes.insert(all.len(), team);
            }
            all.push(node);
        }
    }

    /// Reports what exceeds the limits of a team to `top`.
    pub(crate) fn check(&self, top: &Section, sources: &Sources, filters: &BTreeMap<String, Filter>, routes: &[Route]) {
        for (index, team) in self.teams.iter().enumerate() {
            let own: Vec<&str> =
                self.filters.iter().filter(|(_, owner)| **owner == index).map(|(name, _)| name.as_str()).collect();
            if own.len() > team.filters as usize {
                let message = format!("{} filters: this team may have {}", own.len(), team.filters);
                top.error_at(&["filters", own[own.len() - 1]], message);
            }
            for name in &own {
                if let Some(filter) = filters.get(*name) {
                    team.check_filter(top, name, filter, sources);
                }
            }
            for (at, _) in self.routes.iter().filter(|(_, owner)| **owner == index) {
                if let Some(route) = routes.get(*at) {
                    team.check_route(top, &format!("routes[{at}]"), route, &own);
                }
            }
        }
    }
}

impl Team {
    fn check_filter(&self, top: &Section, name: &str, filter: &Filter, sources: &Sources) {
        let fail = |key: &str, message: String| top.error_at(&["filters", name, key], message);
        if filter.source.remote().is_some() && !sources.contains(&filter.source) {
            fail(
                "source",
                "this team's filters come from files, or from the locations in `sources` of gateway.yaml".into(),
            );
        }
        if filter.memory_bytes > self.memory {
            let (asked, most) = (display_size(filter.memory_bytes), display_size(self.memory));
            fail("memory", format!("{asked}: this team's filters may have {most}: {OPERATOR_RAISES}"));
        }
        if filter.timeout > self.timeout {
            let (asked, most) = (filter.timeout, self.timeout);
            fail("timeout", format!("{asked:?}: this team's filters may have {most:?}: {OPERATOR_RAISES}"));
        }
        if filter.concurrency > self.concurrency {
            let message =
                format!("{}: this team's filters may have {} concurrent calls", filter.concurrency, self.concurrency);
            fail("concurrency", message);
        }
        for capability in filter.capabilities.iter().filter(|capability| !self.capabilities.contains(capability)) {
            let name = capability.name();
            fail("capabilities", format!("{name}: this team is not granted this capability: {OPERATOR_RAISES}"));
        }
        let shared = filter.release.as_ref().and_then(|release| release.store.as_ref());
        // A bucket would be written with the credentials of the operator.
        if shared.is_some_and(|store| store.shared().is_none_or(|name| !self.stores.iter().any(|own| own == name))) {
            fail("release", "uses a store that this team is not granted".into());
        }
        for (key, store) in [("keyvalue", &filter.keyvalue.store), ("limiter", &filter.limiter.store)] {
            if store.as_ref().is_some_and(|store| !self.stores.contains(&store.store)) {
                fail(key, "uses a store that this team is not granted".into());
            }
            if store.as_ref().is_some_and(|store| store.namespace.is_some()) {
                fail(key, "the namespace of a team's filter is its name: remove it".into());
            }
        }
        if filter.keyvalue.bytes > STORE_BYTES_MAX || filter.keyvalue.keys > STORE_KEYS_MAX {
            fail("keyvalue", format!("a team's filter has at most {STORE_KEYS_MAX} keys and {STORE_BYTES_MAX} bytes"));
        }
        if filter.limiter.keys > STORE_KEYS_MAX {
            fail("limiter", format!("a team's filter has at most {STORE_KEYS_MAX} keys"));
        }
    }

    fn check_route(&self, top: &Section, route_path: &str, route: &Route, own: &[&str]) {
        let fail = |key: &str, message: String| top.error_at(&[route_path, key], message);
        if self.hosts.is_empty() && self.paths.is_empty() {
            fail("match", "this team may have no routes: give its entry of include hosts or paths".into());
        }
        if !self.hosts.is_empty() && !route.host.as_ref().is_some_and(|host| self.hosts.contains(host)) {
            fail("match", format!("the routes of this team have one of these hosts: {}", self.hosts.join(", ")));
        }
        if !self.paths.is_empty() && !self.paths.iter().any(|prefix| is_below(prefix, route.matches.path.as_ref())) {
            let paths = self.paths.join(", ");
            fail("match", format!("the routes of this team have an exact path or a prefix at or below {paths}"));
        }
        if route.limits.buffered_bytes.is_some() {
            fail("limits", "a team may not change buffered_bytes, which others share".into());
        }
        for upstream in route.upstreams().iter().filter(|one| !self.upstreams.contains(&one.upstream)) {
            fail("upstream", format!("{}: this team may not use this upstream: {OPERATOR_RAISES}", upstream.upstream));
        }
        let store = route.rate_limit.as_ref().and_then(|limit| limit.store.as_ref());
        if store.is_some_and(|store| !self.stores.contains(store)) {
            fail("rate_limit", "uses a store that this team is not granted".into());
        }
        for filter in &route.filters {
            let name = &filter.filter;
            if !own.contains(&name.as_str()) && !self.shared_filters.contains(name) {
                fail("filters", format!("{name}: this team may use its own filters and shared_filters"));
            }
        }
    }
}

/// Whether every path that the condition matches is at or below `prefix`.
fn is_below(prefix: &str, condition: Option<&PathMatch>) -> bool {
    let (Some(PathMatch::Exact(path)) | Some(PathMatch::Prefix(path))) = condition else { return false };
    let prefix = prefix.trim_end_matches('/');
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The keys that a team may not write, and references, which could read files and variables of the
/// gateway.
fn check_keys(at: &str, node: &Node, allowed: &[&str], errors: &mut Vec<ConfigError>) {
    let Value::Map(entries) = &node.value else { return };
    for (key, value) in entries {
        if !allowed.contains(&key.text.as_str()) {
            let message = "a file of a team may not have this key: write it in gateway.yaml";
            errors.push(ConfigError::new(key.line, &format!("{at}.{}", key.text), message));
        }
        if let Some(line) = value.first_reference() {
            let message = "a file of a team may not refer to the environment or to files: write the value";
            errors.push(ConfigError::new(line, &format!("{at}.{}", key.text), message));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Config;

    const MAIN: &str = "include:\n  - local.yaml\n  - { files: team.yaml, filters: 1, memory: 8MiB, timeout: 50ms, capabilities: [keyvalue], upstreams: [u], shared_filters: [shared], hosts: [t.test], paths: [/t] }\nupstreams: { u: { builtin: echo }, secret: { builtin: echo } }\nfilters: { shared: { source: shared.wasm } }\n";
    const LOCAL: &str = "filters: { own: { source: own.wasm, memory: 128MiB } }\nroutes:\n  - { match: { path: /own }, filters: [own], upstream: secret }\n";
    const TEAM: &str = "filters:\n  a: { source: a.wasm, memory: 8MiB, timeout: 50ms }\nroutes:\n  - { name: t, match: { host: t.test, path: /t/x }, filters: [shared, a], upstream: u }\n";

    struct Files<'a>(&'a [(&'a str, &'a str)]);

    impl References for Files<'_> {
        fn env(&self, _: &str) -> Result<String, String> {
            Ok("value".into())
        }

        fn file(&self, _: &Path) -> Result<String, String> {
            Ok("value".into())
        }

        fn include(&self, pattern: &Path) -> Result<Vec<(String, String)>, String> {
            let is_named = |(name, _): &&(&str, &str)| Path::new("/base").join(name) == pattern;
            let found = self.0.iter().find(is_named).ok_or("there is no such file")?;
            Ok(vec![(found.0.to_owned(), found.1.to_owned())])
        }
    }

    fn parse(team: &str) -> Result<Config, String> {
        let files = Files(&[("local.yaml", LOCAL), ("team.yaml", team)]);
        let parsed = Config::parse_with(MAIN, "gateway.yaml", Path::new("/base"), &files);
        parsed.map_err(|errors| errors.to_string())
    }

    #[test]
    fn included_filters_and_routes_extend_the_file() {
        let config = parse(TEAM).expect("the team stays within its limits");
        assert_eq!(config.filters.keys().collect::<Vec<_>>(), ["a", "own", "shared"]);
        assert_eq!(config.routes.iter().map(|route| route.name.as_str()).collect::<Vec<_>>(), ["route-1", "t"]);
    }

    #[test]
    fn a_team_stays_within_its_limits() {
        let filters =
            |filter: &str| format!("filters: {{ a: {{ source: a.wasm, memory: 8MiB, timeout: 50ms, {filter} }} }}");
        let route = |route: &str| format!("routes:\n- {{ {route} }}");
        for (team, expected) in [
            (
                filters("memory: 16MiB").replace("memory: 8MiB, ", ""),
                "team.yaml:1: filters.a.memory: 16MiB: this team's filters may have 8MiB",
            ),
            (filters("x: 1").replace("timeout: 50ms, ", ""), "team.yaml:1: filters.a.timeout: 100ms"),
            (filters("concurrency: 1000"), "team.yaml:1: filters.a.concurrency: 1000"),
            (filters("capabilities: [wasi]"), "team.yaml:1: filters.a.capabilities: wasi: this team is not granted"),
            (
                filters("config: { key: { env: SECRET } }"),
                "team.yaml:1: filters.a.config: a file of a team may not refer",
            ),
            (filters("keyvalue: { store: s }"), "team.yaml:1: filters.a.keyvalue: uses a store"),
            (
                format!(
                    "{}\n  b: {{ source: b.wasm, memory: 1MiB, timeout: 1ms }}",
                    "filters:\n  a: { source: a.wasm, memory: 1MiB, timeout: 1ms }"
                ),
                "2 filters: this team may have 1",
            ),
            (
                "filters: { shared: { source: evil.wasm } }".into(),
                "team.yaml:1: filters.shared: another file has a filter",
            ),
            (filters("keyvalue: { bytes: 4GiB }"), "team.yaml:1: filters.a.keyvalue: a team's filter has at most"),
            (filters("limiter: { keys: 10000000 }"), "team.yaml:1: filters.a.limiter: a team's filter has at most"),
            (
                filters("keyvalue: { store: s, namespace: other }"),
                "filters.a.keyvalue: the namespace of a team's filter",
            ),
            (
                route("match: { host: t.test, path: /t }, upstream: u, limits: { buffered_bytes: 64GiB }"),
                "routes[1].limits: a team may not change buffered_bytes",
            ),
            ("filters: { own: { source: evil.wasm } }".into(), "team.yaml:1: filters.own: another file has a filter"),
            (route("match: { path: /t }, upstream: u"), "the routes of this team have one of these hosts"),
            (
                route("match: { host: o.test, path: /t }, upstream: u"),
                "team.yaml:2: routes[1].match: the routes of this team have one of these hosts: t.test",
            ),
            (route("match: { host: t.test }, upstream: u"), "at or below /t"),
            (route("match: { host: t.test, path: /tx }, upstream: u"), "at or below /t"),
            (route("match: { host: t.test, path: { regex: \"^/t\" } }, upstream: u"), "at or below /t"),
            (
                route("match: { host: t.test, path: /t }, upstream: secret"),
                "secret: this team may not use this upstream",
            ),
            (
                route("match: { host: t.test, path: /t }, upstream: u, filters: [own]"),
                "own: this team may use its own filters",
            ),
            (
                route("match: { host: t.test, path: /t }, upstream: u, mirror: { upstream: secret }"),
                "team.yaml:2: routes[1].mirror: a file of a team may not have this key",
            ),
            ("limits: { connections: 1 }".into(), "team.yaml:1: limits: an included file has only filters and routes"),
            ("filters: []".into(), "team.yaml:1: filters: expected filters as a mapping"),
            ("- a".into(), "team.yaml:1: expected a mapping"),
            ("a: [".into(), "team.yaml:"),
        ] {
            let errors = parse(&team).err().unwrap_or_default();
            assert!(errors.contains(expected), "{team}\n{errors}\nexpected {expected}");
        }
        assert!(parse("").is_ok(), "an empty file is allowed");
    }

    #[test]
    fn a_file_that_is_missing_names_the_line_of_its_entry() {
        let parsed = Config::parse_with(MAIN, "gateway.yaml", Path::new("/base"), &Files(&[("local.yaml", LOCAL)]));
        let errors = parsed.err().map(|errors| errors.to_string()).unwrap_or_default();
        assert_eq!(errors, "gateway.yaml:3: include: team.yaml: there is no such file");
    }
}
