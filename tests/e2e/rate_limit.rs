//! `rate_limit` of a route: what requests are counted by, and what clients are told.

use anyhow::Result;
use harness::{Setup, wait_until};

fn yaml(rate_limit: &str) -> String {
    format!("upstreams: {{echo: {{builtin: echo}}}}\nroutes: [{{name: api, upstream: echo, rate_limit: {rate_limit}}}]")
}

#[test]
fn a_client_above_the_limit_gets_429_and_learns_when_to_come_back() -> Result<()> {
    let gateway = Setup::new(&yaml("{limit: 2, window: 10m}"))?.start()?;
    for remaining in [1, 0] {
        let response = gateway.get("/", &[])?;
        assert_eq!((response.status, response.header("retry-after")), (200, None));
        assert_eq!(response.header("ratelimit-policy"), Some("\"default\";q=2;w=600"));
        let field = response.header("ratelimit").unwrap_or_default();
        assert!(field.starts_with(&format!("\"default\";r={remaining};t=")), "{field}");
    }
    let response = gateway.get("/", &[])?;
    assert_eq!((response.status, &response.json()["error"]), (429, &"too many requests".into()));
    assert_eq!(response.header("ratelimit-policy"), Some("\"default\";q=2;w=600"));
    let seconds: u64 = response.header("retry-after").unwrap_or_default().parse()?;
    assert!((590..=1200).contains(&seconds), "{seconds}");
    wait_until("the metrics", || {
        let count = |result: &str| {
            gateway.metric(&format!("witgate_rate_limit_decisions_total{{route=\"api\",result=\"{result}\"}}"))
        };
        count("allowed").is_ok_and(|count| count == 2.0) && count("limited").is_ok_and(|count| count == 1.0)
    });
    Ok(())
}

#[test]
fn requests_are_counted_by_header_cookie_or_network() -> Result<()> {
    let status =
        |gateway: &harness::Gateway, headers: &[&str]| Ok::<_, anyhow::Error>(gateway.get("/", headers)?.status);
    let gateway = Setup::new(&yaml("{key: {header: x-api-key}, limit: 1, window: 10m}"))?.start()?;
    let long = format!("x-api-key: {}", "k".repeat(10_000));
    for headers in [&["x-api-key: a"][..], &["x-api-key: b"], &[&long], &[]] {
        assert_eq!((status(&gateway, headers)?, status(&gateway, headers)?), (200, 429), "{headers:.40?}");
    }
    let gateway = Setup::new(&yaml("{key: {cookie: id}, limit: 1, window: 10m}"))?.start()?;
    for (headers, expected) in [
        (["cookie: x=1; id=a"], 200),
        (["cookie: id=a; x=2"], 429),
        (["cookie: id=b"], 200),
        (["cookie: xid=a"], 200),
        (["cookie: y=1"], 429),
    ] {
        assert_eq!(status(&gateway, &headers)?, expected, "{headers:?}: without the cookie the address counts");
    }
    let trusting = format!("trusted_proxies: [127.0.0.1]\n{}", yaml("{limit: 1, window: 10m}"));
    let gateway = Setup::new(&trusting)?.start()?;
    for (address, expected) in [
        ("192.0.2.1", 200),
        ("192.0.2.2", 200),
        ("192.0.2.1", 429),
        ("2001:db8:0:1::1", 200),
        ("2001:db8:0:1:ffff::2", 429),
        ("2001:db8:0:2::1", 200),
    ] {
        assert_eq!(status(&gateway, &[&format!("x-forwarded-for: {address}")])?, expected, "{address}");
    }
    Ok(())
}

#[test]
fn a_reload_keeps_the_counts_and_a_token_bucket_allows_its_burst() -> Result<()> {
    let bucket = "{algorithm: token_bucket, limit: 1, window: 24h, burst: 3}";
    let gateway = Setup::new(&yaml(bucket))?.start()?;
    let statuses: Vec<u16> = (0..4).map(|_| Ok(gateway.get("/", &[])?.status)).collect::<Result<_>>()?;
    assert_eq!(statuses, [200, 200, 200, 429]);
    let text = std::fs::read_to_string(gateway.path("gateway.yaml"))?;
    gateway.replace("gateway.yaml", format!("{text}\ntrusted_proxies: [10.0.0.0/8]"))?;
    gateway.wait_logged("the configuration is in service", 1);
    assert_eq!(gateway.get("/", &[])?.status, 429);
    Ok(())
}
