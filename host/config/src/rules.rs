//! Rules between sections: references, unique names, and the order of timeouts.
//!
//! The order is the article's lesson: a filter must give up before the gateway's budget is over, and the budget before the upstream's, or a timeout is reported by the
//! wrong side; and a filter may use at most half of an upstream's time, so that there is some left for a retry. Must not know: YAML.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use super::read::nearest;
use super::tree::{Node, Value};
use super::{Action, Config, ConfigError, PathMatch, PathRewrite, RedirectPath, Rewrite, Route, UpstreamTarget, Upstream};

/// Checks everything that one section cannot know; lays each route's filter config over the filter's.
pub(super) fn check(config: &mut Config, root: &Node, errors: &mut Vec<ConfigError>) {
    let lines = Lines(root);
    check_listeners(config, &lines, errors);
    check_routes(config, &lines, errors);
    check_timeouts(config, &lines, errors);
    for route in &mut config.routes {
        for link in &mut route.filters {
            let mut merged = config.filters.get(&link.filter).map(|filter| filter.config.clone()).unwrap_or_default();
            merged.extend(std::mem::take(&mut link.config));
            link.config = merged;
        }
    }
}

fn check_listeners(config: &Config, lines: &Lines, errors: &mut Vec<ConfigError>) {
    let (mut names, mut addresses) = (HashSet::new(), HashSet::new());
    for (index, listener) in config.listeners.iter().enumerate() {
        let path = format!("listeners[{index}]");
        if !names.insert(&listener.name) {
            errors.push(lines.error(&[&path, "name"], format!("{}: another listener has this name", listener.name)));
        }
        if listener.address.port() != 0 && !addresses.insert(listener.address) {
            errors.push(
                lines.error(&[&path, "address"], format!("{}: another listener has this address", listener.address)),
            );
        }
    }
}

fn check_routes(config: &Config, lines: &Lines, errors: &mut Vec<ConfigError>) {
    if config.routes.is_empty() {
        errors.push(lines.error(&["routes"], "there is no route: no request could be served".to_owned()));
    }
    let mut names = HashSet::new();
    for (index, route) in config.routes.iter().enumerate() {
        let path = format!("routes[{index}]");
        if !names.insert(&route.name) {
            errors.push(lines.error(&[&path, "name"], format!("{}: another route has this name", route.name)));
        }
        check_upstreams(config, route, &path, lines, errors);
        check_prefix(route, &path, lines, errors);
        for (at, link) in route.filters.iter().enumerate() {
            if !link.filter.is_empty() && !config.filters.contains_key(&link.filter) {
                let key = format!("filters[{at}]");
                errors.push(lines.error(&[&path, &key], unknown("filter", &link.filter, &config.filters)));
            }
        }
    }
}

fn check_upstreams(config: &Config, route: &Route, path: &str, lines: &Lines, errors: &mut Vec<ConfigError>) {
    let mut named: Vec<(String, &str)> = match route.upstreams() {
        [one] => vec![("upstream".into(), &one.upstream)],
        many => many.iter().enumerate().map(|(at, one)| (format!("upstreams[{at}]"), one.upstream.as_str())).collect(),
    };
    named.extend(route.mirror.iter().map(|mirror| ("mirror".into(), mirror.upstream.as_str())));
    for (key, name) in named {
        // An empty one is missing, which was said.
        if !name.is_empty() && !config.upstreams.contains_key(name) {
            errors.push(lines.error(&[path, &key], unknown("upstream", name, &config.upstreams)));
        }
    }
    if route.upstreams().is_empty() && (route.rewrite != Rewrite::default() || route.mirror.is_some()) {
        let message = "rewrite and mirror change what goes to an upstream, and this route has none: remove them";
        errors.push(lines.error(&[path, "rewrite"], message.to_owned()));
    }
}

/// What replaces the matched prefix needs one.
fn check_prefix(route: &Route, path: &str, lines: &Lines, errors: &mut Vec<ConfigError>) {
    if matches!(route.matches.path, None | Some(PathMatch::Prefix(_))) {
        return;
    }
    let redirects = matches!(&route.action, Action::Redirect(to) if matches!(to.path, Some(RedirectPath::Prefix(_))));
    let rewrites = matches!(route.rewrite.path, Some(PathRewrite::Prefix(_)));
    for (key, _) in [("redirect", redirects), ("rewrite", rewrites)].into_iter().filter(|(_, given)| *given) {
        let message =
            "replaces the prefix that the route matches, and this one matches no prefix: write match.path as /prefix";
        errors.push(lines.error(&[path, key, "prefix"], message.to_owned()));
    }
}

fn check_timeouts(config: &Config, lines: &Lines, errors: &mut Vec<ConfigError>) {
    let budget = config.timeouts.filters;
    for (name, filter) in &config.filters {
        if filter.timeout >= budget {
            let message = format!(
                "{:?} is not below timeouts.filters ({budget:?}), the budget of all filters of a phase: lower it, or raise the budget",
                filter.timeout
            );
            errors.push(lines.error(&["filters", name, "timeout"], message));
        }
    }
    for (name, upstream) in &config.upstreams {
        if matches!(upstream.target, UpstreamTarget::Endpoints(_)) {
            if budget >= upstream.timeout {
                let message = format!(
                    "{:?} is not above timeouts.filters ({budget:?}): raise it, or lower the budget",
                    upstream.timeout
                );
                errors.push(lines.error(&["upstreams", name, "timeout"], message));
            }
            check_upstream(name, upstream, lines, errors);
        }
    }
    let mut told = HashSet::new();
    for (index, route) in config.routes.iter().enumerate() {
        let forwards = route.upstreams().iter().filter_map(|one| Some((one, config.upstreams.get(&one.upstream)?)));
        for (one, upstream) in forwards {
            if let Some(timeout) = route.timeout.filter(|timeout| *timeout <= budget) {
                let message =
                    format!("{timeout:?} is not above timeouts.filters ({budget:?}): raise it, or lower the budget");
                errors.push(lines.error(&[&format!("routes[{index}]"), "timeout"], message));
            }
            let timeout = route.timeout.unwrap_or(upstream.timeout);
            for link in &route.filters {
                let Some(filter) = config.filters.get(&link.filter) else { continue };
                if filter.timeout * 2 > timeout && told.insert((&link.filter, &one.upstream)) {
                    let message = format!(
                        "{:?} is more than half of the timeout of upstream {} ({timeout:?}), which leaves no time for a retry: set it to {:?} or less",
                        filter.timeout,
                        one.upstream,
                        timeout / 2
                    );
                    errors.push(lines.error(&["filters", &link.filter, "timeout"], message));
                }
            }
        }
    }
}

/// What must be over first has the shorter time: connecting ≤ one try < all tries ≤ the whole exchange.
fn check_upstream(name: &str, upstream: &Upstream, lines: &Lines, errors: &mut Vec<ConfigError>) {
    let mut above = |key: &[&str], value: Duration, bound: &str, limit: Duration| {
        let path: Vec<&str> = ["upstreams", name].into_iter().chain(key.iter().copied()).collect();
        errors.push(lines.error(&path, format!("{value:?} is not {bound} ({limit:?}): lower it, or raise the other")));
    };
    let (retries, timeout) = (&upstream.retries, upstream.timeout);
    if upstream.connect_timeout > timeout {
        above(&["connect_timeout"], upstream.connect_timeout, "at most the upstream's timeout", timeout);
    }
    if let Some(per_try) = retries.per_try_timeout {
        if per_try >= timeout {
            above(&["retries", "per_try_timeout"], per_try, "below the upstream's timeout", timeout);
        }
        if upstream.connect_timeout > per_try {
            above(&["connect_timeout"], upstream.connect_timeout, "at most retries.per_try_timeout", per_try);
        }
    }
    if let Some(total) = upstream.total_timeout
        && timeout > total
    {
        above(&["timeout"], timeout, "at most total_timeout", total);
    }
    if retries.backoff > retries.backoff_max {
        above(&["retries", "backoff"], retries.backoff, "at most backoff_max", retries.backoff_max);
    }
    if let Some(check) = &upstream.health_check
        && check.timeout > check.interval
    {
        above(&["health_check", "timeout"], check.timeout, "at most the interval", check.interval);
    }
}

fn unknown<T>(what: &str, name: &str, known: &BTreeMap<String, T>) -> String {
    let names: Vec<&str> = known.keys().map(String::as_str).collect();
    match nearest(name, &names) {
        Some(near) => format!("{name}: there is no such {what}: did you mean {near}?"),
        None if names.is_empty() => format!("{name}: there is no such {what}: define it under {what}s"),
        None => format!("{name}: there is no such {what}: there are {}", names.join(", ")),
    }
}

/// Finds the line of a path; where the path ends early, the line of its last part that is there.
struct Lines<'a>(&'a Node);

impl Lines<'_> {
    fn error(&self, path: &[&str], message: String) -> ConfigError {
        let mut node = self.0;
        let mut line = node.line;
        for part in path.iter().flat_map(|part| part.split_inclusive('[')) {
            let next = match (&node.value, part.trim_end_matches('['), part.strip_suffix(']')) {
                (Value::List(items), _, Some(index)) => index.parse::<usize>().ok().and_then(|index| items.get(index)),
                (Value::Map(entries), key, _) => {
                    entries.iter().find(|(entry, _)| entry.text == key).map(|(_, node)| node)
                }
                _ => None,
            };
            let Some(next) = next else { break };
            node = next;
            line = node.line;
        }
        ConfigError::new(line, &path.join("."), message)
    }
}
