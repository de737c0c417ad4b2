//! Signatures of filters: minisign beside files and in registries, cosign in registries. A wrong
//! key, no signature, a changed byte and a signature for another filter are refused.

use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use harness::file_server::{Answer, FileServer};
use harness::registry::{Registry, digest};
use harness::wat::{responder, with_manifest, with_section};
use harness::{Gateway, Setup, wait_until, witgate};

const ROUTES: &str = "upstreams: {echo: {builtin: echo}}\nroutes: [{filters: [f], upstream: echo}]\n";

/// A component with this name that answers with a text.
fn named(name: &str, text: &str) -> Result<Vec<u8>> {
    let manifest = format!(r#"{{"name":"{name}","version":"1.0.0","request":{{}}}}"#);
    Ok(with_manifest(responder(200, None, text)?, &manifest))
}

fn answers(gateway: &Gateway, text: &str) -> bool {
    gateway.get("/", &[]).is_ok_and(|response| response.text() == text)
}

fn minisign(arguments: &[&str]) -> Result<()> {
    let output = Command::new("minisign").args(arguments).output();
    let output = output.context("minisign cannot be started: run `tests/tools/install minisign` first")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// Makes the keys NAME.pub and NAME.key without a password.
fn generate(folder: &Path, name: &str) -> Result<()> {
    let path = |extension: &str| folder.join(format!("{name}.{extension}")).display().to_string();
    minisign(&["-G", "-W", "-f", "-p", &path("pub"), "-s", &path("key")])
}

/// Signs bytes with the key NAME.key. Returns the signature.
fn sign(folder: &Path, name: &str, bytes: &[u8], comment: &str) -> Result<String> {
    let (file, key) = (folder.join("signed"), folder.join(format!("{name}.key")));
    std::fs::write(&file, bytes)?;
    let (file, key) = (file.display().to_string(), key.display().to_string());
    minisign(&["-S", "-W", "-s", &key, "-m", &file, "-t", comment])?;
    Ok(std::fs::read_to_string(format!("{file}.minisig"))?)
}

#[test]
fn a_file_needs_a_signature_of_these_bytes_by_this_key_for_this_filter() -> Result<()> {
    let keys = tempfile::tempdir()?;
    generate(keys.path(), "own")?;
    generate(keys.path(), "stranger")?;
    let sign = |key: &str, bytes: &[u8], comment: &str| sign(keys.path(), key, bytes, comment);
    let (one, two, other) = (named("f", "one")?, named("f", "two")?, named("g", "two")?);
    let yaml = format!(
        "filters: {{f: {{source: f.wasm}}}}\nsources: [{{prefix: f, signatures: require, keys: [{{file: own.pub}}]}}]\n{ROUTES}"
    );
    let setup = |signature: &str| -> Result<Setup> {
        Setup::new(&yaml)?
            .with("f.wasm", &one)?
            .with("f.wasm.minisig", signature)?
            .with("own.pub", std::fs::read(keys.path().join("own.pub"))?)
    };
    let good = sign("own", &one, "release")?;
    let gateway = setup(&good)?.start()?;
    assert!(answers(&gateway, "one"));
    let mut changed = two.clone();
    let last = changed.len() - 1;
    changed[last] ^= 1;
    let cases: [(&str, &[u8], String, &str); 6] = [
        ("the signature of other bytes", &two, good, "the signature does not match the file"),
        ("another key", &two, sign("stranger", &two, "release")?, "no key in `keys` made the signature"),
        ("one byte changed", &changed, sign("own", &two, "release")?, "the signature does not match the file"),
        (
            "another filter's manifest",
            &other,
            sign("own", &other, "release")?,
            "it is for the filter \\\"g\\\", not for f",
        ),
        ("another filter's comment", &two, sign("own", &two, "filter:g")?, "it is for the filter \\\"g\\\", not for f"),
        ("no signature", &two, "hello".into(), "the signature is not in the format of minisign"),
    ];
    for (name, bytes, signature, expected) in cases {
        gateway.replace("f.wasm.minisig", signature)?;
        gateway.replace("f.wasm", bytes)?;
        wait_until(name, || gateway.logged("was refused").iter().any(|line| line.contains(expected)));
        let line = gateway.logged("was refused").into_iter().find(|line| line.contains(expected)).unwrap_or_default();
        ensure!(line.contains("\"reason\":\"signature\""), "{name}: {line}");
        assert!(answers(&gateway, "one"), "{name}");
    }
    std::fs::remove_file(gateway.path("f.wasm.minisig"))?;
    gateway.wait_logged("the filter is not signed", 1);
    // The signature that was missing arrives.
    gateway.replace("f.wasm", &two)?;
    gateway.replace("f.wasm.minisig", sign("own", &two, "filter:f version:2")?)?;
    wait_until("the signed version serves", || answers(&gateway, "two"));
    // Another key in the place of the trusted one: the running version stays, unsigned as it is.
    gateway.replace("own.pub", std::fs::read(keys.path().join("stranger.pub"))?)?;
    gateway.wait_logged("the configuration was refused", 1);
    assert!(answers(&gateway, "two"));

    let log = setup(&sign("stranger", &one, "release")?)?.start_refused()?;
    ensure!(log.contains("no key in `keys` made the signature (signature)"), "{log}");
    Ok(())
}

#[test]
fn a_missing_signature_is_a_warning_if_the_operator_says_so() -> Result<()> {
    let keys = tempfile::tempdir()?;
    generate(keys.path(), "own")?;
    let (server, one) = (FileServer::start()?, named("f", "one")?);
    server.put("/f.wasm", one.clone());
    let prefix = server.url("/");
    let yaml = |mode: &str| {
        format!(
            "filters: {{f: {{source: \"{prefix}f.wasm\"}}}}\nsources: [{{prefix: \"{prefix}\", plain_http: true, poll: 1s, signatures: {mode}, keys: [{{file: own.pub}}]}}]\n{ROUTES}"
        )
    };
    let public = std::fs::read(keys.path().join("own.pub"))?;
    let gateway = Setup::new(&yaml("warn"))?.with("own.pub", &public)?.start()?;
    assert!(answers(&gateway, "one"));
    gateway.wait_logged("the filter has no valid signature and is used", 1);
    let log = Setup::new(&yaml("require"))?.with("own.pub", &public)?.start_refused()?;
    ensure!(log.contains("the filter is not signed (signature)"), "{log}");
    server.put("/f.wasm.minisig", sign(keys.path(), "own", &one, "x")?);
    wait_until("the signature is noticed", || !gateway.logged("the signature is valid").is_empty());
    server.set("/f.wasm.minisig", Answer::Announced(1 << 20));
    wait_until("a large signature is a failure", || {
        gateway
            .admin("/filters")
            .is_ok_and(|response| response.text().contains("the signature is larger than 8192 bytes"))
    });
    Ok(())
}

/// An ECDSA key pair, and its public key as cosign writes it.
fn ecdsa() -> Result<(EcdsaKeyPair, String)> {
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).map_err(|_| anyhow::anyhow!("no key"))?;
    // SubjectPublicKeyInfo of a point of P-256 (RFC 5480).
    let mut der = hex::decode("3059301306072a8648ce3d020106082a8648ce3d030107034200")?;
    der.extend_from_slice(pair.public_key().as_ref());
    let encoded = base64::engine::general_purpose::STANDARD.encode(der);
    Ok((
        pair,
        format!("-----BEGIN PUBLIC KEY-----\n{}\n{}\n-----END PUBLIC KEY-----\n", &encoded[..64], &encoded[64..]),
    ))
}

/// Pushes a signature in the layout of cosign.
fn cosign(registry: &Registry, pair: &EcdsaKeyPair, repository: &str, image: &str, signed: &str) -> Result<()> {
    let payload = format!(
        r#"{{"critical":{{"identity":{{"docker-reference":"{}/{signed}"}},"image":{{"docker-manifest-digest":"{image}"}},"type":"cosign container image signature"}},"optional":null}}"#,
        registry.address
    );
    let signature = pair.sign(&SystemRandom::new(), payload.as_bytes()).map_err(|_| anyhow::anyhow!("no signature"))?;
    let signature = base64::engine::general_purpose::STANDARD.encode(signature);
    let blob = registry.push_blob(repository, payload.as_bytes())?;
    let layer = format!(
        r#"{{"mediaType":"application/vnd.dev.cosign.simplesigning.v1+json","digest":"{blob}","size":{},"annotations":{{"dev.cosignproject.cosign/signature":"{signature}"}}}}"#,
        payload.len()
    );
    registry.push_layers(repository, &format!("{}.sig", image.replace(':', "-")), &layer, "")?;
    Ok(())
}

#[test]
fn an_image_needs_a_signature_of_its_digest_in_its_repository() -> Result<()> {
    let registry = Registry::start()?;
    let ((own, public), (stranger, _)) = (ecdsa()?, ecdsa()?);
    let (one, two, three) = (named("f", "one")?, named("f", "two")?, named("f", "three")?);
    let push = |bytes: &[u8]| registry.push("f", "tag", "application/wasm", bytes, "");
    let yaml = format!(
        "filters: {{f: {{source: \"oci://{0}/f:tag\"}}}}\nsources: [{{prefix: \"oci://{0}/\", plain_http: true, poll: 1s, signatures: require, keys: [{{file: cosign.pub}}]}}]\n{ROUTES}",
        registry.address
    );
    let image = push(&one)?;
    let log = Setup::new(&yaml)?.with("cosign.pub", &public)?.start_refused()?;
    ensure!(log.contains("the filter is not signed (signature)"), "{log}");
    cosign(&registry, &own, "f", &image, "f")?;
    let gateway = Setup::new(&yaml)?.with("cosign.pub", &public)?.start()?;
    assert!(answers(&gateway, "one"));

    let refused = |expected: &str| -> Result<()> {
        wait_until(expected, || gateway.logged("was refused").iter().any(|line| line.contains(expected)));
        ensure!(answers(&gateway, "one"), "{expected}: the version before stays");
        Ok(())
    };
    let second = push(&two)?;
    refused("the filter is not signed")?;
    cosign(&registry, &stranger, "f", &second, "f")?;
    refused("no key in `keys` made the signature")?;
    cosign(&registry, &own, "f", &second, "g")?;
    refused(&format!("it is for the repository \\\"{}/g\\\"", registry.address))?;
    let third = push(&three)?;
    // The valid signature of another image.
    cosign(&registry, &own, "f", &image, "f")?;
    let payload_of_first = format!("sha256-{}.sig", third.trim_start_matches("sha256:"));
    cosign_copy(&registry, &own, &image, &payload_of_first)?;
    refused("it is for the image")?;
    push(&two)?;
    cosign(&registry, &own, "f", &second, "f")?;
    wait_until("the signed image serves", || answers(&gateway, "two"));
    Ok(())
}

/// Puts the signature of one image at the tag of another.
fn cosign_copy(registry: &Registry, pair: &EcdsaKeyPair, image: &str, tag: &str) -> Result<()> {
    let payload = format!(
        r#"{{"critical":{{"identity":{{"docker-reference":"{}/f"}},"image":{{"docker-manifest-digest":"{image}"}},"type":"cosign container image signature"}},"optional":null}}"#,
        registry.address
    );
    let signature = pair.sign(&SystemRandom::new(), payload.as_bytes()).map_err(|_| anyhow::anyhow!("no signature"))?;
    let signature = base64::engine::general_purpose::STANDARD.encode(signature);
    let blob = registry.push_blob("f", payload.as_bytes())?;
    let layer = format!(
        r#"{{"mediaType":"application/vnd.dev.cosign.simplesigning.v1+json","digest":"{blob}","size":1,"annotations":{{"dev.cosignproject.cosign/signature":"{signature}"}}}}"#
    );
    registry.push_layers("f", tag, &layer, "")?;
    Ok(())
}

#[test]
fn a_published_signature_arrives_with_the_image() -> Result<()> {
    let (registry, folder) = (Registry::start()?, tempfile::tempdir()?);
    generate(folder.path(), "own")?;
    let one = named("f", "one")?;
    let file = folder.path().join("f.wasm");
    std::fs::write(&file, &one)?;
    std::fs::write(folder.path().join("f.wasm.minisig"), sign(folder.path(), "own", &one, "release")?)?;
    let location = format!("oci://{}/f:1.0.0", registry.address);
    let (code, text) = witgate(["publish", "--plain-http", &file.display().to_string(), &location])?;
    assert_eq!((code, text.contains("with its signature")), (Some(0), true), "{text}");
    let yaml = format!(
        "filters: {{f: {{source: \"{location}\"}}}}\nsources: [{{prefix: \"oci://{}/\", plain_http: true, signatures: require, keys: [{{file: own.pub}}]}}]\n{ROUTES}",
        registry.address
    );
    let gateway = Setup::new(&yaml)?.with("own.pub", std::fs::read(folder.path().join("own.pub"))?)?.start()?;
    assert!(answers(&gateway, "one"));
    Ok(())
}

#[test]
fn denied_components_are_refused_and_inspect_says_so() -> Result<()> {
    let (one, two) = (named("f", "one")?, named("f", "two")?);
    let sha256 = digest(&two).trim_start_matches("sha256:").to_owned();
    let yaml = format!("deny: [{sha256}]\nfilters: {{f: {{source: f.wasm}}}}\n{ROUTES}");
    let setup = Setup::new(&yaml)?.with("f.wasm", &one)?.with("two.wasm", &two)?;
    let (config, file) = (setup.write()?, setup.path("two.wasm"));
    let (code, text) = witgate(["inspect", "--config", &config.display().to_string(), &file.display().to_string()])?;
    ensure!(code == Some(0) && text.contains("denied    the component with the sha256"), "{text}");
    let gateway = setup.start()?;
    gateway.replace("f.wasm", &two)?;
    let line = gateway.wait_logged("was refused", 1).pop().unwrap_or_default();
    ensure!(line.contains("\"reason\":\"denied\"") && line.contains(&sha256), "{line}");
    assert!(answers(&gateway, "one"));
    Ok(())
}

#[test]
fn a_component_with_a_denied_package_in_its_sbom_is_refused() -> Result<()> {
    let sbom = |version: &str| -> Result<Vec<u8>> {
        let mut encoder = flate2::write::ZlibEncoder::new(vec![], flate2::Compression::fast());
        let json = format!(r#"{{"packages":[{{"name":"left-pad","version":"{version}","source":"registry"}}]}}"#);
        encoder.write_all(json.as_bytes())?;
        Ok(encoder.finish()?)
    };
    let with_sbom =
        |version: &str| Ok::<_, anyhow::Error>(with_section(named("f", version)?, ".dep-v0", &sbom(version)?));
    let yaml = format!("deny_packages: [\"left-pad@1.2.0\"]\nfilters: {{f: {{source: f.wasm}}}}\n{ROUTES}");
    let gateway = Setup::new(&yaml)?.with("f.wasm", with_sbom("1.1.0")?)?.start()?;
    assert!(answers(&gateway, "1.1.0"), "another version of the package");
    gateway.replace("f.wasm", with_sbom("1.2.0")?)?;
    let line = gateway.wait_logged("was refused", 1).pop().unwrap_or_default();
    ensure!(line.contains("it contains the package left-pad 1.2.0, which is in `deny_packages`"), "{line}");
    let (code, text) = witgate(["inspect", &gateway.path("f.wasm").display().to_string()])?;
    assert_eq!((code, text.contains("package   left-pad 1.2.0")), (Some(0), true), "{text}");
    Ok(())
}

#[test]
fn the_component_of_an_upstream_needs_a_signature_for_this_upstream() -> Result<()> {
    let keys = tempfile::tempdir()?;
    generate(keys.path(), "own")?;
    let component = harness::http_component("hello")?;
    let yaml = "upstreams: {app: {component: {source: app.wasm}}}\nsources: [{prefix: app, signatures: require, keys: [{file: own.pub}]}]\nroutes: [{upstream: app}]";
    let setup = |comment: &str| -> Result<Setup> {
        Setup::new(yaml)?
            .with("app.wasm", &component)?
            .with("app.wasm.minisig", sign(keys.path(), "own", &component, comment)?)?
            .with("own.pub", std::fs::read(keys.path().join("own.pub"))?)
    };
    let (code, text) = setup("filter:other")?.check()?;
    assert_eq!((code, text.contains("it is for the filter \"other\", not for app")), (Some(1), true), "{text}");
    let log = setup("filter:other")?.start_refused()?;
    ensure!(log.contains("(signature)"), "{log}");
    assert_eq!(setup("filter:app")?.start()?.get("/", &[])?.text(), "Hello, WASI!");
    Ok(())
}
