//! A real registry (docker-registry) for one test, and images in layouts of several tools.
//!
//! This module does not know: the gateway, a test's expectations.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use sha2::{Digest as _, Sha256};

use crate::client::{Client, Response};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// A registry process. Drop ends it.
pub struct Registry {
    /// Where it listens.
    pub address: SocketAddr,
    child: Child,
    folder: tempfile::TempDir,
}

impl Registry {
    /// Starts a registry on a free port and waits until it accepts connections.
    pub fn start() -> Result<Self> {
        for _ in 0..5 {
            // Another process may take the port before the registry does.
            let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
            let folder = tempfile::tempdir()?;
            let config = format!(
                "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}, delete: {{enabled: true}}}}\nhttp: {{addr: \"{address}\"}}\n",
                folder.path().join("data").display()
            );
            fs::write(folder.path().join("config.yml"), config)?;
            let child = spawn(&folder)?;
            let mut registry = Self { address, child, folder };
            if registry.wait_until_listening()? {
                return Ok(registry);
            }
        }
        bail!("docker-registry did not start on a free port")
    }

    /// Ends the process. What was pushed stays.
    pub fn stop(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Starts it again at the same address.
    pub fn restart(&mut self) -> Result<()> {
        self.child = spawn(&self.folder)?;
        ensure!(self.wait_until_listening()?, "docker-registry did not start again at {}", self.address);
        Ok(())
    }

    /// Pushes an image with one layer, as tools other than witgate do. Returns the manifest's
    /// digest. `more` are further members of the manifest, such as `, "annotations": {…}`.
    pub fn push(&self, repository: &str, tag: &str, media_type: &str, layer: &[u8], more: &str) -> Result<String> {
        let layer = format!(
            "{{\"mediaType\":\"{media_type}\",\"digest\":\"{}\",\"size\":{}}}",
            self.push_blob(repository, layer)?,
            layer.len()
        );
        self.push_layers(repository, tag, &layer, more)
    }

    /// Pushes an image with these layers, which are JSON.
    pub fn push_layers(&self, repository: &str, tag: &str, layers: &str, more: &str) -> Result<String> {
        let config = self.push_blob(repository, b"{}")?;
        let manifest = format!(
            "{{\"schemaVersion\":2,\"mediaType\":\"{MANIFEST}\",\"config\":{{\"mediaType\":\"application/vnd.wasm.config.v0+json\",\"digest\":\"{config}\",\"size\":2}},\"layers\":[{layers}]{more}}}"
        );
        self.push_manifest(repository, tag, MANIFEST, &manifest)
    }

    /// Pushes a manifest. Returns its digest.
    pub fn push_manifest(&self, repository: &str, tag: &str, media_type: &str, manifest: &str) -> Result<String> {
        let path = format!("/v2/{repository}/manifests/{tag}");
        let kind = format!("content-type: {media_type}");
        let response = self.send("PUT", &path, &[&kind], manifest.as_bytes())?;
        ensure!(response.status == 201, "{path}: {} {}", response.status, response.text());
        Ok(digest(manifest.as_bytes()))
    }

    /// Pushes a blob. Returns its digest.
    pub fn push_blob(&self, repository: &str, bytes: &[u8]) -> Result<String> {
        let digest = digest(bytes);
        let length = "content-length: 0";
        let begun = self.send("POST", &format!("/v2/{repository}/blobs/uploads/"), &[length], b"")?;
        let location = begun.header("location").context("no location")?.to_owned();
        let path = location.split_once("//").and_then(|(_, rest)| rest.find('/').map(|at| rest[at..].to_owned()));
        let path = format!("{}&digest={digest}", path.unwrap_or(location));
        let response = self.send("PUT", &path, &["content-type: application/octet-stream"], bytes)?;
        ensure!(response.status == 201, "{path}: {} {}", response.status, response.text());
        Ok(digest)
    }

    fn send(&self, method: &str, path: &str, headers: &[&str], body: &[u8]) -> Result<Response> {
        Client::connect(self.address)?.send(method, path, headers, body)
    }

    /// False if the process ended.
    fn wait_until_listening(&mut self) -> Result<bool> {
        let until = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(self.address).is_err() {
            if self.child.try_wait()?.is_some() {
                return Ok(false);
            }
            ensure!(Instant::now() < until, "docker-registry does not listen at {}", self.address);
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(true)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The digest of bytes, as registries write it.
pub fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

fn spawn(folder: &tempfile::TempDir) -> Result<Child> {
    Command::new("docker-registry")
        .arg("serve")
        .arg(folder.path().join("config.yml"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("docker-registry cannot be started: run `tests/tools/install registry` first")
}
