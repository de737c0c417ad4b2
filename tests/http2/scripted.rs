//! An HTTP/1 upstream that runs a script for each request.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

/// The upstream. For each request it reads the header section and calls a function.
pub(crate) struct ScriptedUpstream {
    pub(crate) address: SocketAddr,
    /// Reports of the script to the test.
    reports: Receiver<(Instant, String)>,
}

/// One connection, whose current request has its header section in `head`.
pub(crate) struct Session {
    pub(crate) head: String,
    pub(crate) input: BufReader<TcpStream>,
    pub(crate) output: TcpStream,
    reports: Sender<(Instant, String)>,
}

impl Session {
    pub(crate) fn write(&mut self, text: &str) {
        let _ = self.output.write_all(text.as_bytes());
    }

    /// Sends a message to the test.
    pub(crate) fn report(&self, what: &str) {
        let _ = self.reports.send((Instant::now(), what.to_owned()));
    }

    /// Reads until the gateway closes the connection, then reports `closed`.
    pub(crate) fn wait_closed(&mut self) {
        let mut block = [0; 4096];
        while self.input.read(&mut block).is_ok_and(|read| read > 0) {}
        self.report("closed");
    }

    fn read_head(&mut self) -> bool {
        self.head.clear();
        loop {
            match self.input.read_line(&mut self.head) {
                Ok(0) | Err(_) => return false,
                Ok(_) if self.head.ends_with("\r\n\r\n") => return true,
                Ok(_) => {}
            }
        }
    }
}

impl ScriptedUpstream {
    pub(crate) fn start(script: fn(&mut Session)) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let (sender, reports) = channel();
        std::thread::spawn(move || {
            for output in listener.incoming().map_while(Result::ok) {
                let reports = sender.clone();
                std::thread::spawn(move || {
                    let Ok(input) = output.try_clone() else { return };
                    let mut session = Session { head: String::new(), input: BufReader::new(input), output, reports };
                    while session.read_head() {
                        script(&mut session);
                    }
                });
            }
        });
        Ok(Self { address, reports })
    }

    /// A configuration whose only route goes to this upstream.
    pub(crate) fn yaml(&self) -> String {
        format!(
            "upstreams: {{u: {{endpoints: [\"http://{}\"], timeout: 20s}}}}\nroutes: [{{upstream: u}}]",
            self.address
        )
    }

    /// Waits up to 10 s until the script reports this. Returns the time of the report.
    pub(crate) fn wait(&self, what: &str) -> Result<Instant> {
        let until = Instant::now() + Duration::from_secs(10);
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let report = self.reports.recv_timeout(left);
            let (when, reported) = report.with_context(|| format!("the upstream did not report: {what}"))?;
            if reported == what {
                return Ok(when);
            }
        }
    }
}
