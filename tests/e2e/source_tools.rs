//! Other tools at the same registry: what they push is loaded, what witgate published they pull,
//! and what cosign signed counts. Other object stores: versitygw for S3, Azurite for Azure. `just
//! sources` installs the tools, which takes minutes, and runs these tests.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::shared_releases::{decisions_pass_through_a_bucket, setup, start_with};
use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use harness::registry::Registry;
use harness::sigstore::{NOON, Signer, Sigstore};
use harness::wat::{responder, with_manifest};
use harness::{Client, Gateway, Setup, repository, wait_until, wait_up_to, witgate};

const ROUTES: &str = "upstreams: {echo: {builtin: echo}}\nroutes: [{filters: [f], upstream: echo}]\n";

fn component(text: &str) -> Result<Vec<u8>> {
    Ok(with_manifest(responder(200, None, text)?, r#"{"name":"f","version":"1.0.0","request":{}}"#))
}

fn answers(gateway: &Gateway, text: &str) -> bool {
    gateway.get("/", &[]).is_ok_and(|response| response.text() == text)
}

/// Runs an installed tool in a folder. Returns its output.
fn run(tool: &str, folder: &Path, arguments: &[&str]) -> Result<String> {
    let program = repository().join("target/tools").join(tool);
    let output = Command::new(&program).args(arguments).current_dir(folder).env("COSIGN_PASSWORD", "").output();
    let output = output.with_context(|| format!("{}: run `tests/tools/install {tool}` first", program.display()))?;
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{tool} {arguments:?}: {text}");
    Ok(text)
}

fn yaml(registry: &Registry, reference: &str, keys: &str) -> String {
    format!(
        "filters: {{f: {{source: \"oci://{0}/{reference}\"}}}}\nsources: [{{prefix: \"oci://{0}/\", plain_http: true{keys}}}]\n{ROUTES}",
        registry.address
    )
}

#[test]
#[ignore = "needs oras and crane: `just sources`"]
fn oras_and_crane_push_and_pull() -> Result<()> {
    let (registry, folder) = (Registry::start()?, tempfile::tempdir()?);
    let (one, two) = (component("one")?, component("two")?);
    std::fs::write(folder.path().join("f.wasm"), &one)?;
    let host = registry.address.to_string();
    run("oras", folder.path(), &["push", "--plain-http", &format!("{host}/f:oras"), "f.wasm:application/wasm"])?;
    assert!(answers(&Setup::new(&yaml(&registry, "f:oras", ""))?.start()?, "one"));

    std::fs::write(folder.path().join("f.wasm"), &two)?;
    let location = format!("oci://{host}/f:2.0.0");
    let file = folder.path().join("f.wasm").display().to_string();
    let (code, text) = witgate(["publish", "--plain-http", &file, &location])?;
    assert_eq!(code, Some(0), "{text}");
    std::fs::remove_file(folder.path().join("f.wasm"))?;
    run("oras", folder.path(), &["pull", "--plain-http", &format!("{host}/f:2.0.0")])?;
    assert_eq!(std::fs::read(folder.path().join("f.wasm"))?, two, "oras pulls the published bytes");
    let digest = run("crane", folder.path(), &["digest", "--insecure", &format!("{host}/f:2.0.0")])?;
    ensure!(text.contains(digest.trim()), "{digest} {text}");

    // The compatible layout: a tar archive as a layer.
    std::fs::rename(folder.path().join("f.wasm"), folder.path().join("plugin.wasm"))?;
    ensure!(
        Command::new("tar").args(["czf", "layer.tgz", "plugin.wasm"]).current_dir(folder.path()).status()?.success()
    );
    run("crane", folder.path(), &["append", "--insecure", "-f", "layer.tgz", "-t", &format!("{host}/f:crane")])?;
    assert!(answers(&Setup::new(&yaml(&registry, "f:crane", ""))?.start()?, "two"));
    Ok(())
}

#[test]
#[ignore = "needs cosign: `just sources`"]
fn a_signature_of_cosign_counts_and_one_by_another_key_does_not() -> Result<()> {
    let (registry, folder) = (Registry::start()?, tempfile::tempdir()?);
    let digest = registry.push("team/f", "1.0.0", "application/wasm", &component("one")?, "")?;
    for name in ["own", "stranger"] {
        run("cosign", folder.path(), &["generate-key-pair", "--output-key-prefix", name])?;
    }
    let reference = format!("{}/team/f@{digest}", registry.address);
    let sign = |name: &str| {
        let key = format!("{name}.key");
        let offline = ["--new-bundle-format=false", "--use-signing-config=false", "--tlog-upload=false"];
        let arguments = ["sign", "--yes", "--key", &key, "--allow-http-registry"];
        run("cosign", folder.path(), &[&arguments[..], &offline[..], &[&reference]].concat())
    };
    let keys = ", signatures: require, keys: [{file: own.pub}], poll: 1s";
    let public = std::fs::read(folder.path().join("own.pub"))?;
    sign("stranger")?;
    let start = || Setup::new(&yaml(&registry, "team/f:1.0.0", keys))?.with("own.pub", &public);
    let log = start()?.start_refused()?;
    ensure!(log.contains("no key in `keys` made the signature"), "{log}");
    sign("own")?;
    assert!(answers(&start()?.start()?, "one"));
    Ok(())
}

/// Shows that the signatures of tests/e2e/identities.rs have the layout of cosign: it takes and
/// refuses the same ones.
#[test]
#[ignore = "needs cosign: `just sources`"]
fn cosign_verifies_the_same_identities() -> Result<()> {
    let (registry, folder, sigstore) = (Registry::start()?, tempfile::tempdir()?, Sigstore::new()?);
    let digest = registry.push("team/f", "tag", "application/wasm", &component("one")?, "")?;
    let always = "{\"start\":\"2020-01-01T00:00:00Z\"}";
    std::fs::write(folder.path().join("trusted_root.json"), sigstore.trusted_root([always, always])?)?;
    let reference = format!("{}/team/f@{digest}", registry.address);
    let verify = |identity: &str| {
        let options = ["--allow-http-registry", "--new-bundle-format=false", "--insecure-ignore-sct"];
        let policy = ["--certificate-identity", identity, "--certificate-oidc-issuer", "https://ci.test"];
        let root = ["--trusted-root", "trusted_root.json", &reference];
        run("cosign", folder.path(), &[&["verify"][..], &options[..], &policy[..], &root[..]].concat())
    };
    sigstore.sign(&registry, "team/f", &digest, &Signer::default())?;
    verify(Signer::default().identity)?;
    let other = verify("https://ci.test/other").err().context("another identity is refused")?.to_string();
    ensure!(other.contains("none of the expected identities matched"), "{other}");
    sigstore.sign(&registry, "team/f", &digest, &Signer { time: NOON + 86_400, ..Signer::default() })?;
    ensure!(verify(Signer::default().identity).is_err(), "a certificate that was not valid at the time of its entry");
    Ok(())
}

/// A versitygw process with the bucket `filters`. Drop ends it.
struct Versitygw {
    address: std::net::SocketAddr,
    folder: tempfile::TempDir,
    child: Option<Child>,
}

impl Versitygw {
    fn start() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        std::fs::create_dir_all(folder.path().join("data/filters"))?;
        let address = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let mut store = Self { address, folder, child: None };
        store.set_running(true)?;
        Ok(store)
    }

    /// Starts or ends the process. The objects stay.
    fn set_running(&mut self, is_running: bool) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill()?;
            child.wait()?;
        }
        if is_running {
            let mut command = Command::new(repository().join("target/tools/versitygw"));
            command
                .args(["--quiet", "--port", &self.address.to_string(), "posix"])
                .arg(self.folder.path().join("data"));
            command.env("ROOT_ACCESS_KEY", "witgate").env("ROOT_SECRET_KEY", "witgate-secret");
            let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
            self.child = Some(child.context("run `tests/tools/install versitygw` first")?);
            let address = self.address;
            wait_until("the object store listens", || std::net::TcpStream::connect(address).is_ok());
        }
        Ok(())
    }

    /// An entry of `sources` with more keys.
    fn sources(&self, keys: &str) -> String {
        format!(
            "sources: [{{prefix: \"s3://filters/\", endpoint: \"http://{}\", region: us-east-1, access_key: witgate, secret_key: witgate-secret{keys}}}]\n",
            self.address
        )
    }
}

impl Drop for Versitygw {
    fn drop(&mut self) {
        let _ = self.set_running(false);
    }
}

/// Why the last check of the filter's source failed.
fn failure(gateway: &Gateway) -> String {
    let list = gateway.admin("/filters").map(|response| response.json()).unwrap_or_default();
    list[0]["source"]["failure"].as_str().unwrap_or_default().to_owned()
}

#[test]
#[ignore = "needs versitygw: `just sources`"]
fn a_second_object_store_in_each_state() -> Result<()> {
    let mut store = Versitygw::start()?;
    let (one, two) = (component("one")?, component("two")?);
    let yaml = |filter: &str| {
        format!("filters: {{f: {{source: \"s3://filters/f/{filter}}}}}\n{}{ROUTES}", store.sources(", poll: 1s"))
    };
    let setup = Setup::new(&yaml("1.0.0.wasm\""))?.with("one.wasm", &one)?.with("two.wasm", &two)?;
    let config = setup.write()?.display().to_string();
    for (file, name, expected) in [("one.wasm", "1.0.0", 0), ("two.wasm", "2.0.0", 0), ("two.wasm", "1.0.0", 1)] {
        let (file, location) = (setup.path(file).display().to_string(), format!("s3://filters/f/{name}.wasm"));
        let (code, text) = witgate(["publish", "--config", &config, &file, &location])?;
        assert_eq!(code, Some(expected), "{text}");
        ensure!(expected == 0 || text.contains("a published version never changes"), "{text}");
    }
    let object = |name: &str| store.folder.path().join("data/filters/f").join(name);
    let texts = ["2.0.0.wasm\"", &format!("2.0.0.wasm\", sha256: {}", "0".repeat(64)), "large.wasm\"", "text.wasm\""];
    let texts = texts.map(yaml);
    std::fs::File::create(object("large.wasm"))?.set_len(1 << 30)?;
    std::fs::write(object("text.wasm"), "hello")?;
    let mut gateway = setup.start()?;
    assert!(answers(&gateway, "one"));
    let own = std::fs::read_to_string(gateway.path("gateway.yaml"))?;
    let apply = |gateway: &Gateway, yaml: &str| -> Result<()> {
        let head = own.split("filters:").next().context("a head")?;
        gateway.replace("gateway.yaml", format!("{head}{yaml}"))
    };
    for (text, expected) in
        [(&texts[1], "but the configuration pins"), (&texts[2], "larger than 128 MiB"), (&texts[3], "not-wasm")]
    {
        apply(&gateway, text)?;
        let refused =
            || gateway.logged("the configuration was refused").into_iter().find(|line| line.contains(expected));
        wait_until(expected, || refused().is_some());
        println!("{}", refused().unwrap_or_default());
        assert!(answers(&gateway, "one"), "{expected}");
    }
    apply(&gateway, &texts[0])?;
    wait_until("the second version serves", || answers(&gateway, "two"));

    // Down while the gateway runs, and at its start.
    store.set_running(false)?;
    wait_until("a check fails", || !failure(&gateway).is_empty());
    println!("{}", failure(&gateway));
    assert!(answers(&gateway, "two"));
    gateway.restart()?;
    assert!(answers(&gateway, "two"));
    wait_until("a check fails after the restart", || !failure(&gateway).is_empty());
    store.set_running(true)?;
    gateway.wait_logged("the source can be reached again", 1);
    Ok(())
}

#[test]
#[ignore = "needs versitygw: `just sources`"]
fn gateways_share_decisions_through_a_second_object_store() -> Result<()> {
    let mut store = Versitygw::start()?;
    let keys = store.sources("");
    let start = || start_with(&keys, "s3://filters/releases/");
    decisions_pass_through_a_bucket(start, |is_running| store.set_running(is_running))
}

/// The account of Azurite and its key, which its documentation publishes.
const AZURE: [(&str, &str); 2] = [
    ("AZURE_STORAGE_ACCOUNT_NAME", "devstoreaccount1"),
    (
        "AZURE_STORAGE_ACCOUNT_KEY",
        "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==",
    ),
];

/// A process of Azurite, Microsoft's emulator of Azure Blob Storage. Drop ends it.
struct Azurite {
    address: std::net::SocketAddr,
    folder: tempfile::TempDir,
    child: Option<Child>,
}

impl Azurite {
    fn start() -> Result<Self> {
        let address = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let mut store = Self { address, folder: tempfile::tempdir()?, child: None };
        store.set_running(true)?;
        let status = store.create_container()?;
        ensure!(status == 201, "the container filters: {status}");
        Ok(store)
    }

    fn set_running(&mut self, is_running: bool) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill()?;
            child.wait()?;
        }
        if is_running {
            // The script itself, because `npx` would be another process.
            let script = repository().join("target/tools/azurite/node_modules/azurite/dist/src/blob/main.js");
            let mut command = Command::new("node");
            command.arg(&script).args(["--silent", "--skipApiVersionCheck", "--disableTelemetry"]);
            command.args(["--blobHost", "127.0.0.1", "--blobPort", &self.address.port().to_string()]);
            command.arg("--location").arg(self.folder.path()).stdout(Stdio::null()).stderr(Stdio::null());
            self.child = Some(command.spawn().context("run `tests/tools/install azurite` first")?);
            let address = self.address;
            wait_up_to(Duration::from_secs(30), "Azurite listens", || std::net::TcpStream::connect(address).is_ok());
        }
        Ok(())
    }

    /// Creates the container `filters`, with the signature that Azure calls shared key.
    fn create_container(&self) -> Result<u16> {
        let (account, key) = (AZURE[0].1, base64::engine::general_purpose::STANDARD.decode(AZURE[1].1)?);
        let headers = "x-ms-date:Mon, 30 Nov 2026 00:00:00 GMT\nx-ms-version:2021-08-06";
        let text = format!("PUT{}{headers}\n/{account}/{account}/filters\nrestype:container", "\n".repeat(12));
        let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, &key);
        let signature = aws_lc_rs::hmac::sign(&key, text.as_bytes());
        let signature = base64::engine::general_purpose::STANDARD.encode(signature.as_ref());
        let mut fields: Vec<String> = headers.lines().map(|line| line.replacen(':', ": ", 1)).collect();
        fields.push(format!("authorization: SharedKey {account}:{signature}"));
        let fields: Vec<&str> = fields.iter().map(String::as_str).collect();
        let path = format!("/{account}/filters?restype=container");
        Ok(Client::connect(self.address)?.send("PUT", &path, &fields, b"")?.status)
    }

    fn sources(&self) -> String {
        let account = AZURE[0].1;
        format!("sources: [{{prefix: \"az://filters/\", poll: 1s, endpoint: \"http://{}/{account}\"}}]\n", self.address)
    }
}

impl Drop for Azurite {
    fn drop(&mut self) {
        let _ = self.set_running(false);
    }
}

fn with_account(setup: Setup) -> Setup {
    AZURE.iter().fold(setup, |setup, (name, value)| setup.variable(name, Path::new(value)))
}

#[test]
#[ignore = "needs Azurite: `just sources`"]
fn azure_blobs_are_published_once_loaded_and_shared() -> Result<()> {
    let mut store = Azurite::start()?;
    let yaml = format!("filters: {{f: {{source: \"az://filters/f/1.0.0.wasm\"}}}}\n{}{ROUTES}", store.sources());
    let own = with_account(Setup::new(&yaml)?).with("one.wasm", component("one")?)?;
    let (config, file) = (own.write()?.display().to_string(), own.path("one.wasm").display().to_string());
    for expected in [0, 1] {
        let mut command = Command::new(repository().join("target/release/witgate"));
        command.args(["publish", "--config", &config, &file, "az://filters/f/1.0.0.wasm"]).envs(AZURE);
        let output = command.output()?;
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(expected), "{text}");
        ensure!(expected == 0 || text.contains("a published version never changes"), "{text}");
    }
    assert!(answers(&own.start()?, "one"));
    let keys = store.sources();
    let start = || with_account(setup(&keys, "az://filters/releases/")?).start();
    decisions_pass_through_a_bucket(start, |is_running| store.set_running(is_running))
}
