//! Filters from servers: a registry, an object store and plain HTTP; pinned, replaced, absent,
//! slow and hostile. Each case shows the state and the message.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use harness::file_server::{Answer, FileServer};
use harness::object_store::ObjectStore;
use harness::registry::{Registry, digest};
use harness::wat::{responder, with_manifest};
use harness::{Gateway, Setup, refusing_address, wait_until, witgate};
use rustix::process::Signal;

const ROUTES: &str = "upstreams: {echo: {builtin: echo}}\nroutes: [{filters: [f], upstream: echo}]\n";

/// A component that answers with its version.
fn version(version: &str) -> Result<Vec<u8>> {
    let manifest = format!(r#"{{"name":"f","version":"{version}","request":{{}}}}"#);
    Ok(with_manifest(responder(200, None, version)?, &manifest))
}

fn sha256(bytes: &[u8]) -> String {
    digest(bytes).trim_start_matches("sha256:").to_owned()
}

/// A configuration with a filter at a location, and an entry of `sources` with these keys.
fn yaml(location: &str, filter: &str, source: &str) -> String {
    let prefix = location.split('/').take(3).collect::<Vec<_>>().join("/");
    format!(
        "filters: {{f: {{source: \"{location}\"{filter}}}}}\nsources: [{{prefix: \"{prefix}/\", {source}}}]\n{ROUTES}"
    )
}

const POLL: &str = "poll: 1s, plain_http: true";

fn answers(gateway: &Gateway, text: &str) -> bool {
    gateway.get("/", &[]).is_ok_and(|response| response.text() == text)
}

/// The source of the filter as `/filters` shows it.
fn source(gateway: &Gateway) -> Result<serde_json::Value> {
    Ok(gateway.admin("/filters")?.json()[0]["source"].clone())
}

/// Waits until a condition holds, and asks for a check meanwhile: after failures, the next check is
/// late.
fn check_until(gateway: &Gateway, what: &str, mut condition: impl FnMut() -> bool) {
    wait_until(what, || {
        // Two signals within half a second count as one.
        let _ = gateway.signal(Signal::HUP);
        std::thread::sleep(Duration::from_millis(300));
        condition()
    });
}

/// Waits until the last check failed, and returns why.
fn failure(gateway: &Gateway) -> Result<String> {
    wait_until("a check fails", || source(gateway).is_ok_and(|source| source["failure"].is_string()));
    Ok(source(gateway)?["failure"].as_str().unwrap_or_default().to_owned())
}

#[test]
fn a_registry_delivers_what_was_published_and_a_version_is_never_replaced() -> Result<()> {
    let mut registry = Registry::start()?;
    let folder = tempfile::tempdir()?;
    let publish = |bytes: &[u8], tag: &str| -> Result<(Option<i32>, String)> {
        let file = folder.path().join("f.wasm");
        std::fs::write(&file, bytes)?;
        let location = format!("oci://{}/team/f:{tag}", registry.address);
        witgate(["publish", "--plain-http", &file.display().to_string(), &location])
    };
    let (one, two) = (version("1.0.0")?, version("2.0.0")?);
    let (code, text) = publish(&one, "1.0.0")?;
    assert_eq!(code, Some(0), "{text}");
    let manifest = text.lines().find_map(|line| line.strip_prefix("manifest  ")).context("a digest")?.to_owned();
    ensure!(text.contains(&format!("sha256    {}", sha256(&one))), "{text}");
    ensure!(text.contains(&format!("f:1.0.0@{manifest}\", sha256: {}", sha256(&one))), "{text}");
    let (code, text) = publish(&two, "1.0.0")?;
    assert_eq!((code, text.contains("the tag 1.0.0 exists")), (Some(1), true), "{text}");
    let (code, text) = publish(&two, "2.0.0")?;
    assert_eq!(code, Some(0), "{text}");
    let (code, text) = publish(&two, "latest")?;
    assert_eq!((code, text.contains("name the version")), (Some(1), true), "{text}");

    // A tag that moves: another tool pushes it.
    registry.push("team/f", "stable", "application/wasm", &one, "")?;
    let location = format!("oci://{}/team/f:stable", registry.address);
    let mut gateway = Setup::new(&yaml(&location, "", POLL))?.start()?;
    assert!(answers(&gateway, "1.0.0"));
    let first = source(&gateway)?;
    assert_eq!(first["sha256"], sha256(&one));
    ensure!(first["tag"].as_str().is_some_and(|tag| tag.starts_with("sha256:")), "{first}");
    let moved = registry.push("team/f", "stable", "application/wasm", &two, "")?;
    wait_until("the tag moved", || answers(&gateway, "2.0.0"));
    assert_eq!(source(&gateway)?["tag"], moved);

    // Pinned by digest: the tag does not matter. The new configuration waits for its filter only.
    let pinned = format!("oci://{}/team/f:stable@{manifest}", registry.address);
    let text = std::fs::read_to_string(gateway.path("gateway.yaml"))?;
    gateway.replace("gateway.yaml", text.replace(&location, &pinned))?;
    wait_until("the pinned version serves", || answers(&gateway, "1.0.0"));

    // The registry is gone: at the start, the version on disk serves.
    registry.stop()?;
    gateway.restart()?;
    assert!(answers(&gateway, "1.0.0"));
    gateway.replace("gateway.yaml", &text)?;
    wait_until("the other version of the disk serves", || answers(&gateway, "2.0.0"));
    let why = failure(&gateway)?;
    ensure!(why.contains("Connection refused"), "{why}");
    assert_eq!(gateway.metric("witgate_filter_source_reached{filter=\"f\"}")?, 0.0);
    registry.restart()?;
    check_until(&gateway, "the source is reached again", || {
        source(&gateway).is_ok_and(|source| source["failure"].is_null())
    });
    gateway.wait_logged("the source can be reached again", 1);
    Ok(())
}

#[test]
fn layouts_of_other_tools_are_loaded_and_hostile_layers_are_refused() -> Result<()> {
    let registry = Registry::start()?;
    let (one, two) = (version("1.0.0")?, version("2.0.0")?);
    let archive = |files: &[(&str, &[u8])]| -> Result<Vec<u8>> {
        let mut tar = tar::Builder::new(flate2::write::GzEncoder::new(vec![], flate2::Compression::fast()));
        for (name, bytes) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            tar.append_data(&mut header, name, *bytes)?;
        }
        Ok(tar.into_inner()?.finish()?)
    };
    let gzip = "application/vnd.oci.image.layer.v1.tar+gzip";
    let location = format!("oci://{}/f:tag", registry.address);
    registry.push("f", "tag", gzip, &archive(&[("readme", b"x"), ("plugin.wasm", &one)])?, "")?;
    let gateway = Setup::new(&yaml(&location, "", POLL))?.start()?;
    assert!(answers(&gateway, "1.0.0"));
    let bomb = vec![0; 140 << 20];
    let cases: [(&str, Vec<u8>, &str); 4] = [
        (gzip, archive(&[("plugin.wasm", &bomb)])?, "larger than 128 MiB"),
        (gzip, archive(&[("other", &bomb), ("plugin.wasm", &one)])?, "unpacks to more than 130 MiB"),
        (gzip, archive(&[("readme", b"x")])?, "has no .wasm file"),
        ("text/plain", b"hello".to_vec(), "no layer is a component"),
    ];
    for (media_type, layer, expected) in cases {
        registry.push("f", "tag", media_type, &layer, "")?;
        check_until(&gateway, expected, || failure(&gateway).is_ok_and(|why| why.contains(expected)));
        println!("{expected}: {}", failure(&gateway)?);
        assert!(answers(&gateway, "1.0.0"), "{expected}");
    }
    // An index whose image for WebAssembly has the layer of wasm-to-oci.
    let image = registry.push("f", "image", "application/vnd.wasm.content.layer.v1+wasm", &two, "")?;
    let index = format!(
        "{{\"schemaVersion\":2,\"manifests\":[{{\"mediaType\":\"application/vnd.oci.image.manifest.v1+json\",\"digest\":\"{image}\",\"size\":1,\"platform\":{{\"architecture\":\"wasm\",\"os\":\"wasip2\"}}}}]}}"
    );
    registry.push_manifest("f", "tag", "application/vnd.oci.image.index.v1+json", &index)?;
    check_until(&gateway, "the image of the index serves", || answers(&gateway, "2.0.0"));
    Ok(())
}

#[test]
fn a_bucket_delivers_what_was_published_and_an_object_is_never_replaced() -> Result<()> {
    let mut store = ObjectStore::start()?;
    let (one, two) = (version("1.0.0")?, version("2.0.0")?);
    let keys = format!("poll: 1s, {}", store.keys());
    let location = |name: &str| format!("s3://filters/f/{name}.wasm");
    let setup = Setup::new(&yaml(&location("1.0.0"), "", &keys))?.with("one.wasm", &one)?.with("two.wasm", &two)?;
    let config = setup.write()?;
    let (code, text) = setup.check()?;
    assert_eq!((code, text.contains("is not in the bucket")), (Some(1), true), "{text}");
    let publish = |file: &str, name: &str| {
        let file = setup.path(file).display().to_string();
        witgate(["publish", "--config", &config.display().to_string(), &file, &location(name)])
    };
    for (file, name, expected) in [("one.wasm", "1.0.0", 0), ("two.wasm", "2.0.0", 0), ("two.wasm", "1.0.0", 1)] {
        let (code, text) = publish(file, name)?;
        assert_eq!(code, Some(expected), "{text}");
        ensure!(expected == 0 || text.contains("f/1.0.0.wasm exists"), "{text}");
    }
    let mut gateway = setup.start()?;
    assert!(answers(&gateway, "1.0.0"));
    assert_eq!(source(&gateway)?["sha256"], sha256(&one));

    // A digest that the object does not have: the configuration is refused as a whole.
    let text = std::fs::read_to_string(gateway.path("gateway.yaml"))?;
    let pinned = text.replace(&location("1.0.0"), &location("2.0.0"));
    let wrong = pinned.replace("wasm\"}", &format!("wasm\", sha256: {}}}", sha256(&one)));
    gateway.replace("gateway.yaml", wrong)?;
    let line = gateway.wait_logged("the configuration was refused", 1).pop().unwrap_or_default();
    ensure!(line.contains("but the configuration pins"), "{line}");
    assert!(answers(&gateway, "1.0.0"));
    gateway.replace("gateway.yaml", pinned.replace("wasm\"}", &format!("wasm\", sha256: {}}}", sha256(&two))))?;
    wait_until("the second version serves", || answers(&gateway, "2.0.0"));

    // Wrong credentials: the message does not show them, and the version stays.
    let stranger = std::fs::read_to_string(gateway.path("gateway.yaml"))?.replace("witgate-secret", "another-secret");
    gateway.replace("gateway.yaml", stranger)?;
    let why = failure(&gateway)?;
    ensure!(why.contains("refuses the credentials") && !why.contains("another-secret"), "{why}");
    store.stop()?;
    gateway.restart()?;
    assert!(answers(&gateway, "2.0.0"));
    assert!(!failure(&gateway)?.is_empty());
    Ok(())
}

#[test]
fn plain_http_uses_entity_tags_and_survives_every_answer() -> Result<()> {
    let (server, other) = (FileServer::start()?, FileServer::start()?);
    let (one, two) = (version("1.0.0")?, version("2.0.0")?);
    server.put("/f.wasm", one.clone());
    let keys = "poll: 1s, timeout: 2s, plain_http: true";
    let gateway = Setup::new(&yaml(&server.url("/f.wasm"), "", keys))?.start()?;
    assert!(answers(&gateway, "1.0.0"));
    wait_until("the entity tag is sent", || server.answered("/f.wasm", 304) > 0);
    assert_eq!(server.answered("/f.wasm", 200), 1, "an unchanged file is not sent again");
    other.put("/f.wasm", two.clone());
    let cases = [
        (Answer::Status(500), "answered 500"),
        (Answer::Status(404), "there is no such object"),
        (Answer::Announced(1 << 30), "larger than 128 MiB (1073741824 bytes)"),
        (Answer::Endless, "larger than 128 MiB (more bytes than announced)"),
        (Answer::Drip, "no complete response within 2s"),
        (Answer::Redirect("/f.wasm".into()), "more than 5 redirects"),
        (Answer::Redirect("https://example.com/f.wasm".into()), "changes the scheme"),
        (Answer::Redirect(other.url("/f.wasm")), "leads to the private address of 127.0.0.1"),
        (Answer::Redirect(other.url("/f.wasm").replace("127.0.0.1", "localhost")), "leads to the private address"),
    ];
    for (answer, expected) in cases {
        server.set("/f.wasm", answer);
        check_until(&gateway, expected, || failure(&gateway).is_ok_and(|why| why.contains(expected)));
        println!("{expected}: {}", failure(&gateway)?);
        assert!(answers(&gateway, "1.0.0"), "{expected}");
    }
    // Granted, the redirect leads to the other server.
    let text = std::fs::read_to_string(gateway.path("gateway.yaml"))?;
    gateway.replace("gateway.yaml", text.replace("plain_http: true", "plain_http: true, private_addresses: true"))?;
    wait_until("the redirect is followed", || answers(&gateway, "2.0.0"));
    // A component that is refused: the version before stays, and the configuration can change.
    server.put("/f.wasm", b"hello".to_vec());
    let line = gateway.wait_logged("the new file was refused", 1).pop().unwrap_or_default();
    ensure!(line.contains("not-wasm"), "{line}");
    let text = std::fs::read_to_string(gateway.path("gateway.yaml"))?;
    gateway.replace("gateway.yaml", format!("{text}limits: {{in_flight: 7}}\n"))?;
    gateway.wait_logged("the newest version was refused; the last good one is loaded", 1);
    assert!(answers(&gateway, "2.0.0"));
    Ok(())
}

#[test]
fn an_older_version_is_refused_unless_the_operator_allows_it() -> Result<()> {
    let server = FileServer::start()?;
    server.put("/f.wasm", version("1.10.0")?);
    let mut gateway = Setup::new(&yaml(&server.url("/f.wasm"), "", POLL))?.start()?;
    server.put("/f.wasm", version("1.9.0")?);
    let line = gateway.wait_logged("the new file was refused", 1).pop().unwrap_or_default();
    ensure!(line.contains("\"reason\":\"downgrade\"") && line.contains("but 1.10.0 was loaded"), "{line}");
    gateway.restart()?;
    assert!(answers(&gateway, "1.10.0"), "a restart does not forget");
    let text = std::fs::read_to_string(gateway.path("gateway.yaml"))?;
    gateway.replace("gateway.yaml", text.replace("f.wasm\"}", "f.wasm\", allow_downgrade: true}"))?;
    wait_until("the operator allows it", || answers(&gateway, "1.9.0"));
    Ok(())
}

#[test]
fn an_absent_source_without_a_version_on_disk_is_named_and_delays_nothing_else() -> Result<()> {
    let address = refusing_address()?;
    let absent = format!("http://{address}/f.wasm");
    let log = Setup::new(&yaml(&absent, "", POLL))?.start_refused()?;
    ensure!(log.contains(&absent) && log.contains("no version of it is on disk"), "{log}");

    // A slow server delays the filters that come from it, and no others.
    let server = FileServer::start()?;
    server.put("/f.wasm", version("1.0.0")?);
    server.set("/slow.wasm", Answer::Drip);
    let gateway = Setup::new(&yaml(&server.url("/f.wasm"), "", POLL))?.start()?;
    let text = std::fs::read_to_string(gateway.path("gateway.yaml"))?;
    let slow = format!("filters: {{g: {{source: \"{}\"}}, f:", server.url("/slow.wasm"));
    gateway.replace("gateway.yaml", text.replace("filters: {f:", &slow))?;
    wait_until("the slow file is asked for", || server.answered("/slow.wasm", 200) > 0);
    server.put("/f.wasm", version("1.1.0")?);
    wait_until("the other filter is replaced meanwhile", || answers(&gateway, "1.1.0"));
    assert!(gateway.logged("the configuration").is_empty(), "the new configuration still waits");
    Ok(())
}

#[test]
fn a_plain_location_needs_the_operator() -> Result<()> {
    let text = format!("filters: {{f: {{source: \"http://127.0.0.1:1/f.wasm\"}}}}\n{ROUTES}");
    let (code, text) = Setup::new(&text)?.check()?;
    assert_eq!((code, text.contains("plain_http: true")), (Some(1), true), "{text}");
    Ok(())
}
