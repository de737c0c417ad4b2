//! `error_pages`: bodies that replace the JSON text of failures.

use anyhow::Result;
use harness::{Setup, refusing_address, wait_until};

#[test]
fn a_failure_gets_the_body_of_its_first_page_and_the_routes_own_come_first() -> Result<()> {
    let gateway = Setup::new(&format!(
        "error_pages:\n- {{on: [no-route], body: '<p>nothing here, {{request_id}}</p>'}}\n- {{on: [5xx, 404], body: \
         {{file: sorry}}, content_type: text/plain}}\nupstreams: {{down: {{endpoints: ['http://{}'], retries: \
         {{attempts: 0}}}}}}\nroutes:\n- {{match: {{path: /a}}, upstream: down}}\n- {{match: {{path: /b}}, upstream: \
         down, error_pages: [{{on: upstream-connect, body: own}}]}}\n- {{match: {{path: /c}}, respond: {{status: 404, \
         body: mine}}}}\n- {{match: {{path: /d}}, clients: {{deny: [0.0.0.0/0]}}, upstream: down}}",
        refusing_address()?
    ))?
    .with("sorry", "sorry\n")?
    .start()?;
    let response = gateway.get("/", &[])?;
    let id = response.header("x-request-id").unwrap_or_default();
    assert_eq!((response.status, response.text()), (404, format!("<p>nothing here, {id}</p>")));
    assert_eq!(response.header("content-type"), Some("text/html; charset=utf-8"));
    assert!(response.header("proxy-status").is_some_and(|status| status.contains("no-route")));
    for (path, status, body, content_type) in [
        ("/a", 502, "sorry", "text/plain"),
        ("/b", 502, "own", "text/html; charset=utf-8"),
        ("/c", 404, "mine", "text/plain; charset=utf-8"),
    ] {
        let response = gateway.get(path, &[])?;
        assert_eq!((response.status, response.text().as_str()), (status, body), "{path}");
        assert_eq!(response.header("content-type"), Some(content_type), "{path}");
    }
    assert_eq!(gateway.get("/d", &[])?.json()["error"], "access is not allowed", "no page is for 403");
    gateway.replace("sorry", "later")?;
    wait_until("the changed page is sent", || gateway.get("/a", &[]).is_ok_and(|response| response.text() == "later"));
    Ok(())
}

#[test]
fn mistakes_are_named() -> Result<()> {
    let setup = Setup::new(
        "error_pages: [{on: [418, upstream-timeot], body: x}, {body: {file: none}}]\nroutes: [{respond: {body: x}}]",
    )?;
    let (code, text) = setup.check()?;
    assert_eq!(code, Some(1));
    for expected in [
        "no failure of the gateway has this status",
        "did you mean upstream-timeout?",
        "error_pages[1].on: is missing",
        "No such file",
    ] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    Ok(())
}
