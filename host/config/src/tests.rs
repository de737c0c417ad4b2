//! Whole files: every key, the message of every mistake, and damaged text.

use std::path::Path;
use std::time::Duration;

use super::*;

const MINIMAL: &str = "upstreams: {u: {builtin: echo}}\nroutes: [{upstream: u}]\n";

fn parse(text: &str) -> Result<Config, ConfigErrors> {
    Config::parse(text, "gateway.yaml", Path::new("/etc/witgate"))
}

fn errors(text: &str) -> String {
    parse(text).map_or_else(|errors| errors.to_string(), |_| "no error".to_owned())
}

#[test]
fn a_minimal_file_has_the_documented_defaults() -> Result<(), ConfigErrors> {
    let config = parse(MINIMAL)?;
    assert_eq!(config.listeners[0].address.to_string(), "127.0.0.1:8080");
    assert_eq!(config.admin.address.map(|address| address.to_string()), Some("127.0.0.1:9901".into()));
    assert_eq!(config.state_dir, Path::new("/etc/witgate/state"));
    assert_eq!((config.limits.in_flight, config.routes[0].name.as_str()), (1024, "route-1"));
    Ok(())
}

#[test]
fn every_key_is_read() -> Result<(), ConfigErrors> {
    let config = parse(include_str!("example.yaml"))?;
    let filter = &config.filters["api-key"];
    assert_eq!(filter.source.path(), Some(Path::new("/etc/witgate/filters/api-key.wasm")));
    assert_eq!(filter.version.as_deref(), Some("1.10"), "a version keeps its text");
    assert_eq!(filter.source_settings.signatures, Signatures::Warn, "the entry of sources with its prefix");
    let location = RemoteLocation::parse("oci://registry.example.com/a:1").map(FilterSource::Remote);
    let settings = config.sources.of(&location.unwrap_or_default());
    assert_eq!((settings.poll, settings.signatures), (Some(Duration::from_secs(300)), Signatures::Require));
    assert_eq!((config.denied.digests.len(), config.denied.packages.len()), (1, 2));
    assert_eq!((filter.memory_bytes, filter.on_error, filter.capabilities.len()), (16 << 20, OnError::Open, 3));
    let route_filter = &config.routes[0].filters[1];
    assert_eq!(
        route_filter.matches,
        Match {
            methods: vec!["POST".into()],
            path: Some(PathMatch::Prefix("/v1/x".into())),
            headers: vec![(http::HeaderName::from_static("x-foo"), ValueMatch::Present)],
            query: vec![],
        }
    );
    assert_eq!(route_filter.config["mode"], "strict");
    assert_eq!(route_filter.config["names"], r#"["a",1]"#);
    assert_eq!(config.routes[0].filters[0].config["limit"], "5");
    let calls: Vec<_> = filter.http.upstreams().collect();
    assert_eq!(
        calls,
        [
            ("http://10.0.0.9:8080", "http://10.0.0.9:8080 (10.0.0.0/24)".to_owned()),
            ("http://auth", "api".to_owned()),
            ("https://issuer.example.com", "https://issuer.example.com".to_owned()),
        ]
    );
    assert!(
        config.upstreams["https://issuer.example.com"].public_or.is_some()
            && config.upstreams["api"].public_or.is_none()
    );
    assert_eq!(filter.keys["session"].key_bytes().len(), 16);
    assert_eq!(config.admin.address, None);
    let release = config.filters["redact"].release.as_ref();
    let gates =
        Gates { errors: Share(50), latency_ratio: 1.5, p95_ratio: 3.0, differences: Some(Share(100)), requests: 200 };
    assert_eq!(
        release.map(|release| (&release.steps[..], &release.gates)),
        Some((&[Share(500), Share::ALL][..], &gates))
    );
    assert_eq!(release.map(|release| &release.sticky), Some(&Sticky::Cookie("session".into())));
    every_key_of_tls_is_read(&config);
    let api = &config.upstreams["api"];
    let UpstreamTarget::Endpoints(endpoints) = &api.target else { panic!("{:?}", api.target) };
    assert_eq!((endpoints.len(), endpoints[1].weight, endpoints[1].address.to_string().as_str()), (3, 3, "[::1]:9000"));
    assert_eq!((api.balance.clone(), api.retries.attempts), (Balance::LeastRequests, 2));
    assert_eq!((api.retries.on_reset, api.retries.on_timeout, &api.retries.on_status[..]), (true, true, &[503][..]));
    let check = api.health_check.as_ref().map(|check| (check.path.as_str(), check.status.clone()));
    assert_eq!(check, Some(("/healthz", vec![(200, 299), (404, 404)])));
    assert_eq!(api.limits, UpstreamLimits { connections: Some(200), in_flight: Some(500), pending: 100 });
    let sticky = &config.upstreams["sticky"];
    assert_eq!((&sticky.outlier, &sticky.balance), (&None, &Balance::Hash(HashKey::Header("x-user".into()))));
    every_key_of_a_route_is_read(&config);
    Ok(())
}

fn every_key_of_tls_is_read(config: &Config) {
    let tls = config.listeners[1].tls.as_ref().expect("the example has TLS");
    assert_eq!((tls.certificates.len(), tls.min_version, &tls.protocols[..]), (2, TlsVersion::V13, &[Alpn::Http1][..]));
    assert_eq!(tls.certificates[1].key, Path::new("/etc/witgate/certs/wildcard.key"));
    assert_eq!(tls.client_auth.as_ref().map(|auth| auth.required), Some(false));
    let tls = config.upstreams["secure"].tls.as_ref().expect("the example has TLS");
    assert_eq!(tls.server_name.as_ref().map(|name| name.to_str().into_owned()).as_deref(), Some("secure.internal"));
    assert_eq!((tls.min_version, config.certificate_files().count()), (TlsVersion::V13, 9));
}

fn every_key_of_a_route_is_read(config: &Config) {
    let [api, tokens, canary, moved, home, robots] = &config.routes[..] else { panic!("{:?}", config.routes) };
    assert_eq!((api.timeout, api.limits.in_flight), (Some(Duration::from_secs(10)), Some(500)));
    assert_eq!(tokens.jwt.as_ref().map(|jwt| jwt.issuer.as_str()), Some("https://id.example.com"));
    assert_eq!(api.limits.request_body_bytes, Some(10 << 20));
    assert_eq!(api.limits.buffered_bytes, Some(128 << 20));
    assert_eq!(config.limits.buffered_bytes_per_client, 64 << 20);
    assert_eq!(api.rewrite.path, Some(PathRewrite::Prefix("/internal".into())));
    assert_eq!(api.rewrite.host, Some(http::HeaderValue::from_static("api.internal:9000")));
    assert_eq!(api.mirror, Some(Mirror { upstream: "echo".into(), percent: 10 }));
    let cors = Cors {
        origins: vec![
            Origin::Exact("https://app.example.com".into()),
            Origin::Wildcard("https://".into(), ".example.org".into()),
        ],
        methods: vec!["GET".into(), "POST".into()],
        headers: vec!["content-type".into(), "x-api-key".into()],
        expose: vec!["x-request-id".into()],
        credentials: true,
        max_age: Duration::from_secs(600),
    };
    assert_eq!(api.cors.as_ref(), Some(&cors));
    let compression = Compression {
        types: vec!["application/json".into(), "text/*".into()],
        min_bytes: 1024,
        encodings: vec![Encoding::Zstd, Encoding::Brotli, Encoding::Gzip],
    };
    assert_eq!(api.compression.as_ref(), Some(&compression));
    assert!(
        matches!(&canary.matches.path, Some(PathMatch::Regex(pattern)) if pattern.0.as_str() == "^/v[0-9]+/items$")
    );
    let kinds: Vec<_> = canary.matches.headers.iter().map(|(name, value)| (name.as_str(), value)).collect();
    assert!(matches!(
        kinds[..],
        [
            ("x-canary", ValueMatch::Present),
            ("x-plan", ValueMatch::Regex(_)),
            ("x-old", ValueMatch::Absent),
            ("x-a", ValueMatch::Exact(_))
        ]
    ));
    assert_eq!(canary.matches.query, [("beta".to_owned(), ValueMatch::Exact("1".into()))]);
    assert!(matches!(&canary.rewrite.path, Some(PathRewrite::Regex(_, replace)) if replace == "/$1"));
    let weights: Vec<_> = canary.upstreams().iter().map(|one| (one.upstream.as_str(), one.weight)).collect();
    assert_eq!(weights, [("api", 90), ("echo", 10)]);
    assert_eq!(moved.matches.path, Some(PathMatch::Prefix("/docs".into())));
    let redirect = Redirect {
        status: http::StatusCode::PERMANENT_REDIRECT,
        scheme: Some("https"),
        host: Some("docs.example.com".into()),
        path: Some(RedirectPath::Prefix("/v2".into())),
    };
    assert_eq!(moved.action, Action::Redirect(redirect));
    assert_eq!(home.matches.path, Some(PathMatch::Exact("/".into())));
    assert!(matches!(&home.action, Action::Redirect(Redirect { path: Some(RedirectPath::Whole(_)), .. })));
    let response = DirectResponse {
        status: http::StatusCode::OK,
        body: "User-agent: *\nDisallow: /\n".into(),
        content_type: http::HeaderValue::from_static("text/plain"),
    };
    assert_eq!(robots.action, Action::Respond(response));
}

#[test]
fn each_mistake_of_a_route_has_a_message() {
    for (route, expected) in [
        ("upstream: u, respond: {}", "one of upstream, upstreams, redirect and respond, not upstream and respond"),
        ("upstreams: [{name: v}]", "there is no such upstream"),
        ("upstreams: [{weight: 1}]", "upstreams[0].name: is missing"),
        ("upstreams: [{name: u, weight: 0}]", "no upstream with a weight above 0"),
        ("upstream: u, match: {path: {exact: /a, prefix: /b}}", "write a prefix, or one of"),
        ("upstream: u, match: {path: {regex: \"(\"}}", "unclosed group"),
        ("upstream: u, match: {path: {regex: \"(a{999}){999}\"}}", "too large when compiled"),
        ("upstream: u, match: {path: /a//b}", "is not in normal form: write /a/b"),
        ("upstream: u, match: {path: /a/../b}", "is not in normal form: write /b"),
        ("upstream: u, match: {headers: {\"a b\": x}}", "is not a header name"),
        ("upstream: u, match: {headers: {a: [x]}}", "write a value, or one of"),
        ("upstream: u, match: {query: {a: {presnt: true}}}", "did you mean present?"),
        ("upstream: u, match: {path: {regex: x}}, rewrite: {prefix: /b}", "this route matches no prefix"),
        ("match: {path: {exact: /x}}, redirect: {prefix: /b}", "this route matches no prefix"),
        ("upstream: u, rewrite: {path: {regex: x}}", "needs regex and replace"),
        ("upstream: u, rewrite: {host: \"a/b\"}", "write a host, with a port"),
        ("redirect: {status: 303}", "write 301 or 308"),
        ("redirect: {status: 301}", "the redirect leads to itself"),
        ("redirect: {path: /a, prefix: /b}", "path or prefix, not both"),
        ("respond: {}, rewrite: {host: a}", "this route has no upstream"),
        ("respond: {}, mirror: {upstream: u}", "this route has no upstream"),
        ("respond: {status: 101}", "between 200 and 599"),
        ("upstream: u, mirror: {percent: 5}", "mirror.upstream: is missing"),
        ("upstream: u, mirror: {upstream: w}", "mirror: w: there is no such upstream"),
        ("upstream: u, cors: {}", "cors.origins: is missing"),
        ("upstream: u, cors: {origins: [\"*\"], credentials: true}", "* is not allowed with credentials: true"),
        ("upstream: u, cors: {origins: [a.example]}", "write an origin such as"),
        ("upstream: u, cors: {origins: [\"https://a.example/\"]}", "write an origin such as"),
        ("upstream: u, compression: {encodings: [deflate]}", "write zstd, br or gzip"),
        ("upstream: u, compression: {types: [\"*/*\"]}", "write a media type"),
        ("upstream: u, match: {methods: [get]}", "methods are case-sensitive, so no request has this one: write GET"),
        ("upstream: u, match: {methods: [\"*\"]}", "remove the key methods"),
        ("upstream: u, match: {methods: [TRACE]}", "answers CONNECT and TRACE with 405"),
        ("upstream: u, cors: {origins: [\"*\"], methods: [patch]}", "write PATCH"),
        ("upstream: u, match: {host: d.test.}", "without the final dot: write d.test"),
        ("upstream: u, match: {host: .d.test}", "write *.d.test"),
        ("upstream: u, match: {host: a..b}", "empty label"),
        ("upstream: u, match: {path: /v1/*}", "a prefix such as /v1 also matches all below it"),
        ("upstream: u, match: {path: {exact: \"/v1/{id}\"}}", "a path is not a pattern"),
        ("upstream: u, cors: {origins: [\"https://app.test:443\"]}", "write https://app.test"),
        ("upstream: u, cors: {origins: [\"http://*.app.test:80\"]}", "write http://*.app.test"),
        ("upstream: u, rewrite: {path: {regex: \"^/(a)\", replace: '/\\1'}}", "a group is written $1"),
        ("upstream: u, rewrite: {path: {regex: \"^/(a)\", replace: /$1x}}", "write ${1}x"),
        ("upstream: u, rewrite: {path: {regex: \"^/(a)\", replace: /$7}}", "the expression has 1 groups"),
        ("upstream: u, rewrite: {path: {regex: \"^/(a)\", replace: '/${b}'}}", "the group \"b\" does not exist"),
        ("upstream: u, rewrite: {path: {regex: \"^/(a)\", replace: \"b/$1\"}}", "write /b/$1"),
        ("upstream: u}, {upstream: u", "route-2 has the same conditions as route-1"),
        ("upstream: u, timeout: 100ms", "routes[0].timeout: 100ms is not above timeouts.filters"),
    ] {
        let found = errors(&format!("upstreams: {{u: {{builtin: echo}}}}\nroutes: [{{{route}}}]\n"));
        assert!(found.contains(expected), "{route}: {expected:?} not in: {found}");
    }
}

/// The warnings of these routes, one a line.
fn warnings(routes: &str) -> String {
    let endpoints = "endpoints: [\"http://169.254.169.254\", \"http://0.0.0.0:1\"]";
    let text = format!("upstreams: {{u: {{builtin: echo}}, l: {{{endpoints}}}}}\nroutes:\n{routes}");
    let config = parse(&text).map(|config| config.warnings);
    config.map_or_else(|errors| errors.to_string(), |list| list.iter().map(|one| format!("{one}\n")).collect())
}

#[test]
fn an_upstream_without_any_weight_is_a_warning() {
    let endpoints = "[{url: \"http://a\", weight: 0}, {url: \"http://b\", weight: 0}]";
    let text = format!("upstreams: {{u: {{endpoints: {endpoints}}}}}\nroutes: [{{upstream: u}}]");
    let config = Config::parse(&text, "f", Path::new("/")).expect("a configuration with a warning");
    let warnings = config.warnings.iter().map(ToString::to_string).collect::<String>();
    assert!(warnings.contains("u.endpoints: all weights are 0, so every request gets a 503"), "{warnings}");
}

#[test]
fn suspicious_values_are_warnings() {
    let found = warnings("- {upstream: u}\n");
    assert!(found.contains("1: upstreams.l.endpoints[0]: 169.254.169.254:80: 169.254.0.0/16 is link-local"), "{found}");
    assert!(found.contains("upstreams.l.endpoints[1]: 0.0.0.0:1: this address means any interface"), "{found}");
    for (routes, expected) in [
        (
            "- {upstream: u, match: {path: /a}}\n- {upstream: u, match: {path: {regex: '^/a/[0-9]+$'}}}",
            Some("4: routes[1].match: no request reaches route-2: route-1"),
        ),
        (
            "- {upstream: u, match: {methods: [GET, PUT]}}\n- {upstream: u, match: {methods: [GET]}}",
            Some("no request reaches route-2: route-1"),
        ),
        ("- {upstream: u}\n- {upstream: u, match: {path: /}, name: b}", Some("has the same conditions")),
        ("- {upstream: u, match: {path: '/a/:id'}}", Some("such as :id matches only itself")),
        (
            "- {upstream: u, rate_limit: {limit: 1, key: {note: jwt.sub}}}",
            Some("no policy of this route sets the note jwt.sub"),
        ),
        ("- {upstream: u, match: {path: {regex: '^v1/'}}}", Some("every path begins with /")),
        ("- {upstream: u, match: {path: /a}}\n- {upstream: u, match: {path: {regex: '^/ab?'}}}", None),
        ("- {upstream: u, match: {path: /a}}\n- {upstream: u, match: {path: /a, methods: [GET]}}", None),
        ("- {upstream: u, match: {path: /a}}\n- {upstream: u, match: {host: a.test, path: /a}}", None),
        (
            "- {upstream: u, match: {path: /a, methods: [GET]}}\n- {upstream: u, match: {path: /a, methods: [PUT]}}",
            None,
        ),
    ] {
        let found = warnings(&format!("{routes}\n"));
        match expected {
            Some(expected) => assert!(found.contains(expected), "{routes}: {expected:?} not in: {found}"),
            None => assert_eq!(found.lines().count(), 2, "{routes}: {found}"),
        }
    }
}

#[test]
fn all_errors_are_reported_at_once_with_their_lines() {
    let text = "workers: many\nlimts: {}\nupstreams: {u: {builtin: echo, timeot: 1s}}\nfilters:\n  f: {source: f.wasm, timeout: 9s}\nroutes: [{upstream: v}]\n";
    let found = errors(text);
    for expected in [
        "gateway.yaml:1: workers: \"many\": expected a whole number between 1 and 256",
        "gateway.yaml:2: limts: unknown key: did you mean limits?",
        "gateway.yaml:3: upstreams.u.timeot: unknown key: did you mean timeout?",
        "gateway.yaml:5: filters.f.timeout: 9s is not below timeouts.filters",
        "gateway.yaml:6: routes[0].upstream: v: there is no such upstream: did you mean u?",
    ] {
        assert!(found.contains(expected), "{expected}\n--- not in:\n{found}");
    }
    assert_eq!(found.lines().count(), 5, "{found}");
}

#[test]
fn each_mistake_has_a_message() {
    let with = |more: &str| errors(&format!("{MINIMAL}{more}\n"));
    for (text, expected) in [
        ("timeouts: {filters: 5}", "write a duration"),
        ("timeouts: {filters: 0ms}", "between 1ms"),
        ("limits: {buffered_bytes: 1}", "between 64KiB and 64GiB"),
        ("listeners: [{address: localhost}]", "write an IP address and a port"),
        ("listeners: [{address: \":8080\"}]", "write 0.0.0.0:8080 for all interfaces"),
        ("listeners: [{address: 0.0.0.0:9901}]", "the admin listener is at 127.0.0.1:9901"),
        ("workers: auto", "remove the key"),
        ("log: {access: true}", "such as {to: {file: access.log}}, or off"),
        ("log: {access: {when: {status: 5xx}}}", "write the range 500-599"),
        ("listeners: [{name: a}]", "listeners[0].address: is missing"),
        ("listeners: 7", "expected a list"),
        ("listeners: [{address: 127.0.0.1:1}, {name: b, address: 127.0.0.1:1}]", "another listener has this address"),
        ("listeners: [{address: 127.0.0.1:1, tls: {}}]", "listeners[0].tls.certificates: is missing or empty"),
        (
            "listeners: [{address: 127.0.0.1:1, tls: {certificates: [{certificate: a}]}}]",
            "certificates[0].key: is missing",
        ),
        (
            "listeners: [{address: 127.0.0.1:1, tls: {certificates: [{certificate: a, key: b}], min_version: 1.1}}]",
            "older versions are not safe",
        ),
        (
            "listeners: [{address: 127.0.0.1:1, tls: {certificates: [{certificate: a, key: b}], protocols: [h3]}}]",
            "write h2 or http/1.1",
        ),
        (
            "listeners: [{address: 127.0.0.1:1, tls: {certificates: [{certificate: a, key: b}], client_auth: {mode: x}}}]",
            "client_auth.ca: is missing",
        ),
        ("filters: {F: {source: x}}", "a name has 1 to 64"),
        ("filters: {f: {}}", "filters.f.source: is missing"),
        ("filters: {f: {source: x, sha256: abc}}", "64 hexadecimal digits"),
        ("filters: {f: {source: x, memory: 1GiB}}", "between 64KiB and 256MiB"),
        ("filters: {f: {source: x, reuse: 0}}", "between 1 and 1000000"),
        ("filters: {f: {source: x, reuse: 1000001}}", "between 1 and 1000000"),
        ("filters: {f: {source: x, reuse: always}}", "between 1 and 1000000"),
        ("filters: {f: {source: x, capabilities: [keyvalu]}}", "did you mean keyvalue?"),
        ("filters: {f: {source: x, on_error: maybe}}", "write closed"),
        ("filters: {f: 3}", "expected a mapping, found \"3\""),
        ("filters: {f: {source: \"ftp://a/b\"}}", "write a path, or a URL"),
        ("filters: {f: {source: \"http://a/b.wasm\"}}", "plain_http: true"),
        ("sources: [{poll: 1s}]", "sources[0].prefix: is missing"),
        ("sources: [{prefix: \"oci://a\"}]", "end the name with a slash"),
        ("sources: [{prefix: \"oci://a/\"}, {prefix: \"oci://A/\"}]", "another entry has this prefix"),
        ("sources: [{prefix: f, signatures: require}]", "no signature can be valid without keys"),
        ("sources: [{prefix: f, keys: [x]}]", "minisign public key"),
        ("sources: [{prefix: \"s3://a/\", access_key: x}]", "secret_key: is missing"),
        ("deny: [abc]", "64 hexadecimal digits"),
        ("deny_packages: [\"a@\"]", "name@version"),
        ("admin: {address: x}", "write an IP address"),
        ("reload: {watch: yes}", "write true or false"),
        ("log: {format: xml}", "write auto, text or json"),
        ("log: {level: warning}", "the levels are error, warn, info, debug, trace, off"),
        ("log: {level: \"info,witgate::admin\"}", "for a part of the gateway write"),
        ("log: {access: {to: nowhere}}", "write stdout, otlp or {file: PATH}"),
        ("log: {access: {fields: [time, colour]}}", "the fields are time, id, "),
        ("log: {access: {sample: 2}}", "write a share between 0 and 1"),
        ("log: {access: {when: {status: [99]}}}", "write a status such as 200"),
        ("telemetry: {otlp: {}}", "write the receiver's URL"),
        ("telemetry: {otlp: {endpoint: \"https://a:1\"}}", "https is not supported"),
        ("telemetry: {otlp: {endpoint: \"http://a:1/v1/traces\"}}", "write http://host:port"),
        ("admin: {token: short}", "write 16 to 256 visible ASCII characters"),
        ("filters: {f: {source: f, release: {steps: [50%, 10%, 100%]}}}", "each larger than the one before"),
        ("filters: {f: {source: f, release: {steps: [1%, 50%]}}}", "the last step is 100%: add it"),
        ("filters: {f: {source: f, release: {steps: [0%, 100%]}}}", "shares above 0%"),
        ("filters: {f: {source: f, release: {shadow: {share: 0%}}}}", "nothing would be compared"),
        (
            "filters: {f: {source: f, release: {store: \"s3://b/\", shadow: {share: 0.001%}}}}",
            "nothing would be compared",
        ),
        ("filters: {f: {source: f, release: {steps: [5]}}}", "write a share between 0% and 100%, such as 1%"),
        ("filters: {f: {source: f, release: {sticky: ip}}}", "write client, {header: NAME} or {cookie: NAME}"),
        ("filters: {f: {source: f, release: {sticky: {}}}}", "give either header or cookie"),
        ("filters: {f: {source: f, release: {gates: {latency_ratio: 0.5}}}}", "write a number between 1 and 1000"),
        ("filters: {f: {source: f, release: {gate: {}}}}", "did you mean gates?"),
        ("filters: {f: {source: f, release: {gates: {differences: 1%}}}}", "has no effect without `shadow`"),
        ("filters: {f: {source: f, release: {store: none}}}", "store"),
        ("admin: {address: \"0.0.0.0:1\"}", "others can reach this address: add `token`"),
        ("admin: {token: 0123456789abcdef, read_token: 0123456789abcdef}", "equals token"),
        ("telemetry: {debug_token: short}", "write 16 to 256 visible ASCII characters"),
        ("workers: 2\nworkers: 3", "the key workers occurs twice (first in line 3)"),
        ("log: &a {level: info}", "anchors and aliases"),
        ("log: {level: [", "this is not YAML"),
        ("---\na: 1", "a second document"),
    ] {
        let found = with(text);
        assert!(found.contains(expected), "{text}: {expected:?} not in: {found}");
    }
    for (text, expected) in [
        ("", "there is no route"),
        ("- a", "expected a mapping, found a list"),
        ("upstreams: {u: {}}\nroutes: [{upstream: u}]", "give one of endpoints"),
        ("upstreams: {u: {endpoints: []}}\nroutes: [{upstream: u}]", "is empty"),
        (
            "upstreams: {u: {endpoints: [\"https://a\", \"http://b\"]}}\nroutes: [{upstream: u}]",
            "some endpoints are https:// and some http://",
        ),
        ("upstreams: {u: {endpoints: [\"http://a\"], tls: {ca: x}}}\nroutes: [{upstream: u}]", "has no effect"),
        (
            "upstreams: {u: {endpoints: [\"https://a\"], tls: {key: x}}}\nroutes: [{upstream: u}]",
            "u.tls.certificate: is missing",
        ),
        (
            "upstreams: {u: {endpoints: [\"https://a..b\"]}}\nroutes: [{upstream: u}]",
            "no certificate can have this host",
        ),
        (
            "upstreams: {u: {endpoints: [\"https://a\"], tls: {server_name: \"a b\"}}}\nroutes: [{upstream: u}]",
            "write a name that a certificate can have",
        ),
        (
            "upstreams: {u: {endpoints: [\"http://a/b\"]}}\nroutes: [{upstream: u}]",
            "write http://host:port or https://host:port",
        ),
        ("upstreams: {u: {endpoints: [\"http://a:99999\"]}}\nroutes: [{upstream: u}]", "not between 0 and 65535"),
        (
            "upstreams: {u: {endpoints: [\"http://a\"], timeout: 400ms}}\nroutes: [{upstream: u}]",
            "is not above timeouts.filters",
        ),
        (
            "upstreams: {u: {endpoints: [\"http://a\"], timeout: 600ms}}\nfilters: {f: {source: x, timeout: 400ms}}\nroutes: [{upstream: u, filters: [f]}]",
            "more than half of the timeout of upstream u (600ms), which leaves no time for a retry: set it to 300ms",
        ),
        ("upstreams: {u: {builtin: echo}}\nroutes: [{upstream: u, match: {path: a}}]", "a path begins with /"),
        (
            "upstreams: {u: {builtin: echo}}\nroutes: [{upstream: u, match: {host: \"a:80\"}}]",
            "is not compared: write a",
        ),
        (
            "upstreams: {u: {builtin: echo}}\nroutes: [{upstream: u, filters: [g]}]",
            "there is no such filter: define it",
        ),
        ("upstreams: {u: {builtin: echo}}\nroutes: [{upstream: u, name: a}, {upstream: u, name: a}]", "another route"),
    ] {
        let found = errors(text);
        assert!(found.contains(expected), "{text}: {expected:?} not in: {found}");
    }
}

#[test]
fn each_mistake_of_an_upstream_has_a_message() {
    let with = |more: &str| {
        let keys =
            if more.contains("endpoints:") { more.to_owned() } else { format!("endpoints: [\"http://a\"], {more}") };
        errors(&format!("upstreams: {{u: {{{keys}}}}}\nroutes: [{{upstream: u}}]"))
    };
    for (text, expected) in [
        ("endpoints: [{weight: 2}]", "endpoints[0].url: is missing"),
        ("endpoints: [{url: \"http://a\", weight: 1001}]", "a whole number between 0 and 1000"),
        ("endpoints: [\"http://a\", \"http://A:80/\"]", "endpoints[1]: a:80: is listed twice"),
        ("endpoints: [\"http://[fe80::1]:80\"]", "a link-local address (fe80::/10) needs a zone"),
        ("endpoints: [\"http://[fe80::1%25eth0]:80\"]", "with a zone is not supported"),
        ("endpoints: [\"http://a:0\"]", "no server has port 0"),
        ("endpoints: [\"http://224.0.0.1\"]", "multicast or broadcast"),
        ("balance: random", "write least_requests"),
        ("balance: none", "write round_robin, least_requests or {hash"),
        ("balance: {}", "u.balance.hash: is missing"),
        ("balance: {hash: ip}", "write client_ip, path"),
        ("balance: {hash: {header: a, cookie: b}}", "give either header or cookie"),
        ("protocol: spdy", "write http1 (HTTP/1.1), or h2"),
        ("retries: {on: [never]}", "write connect, reset, timeout or a status"),
        ("retries: {per_try_timeout: 15s}", "15s is not below the upstream's timeout (15s)"),
        ("connect_timeout: 2s, retries: {per_try_timeout: 1s}", "2s is above retries.per_try_timeout (1s)"),
        ("connect_timeout: 20s", "20s is above the upstream's timeout (15s)"),
        ("total_timeout: 10s", "15s is above total_timeout (10s)"),
        ("retries: {backoff: 2s, backoff_max: 1s}", "2s is above backoff_max (1s)"),
        ("health_check: {}", "u.health_check.path: is missing"),
        ("health_check: {path: healthz}", "begins with /"),
        ("health_check: {path: /, status: [399-200]}", "write a status such as 200"),
        ("health_check: {path: /, interval: 1s, timeout: 2s}", "2s is above the interval (1s)"),
        ("health_check: {path: /, host: \"a b\"}", "write a host"),
        ("outlier: {max_ejected_percent: 101}", "between 0 and 100"),
        ("limits: {connections: 0}", "between 1 and 1000000"),
    ] {
        let found = with(text);
        assert!(found.contains(expected), "{text}: {expected:?} not in: {found}");
        assert_eq!(found.lines().count(), 1, "{text}: {found}");
    }
    assert_eq!(with("timeout: 600ms, retries: {backoff: 1s}"), "no error", "a default adapts to what is written");
}

#[test]
fn damaged_text_does_not_panic() {
    let example = include_str!("example.yaml").as_bytes();
    let mut state = 1_u32;
    for _ in 0..3000 {
        let mut text = example.to_vec();
        for _ in 0..3 {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            let at = state as usize % text.len();
            match state % 3 {
                0 => text[at] = (state >> 8) as u8,
                1 => text.truncate(at.max(1)),
                _ => text.insert(at, b":[]{}\"'&*-\n "[(state >> 8) as usize % 12]),
            }
        }
        let _ = parse(&String::from_utf8_lossy(&text));
    }
}

#[test]
fn many_keys_take_linear_time_and_mistakes_are_bounded() {
    let keys: String = (0..99_000).map(|key| format!("key{key}: 1\n")).collect();
    let began = std::time::Instant::now();
    let found = errors(&keys);
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    assert_eq!(found.lines().count(), 101);
    assert!(found.ends_with("more mistakes"), "{}", &found[found.len() - 100..]);
    assert!(errors("limits: 1\nlog: 2\nlimits: 3\n").contains("the key limits occurs twice (first in line 1)"));
    assert!(errors(&format!("{}: 1\n", "k".repeat(1_000_000))).len() < 10_000);
}

#[test]
fn policies_of_a_route_name_their_mistakes() {
    let route =
        |keys: &str| errors(&format!("upstreams: {{u: {{builtin: echo}}}}\nroutes: [{{upstream: u, {keys}}}]\n"));
    for (keys, message) in [
        ("clients: {allow: [10.0.0.0/8], deny: [10.1.2.3]}", "no error"),
        ("clients: {allow: [10.0.0.0/33]}", "write a network such as 10.0.0.0/8"),
        ("headers: {request: {remove: [x-a], set: {x-b: 1}}, response: {add: {x-c: d}}}", "no error"),
        ("headers: {request: {set: {host: a}}}", "rewrite.host changes the host"),
        ("headers: {response: {set: {transfer-encoding: chunked}}}", "only the gateway writes this field"),
        ("headers: {response: {set: {x-a: [1]}}}", "expected one value"),
        ("headers: {respons: {}}", "did you mean response?"),
        ("forward_auth: {upstream: u, path: /check, copy: [x-user]}", "no error"),
        ("forward_auth: {upstream: v}", "v: there is no such upstream"),
        ("forward_auth: {path: /check}", "is missing: name one of the upstreams"),
    ] {
        let found = route(keys);
        assert!(found.contains(message), "{keys}: {found}");
    }
}

#[test]
fn mistakes_in_stores_and_rate_limits_are_named() {
    let base = "upstreams: {u: {builtin: echo}}\nfilters: {a: {source: a}, b: {source: b}}\nstores: {s: {redis: {url: \"redis://h\"}}}\nroutes: [{upstream: u}]\n";
    for (from, to, expected) in [
        ("url: \"redis://h\"", "url: \"http://h\"", "stores.s.redis.url: \"http://h\": write redis://host:port"),
        ("redis://h", "redis://u:p@h", "write username and password as keys of their own"),
        ("redis://h", "redis://h/3", "write the number of the database as `database`"),
        ("redis://h", "redis://h:0", "write redis://host:port"),
        ("url: \"redis://h\"", "database: 1", "give one of url, such as redis://host:6379, sentinel"),
        ("redis: {url: \"redis://h\"}", "timeout: 20ms", "stores.s.redis: is missing"),
        ("\"redis://h\"}", "\"redis://h\"}, timeout: 51ms", "stores.s.timeout"),
        ("\"redis://h\"}", "\"redis://h\", tls: {ca: x}}", "has no effect, because the address is not rediss://"),
        ("url: \"redis://h\"", "cluster: [], database: 1", "a cluster has only database 0: remove it"),
        ("url: \"redis://h\"", "cluster: []", "stores.s.redis.cluster: write 1 to 16 addresses"),
        (
            "url: \"redis://h\"",
            "cluster: [\"redis://a\", \"rediss://b\"]",
            "stores.s.redis.cluster: some endpoints are rediss://",
        ),
        ("url: \"redis://h\"", "url: \"redis://h\", cluster: [\"redis://h\"]", "give one of url"),
        ("url: \"redis://h\"", "sentinel: {endpoints: []}", "stores.s.redis.sentinel.master: is missing"),
        (
            "source: a",
            "source: a, keyvalue: {store: t}",
            "filters.a.keyvalue.store: t: there is no such store: did you mean s?",
        ),
        ("source: a", "source: a, keyvalue: {namespace: t}", "has no effect without store"),
        (
            "source: a}, b: {source: b",
            "source: a, limiter: {store: s}}, b: {source: b, limiter: {store: s, namespace: a}",
            "filter a has this namespace in the same store",
        ),
        ("{upstream: u}", "{upstream: u, rate_limit: {window: 1s}}", "routes[0].rate_limit.limit: is missing"),
        ("{upstream: u}", "{upstream: u, rate_limit: {limit: 1, burst: 2}}", "has no effect on a sliding window"),
        ("{upstream: u}", "{upstream: u, rate_limit: {limit: 1, key: ip}}", "write client_ip, {header: NAME}"),
        (
            "{upstream: u}",
            "{upstream: u, rate_limit: {limit: 1, store: t}}",
            "routes[0].rate_limit.store: t: there is no such store",
        ),
    ] {
        let found = errors(&base.replacen(from, to, 1));
        assert!(found.contains(expected), "{to}: {expected} is not in\n{found}");
    }
    assert_eq!(errors(base), "no error");
}

#[test]
fn stores_and_rate_limits_are_read() -> Result<(), ConfigErrors> {
    let config = parse(include_str!("example.yaml"))?;
    let shared = &config.stores["shared"];
    assert_eq!((shared.timeout, shared.on_failure), (Duration::from_millis(20), OnStoreFailure::Local));
    assert_eq!((shared.redis.addresses[0].to_string().as_str(), shared.redis.database), ("10.0.0.5:6379", 1));
    assert_eq!(shared.redis.password.as_ref().map(Secret::expose), Some("hunter2"));
    assert!(shared.redis.tls.is_some() && !format!("{config:?}").contains("hunter2"), "a password is never shown");
    let failover = &config.stores["failover"].redis;
    let addresses: Vec<_> = failover.addresses.iter().map(ToString::to_string).collect();
    assert_eq!(
        (failover.master.as_deref(), addresses.join(" ").as_str()),
        (Some("main"), "10.0.0.6:26379 10.0.0.7:26380")
    );
    let filter = &config.filters["api-key"];
    let namespace = filter.keyvalue.store.as_ref().and_then(|store| store.namespace.as_deref());
    assert_eq!((namespace, filter.limiter.keys), (Some("keys"), 100_000));
    let rate_limit = config.routes[0].rate_limit.as_ref();
    let read = rate_limit.map(|limit| (limit.key.clone(), limit.algorithm, limit.limit, limit.window, limit.burst));
    let key = RateKey::Header(http::HeaderName::from_static("x-api-key"));
    assert_eq!(read, Some((key, RateAlgorithm::TokenBucket, 100, Duration::from_secs(60), Some(200))));
    Ok(())
}
