//! HTTP/2 responses that an upstream must not send: none reaches a client as a complete one.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Result, ensure};
use harness::frames::{End, Frames, block, flag, frame, get, headers, kind, settings};
use harness::{Gateway, Response};

use super::start_gateway;

/// Writes the frames of a response on this stream.
type Script = fn(u32) -> Vec<u8>;

/// An HTTP/2 upstream that answers each request with the frames of a script.
struct RawUpstream {
    address: SocketAddr,
    script: Arc<Mutex<Script>>,
}

impl RawUpstream {
    fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let script: Arc<Mutex<Script>> = Arc::new(Mutex::new(good));
        let shared = script.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let script = shared.clone();
                std::thread::spawn(move || serve(stream, &script));
            }
        });
        Ok(Self { address, script })
    }

    fn set(&self, script: Script) {
        *self.script.lock().unwrap_or_else(PoisonError::into_inner) = script;
    }
}

/// Answers each HEADERS frame. The script decides whether the connection goes on: an empty one
/// closes it.
fn serve(mut stream: TcpStream, script: &Mutex<Script>) -> Option<()> {
    stream.write_all(&settings(&[])).ok()?;
    let mut preface = [0; 24];
    stream.read_exact(&mut preface).ok()?;
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).ok()?;
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        stream.read_exact(&mut vec![0; length]).ok()?;
        match head[3] {
            kind::SETTINGS if head[4] & flag::ACK == 0 => {
                stream.write_all(&frame(kind::SETTINGS, flag::ACK, 0, &[])).ok()?;
            }
            kind::HEADERS => {
                let id = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
                let script = *script.lock().unwrap_or_else(PoisonError::into_inner);
                stream.write_all(&script(id)).ok()?;
            }
            _ => {}
        }
    }
}

/// A response with these fields in its head, this content and these trailers.
fn response(id: u32, fields: &[(&str, &str)], content: &str, trailers: &[(&str, &str)]) -> Vec<u8> {
    let ends = if trailers.is_empty() { flag::END_STREAM } else { 0 };
    let mut bytes = headers(id, &block(fields.iter().copied()), false);
    bytes.extend(frame(kind::DATA, ends, id, content.as_bytes()));
    if !trailers.is_empty() {
        bytes.extend(headers(id, &block(trailers.iter().copied()), true));
    }
    bytes
}

fn good(id: u32) -> Vec<u8> {
    response(id, &[(":status", "200"), ("x-a", "1")], "ok", &[("x-sum", "7")])
}

const OK: (&str, &str) = (":status", "200");

/// Names for the log of the test, and responses. RFC 9113, sections 8.1 to 8.3.
const MALFORMED: &[(&str, Script)] = &[
    ("a status in trailers", |id| response(id, &[OK], "ok", &[(":status", "200")])),
    ("a path in trailers", |id| response(id, &[OK], "ok", &[(":path", "/x"), ("x-sum", "7")])),
    ("a pseudo-header field behind a trailer", |id| response(id, &[OK], "ok", &[("x-sum", "7"), (":status", "200")])),
    ("an unknown pseudo-header field in trailers", |id| response(id, &[OK], "ok", &[(":x", "1")])),
    ("a status from the dynamic table in trailers", |id| {
        // Adds `:status: 200` to the table, and refers to it.
        let mut bytes = headers(id, &[0x48, 3, b'2', b'0', b'0'], false);
        bytes.extend(frame(kind::DATA, 0, id, b"ok"));
        bytes.extend(headers(id, &[0xbe], true));
        bytes
    }),
    ("a second final response as trailers", |id| response(id, &[OK], "ok", &[(":status", "103"), ("link", "x")])),
    ("trailers without the end of the stream", |id| {
        [
            headers(id, &block([OK]), false),
            frame(kind::DATA, 0, id, b"ok"),
            headers(id, &block([("x-sum", "7")]), false),
        ]
        .concat()
    }),
    ("a connection field in trailers", |id| response(id, &[OK], "ok", &[("connection", "close")])),
    ("an upper-case trailer", |id| response(id, &[OK], "ok", &[("X-Sum", "7")])),
    ("a trailer with a line break", |id| response(id, &[OK], "ok", &[("x-sum", "7\r\nx-b: 1")])),
    ("a trailer with white space around it", |id| response(id, &[OK], "ok", &[("x-sum", " 7")])),
    ("trailers that are too large", |id| {
        let large = "v".repeat(70_000);
        response(id, &[OK], "ok", &[("x-large", &large), ("grpc-status", "0")])
    }),
    ("a path in the head", |id| response(id, &[OK, (":path", "/x")], "ok", &[])),
    ("a method before the status", |id| response(id, &[(":method", "GET"), OK], "ok", &[])),
    ("an authority in the head", |id| response(id, &[OK, (":authority", "a"), ("x-a", "1")], "ok", &[])),
    ("a protocol in the head", |id| response(id, &[OK, (":protocol", "websocket")], "ok", &[])),
    ("two statuses", |id| response(id, &[OK, OK], "ok", &[])),
    ("a status behind a field", |id| response(id, &[("x-a", "1"), OK], "ok", &[])),
    ("no status", |id| response(id, &[("x-a", "1")], "ok", &[])),
    ("a status of two digits", |id| response(id, &[(":status", "20")], "ok", &[])),
    ("the status 099", |id| response(id, &[(":status", "099")], "ok", &[])),
    ("the status 600", |id| response(id, &[(":status", "600")], "ok", &[])),
    ("the status +20", |id| response(id, &[(":status", "+20")], "ok", &[])),
    ("transfer-encoding", |id| response(id, &[OK, ("transfer-encoding", "chunked")], "ok", &[])),
    ("connection", |id| response(id, &[OK, ("connection", "close")], "ok", &[])),
    ("keep-alive", |id| response(id, &[OK, ("keep-alive", "1")], "ok", &[])),
    ("an upper-case name", |id| response(id, &[OK, ("X-A", "1")], "ok", &[])),
    ("an empty name", |id| response(id, &[OK, ("", "1")], "ok", &[])),
    ("a name with a colon", |id| response(id, &[OK, ("x:a", "1")], "ok", &[])),
    ("a value with NUL", |id| response(id, &[OK, ("x-a", "1\0")], "ok", &[])),
    ("a value with LF", |id| response(id, &[OK, ("x-a", "1\nx-b: 2")], "ok", &[])),
    ("a content-length that is too long", |id| response(id, &[OK, ("content-length", "3")], "ok", &[])),
    ("a content-length that is too short", |id| response(id, &[OK, ("content-length", "1")], "ok", &[])),
    ("a content-length that trailers break", |id| {
        response(id, &[OK, ("content-length", "3")], "ok", &[("x-sum", "7")])
    }),
    ("two content-lengths", |id| response(id, &[OK, ("content-length", "2"), ("content-length", "3")], "ok", &[])),
    ("a content-length with a sign", |id| response(id, &[OK, ("content-length", "+2")], "ok", &[])),
    ("a list as content-length", |id| response(id, &[OK, ("content-length", "2, 2")], "ok", &[])),
    ("a content-length without content", |id| headers(id, &block([OK, ("content-length", "2")]), true)),
    ("204 with content", |id| response(id, &[(":status", "204")], "ok", &[])),
    ("304 with content", |id| response(id, &[(":status", "304")], "ok", &[])),
    ("an interim response that ends the stream", |id| headers(id, &block([(":status", "103")]), true)),
    ("an interim response with a path", |id| {
        [headers(id, &block([(":status", "103"), (":path", "/")]), false), good(id)].concat()
    }),
    ("101", |id| [headers(id, &block([(":status", "101")]), false), good(id)].concat()),
    ("content before the head", |id| [frame(kind::DATA, 0, id, b"ok"), good(id)].concat()),
    ("a reset without an error before the end", |id| {
        [headers(id, &block([OK]), false), frame(kind::DATA, 0, id, b"ok"), frame(kind::RST_STREAM, 0, id, &[0; 4])]
            .concat()
    }),
    ("a GOAWAY for all streams before the end", |id| {
        [headers(id, &block([OK]), false), frame(kind::DATA, 0, id, b"ok"), frame(kind::GOAWAY, 0, 0, &[0; 8])].concat()
    }),
    ("more padding than payload", |id| {
        [headers(id, &block([OK]), false), frame(kind::DATA, flag::PADDED | flag::END_STREAM, id, &[9, b'o', b'k'])]
            .concat()
    }),
    ("a block that ends in the middle of a field", |id| {
        [headers(id, &[0x88, 0x00, 5, b'x'], false), frame(kind::DATA, flag::END_STREAM, id, b"ok")].concat()
    }),
    ("an index that the table does not have", |id| {
        [headers(id, &[0x88, 0xfe], false), frame(kind::DATA, flag::END_STREAM, id, b"ok")].concat()
    }),
    ("a frame inside of a header block", |id| {
        [frame(kind::HEADERS, 0, id, &[0x88]), frame(kind::PING, 0, 0, &[0; 8]), good(id)].concat()
    }),
];

/// The response over HTTP/1.1 behind interim ones.
fn final_response(gateway: &Gateway) -> Result<Response> {
    let mut client = gateway.client()?;
    client.begin("GET", "/", &["te: trailers"], b"")?;
    loop {
        let response = client.read(false)?;
        if response.status >= 200 {
            return Ok(response);
        }
    }
}

#[test]
fn a_malformed_response_is_never_forwarded_as_a_complete_one() -> Result<()> {
    let upstream = RawUpstream::start()?;
    let gateway = start_gateway(&format!(
        "upstreams: {{u: {{endpoints: [\"http://{}\"], protocol: h2, timeout: 1s, body_idle_timeout: 1s, \
         retries: {{attempts: 0}}}}}}\nroutes: [{{upstream: u}}]",
        upstream.address
    ))?;
    let mut wrong = vec![];
    for (name, script) in MALFORMED {
        upstream.set(*script);
        if let Ok(response) = final_response(&gateway)
            && response.status < 500
        {
            wrong.push(format!("{name}: HTTP/1.1 got {} {:?}", response.status, response.text()));
        }
        let mut client = Frames::connect(gateway.address)?;
        client.send(&headers(1, &get("/"), true))?;
        let end = client.end(1, Duration::from_secs(5))?;
        if matches!(end, End::Status(..500) | End::Open) {
            wrong.push(format!("{name}: HTTP/2 got {end:?}"));
        }
        upstream.set(good);
        let after = gateway.get("/", &[])?;
        ensure!(after.text() == "ok", "after {name}: {} {}", after.status, after.text());
    }
    ensure!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), MALFORMED.len(), wrong.join("\n"));
    Ok(())
}
