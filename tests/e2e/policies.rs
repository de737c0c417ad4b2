//! Policies of a route that need no filter: client networks, header fields, `forward_auth`.

use anyhow::Result;
use harness::{Client, Setup, refusing_address, wat};

#[test]
fn only_clients_of_allowed_networks_use_a_route() -> Result<()> {
    let gateway = Setup::new(
        "trusted_proxies: [127.0.0.1]\nupstreams: {u: {builtin: echo}}\n\
         routes: [{name: inner, clients: {allow: [10.0.0.0/8], deny: [10.9.0.0/16, '::ffff:10.8.0.0/112']}, upstream: u}]",
    )?
    .start()?;
    for (client, status) in [("10.1.2.3", 200), ("10.9.2.3", 403), ("10.8.2.3", 403), ("192.0.2.1", 403)] {
        let response = gateway.get("/", &[&format!("x-forwarded-for: {client}")])?;
        assert_eq!(response.status, status, "{client}");
    }
    assert_eq!(gateway.get("/", &[])?.status, 403, "the proxy itself is no client of the network");
    Ok(())
}

#[test]
fn fields_are_removed_set_and_added() -> Result<()> {
    let gateway = Setup::new(
        "upstreams: {u: {builtin: echo}}\nroutes: [{upstream: u, headers: {\n  request: {remove: [x-internal], set: \
         {x-tenant: a}, add: {x-tag: two}},\n  response: {remove: [content-type], set: {x-frame-options: DENY}}}}]",
    )?
    .start()?;
    let response = gateway.get("/", &["x-internal: 1", "x-tenant: b", "x-tag: one"])?;
    assert_eq!((response.header("x-frame-options"), response.header("content-type")), (Some("DENY"), None));
    let text = response.text();
    assert!(!text.contains("x-internal") && text.contains("\"a\"") && !text.contains("\"b\""), "{text}");
    assert!(text.contains("one") && text.contains("two"), "{text}");
    Ok(())
}

#[test]
fn an_upstream_decides_and_names_the_user() -> Result<()> {
    // The server that decides is a gateway, too: its route shows which question it must get.
    let auth = Setup::new(
        "trusted_proxies: [127.0.0.1]\nroutes:\n- {match: {path: {exact: /check}, methods: [GET], headers: \
         {authorization: Bearer good, x-forwarded-method: POST, x-forwarded-uri: '/orders?id=1', \
         content-type: {present: false}}},\n   respond: {status: 204}, headers: {response: {set: {x-user: ada, x-other: 1}}}}\n\
         - {respond: {status: 401, body: sign in}, headers: {response: {set: {www-authenticate: Bearer}}}}",
    )?
    .start()?;
    let stamp = wat::header_setter("x-seen", "1", "")?;
    let gateway = Setup::new(&format!(
        "filters: {{f: {{source: f.wasm}}}}\nupstreams: {{u: {{builtin: echo}}, auth: {{endpoints: ['http://{}']}}}}\n\
         routes: [{{upstream: u, filters: [f], forward_auth: {{upstream: auth, path: /check, copy: [x-user]}}}}]",
        auth.address
    ))?
    .with("f.wasm", stamp)?
    .start()?;
    let mut client = gateway.client()?;
    let mut post = |token: &str| -> Result<_> {
        client.write(
            format!(
                "POST /orders?id=1 HTTP/1.1\r\nhost: h\r\nauthorization: Bearer {token}\r\nx-user: root\r\n\
                     content-type: text/plain\r\ncontent-length: 4\r\n\r\nbody"
            )
            .as_bytes(),
        )?;
        client.read(false)
    };
    let passed = post("good")?;
    let text = passed.text();
    assert_eq!(passed.status, 200);
    assert!(
        text.contains("ada") && !text.contains("root") && !text.contains("x-other") && text.contains("body"),
        "{text}"
    );
    let refused = post("bad")?;
    assert_eq!(
        (refused.status, refused.header("www-authenticate"), refused.text().as_str()),
        (401, Some("Bearer"), "sign in")
    );
    Ok(())
}

#[test]
fn a_decision_that_cannot_be_had_is_no() -> Result<()> {
    let gateway = Setup::new(&format!(
        "upstreams: {{u: {{builtin: echo}}, auth: {{endpoints: ['http://{}']}}}}\n\
         routes: [{{upstream: u, forward_auth: {{upstream: auth}}}}]",
        refusing_address()?
    ))?
    .start()?;
    let response = Client::connect(gateway.address)?.get("/", &[])?;
    assert_eq!(response.status, 502);
    Ok(())
}

#[test]
fn response_fields_are_edited_in_preflights_and_refusals_too() -> Result<()> {
    let gateway = Setup::new(
        "upstreams: {u: {builtin: echo}}\n\
         routes: [{match: {path: /a}, upstream: u, cors: {origins: ['https://app.test']}, headers: {response: {set: {x-own: '1'}}}}, \
         {upstream: u, clients: {deny: [127.0.0.0/8]}, headers: {response: {set: {x-own: '1'}}}}]",
    )?
    .start()?;
    let mut client = Client::connect(gateway.address)?;
    let preflight = ["origin: https://app.test", "access-control-request-method: GET"];
    let response = client.send("OPTIONS", "/a", &preflight, b"")?;
    assert_eq!((response.status, response.header("x-own")), (204, Some("1")));
    let response = client.get("/", &[])?;
    assert_eq!((response.status, response.header("x-own")), (403, Some("1")));
    Ok(())
}
