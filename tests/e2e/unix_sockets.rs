//! Listeners at the path of a UNIX socket: clients, permissions, files of earlier processes,
//! restarts.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use anyhow::{Context as _, Result};
use harness::{Gateway, Setup};

/// A gateway with the socket `http.sock` in its folder beside its port. `keys` are of that
/// listener.
fn setup(top: &str, keys: &str) -> Result<Setup> {
    let setup = Setup::new(&format!("{top}\nupstreams: {{u: {{builtin: echo}}}}\nroutes: [{{upstream: u}}]"))?;
    let socket = setup.path("http.sock");
    let more = format!("half_close: cancel}}, {{name: socket, address: \"unix:{}\"{keys}", socket.display());
    Ok(setup.listener(&more))
}

/// Sends bytes to a socket and reads to the end.
fn send(path: &Path, text: &str) -> Result<String> {
    let mut stream = UnixStream::connect(path).with_context(|| path.display().to_string())?;
    stream.write_all(text.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// The response to a GET with these header lines, which is the request that the upstream got.
fn get(gateway: &Gateway, fields: &str) -> Result<String> {
    let request = format!("GET /a HTTP/1.1\r\nhost: h\r\nconnection: close\r\n{fields}\r\n");
    Ok(send(&gateway.path("http.sock"), &request)?.replace(' ', ""))
}

#[test]
fn a_client_of_a_socket_is_local_and_names_others_only_if_trusted() -> Result<()> {
    let gateway = setup("", "")?.start()?;
    let answer = get(&gateway, "x-forwarded-for: 192.0.2.1\r\n")?;
    assert!(answer.starts_with("HTTP/1.1200") && !answer.contains("192.0.2.1"), "{answer}");
    assert!(answer.contains("127.0.0.1"), "{answer}");
    let mode = fs::metadata(gateway.path("http.sock"))?.permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "nobody else may connect unless the configuration says so");

    let trusting = setup("trusted_proxies: [127.0.0.1]", ", mode: 666")?.start()?;
    let answer = get(&trusting, "x-forwarded-for: 192.0.2.1\r\n")?;
    assert!(answer.contains("192.0.2.1,127.0.0.1"), "{answer}");
    assert_eq!(fs::metadata(trusting.path("http.sock"))?.permissions().mode() & 0o777, 0o666);
    Ok(())
}

#[test]
fn a_proxy_header_over_a_socket_names_the_client_if_trusted() -> Result<()> {
    let request = "PROXY TCP4 192.0.2.7 192.0.2.1 4000 80\r\nGET / HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n";
    let gateway = setup("trusted_proxies: [127.0.0.1]", ", proxy_protocol: true")?.start()?;
    assert!(send(&gateway.path("http.sock"), request)?.contains("192.0.2.7"));
    let stranger = setup("trusted_proxies: [10.0.0.1]", ", proxy_protocol: true")?.start()?;
    assert_eq!(send(&stranger.path("http.sock"), request).unwrap_or_default(), "");
    Ok(())
}

#[test]
fn a_socket_speaks_http_2_and_answers_many_at_once() -> Result<()> {
    let gateway = setup("", "")?.start()?;
    let preface = format!("{}\0\0\0\x04\0\0\0\0\0", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    let mut stream = UnixStream::connect(gateway.path("http.sock"))?;
    stream.write_all(preface.as_bytes())?;
    let mut head = [0; 9];
    stream.read_exact(&mut head)?;
    assert_eq!(head[3], 4, "the first frame is SETTINGS");
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..32).map(|_| scope.spawn(|| get(&gateway, ""))).collect();
        for client in clients {
            let answer = client.join().unwrap()?;
            assert!(answer.starts_with("HTTP/1.1200"), "{answer}");
        }
        Ok(())
    })
}

#[test]
fn files_of_earlier_processes_are_replaced_and_others_are_not() -> Result<()> {
    let stale = setup("", "")?;
    let socket = stale.path("http.sock");
    // A listener that is dropped leaves its file, as a process does that is killed.
    drop(UnixListener::bind(&socket)?);
    let gateway = stale.start()?;
    assert!(get(&gateway, "")?.starts_with("HTTP/1.1200"));

    let used = setup("", "")?;
    let _other = UnixListener::bind(used.path("http.sock"))?;
    let refused = used.start_refused()?;
    assert!(refused.contains("listener socket: unix:") && refused.contains("in use"), "{refused}");

    let file = setup("", "")?.with("http.sock", "precious")?;
    let path = file.path("http.sock");
    let kept = path.clone();
    let refused = file.start_refused()?;
    assert!(refused.contains("not a socket"), "{refused} {}", kept.display());

    let nowhere = Setup::new("upstreams: {u: {builtin: echo}}\nroutes: [{upstream: u}]")?
        .listener("half_close: cancel}, {name: s, address: \"unix:/absent/http.sock\"");
    let refused = nowhere.start_refused()?;
    assert!(refused.contains("unix:/absent/http.sock") && refused.contains("No such file"), "{refused}");
    Ok(())
}

#[test]
fn a_takeover_keeps_the_socket() -> Result<()> {
    let mut first = setup("", "")?.start()?;
    let mut waiting = UnixStream::connect(first.path("http.sock"))?;
    let second = first.start_successor()?;
    first.wait(std::time::Duration::from_secs(20))?;
    assert!(get(&second, "")?.starts_with("HTTP/1.1200"));
    // The first process accepted this one, and closed it when it ended.
    let _ = waiting.write_all(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n");
    drop(waiting);
    let third = second.start_successor()?;
    assert!(get(&third, "")?.starts_with("HTTP/1.1200"));
    Ok(())
}

#[test]
fn check_names_what_a_socket_cannot_have() -> Result<()> {
    for (keys, expected) in [
        ("address: /run/a.sock", "write unix:/run/a.sock"),
        ("address: \"unix:a.sock\"", "absolute path"),
        ("address: \"unix:/run/a.sock\", mode: 680", "octal digits"),
        ("address: \"127.0.0.1:1\", mode: 660", "only the file of a UNIX socket"),
        ("address: \"unix:/run/a.sock\", tls: {certificates: []}", "has no TLS"),
        (
            "address: \"unix:/run/a.sock\"}, {name: b, address: \"unix:/run/a.sock\"",
            "another listener has this address",
        ),
    ] {
        let setup = Setup::new("upstreams: {u: {builtin: echo}}\nroutes: [{upstream: u}]")?;
        let (code, text) = setup.listener(&format!("half_close: cancel}}, {{name: a, {keys}")).check()?;
        assert!(code != Some(0) && text.contains(expected), "{keys}: {text}");
    }
    Ok(())
}
