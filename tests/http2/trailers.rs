//! Trailers cannot set what header fields cannot: those of clients, and those of upstreams.

use std::io::BufRead as _;

use anyhow::{Result, ensure};
use harness::{Client, Setup, wat};
use http::HeaderMap;

use super::client::{connect, read, request, run, write};
use super::scripted::{ScriptedUpstream, Session};

/// Trailers of a client that only the gateway, a filter or the operator may set.
const OF_CLIENT: [&str; 14] = [
    "x-forwarded-for",
    "x-forwarded-port",
    "forwarded",
    "x-real-ip",
    "x_real_ip",
    "x-request-id",
    "via",
    "client-cert",
    "traceparent",
    "x-internal",
    "x-tenant",
    "x_tenant",
    "x-seen",
    "authorization",
];
/// Trailers of an upstream that the gateway sets or the operator removes.
const OF_UPSTREAM: [&str; 4] = ["server", "x-request-id", "x-named", "set-cookie"];

/// Reports the trailers of a chunked request, and answers with trailers.
fn script(session: &mut Session) {
    let (mut line, mut trailers) = (String::new(), String::new());
    while line != "0\r\n" {
        line.clear();
        if session.input.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
    }
    while line != "\r\n" {
        line.clear();
        if session.input.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        trailers.push_str(&line.replace("\r\n", ";"));
    }
    session.report(&trailers);
    let fields: String = OF_UPSTREAM.iter().map(|name| format!("{name}: forged\r\n")).collect();
    session.write(&format!(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nconnection: x-named\r\n\r\n3\r\nabc\r\n0\r\nx-sum: 7\r\n{fields}\r\n"
    ));
}

fn start(upstream: &ScriptedUpstream) -> Result<harness::Gateway> {
    let yaml = format!(
        "filters: {{f: {{source: f.wasm}}}}\nupstreams: {{u: {{endpoints: [\"http://{}\"]}}}}\n\
         routes: [{{upstream: u, filters: [f], headers: {{request: {{remove: [x-internal], set: {{x-tenant: a}}}}, \
         response: {{remove: [server]}}}}}}]",
        upstream.address
    );
    Setup::new(&yaml)?.with("f.wasm", wat::header_setter("x-seen", "1", "")?)?.start()
}

#[test]
fn chunked_trailers_of_http_1_are_held_to_the_rules_of_fields() -> Result<()> {
    let upstream = ScriptedUpstream::start(script)?;
    let gateway = start(&upstream)?;
    let mut client = Client::connect(gateway.address)?;
    let trailers: String = OF_CLIENT.iter().map(|name| format!("{name}: forged\r\n")).collect();
    client.write(
        format!(
            "POST / HTTP/1.1\r\nhost: h\r\nte: trailers\r\nconnection: te, x-listed\r\ntransfer-encoding: chunked\r\n\r\n\
             2\r\nhi\r\n0\r\nx-listed: 1\r\nx-sent: 1\r\n{trailers}\r\n"
        )
        .as_bytes(),
    )?;
    let response = client.read(false)?;
    ensure!(response.text() == "abc", "{}", response.text());
    upstream.wait("x-sent: 1;;")?;
    Ok(())
}

#[test]
fn http_2_trailers_are_held_to_the_rules_of_fields() -> Result<()> {
    let upstream = ScriptedUpstream::start(script)?;
    let gateway = start(&upstream)?;
    run(async {
        let (send, _driver) = connect(gateway.address).await?;
        let mut posted = request("POST", "/");
        posted.headers_mut().insert("te", "trailers".parse()?);
        let (response, mut stream) = send.ready().await?.send_request(posted, false)?;
        write(&mut stream, "hi".into(), false).await?;
        let mut trailers = HeaderMap::from_iter([("x-sent".parse()?, "1".parse()?)]);
        for name in OF_CLIENT {
            trailers.insert(name, "forged".parse()?);
        }
        stream.send_trailers(trailers)?;
        let trailers = read(response.await?).await?.trailers.unwrap_or_default();
        ensure!(trailers.len() == 1 && trailers.contains_key("x-sum"), "{trailers:?}");
        Ok(())
    })?;
    upstream.wait("x-sent: 1;;")?;
    Ok(())
}
