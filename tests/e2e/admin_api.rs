//! The admin listener as an API: roles by token, by certificate and by socket, refused binds, the
//! audit log, and answers that fit the OpenAPI document.

use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use harness::tls::Authority;
use harness::wat::state_reporter;
use harness::{Client, Gateway, Response, Setup, repository, wait_until};
use serde_json::Value;

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
fn refused_commands_do_not_fill_the_log() -> Result<()> {
    let gateway = setup("address: \"127.0.0.1:0\"")?.start()?;
    let began = std::time::Instant::now();
    let mut client = Client::over(TcpStream::connect(gateway.admin)?, "evil.example");
    let path = format!("/releases/f/{}", "x".repeat(2000));
    let mut local = gateway.admin_client()?;
    for _ in 0..500 {
        client.send("POST", &format!("{path}/promote"), &[], b"")?;
        assert_eq!(local.send("POST", "/releases/none/promote", &[], b"")?.status, 404);
    }
    // Five lines a second. A refusal of another kind is still logged.
    let seconds = began.elapsed().as_secs() as usize + 1;
    assert_eq!(send(&gateway, "POST", "/drain", "localhost", &["origin: https://evil.example"])?.status, 403);
    wait_until("the other refusal is logged", || !gateway.logged("web pages of").is_empty());
    for text in ["audit: a command was refused", "audit: an operator gave a command"] {
        let lines = gateway.logged(text).len();
        assert!((1..=5 * seconds + 6).contains(&lines), "{lines} lines in {seconds} s: {text}");
    }
    Ok(())
}

#[test]
fn readers_that_read_nothing_and_silent_clients_delay_no_health_check() -> Result<()> {
    let gateway = setup("address: \"127.0.0.1:0\"")?.start()?;
    for request in ["GET /metrics HTTP/1.1\r\nhost: localhost\r\n\r\n", ""] {
        let mut held = vec![];
        for _ in 0..100 {
            let mut stream = TcpStream::connect(gateway.admin)?;
            stream.set_nonblocking(true)?;
            // As much as the socket takes.
            while std::io::Write::write(&mut stream, request.repeat(100).as_bytes()).is_ok_and(|written| written > 0) {}
            held.push(stream);
            if held.len() % 20 == 0 {
                assert_eq!(gateway.admin("/readyz")?.status, 200, "{} connections", held.len());
            }
        }
    }
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

/// Runs `witgate ctl` and returns its exit code and its output.
fn ctl(arguments: &[&str]) -> Result<(Option<i32>, String)> {
    let program = repository().join("target/release/witgate");
    let output = Command::new(program).arg("ctl").args(arguments).env_remove("WITGATE_ADMIN_TOKEN").output()?;
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    Ok((output.status.code(), text))
}

#[test]
fn whoever_can_open_the_socket_may_do_everything() -> Result<()> {
    let keys = "address: \"127.0.0.1:0\", socket: admin.sock, token: 0123456789abcdef, read_token: fedcba9876543210";
    let gateway = setup(keys)?.start()?;
    let path = gateway.path("admin.sock");
    assert_eq!(std::fs::metadata(&path)?.permissions().mode() & 0o777, 0o600);
    let socket = format!("unix:{}", path.display());
    let config = gateway.path("gateway.yaml").display().to_string();
    for target in [["--admin", &socket], ["--config", &config]] {
        let (code, text) = ctl(&[&target[..], &["releases"]].concat())?;
        assert_eq!((code, text.contains("steady")), (Some(0), true), "{target:?}: {text}");
        let (code, text) = ctl(&[&target[..], &["rollback", "f"]].concat())?;
        assert_eq!((code, text.contains("409")), (Some(1), true), "{target:?}: {text}");
    }
    let given = gateway.wait_logged("audit: an operator gave a command", 2);
    assert!(given.iter().all(|line| line.contains("\"who\":\"admin.socket\",") && line.contains("user ")), "{given:?}");
    // A page in a browser cannot open it, but a proxy before it could pass such a request on.
    let foreign = raw(&path, "GET /releases HTTP/1.0\r\nhost: evil.example\r\n\r\n")?;
    assert!(foreign.starts_with("HTTP/1.0 403"), "{foreign}");

    // A successor takes the place; the file of a gateway that ended is removed.
    let mut successor = gateway.start_successor()?;
    wait_until("the successor answers", || ctl(&["--admin", &socket, "ready"]).is_ok_and(|(code, _)| code == Some(0)));
    drop(gateway);
    assert!(path.exists(), "the predecessor leaves the file of its successor");
    successor.signal(rustix::process::Signal::TERM)?;
    successor.wait(std::time::Duration::from_secs(20))?;
    assert!(!path.exists());
    Ok(())
}

fn raw(path: &std::path::Path, request: &str) -> Result<String> {
    use std::io::{Read as _, Write as _};
    let mut stream = std::os::unix::net::UnixStream::connect(path)?;
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

#[test]
fn the_certificate_of_a_client_decides_its_role() -> Result<()> {
    let (authority, stranger) = (Authority::new("operators")?, Authority::new("strangers")?);
    let server = authority.issue(&["127.0.0.1"])?;
    let tls = "tls: {certificates: [{certificate: server.pem, key: server.key}], client_auth: {ca: ca.pem}}";
    let clients = "clients: {change: [\"dns:ops.test\"], read: [\"dns:metrics.test\"]}";
    let keys = format!("address: \"0.0.0.0:0\", {tls}, {clients}");
    let mut setup = setup(&keys)?
        .with("server.pem", &server.certificate)?
        .with("server.key", &server.key)?
        .with("ca.pem", authority.pem())?;
    for (name, issuer) in
        [("ops.test", &authority), ("metrics.test", &authority), ("other.test", &authority), ("evil.test", &stranger)]
    {
        let issued = issuer.issue(&[name])?;
        setup = setup.with(&format!("{name}.pem"), &issued.certificate)?.with(&format!("{name}.key"), &issued.key)?;
    }
    let gateway = setup.start()?;
    let path = |name: &str| gateway.path(name).display().to_string();
    let admin = format!("https://127.0.0.1:{}", gateway.admin.port());
    let ca = path("ca.pem");
    let as_client = |name: &str, command: &[&str]| -> Result<(Option<i32>, String)> {
        let (certificate, key) = (path(&format!("{name}.pem")), path(&format!("{name}.key")));
        let files = ["--admin", &admin, "--admin-ca", &ca, "--admin-cert", &certificate, "--admin-key", &key];
        ctl(&[&files[..], command].concat())
    };
    for (name, command, expected) in [
        ("ops.test", &["releases"][..], "steady"),
        ("ops.test", &["rollback", "f"], "409"),
        ("metrics.test", &["releases"], "steady"),
        ("metrics.test", &["rollback", "f"], "403: this token or certificate may only read"),
        ("other.test", &["releases"], "403: the certificate (dns:other.test, CN=other.test) has no role"),
    ] {
        let (_, text) = as_client(name, command)?;
        ensure!(text.contains(expected), "{name} {command:?}: {text}");
    }
    let (code, text) = as_client("evil.test", &["releases"])?;
    assert_eq!(code, Some(1), "a certificate of another authority: {text}");
    let (code, text) = ctl(&["--admin", &admin, "--admin-ca", &ca, "releases"])?;
    assert_eq!(code, Some(1), "without a certificate: {text}");
    let (code, text) = ctl(&["--admin", &gateway.admin.to_string().replace("0.0.0.0", "127.0.0.1"), "releases"])?;
    assert_eq!(code, Some(1), "without TLS: {text}");
    let given = gateway.wait_logged("audit: an operator gave a command", 1);
    assert!(given[0].contains("\"who\":\"admin.clients.change\"") && given[0].contains("(CN=ops.test)"), "{given:?}");
    Ok(())
}

#[test]
fn real_answers_fit_the_openapi_document() -> Result<()> {
    let yaml = "filters: {f: {source: f.wasm, release: {steps: [50%, 100%], hold: 1h}}}\nupstreams: {echo: {builtin: echo}, gone: {endpoints: [\"http://localhost:1\"]}}\nroutes: [{filters: [f], upstream: echo}, {name: gone, match: {path: /gone}, filters: [f], upstream: gone}]";
    let version = |number: u32| state_reporter("", &[&format!("(i32.const {number})")], "");
    let gateway = Setup::new(yaml)?.with("f.wasm", version(1)?)?.start()?;
    gateway.replace("f.wasm", version(2)?)?;
    wait_until("the release runs", || {
        gateway.admin("/releases").is_ok_and(|response| response.json()[0]["state"] == "releasing")
    });
    let mut tapped = gateway.admin_client()?;
    tapped.write(b"GET /tap HTTP/1.1\r\nhost: localhost\r\n\r\n")?;
    tapped.read_head()?;
    assert_eq!(gateway.get("/", &[])?.status, 200);
    assert!(gateway.client()?.send("BREW", "/x", &["host: a", "host: b"], b"")?.status >= 400);
    let document = gateway.admin("/openapi.json")?.json();
    let paths = document["paths"].as_object().context("paths")?;
    let mut checked = 0;
    for (path, item) in paths {
        let schema = &item["get"]["responses"]["200"]["content"]["application/json"]["schema"];
        if schema.is_null() || path == "/openapi.json" {
            continue;
        }
        let answer = gateway.admin(path)?.json();
        ensure!(answer.as_array().is_none_or(|list| !list.is_empty() || path == "/certificates"), "{path}: {answer}");
        fits(&document, schema, &answer, path)?;
        checked += 1;
    }
    assert!(checked >= 9, "{checked}");
    // Empty lines say that the gateway lives.
    let line: Value = loop {
        let chunk = tapped.read_chunk()?.context("the stream goes on")?;
        if chunk != b"\n" {
            break serde_json::from_slice(&chunk)?;
        }
    };
    fits(
        &document,
        &document["paths"]["/tap"]["get"]["responses"]["200"]["content"]["application/x-ndjson"]["schema"],
        &line,
        "/tap",
    )?;
    let answer = gateway.admin_client()?.send("POST", "/releases/f/rollback", &[], b"")?.json();
    let schema =
        &paths["/releases/{name}/rollback"]["post"]["responses"]["200"]["content"]["application/json"]["schema"];
    fits(&document, schema, &answer, "rollback")
}

/// Checks a value against a schema of the document, and that the schema names each of its keys.
fn fits(document: &Value, schema: &Value, value: &Value, what: &str) -> Result<()> {
    let mut whole = schema.clone();
    whole["components"] = document["components"].clone();
    for (_, own) in whole["components"]["schemas"].as_object_mut().context("schemas")? {
        // What the document does not name would be accepted otherwise.
        if own["properties"].is_object() {
            own["unevaluatedProperties"] = false.into();
        }
    }
    let validator = jsonschema::draft202012::new(&whole)?;
    let problems: Vec<String> =
        validator.iter_errors(value).map(|error| format!("{}: {error}", error.instance_path())).collect();
    ensure!(problems.is_empty(), "{what}: {problems:?}\n{value:#}");
    Ok(())
}
