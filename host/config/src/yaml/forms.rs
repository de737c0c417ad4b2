//! What a section looks like: an example for a reader who wrote one value, or a list, in its place.
//!
//! Other gateways have a short form for many of these keys, such as `retries: 3`. This module does
//! not know: which keys a section has.

/// The last key of the path of a section, and the section in its shortest useful form.
const EXAMPLES: [(&str, &str); 28] = [
    ("access", "{to: {file: access.log}}, or off"),
    ("basic_auth", "{users: {file: htpasswd}}"),
    ("clients", "{allow: [10.0.0.0/8]}"),
    ("compression", "{} for the defaults, or {encodings: [gzip]}"),
    ("cors", "{origins: [\"https://app.example.com\"]}"),
    ("forward_auth", "{upstream: NAME, path: /check}"),
    ("headers", "{request: {set: {x-name: value}}}"),
    ("health_check", "{path: /healthz}"),
    ("hsts", "{} for the defaults"),
    ("http2", "{connections: 4}"),
    ("jwks", "{upstream: NAME, path: /.well-known/jwks.json}"),
    ("jwt", "{issuer: \"https://issuer.example.com\", audience: api, jwks: {upstream: NAME}}"),
    ("limits", "{in_flight: 100}"),
    ("log", "{level: info}"),
    ("match", "{path: /api}"),
    ("metrics", "{interval: 60s}"),
    ("mirror", "{upstream: NAME, percent: 10}"),
    ("otlp", "{endpoint: \"http://127.0.0.1:4318\"}"),
    ("outlier", "{failures: 5}, or off"),
    ("rate_limit", "{limit: 10, window: 1s}"),
    ("redirect", "{scheme: https, host: b.example.com, path: /}"),
    ("reload", "{interval: 30s}"),
    ("respond", "{status: 200, body: ok}"),
    ("retries", "{attempts: 3, on: [connect, reset, 503]}"),
    ("rewrite", "{prefix: /new}"),
    ("state", "{directory: /var/lib/witgate}"),
    ("timeouts", "{idle: 60s}"),
    ("traces", "{sample: 0.1}"),
];

/// An example of the section at this path, such as `upstreams.api.retries`.
pub(super) fn example(path: &str) -> Option<&'static str> {
    let key = path.rsplit('.').next().unwrap_or(path);
    match path.split_once('.') {
        Some(("upstreams", name)) if !name.contains('.') => return Some("{endpoints: [\"http://10.0.0.1:8080\"]}"),
        Some((listener, "tls")) if listener.starts_with("listeners[") => {
            return Some("{certificates: [{certificate: cert.pem, key: key.pem}]}");
        }
        Some(("upstreams", rest)) if rest.ends_with(".tls") => {
            return Some("{ca: ca.pem}; whether TLS is used follows from https:// in endpoints");
        }
        _ => {}
    }
    EXAMPLES.iter().find(|(name, _)| *name == key).map(|(_, example)| *example)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_has_an_example() {
        assert_eq!(example("upstreams.retries"), Some("{endpoints: [\"http://10.0.0.1:8080\"]}"));
        assert_eq!(example("upstreams.api.retries"), Some("{attempts: 3, on: [connect, reset, 503]}"));
        assert_eq!(example("listeners[0].tls"), Some("{certificates: [{certificate: cert.pem, key: key.pem}]}"));
        assert_eq!(example("routes[3].cors"), Some("{origins: [\"https://app.example.com\"]}"));
        assert_eq!(example("filters.a.config"), None);
    }
}
