//! Signatures of images by identities that Sigstore certifies, with a private authority and log.
//! Another identity, another issuer, a certificate of another time, and changed entries are
//! refused.

use anyhow::{Result, ensure};
use harness::registry::Registry;
use harness::sigstore::{NOON, Signer, Sigstore};
use harness::wat::{responder, with_manifest};
use harness::{Gateway, Setup, wait_until};

const ROUTES: &str = "upstreams: {echo: {builtin: echo}}\nroutes: [{filters: [f], upstream: echo}]\n";
const ALWAYS: [&str; 2] = ["{\"start\":\"2020-01-01T00:00:00Z\"}", "{\"start\":\"2020-01-01T00:00:00.000Z\"}"];

fn component(text: &str) -> Result<Vec<u8>> {
    Ok(with_manifest(responder(200, None, text)?, r#"{"name":"f","version":"1.0.0","request":{}}"#))
}

fn yaml(registry: &Registry, identity: &str) -> String {
    format!(
        "filters: {{f: {{source: \"oci://{0}/f:tag\"}}}}\nsources: [{{prefix: \"oci://{0}/\", plain_http: true, poll: 1s, signatures: require, identities: [{{identity: \"{identity}\", issuer: \"https://ci.test\"}}], trusted_root: {{file: trusted_root.json}}}}]\n{ROUTES}",
        registry.address
    )
}

fn answers(gateway: &Gateway, text: &str) -> bool {
    gateway.get("/", &[]).is_ok_and(|response| response.text() == text)
}

/// Starts a gateway for an image with one signature. Returns its log if it refuses the image.
fn start(registry: &Registry, image: &str, identity: &str, root: &str, signature: &SignedBy<'_>) -> Result<String> {
    signature.0.sign(registry, "f", image, &signature.1)?;
    Setup::new(&yaml(registry, identity))?.with("trusted_root.json", root)?.start_refused()
}

struct SignedBy<'a>(&'a Sigstore, Signer<'a>);

#[test]
fn an_image_needs_a_signature_by_an_allowed_identity() -> Result<()> {
    let (registry, sigstore) = (Registry::start()?, Sigstore::new()?);
    let image = registry.push("f", "tag", "application/wasm", &component("one")?, "")?;
    let root = sigstore.trusted_root(ALWAYS)?;
    let default = Signer::default;
    for (signer, identity) in [
        (default(), "https://ci.test/acme/filters@refs/tags/v1"),
        (default(), "https://ci.test/acme/filters@refs/tags/*"),
        (Signer { identity: "ann@ci.test", ..default() }, "ann@ci.test"),
        (Signer { has_old_extension: true, ..default() }, "https://ci.test/acme/*"),
    ] {
        sigstore.sign(&registry, "f", &image, &signer)?;
        let gateway = Setup::new(&yaml(&registry, identity))?.with("trusted_root.json", &root)?.start()?;
        assert!(answers(&gateway, "one"), "{identity}");
        gateway.wait_logged("cosign: ", 1);
    }

    let gateway = Setup::new(&yaml(&registry, "https://ci.test/acme/*"))?.with("trusted_root.json", &root)?.start()?;
    let second = registry.push("f", "tag", "application/wasm", &component("two")?, "")?;
    gateway.wait_logged("the filter is not signed", 1);
    sigstore.sign(&registry, "f", &second, &Signer { issuer: "https://other.test", ..default() })?;
    let expected = "who is not in `identities`";
    wait_until(expected, || gateway.logged("was refused").iter().any(|line| line.contains(expected)));
    assert!(answers(&gateway, "one"), "the version before stays");
    sigstore.sign(&registry, "f", &second, &default())?;
    wait_until("the signed image serves", || answers(&gateway, "two"));
    Ok(())
}

#[test]
fn a_signature_that_proves_no_allowed_identity_is_refused() -> Result<()> {
    let (registry, sigstore, stranger) = (Registry::start()?, Sigstore::new()?, Sigstore::new()?);
    let image = registry.push("f", "tag", "application/wasm", &component("one")?, "")?;
    let root = sigstore.trusted_root(ALWAYS)?;
    let default = Signer::default;
    let day = 86_400;
    let cases = [
        (Signer { identity: "https://ci.test/acme/filters@refs/heads/x", ..default() }, "who is not in `identities`"),
        (Signer { identity: "ann@ci.test", ..default() }, "it is by \"ann@ci.test\" of \"https://ci.test\""),
        (Signer { issuer: "https://ci.test.evil.test", ..default() }, "who is not in `identities`"),
        (Signer { issuer: "https://ci.tes", has_old_extension: true, ..default() }, "who is not in `identities`"),
        (Signer { is_logged: false, ..default() }, "it has no entry of a transparency log"),
        (Signer { time: NOON + day, ..default() }, "was not valid at the time of its entry"),
        (Signer { time: NOON - day, ..default() }, "was not valid at the time of its entry"),
        (Signer { time: -1, ..default() }, "has no valid time"),
        (Signer { is_for_code: false, ..default() }, "its certificate is not valid"),
        (Signer { change: |payload| payload.replace("null", "{}"), ..default() }, "is that of another signature"),
        (
            Signer { change_entry: |entry| entry.replace("\"logIndex\":7", "\"logIndex\":8"), ..default() },
            "was changed, or the log did not sign it",
        ),
        (Signer { change_entry: |_| "{}".into(), ..default() }, "its entry of a transparency log is not valid"),
    ];
    for (signer, expected) in cases {
        let log =
            start(&registry, &image, "https://ci.test/acme/filters@refs/tags/*", &root, &SignedBy(&sigstore, signer))?;
        ensure!(log.contains(expected) && log.contains("(signature)"), "{expected}: {log}");
    }

    let identity = "https://ci.test/acme/*";
    let by_stranger = start(&registry, &image, identity, &root, &SignedBy(&stranger, default()))?;
    ensure!(by_stranger.contains("which is not in `trusted_root`"), "{by_stranger}");
    // The log is trusted, but not the authority.
    let mut mixed: serde_json::Value = serde_json::from_str(&root)?;
    let other: serde_json::Value = serde_json::from_str(&stranger.trusted_root(ALWAYS)?)?;
    mixed["certificateAuthorities"] = other["certificateAuthorities"].clone();
    let log = start(&registry, &image, identity, &mixed.to_string(), &SignedBy(&sigstore, default()))?;
    ensure!(log.contains("no authority of `trusted_root` issued its certificate"), "{log}");
    let ended = "{\"start\":\"2020-01-01T00:00:00Z\",\"end\":\"2026-05-31T00:00:00Z\"}";
    for (periods, expected) in [
        ([ended, ALWAYS[1]], "no authority of `trusted_root` is trusted for the time"),
        ([ALWAYS[0], ended], "does not trust that log"),
        (["{\"start\":\"yesterday\"}", ALWAYS[1]], "certificateAuthorities[0]: validFor"),
    ] {
        let root = sigstore.trusted_root(periods)?;
        let log = start(&registry, &image, identity, &root, &SignedBy(&sigstore, default()))?;
        ensure!(log.contains(expected), "{expected}: {log}");
    }
    let other = sigstore.with_another_log()?;
    let log = start(&registry, &image, identity, &root, &SignedBy(&other, default()))?;
    ensure!(log.contains("which is not in `trusted_root`"), "{log}");
    Ok(())
}
