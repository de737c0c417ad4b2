//! The admin listener as an API: roles by token, refused binds, and the audit log.

use std::net::TcpStream;

use anyhow::Result;
use harness::wat::state_reporter;
use harness::{Client, Gateway, Response, Setup};

const WRITER: &str = "authorization: Bearer 0123456789abcdef";
const READER: &str = "authorization: Bearer fedcba9876543210";
const YAML: &str =
    "filters: {f: {source: f.wasm}}\nupstreams: {echo: {builtin: echo}}\nroutes: [{filters: [f], upstream: echo}]";

fn setup(admin: &str) -> Result<Setup> {
    Setup::new(YAML)?.admin(admin).with("f.wasm", state_reporter("", &["(i32.const 1)"], "")?)
}

fn send(gateway: &Gateway, method: &str, path: &str, host: &str, headers: &[&str]) -> Result<Response> {
    let address = (std::net::Ipv4Addr::LOCALHOST, gateway.admin.port());
    Client::over(TcpStream::connect(address)?, host).send(method, path, headers, b"")
}

#[test]
fn an_address_that_others_reach_needs_a_token() -> Result<()> {
    let (code, text) = setup("address: \"0.0.0.0:0\"")?.check()?;
    assert_eq!(code, Some(1));
    assert!(text.contains("admin.address") && text.contains("add `token`"), "{text}");
    let gateway = setup("address: \"0.0.0.0:0\", token: 0123456789abcdef")?.start()?;
    for path in ["/releases", "/metrics", "/filters", "/releases/history"] {
        assert_eq!(send(&gateway, "GET", path, "localhost", &[])?.status, 401, "{path}");
        assert_eq!(send(&gateway, "GET", path, "localhost", &[WRITER])?.status, 200, "{path}");
    }
    for path in ["/healthz", "/readyz", "/console"] {
        assert_eq!(send(&gateway, "GET", path, "localhost", &[])?.status, 200, "{path}");
    }
    Ok(())
}

#[test]
fn the_read_token_reads_and_the_token_does_everything() -> Result<()> {
    let gateway = setup("address: \"127.0.0.1:0\", token: 0123456789abcdef, read_token: fedcba9876543210")?.start()?;
    let status = |method: &str, path: &str, headers: &[&str]| -> Result<u16> {
        Ok(send(&gateway, method, path, "localhost", headers)?.status)
    };
    assert_eq!(status("GET", "/releases", &[])?, 401);
    assert_eq!(status("GET", "/releases", &[READER])?, 200);
    assert_eq!(status("GET", "/releases", &[WRITER])?, 200);
    for command in ["promote", "pause", "resume", "rollback"] {
        let path = format!("/releases/f/{command}");
        assert_eq!(status("POST", &path, &[])?, 401, "{command}");
        assert_eq!(status("POST", &path, &[READER])?, 403, "{command}");
        assert_eq!(status("POST", &path, &[WRITER])?, 409, "{command}: no release runs");
    }
    // Each command is in the log, whether it was carried out or not.
    gateway.wait_logged("audit: a command was refused", 8);
    let given = gateway.wait_logged("audit: an operator gave a command", 4);
    assert!(
        given.iter().all(|line| line.contains("\"who\":\"admin.token\"") && line.contains("\"status\":409")),
        "{given:?}"
    );
    Ok(())
}

#[test]
fn a_web_page_with_another_name_reads_nothing() -> Result<()> {
    let gateway = setup("address: \"127.0.0.1:0\"")?.start()?;
    assert_eq!(send(&gateway, "GET", "/releases", "evil.example", &[])?.status, 403, "DNS rebinding");
    let foreign = send(&gateway, "GET", "/releases", "localhost", &["origin: https://evil.example"])?;
    assert_eq!(foreign.status, 403);
    assert_eq!(send(&gateway, "GET", "/releases", "localhost", &[])?.status, 200);
    Ok(())
}
