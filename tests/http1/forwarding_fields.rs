//! Fields that tell the upstream who the client is: `Via`, `X-Forwarded-*`, `Forwarded` and
//! `X-Request-Id`.

use anyhow::Result;
use harness::strict_http1::Message;

use super::fixed_response::{FixedResponse, OK, exchange};

/// All elements of a list field, from all its lines.
fn list(message: &Message, name: &str) -> Vec<String> {
    message.all(name).join(",").split(',').map(|one| one.trim().to_owned()).filter(|one| !one.is_empty()).collect()
}

#[test]
fn via_lists_the_gateway_in_requests() -> Result<()> {
    let upstream = FixedResponse::start("HTTP/1.1 200 OK\r\nVia: 1.0 backend\r\nContent-Length: 0\r\n\r\n")?;
    let gateway = upstream.gateway("")?;
    let response = exchange(&gateway, "GET / HTTP/1.1", &["Via: 1.0 before"])?;
    assert_eq!(list(&upstream.last(), "via"), ["1.0 before", "1.1 witgate"]);
    // A gateway may add itself to responses (RFC 9110, section 7.6.3). This one does not.
    assert_eq!(list(&response, "via"), ["1.0 backend"]);
    exchange(&gateway, "GET / HTTP/1.0", &[])?;
    assert_eq!(list(&upstream.last(), "via"), ["1.0 witgate"], "Via has the version of the received request");
    Ok(())
}

/// Forwarding fields that a client sends.
const CLIENT_FIELDS: [&str; 4] = [
    "X-Forwarded-For: 192.0.2.1",
    "X-Forwarded-Proto: https",
    "X-Forwarded-Host: claimed.test",
    "Forwarded: for=192.0.2.1;proto=https;host=claimed.test",
];

#[test]
fn forwarding_fields_from_an_untrusted_client_are_replaced() -> Result<()> {
    let upstream = FixedResponse::start(OK)?;
    for settings in ["", "trusted_proxies: [\"192.0.2.0/24\"]"] {
        let gateway = upstream.gateway(settings)?;
        for fields in [&CLIENT_FIELDS[..], &[], &["X-Forwarded-For: 192.0.2.1", "X-Forwarded-For: 192.0.2.2"]] {
            exchange(&gateway, "GET / HTTP/1.1", fields)?;
            let request = upstream.last();
            assert_eq!(request.all("x-forwarded-for"), ["127.0.0.1"]);
            assert_eq!(
                (request.all("x-forwarded-proto"), request.all("x-forwarded-host")),
                (vec!["http"], vec!["t.test"])
            );
            let forwarded = list(&request, "forwarded").join(",");
            assert!(!forwarded.contains("192.0.2") && !forwarded.contains("claimed"), "{forwarded}");
        }
    }
    Ok(())
}

#[test]
fn forwarding_fields_from_a_trusted_proxy_are_extended() -> Result<()> {
    let upstream = FixedResponse::start(OK)?;
    let gateway = upstream.gateway("trusted_proxies: [\"10.0.0.0/8\", \"127.0.0.0/8\"]")?;
    exchange(&gateway, "GET / HTTP/1.1", &CLIENT_FIELDS)?;
    let request = upstream.last();
    assert_eq!(list(&request, "x-forwarded-for"), ["192.0.2.1", "127.0.0.1"]);
    assert_eq!(
        (request.all("x-forwarded-proto"), request.all("x-forwarded-host")),
        (vec!["https"], vec!["claimed.test"])
    );
    let forwarded = list(&request, "forwarded");
    assert!(forwarded.is_empty() || forwarded[0].contains("192.0.2.1"), "{forwarded:?}");
    assert!(forwarded.is_empty() || forwarded.last().is_some_and(|last| last.contains("127.0.0.1")), "{forwarded:?}");
    Ok(())
}

#[test]
fn each_request_has_an_id() -> Result<()> {
    let upstream = FixedResponse::start(OK)?;
    let gateway = upstream.gateway("")?;
    let mut ids = vec![];
    for _ in 0..3 {
        exchange(&gateway, "GET / HTTP/1.1", &[])?;
        ids.extend(upstream.last().field("x-request-id").map(str::to_owned));
    }
    ids.dedup();
    assert_eq!(ids.len(), 3, "{ids:?}");
    assert!(ids.iter().all(|id| id.len() >= 8), "{ids:?}");
    Ok(())
}
