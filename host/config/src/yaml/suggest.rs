//! Suggestions for misspelt words, and for keys that have another name in other gateways.

/// Longer words, and words among more known ones, get no suggestion: comparing them takes long.
const WORD_BYTES_MAX: usize = 64;
const KNOWN_MAX: usize = 1000;

/// The known word with the fewest edits from `word`, if there are few enough.
pub fn nearest<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    if word.len() > WORD_BYTES_MAX || known.len() > KNOWN_MAX {
        return None;
    }
    let (edits, nearest) = known.iter().map(|known| (strsim::levenshtein(word, known), *known)).min()?;
    (edits <= 2.max(word.len() / 3)).then_some(nearest)
}

/// The only known word that begins with `word`, such as `health_check` for `health`.
pub(crate) fn begins<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    let mut found = known.iter().filter(|known| word.len() >= 4 && known.starts_with(word));
    found.next().copied().filter(|_| found.next().is_none())
}

/// What other gateways call a key: the kind of section, their names, and what to write here.
const OTHER_NAMES: [(&str, &[&str], &str); 19] = [
    ("top", &["server", "servers", "entrypoints", "entryPoints", "frontend", "frontends"], "listeners"),
    ("top", &["service", "services", "backend", "backends", "cluster", "clusters"], "upstreams"),
    ("top", &["router", "routers", "locations"], "routes"),
    ("top", &["plugin", "plugins", "middleware", "middlewares"], "filters"),
    ("listener", &["port", "bind", "listen", "addr"], "address: \"0.0.0.0:8080\""),
    ("upstream", &["server", "servers", "url", "address", "targets", "nodes"], "endpoints: [\"http://10.0.0.1:8080\"]"),
    (
        "tls",
        &["certificate", "key", "cert", "cert_file", "key_file"],
        "certificates: [{certificate: cert.pem, key: key.pem}]",
    ),
    (
        "to-tls",
        &["insecure", "insecure_skip_verify", "skip_verify", "verify"],
        "ca: ca.pem with the authority, or with the certificate itself if it is self-signed",
    ),
    ("to-tls", &["sni", "servername", "host"], "server_name: api.example.com"),
    ("endpoint", &["env", "default"], "{env: NAME} without further keys: a reference has no default"),
    ("route", &["backend", "service", "cluster", "proxy_pass", "target"], "upstream: NAME"),
    ("route", &["plugins", "middlewares"], "filters: [NAME]"),
    ("route", &["strip_prefix", "stripPrefix", "strip_path"], "rewrite: {prefix: /} and a prefix in match.path"),
    ("route", &["auth", "basicAuth"], "basic_auth, jwt, forward_auth or a filter"),
    ("route", &["retry", "retries"], "retries in the upstream"),
    ("match", &["prefix", "path_prefix", "pathPrefix"], "path: /api, which also takes all below /api"),
    ("match", &["exact", "path_exact"], "path: {exact: /api}"),
    ("match", &["regex", "path_regex", "pathRegexp", "path_regexp"], "path: {regex: \"^/api/v[0-9]+$\"}"),
    ("match", &["cookie", "cookies"], "headers: {cookie: {regex: \"(^|; )name=value(;|$)\"}}"),
];

/// Keys of `match` that other gateways have beside the upstream of a route.
const CONDITIONS: [&str; 4] = ["host", "path", "methods", "query"];

/// What to write instead of a key that other gateways have in this section.
pub(super) fn other_name(section_path: &str, key: &str) -> Option<String> {
    let is_item_of = |list: &str| section_path.starts_with(list) && !section_path.contains('.');
    let kind = match section_path {
        "" => "top",
        path if path.starts_with("routes[") && path.ends_with("].match") => "match",
        path if path.starts_with("upstreams.") && path.matches('.').count() == 1 => "upstream",
        path if path.starts_with("listeners[") && path.ends_with("].tls") => "tls",
        path if path.starts_with("upstreams.") && path.ends_with(".tls") => "to-tls",
        path if path.starts_with("upstreams.") && path.contains(".endpoints[") => "endpoint",
        _ if is_item_of("routes[") => "route",
        _ if is_item_of("listeners[") => "listener",
        _ => return None,
    };
    if kind == "route" && CONDITIONS.contains(&key) {
        return Some(format!("conditions on the request are under match: write match: {{{key}: …}}"));
    }
    let found = OTHER_NAMES.iter().find(|(section, names, _)| *section == kind && names.contains(&key));
    found.map(|(_, _, here)| format!("write {here}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_word_has_a_suggestion() {
        assert_eq!(nearest("timout", &["timeout", "memory"]), Some("timeout"));
        assert_eq!(nearest("xyz", &["timeout", "memory"]), None);
        assert_eq!(begins("health", &["timeout", "health_check"]), Some("health_check"));
        assert_eq!(begins("http", &["http2", "http3"]), None);
    }

    #[test]
    fn a_key_of_another_gateway_leads_to_the_one_here() {
        let hint = |section, key| other_name(section, key).unwrap_or_default();
        assert_eq!(hint("", "services"), "write upstreams");
        assert_eq!(hint("routes[3].match", "path_prefix"), "write path: /api, which also takes all below /api");
        assert_eq!(hint("upstreams.api", "servers"), "write endpoints: [\"http://10.0.0.1:8080\"]");
        assert_eq!(hint("routes[0]", "host"), "conditions on the request are under match: write match: {host: …}");
        assert_eq!(other_name("upstreams.api.health_check", "servers"), None);
        assert_eq!(hint("listeners[0].tls", "key"), "write certificates: [{certificate: cert.pem, key: key.pem}]");
        assert!(hint("upstreams.api.tls", "insecure_skip_verify").contains("ca: ca.pem"));
        assert_eq!(other_name("routes[0]", "nonsense"), None);
    }
}
