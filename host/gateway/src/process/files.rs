//! The limit of open files, and how many client connections it allows.
//!
//! A gateway without free descriptors accepts clients that it cannot serve, because it needs one
//! for each connection to an upstream. So client connections end before the descriptors do. This
//! module does not know: connections.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use witgate_config::Config;

/// Descriptors for everything but connections: listening sockets, timers, filters, watched files,
/// the admin listener and its clients, logs.
const RESERVE: usize = 256;

/// Raises the soft limit of open files to the hard one, and returns the limit in force. Programs
/// start with a low soft limit only because of `select(2)`, which this process does not use.
pub fn raise_limit() -> usize {
    let limit = getrlimit(Resource::Nofile);
    // A refusal leaves the lower limit, with which everything below counts.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
    getrlimit(Resource::Nofile).current.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX))
}

/// The client connections that the limit of open files allows: `limits.connections`, or fewer. If
/// not all descriptors are there, half of them stay free for upstreams.
pub fn connections_max(limit: usize, config: &Config) -> usize {
    let (connections, in_flight) = (config.limits.connections, config.limits.in_flight);
    if limit >= needed(config) {
        return connections;
    }
    let left = limit.saturating_sub(sockets(config)).saturating_sub(RESERVE.min(limit / 4));
    left.saturating_sub(in_flight.min(left / 2)).clamp(1, connections)
}

/// A warning for the operator if the limit does not allow `limits.connections`.
pub fn shortage(limit: usize, config: &Config) -> Option<String> {
    let max = connections_max(limit, config);
    (max < config.limits.connections).then(|| {
        format!(
            "the limit of open files, {limit}, allows {max} client connections instead of limits.connections ({}): raise it to {} (LimitNOFILE in a systemd unit, or ulimit -Hn), or lower limits.connections",
            config.limits.connections,
            needed(config)
        )
    })
}

/// Descriptors that all connections need: each exchange may have one to an upstream.
fn needed(config: &Config) -> usize {
    config.limits.connections.saturating_add(config.limits.in_flight).saturating_add(sockets(config)) + RESERVE
}

/// Descriptors of listening sockets: one to serve and one to pass on in a takeover.
fn sockets(config: &Config) -> usize {
    2 * config.workers * config.listeners.len()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn config(limits: &str) -> Result<Config, witgate_config::ConfigErrors> {
        let text = format!(
            "workers: 2\nlimits: {{{limits}}}\nupstreams: {{e: {{builtin: echo}}}}\nroutes: [{{upstream: e}}]\n"
        );
        Config::parse(&text, "f", Path::new("/"))
    }

    #[test]
    fn descriptors_for_upstreams_stay_free() -> Result<(), witgate_config::ConfigErrors> {
        let defaults = config("")?;
        assert_eq!(connections_max(1 << 20, &defaults), 10_000);
        assert_eq!(shortage(1 << 20, &defaults), None);
        assert_eq!(connections_max(1024, &defaults), 382, "half of 1024 - 4 - 256");
        assert!(
            shortage(1024, &defaults).is_some_and(|text| text.contains("1024, allows 382 ") && text.contains("11284"))
        );
        assert_eq!(connections_max(8192, &defaults), 8192 - 4 - 256 - 1024);
        assert_eq!(connections_max(1024, &config("connections: 50, in_flight: 100")?), 50);
        assert_eq!(connections_max(16, &defaults), 4);
        Ok(())
    }

    #[test]
    fn the_soft_limit_is_the_hard_one() {
        let limit = raise_limit();
        assert_eq!(getrlimit(Resource::Nofile).current, getrlimit(Resource::Nofile).maximum);
        assert!(limit > 0);
    }
}
