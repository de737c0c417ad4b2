//! Slow connections: the gateway ends 400 of them within their deadline and serves normal traffic
//! meanwhile.

use std::collections::HashSet;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use harness::frames::{NO_TABLE, PREFACE, block, flag, frame, get, headers, kind, settings};
use harness::{Gateway, Upstream};
use rustix::net::sockopt::set_socket_recv_buffer_size;
use rustix::net::{AddressFamily, SocketType};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::measure::{HEAD, Measurement, held_connections};

const CONNECTIONS: usize = 400;
/// Allowance beyond the deadline, for a busy machine.
const MARGIN: Duration = Duration::from_secs(2);
/// The minimum rate applies only after this time.
const GRACE: Duration = Duration::from_secs(5);
/// The interval at which each connection sends and reads a little.
const TICK: Duration = Duration::from_millis(100);
/// How many response bytes of a connection are kept.
const RESPONSE_BYTES_MAX: usize = 1024;
/// How much the gateway's memory may grow, in bytes: about 80 KiB for each connection.
const GROWTH_MAX: u64 = 32 << 20;

/// A slow attack.
struct SlowAttack {
    name: &'static str,
    /// The bytes sent at once.
    opening: Vec<u8>,
    /// The bytes sent at each tick.
    drip: Vec<u8>,
    /// The number of bytes read at each tick. `None` reads everything.
    reads: Option<usize>,
    /// The time after which the configuration ends such a connection.
    deadline: Duration,
    /// The first bytes of the response that each connection must get. May be empty.
    response: &'static str,
}

/// Raises the limit of open files to its maximum, because this process holds both ends of many
/// connections.
pub(crate) fn raise_file_limit() -> Result<()> {
    let limit = getrlimit(Resource::Nofile);
    Ok(setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })?)
}

fn attacks() -> Vec<SlowAttack> {
    let mut attacks = http1_attacks();
    attacks.extend(http2_attacks());
    attacks
}

fn http1_attacks() -> Vec<SlowAttack> {
    let second = Duration::from_secs(1);
    vec![
        SlowAttack {
            name: "slowloris",
            opening: b"GET / HTTP/1.1\r\nhost: test\r\n".to_vec(),
            drip: b"x-a: 1\r\n".to_vec(),
            reads: None,
            deadline: second,
            response: "HTTP/1.1 408 ",
        },
        SlowAttack {
            name: "slow body",
            opening: b"POST /length HTTP/1.1\r\nhost: test\r\ncontent-length: 1000000\r\n\r\n".to_vec(),
            drip: b"x".to_vec(),
            reads: None,
            deadline: GRACE + second,
            response: "",
        },
        SlowAttack {
            name: "slow body in chunks",
            opening: b"POST /length HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n".to_vec(),
            drip: b"1\r\nx\r\n".to_vec(),
            reads: None,
            deadline: GRACE + second,
            response: "",
        },
        SlowAttack {
            name: "response not read",
            opening: b"GET /bytes/30000000 HTTP/1.1\r\nhost: test\r\n\r\n".to_vec(),
            drip: vec![],
            reads: Some(0),
            deadline: 2 * second,
            response: "",
        },
        SlowAttack {
            name: "response read slowly",
            opening: b"GET /bytes/30000000 HTTP/1.1\r\nhost: test\r\n\r\n".to_vec(),
            drip: vec![],
            reads: Some(10),
            deadline: GRACE + 2 * second,
            response: "",
        },
    ]
}

fn http2_attacks() -> Vec<SlowAttack> {
    let h2 = |values: &[(u16, u32)], rest: Vec<u8>| [PREFACE, &settings(values), &rest].concat();
    let second = Duration::from_secs(1);
    let post = block([(":method", "POST"), (":scheme", "http"), (":authority", "test"), (":path", "/length")]);
    vec![
        SlowAttack {
            name: "h2: half HEADERS",
            opening: h2(&[NO_TABLE], frame(kind::HEADERS, flag::END_STREAM, 1, &get("/"))),
            drip: vec![],
            reads: None,
            deadline: second,
            response: "",
        },
        SlowAttack {
            name: "h2: CONTINUATION by drips",
            opening: h2(&[NO_TABLE], frame(kind::HEADERS, flag::END_STREAM, 1, &get("/"))),
            drip: frame(kind::CONTINUATION, 0, 1, &block([("x-a", "1")])),
            reads: None,
            deadline: second,
            response: "",
        },
        SlowAttack {
            name: "h2: body by drips",
            opening: h2(&[NO_TABLE], headers(1, &post, false)),
            drip: frame(kind::DATA, 0, 1, b"x"),
            reads: None,
            deadline: GRACE + second + 3 * second,
            response: "",
        },
        SlowAttack {
            name: "h2: stalled stream",
            opening: h2(&[NO_TABLE, (4, 0)], headers(1, &get("/bytes/3000000"), true)),
            drip: vec![],
            reads: None,
            deadline: 2 * second + 3 * second,
            response: "",
        },
    ]
}

/// Connects with a small buffer, because the kernel's buffer for a client hides how slowly it
/// reads.
pub(crate) fn connect_with_small_buffer(gateway: SocketAddr) -> Result<TcpStream> {
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None)?;
    // Set before the connect, because a receive window cannot shrink.
    set_socket_recv_buffer_size(&socket, 16 << 10)?;
    rustix::net::connect(&socket, &gateway)?;
    Ok(TcpStream::from(socket))
}

/// A connection of an attack.
struct Connection {
    stream: TcpStream,
    /// The first bytes of the response.
    received: Vec<u8>,
    open: bool,
}

impl Connection {
    fn open(gateway: &Gateway, attack: &SlowAttack) -> Result<Self> {
        let mut stream = connect_with_small_buffer(gateway.address)?;
        stream.write_all(&attack.opening)?;
        stream.set_nonblocking(true)?;
        Ok(Self { stream, received: vec![], open: true })
    }

    /// Sends and reads a little, and notes whether the gateway closed.
    fn tick(&mut self, attack: &SlowAttack) {
        let mut block = [0; 16384];
        if let Err(error) = self.stream.write(&attack.drip) {
            self.open &= error.kind() == ErrorKind::WouldBlock;
        }
        let room = attack.reads.unwrap_or(block.len());
        if room == 0 {
            return;
        }
        loop {
            match self.stream.read(&mut block[..room]) {
                Ok(0) => self.open = false,
                Ok(read) => {
                    self.received
                        .extend_from_slice(&block[..read.min(RESPONSE_BYTES_MAX.saturating_sub(self.received.len()))]);
                    if attack.reads.is_none() {
                        continue;
                    }
                }
                Err(error) => self.open &= error.kind() == ErrorKind::WouldBlock,
            }
            return;
        }
    }
}

/// Runs an attack. Returns the time until the last connection ended.
fn run(gateway: &Gateway, attack: &SlowAttack) -> Result<Duration> {
    let began = Instant::now();
    let mut all = (0..CONNECTIONS).map(|_| Connection::open(gateway, attack)).collect::<Result<Vec<_>>>()?;
    let opened = Instant::now();
    let ports = all.iter().map(|c| Ok(c.stream.local_addr()?.port())).collect::<Result<HashSet<_>>>()?;
    let mut accepted = false;
    loop {
        for connection in all.iter_mut().filter(|connection| connection.open) {
            connection.tick(attack);
        }
        // A client that does not read everything does not see the end. Then count the gateway's own
        // sockets.
        let left = match attack.reads {
            None => all.iter().filter(|connection| connection.open).count(),
            Some(_) => held_connections(gateway.address, &ports)?,
        };
        // Connections that the gateway has not accepted yet do not count as ended.
        accepted |= left > 0;
        if accepted && left == 0 {
            break;
        }
        let late = opened.elapsed() > attack.deadline + MARGIN;
        ensure!(
            !late,
            "{left} connections are open {:?} after the last one was opened; their deadline is {:?}",
            opened.elapsed(),
            attack.deadline
        );
        std::thread::sleep(TICK);
    }
    let ended = began.elapsed();
    let unanswered =
        all.iter().filter(|connection| !connection.received.starts_with(attack.response.as_bytes())).count();
    ensure!(
        unanswered == 0,
        "{unanswered} connections did not receive {:?} but {}",
        attack.response,
        all[0].received.escape_ascii()
    );
    Ok(ended)
}

#[test]
fn slow_connections_end_within_their_deadlines() -> Result<()> {
    raise_file_limit()?;
    let _measuring = super::MEASURING.lock();
    let upstream = Upstream::start()?;
    let gateway = super::gateway(&upstream)?;
    let mut faults = vec![];
    println!("{HEAD}");
    for attack in attacks() {
        let measurement = Measurement::begin(&gateway)?;
        let ended = run(&gateway, &attack);
        let impact = match measurement.end(&gateway) {
            Ok(impact) => impact,
            Err(error) => {
                faults.push(format!("{}: {error:#}", attack.name));
                continue;
            }
        };
        let outcome = match &ended {
            Ok(ended) => format!("{CONNECTIONS} ended after {:.1} s", ended.as_secs_f64()),
            Err(_) => "FAILED".to_owned(),
        };
        println!("{}", impact.row(attack.name, &outcome));
        if let Err(error) = ended {
            faults.push(format!("{}: {error:#}", attack.name));
        }
        if impact.growth > GROWTH_MAX {
            faults.push(format!("{}: memory grew by {} KiB", attack.name, impact.growth >> 10));
        }
        // What this attack leaves in flight must not count for the next one.
        harness::wait_up_to(Duration::from_secs(20), "nothing is in flight", || {
            gateway.metric("witgate_in_flight").is_ok_and(|n| n == 0.0)
        });
    }
    ensure!(faults.is_empty(), "the gateway did not limit {} attacks:\n{}", faults.len(), faults.join("\n"));
    Ok(())
}
