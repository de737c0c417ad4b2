//! Four hundred connections that go as slowly as they can: all gone within their deadlines, while normal traffic is served.

use std::collections::HashSet;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use harness::frames::{NO_TABLE, PREFACE, block, flag, frame, get, headers, kind, settings};
use harness::{Gateway, Upstream};
use rustix::net::sockopt::set_socket_recv_buffer_size;
use rustix::net::{AddressFamily, SocketType};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::beside::{Beside, HEAD, held};

const CONNECTIONS: usize = 400;
/// Over the configured deadline, for a busy machine.
const MARGIN: Duration = Duration::from_secs(2);
/// What the minimum rate leaves alone at the start.
const GRACE: Duration = Duration::from_secs(5);
/// How often a connection says a little.
const TICK: Duration = Duration::from_millis(100);
/// What is kept of an answer.
const TOLD_BYTES: usize = 1024;
/// Four hundred slow connections may hold some buffers, but not many: 80 KiB each.
const GROWTH_MAX: u64 = 32 << 20;

/// One way to be slow.
struct Slow {
    name: &'static str,
    /// Sent at once.
    opening: Vec<u8>,
    /// Sent at each tick.
    drip: Vec<u8>,
    /// Bytes read at each tick; none: everything.
    reads: Option<usize>,
    /// What the configuration allows.
    deadline: Duration,
    /// What each must be told, if anything.
    told: &'static str,
}

/// As many open files as the system lets this process have: both ends of many connections are here.
pub(crate) fn many_files() -> Result<()> {
    let limit = getrlimit(Resource::Nofile);
    Ok(setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })?)
}

fn ways() -> Vec<Slow> {
    let h2 = |values: &[(u16, u32)], rest: Vec<u8>| [PREFACE, &settings(values), &rest].concat();
    let second = Duration::from_secs(1);
    let post = block([(":method", "POST"), (":scheme", "http"), (":authority", "test"), (":path", "/length")]);
    vec![
        Slow {
            name: "slowloris",
            opening: b"GET / HTTP/1.1\r\nhost: test\r\n".to_vec(),
            drip: b"x-a: 1\r\n".to_vec(),
            reads: None,
            deadline: second,
            told: "HTTP/1.1 408 ",
        },
        Slow {
            name: "slow body",
            opening: b"POST /length HTTP/1.1\r\nhost: test\r\ncontent-length: 1000000\r\n\r\n".to_vec(),
            drip: b"x".to_vec(),
            reads: None,
            deadline: GRACE + second,
            told: "",
        },
        Slow {
            name: "slow body in chunks",
            opening: b"POST /length HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n".to_vec(),
            drip: b"1\r\nx\r\n".to_vec(),
            reads: None,
            deadline: GRACE + second,
            told: "",
        },
        Slow {
            name: "response not read",
            opening: b"GET /bytes/30000000 HTTP/1.1\r\nhost: test\r\n\r\n".to_vec(),
            drip: vec![],
            reads: Some(0),
            deadline: 2 * second,
            told: "",
        },
        Slow {
            name: "response read slowly",
            opening: b"GET /bytes/30000000 HTTP/1.1\r\nhost: test\r\n\r\n".to_vec(),
            drip: vec![],
            reads: Some(10),
            deadline: GRACE + 2 * second,
            told: "",
        },
        Slow {
            name: "h2: half HEADERS",
            opening: h2(&[NO_TABLE], frame(kind::HEADERS, flag::END_STREAM, 1, &get("/"))),
            drip: vec![],
            reads: None,
            deadline: second,
            told: "",
        },
        Slow {
            name: "h2: CONTINUATION by drips",
            opening: h2(&[NO_TABLE], frame(kind::HEADERS, flag::END_STREAM, 1, &get("/"))),
            drip: frame(kind::CONTINUATION, 0, 1, &block([("x-a", "1")])),
            reads: None,
            deadline: second,
            told: "",
        },
        Slow {
            name: "h2: body by drips",
            opening: h2(&[NO_TABLE], headers(1, &post, false)),
            drip: frame(kind::DATA, 0, 1, b"x"),
            reads: None,
            deadline: GRACE + second + 3 * second,
            told: "",
        },
        Slow {
            name: "h2: stalled stream",
            opening: h2(&[NO_TABLE, (4, 0)], headers(1, &get("/bytes/3000000"), true)),
            drip: vec![],
            reads: None,
            deadline: 2 * second + 3 * second,
            told: "",
        },
    ]
}

/// One connection of an attack.
struct Connection {
    stream: TcpStream,
    got: Vec<u8>,
    open: bool,
}

impl Connection {
    fn open(gateway: &Gateway, way: &Slow) -> Result<Self> {
        let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None)?;
        // What the kernel would buffer for a client is not the gateway's doing. Before connecting: a window once offered is not taken back.
        set_socket_recv_buffer_size(&socket, 16 << 10)?;
        rustix::net::connect(&socket, &gateway.address)?;
        let mut stream = TcpStream::from(socket);
        stream.write_all(&way.opening)?;
        stream.set_nonblocking(true)?;
        Ok(Self { stream, got: vec![], open: true })
    }

    /// Says and reads a little; notes whether the gateway has closed.
    fn tick(&mut self, way: &Slow) {
        let mut block = [0; 16384];
        if let Err(error) = self.stream.write(&way.drip) {
            self.open &= error.kind() == ErrorKind::WouldBlock;
        }
        let room = way.reads.unwrap_or(block.len());
        if room == 0 {
            return;
        }
        loop {
            match self.stream.read(&mut block[..room]) {
                Ok(0) => self.open = false,
                Ok(read) => {
                    self.got.extend_from_slice(&block[..read.min(TOLD_BYTES.saturating_sub(self.got.len()))]);
                    if way.reads.is_none() {
                        continue;
                    }
                }
                Err(error) => self.open &= error.kind() == ErrorKind::WouldBlock,
            }
            return;
        }
    }
}

/// Runs one attack; gives when the last connection was gone.
fn attack(gateway: &Gateway, way: &Slow) -> Result<Duration> {
    let began = Instant::now();
    let mut all = (0..CONNECTIONS).map(|_| Connection::open(gateway, way)).collect::<Result<Vec<_>>>()?;
    let opened = Instant::now();
    let ports = all.iter().map(|c| Ok(c.stream.local_addr()?.port())).collect::<Result<HashSet<_>>>()?;
    let mut accepted = false;
    loop {
        for connection in all.iter_mut().filter(|connection| connection.open) {
            connection.tick(way);
        }
        // Who reads nothing does not see the end: then the gateway's own sockets tell.
        let left = match way.reads {
            None => all.iter().filter(|connection| connection.open).count(),
            Some(_) => held(gateway.address, &ports)?,
        };
        // Those that the gateway has not accepted yet are not gone.
        accepted |= left > 0;
        if accepted && left == 0 {
            break;
        }
        let late = opened.elapsed() > way.deadline + MARGIN;
        ensure!(
            !late,
            "{left} connections are left {:?} after the last was opened, allowed are {:?}",
            opened.elapsed(),
            way.deadline
        );
        std::thread::sleep(TICK);
    }
    let gone = began.elapsed();
    let untold = all.iter().filter(|connection| !connection.got.starts_with(way.told.as_bytes())).count();
    ensure!(untold == 0, "{untold} connections were not told {:?}, but {}", way.told, all[0].got.escape_ascii());
    Ok(gone)
}

#[test]
fn slow_connections_are_gone_within_their_deadlines() -> Result<()> {
    many_files()?;
    let _alone = super::ALONE.lock();
    let upstream = Upstream::start()?;
    let gateway = super::gateway(&upstream)?;
    let mut faults = vec![];
    println!("{HEAD}");
    for way in ways() {
        let beside = Beside::begin(&gateway)?;
        let gone = attack(&gateway, &way);
        let felt = match beside.end(&gateway) {
            Ok(felt) => felt,
            Err(error) => {
                faults.push(format!("{}: {error:#}", way.name));
                continue;
            }
        };
        let outcome = match &gone {
            Ok(gone) => format!("{CONNECTIONS} gone after {:.1} s", gone.as_secs_f64()),
            Err(_) => "FAILED".to_owned(),
        };
        println!("{}", felt.line(way.name, &outcome));
        if let Err(error) = gone {
            faults.push(format!("{}: {error:#}", way.name));
        }
        if felt.growth > GROWTH_MAX {
            faults.push(format!("{}: memory grew by {} KiB", way.name, felt.growth >> 10));
        }
        // What this one left must not be counted at the next.
        harness::wait_up_to(Duration::from_secs(20), "nothing is in flight", || {
            gateway.metric("witgate_in_flight").is_ok_and(|n| n == 0.0)
        });
    }
    ensure!(faults.is_empty(), "{} attacks were not held:\n{}", faults.len(), faults.join("\n"));
    Ok(())
}
