//! Other tools at the same registry and object store: what they push is loaded, what witgate
//! published they pull, and what cosign signed counts. `just sources` installs the tools, which
//! takes minutes, and runs these tests.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use harness::registry::Registry;
use harness::wat::{responder, with_manifest};
use harness::{Gateway, Setup, repository, wait_until, witgate};

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

/// An object store process. Drop ends it.
struct Versitygw(Child);

impl Drop for Versitygw {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
#[ignore = "needs versitygw: `just sources`"]
fn a_second_object_store_refuses_to_replace_an_object() -> Result<()> {
    let folder = tempfile::tempdir()?;
    std::fs::create_dir_all(folder.path().join("data/filters"))?;
    let address = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let mut command = Command::new(repository().join("target/tools/versitygw"));
    command.args(["--quiet", "--port", &address.to_string(), "posix"]).arg(folder.path().join("data"));
    command.env("ROOT_ACCESS_KEY", "witgate").env("ROOT_SECRET_KEY", "witgate-secret");
    let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let _server = Versitygw(child.context("run `tests/tools/install versitygw` first")?);
    wait_until("the object store listens", || std::net::TcpStream::connect(address).is_ok());
    let yaml = format!(
        "filters: {{f: {{source: \"s3://filters/f/1.0.0.wasm\"}}}}\nsources: [{{prefix: \"s3://filters/\", endpoint: \"http://{address}\", region: us-east-1, access_key: witgate, secret_key: witgate-secret}}]\n{ROUTES}"
    );
    let setup = Setup::new(&yaml)?.with("one.wasm", component("one")?)?.with("two.wasm", component("two")?)?;
    let config = setup.write()?.display().to_string();
    for (file, expected) in [("one.wasm", 0), ("two.wasm", 1)] {
        let file = setup.path(file).display().to_string();
        let (code, text) = witgate(["publish", "--config", &config, &file, "s3://filters/f/1.0.0.wasm"])?;
        assert_eq!(code, Some(expected), "{text}");
    }
    assert!(answers(&setup.start()?, "one"));
    Ok(())
}
