//! The request id: on every response, in error bodies, in the log, and from trusted proxies.

use anyhow::Result;
use harness::{Client, Gateway, Response, Setup};

const YAML: &str = "upstreams: {echo: {builtin: echo}}\nroutes: [{match: {path: /a}, upstream: echo}]";

/// The id of a failure, which header, body and `Proxy-Status` must agree on.
fn id_of_failure(response: &Response) -> String {
    let id = response.header("x-request-id").unwrap_or_default().to_owned();
    assert_eq!(response.json()["request_id"], *id, "{response:?}");
    let status = response.header("proxy-status").unwrap_or_default();
    assert!(status.ends_with(&format!("; request-id=\"{id}\"")), "{status}");
    id
}

fn answer_to(gateway: &Gateway, request: &str) -> Result<Response> {
    let mut client = Client::connect(gateway.address)?;
    client.write(request.as_bytes())?;
    client.read(false)
}

#[test]
fn every_response_names_its_exchange() -> Result<()> {
    let gateway = Setup::new(YAML)?.access_log("").start()?;
    let served = gateway.get("/a", &["x-request-id: mine"])?;
    let id = served.header("x-request-id").unwrap_or_default().to_owned();
    assert_eq!((served.status, id.len()), (200, 32));
    assert_eq!(served.echoed("x-request-id"), Some(id.clone()), "the upstream gets the same id");
    gateway.wait_accessed(&format!("\"id\":\"{id}\""), 1);
    for (request, status) in [
        ("GET /b HTTP/1.1\r\nhost: t\r\n\r\n", 404),
        ("GET /a HTTP/1.1\r\nhost: a b\r\n\r\n", 400),
        ("GET /a HTTP/1.1\r\nbroken\r\n\r\n", 400),
        ("TRACE /a HTTP/1.1\r\nhost: t\r\n\r\n", 405),
    ] {
        let response = answer_to(&gateway, request)?;
        assert_eq!(response.status, status, "{request}");
        gateway.wait_accessed(&id_of_failure(&response), 1);
    }
    Ok(())
}

#[test]
fn a_trusted_proxy_chooses_the_id_and_an_invalid_one_is_replaced() -> Result<()> {
    let gateway = Setup::new(&format!("trusted_proxies: [127.0.0.1/32]\n{YAML}"))?.access_log("").start()?;
    let failed = gateway.get("/b", &["x-request-id: proxy-7/a.b:c+d=e@f"])?;
    assert_eq!(id_of_failure(&failed), "proxy-7/a.b:c+d=e@f");
    let line = gateway.wait_accessed("\"id\":\"proxy-7/a.b:c+d=e@f\"", 1).remove(0);
    assert!(line.contains("\"exchange\":\""), "the exchange's own id is what filters log: {line}");
    for invalid in ["a b", "a\"b", "a,b", "a;b", &"x".repeat(129)] {
        let response = gateway.get("/b", &[&format!("x-request-id: {invalid}")])?;
        assert_eq!(id_of_failure(&response).len(), 32, "{invalid}");
    }
    Ok(())
}
