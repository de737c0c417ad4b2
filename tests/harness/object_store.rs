//! A real object store with the protocol of S3 (SeaweedFS) for one test.
//!
//! This module does not know: the gateway, a test's expectations.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use crate::client::Client;
use crate::gateway::repository;

/// The ports that the server needs besides that of S3.
const OTHER_PORTS: [&str; 4] = ["master", "volume", "filer", "admin"];
const USERS: &str = r#"{"identities": [{"name": "witgate", "credentials": [{"accessKey": "witgate", "secretKey": "witgate-secret"}], "actions": ["Admin", "Read", "Write", "List"]}]}"#;

/// A server with the bucket `filters`. Drop ends it.
pub struct ObjectStore {
    /// Where it listens for S3.
    pub address: SocketAddr,
    child: Child,
    folder: tempfile::TempDir,
    arguments: Vec<String>,
}

impl ObjectStore {
    /// Starts a server on free ports and waits until it knows its bucket.
    pub fn start() -> Result<Self> {
        for _ in 0..5 {
            let folder = tempfile::tempdir()?;
            fs::write(folder.path().join("users.json"), USERS)?;
            let (address, arguments) = free_ports(&folder)?;
            let child = spawn(&arguments)?;
            let mut store = Self { address, child, folder, arguments };
            if store.wait_until_ready()? {
                return Ok(store);
            }
        }
        bail!("SeaweedFS did not start on free ports")
    }

    /// The keys of an entry in `sources` for this server.
    pub fn keys(&self) -> String {
        format!(
            "endpoint: \"http://{}\", region: us-east-1, access_key: witgate, secret_key: witgate-secret",
            self.address
        )
    }

    /// Ends the process.
    pub fn stop(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Starts it again at the same address, with the same objects.
    pub fn restart(&mut self) -> Result<()> {
        self.child = spawn(&self.arguments)?;
        ensure!(self.wait_until_ready()?, "SeaweedFS did not start again at {}", self.address);
        Ok(())
    }

    /// False if the process ended.
    fn wait_until_ready(&mut self) -> Result<bool> {
        let until = Instant::now() + Duration::from_secs(40);
        loop {
            // An unsigned request: the server knows the bucket, and refuses the request.
            let asked = Client::connect(self.address).and_then(|mut client| client.get("/filters", &[]));
            if asked.is_ok_and(|response| response.status == 403) {
                return Ok(true);
            }
            if self.child.try_wait()?.is_some() {
                return Ok(false);
            }
            ensure!(Instant::now() < until, "SeaweedFS is not ready: {}", self.folder.path().display());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for ObjectStore {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The address for S3, and arguments with free ports.
fn free_ports(folder: &tempfile::TempDir) -> Result<(SocketAddr, Vec<String>)> {
    // Another process may take a port before the server does. Each service has a second port,
    // 10,000 above the first.
    let bind = || -> Result<TcpListener> {
        loop {
            let listener = TcpListener::bind("127.0.0.1:0")?;
            if listener.local_addr()?.port() < 55_000 {
                return Ok(listener);
            }
        }
    };
    let listeners = OTHER_PORTS.map(|_| bind());
    let own = bind()?;
    let address = own.local_addr()?;
    let fixed = ["mini", "-bucket=filters", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-master.telemetry=false"];
    let off = ["-admin.ui=false", "-webdav=false", "-s3.port.iceberg=0", "-s3.port.lance=0"];
    let mut arguments: Vec<String> = fixed.iter().chain(&off).map(|text| (*text).to_owned()).collect();
    arguments.push(format!("-dir={}", folder.path().display()));
    arguments.push(format!("-s3.config={}", folder.path().join("users.json").display()));
    arguments.push(format!("-s3.port={}", address.port()));
    for (name, listener) in OTHER_PORTS.iter().zip(&listeners) {
        let port = listener.as_ref().map_err(|error| anyhow::anyhow!("{error}"))?.local_addr()?.port();
        arguments.push(format!("-{name}.port={port}"));
    }
    Ok((address, arguments))
}

fn spawn(arguments: &[String]) -> Result<Child> {
    let mut command = Command::new(repository().join("target/tools/seaweedfs/bin/weed"));
    command.args(arguments);
    command.env_remove("AWS_CA_BUNDLE").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().context("SeaweedFS cannot be started: run `tests/tools/install seaweedfs` first")
}
