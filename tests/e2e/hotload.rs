//! Reloads of filters and configuration: a valid file is served without a dropped connection, an
//! invalid one is refused and the previous one stays in service.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use anyhow::{Result, ensure};
use harness::wat::{component, filter, module, responder, with_manifest};
use harness::{Gateway, Setup, wait_until};
use rustix::process::Signal;

const YAML: &str =
    "filters: {f: {source: f.wasm}}\nupstreams: {echo: {builtin: echo}}\nroutes: [{filters: [f], upstream: echo}]";

fn start() -> Result<Gateway> {
    Setup::new(YAML)?.with("f.wasm", responder(200, None, "one")?)?.start()
}

/// Whether the gateway responds with this body.
fn responds_with(gateway: &Gateway, text: &str) -> bool {
    gateway.get("/", &[]).is_ok_and(|response| response.text() == text)
}

#[test]
fn a_new_version_serves_existing_connections() -> Result<()> {
    let gateway = start()?;
    let mut client = gateway.client()?;
    let port = client.local_addr()?;
    assert_eq!(client.get("/", &[])?.text(), "one");
    gateway.replace("f.wasm", responder(200, None, "two")?)?;
    wait_until("the new version serves", || client.get("/", &[]).is_ok_and(|response| response.text() == "two"));
    assert_eq!(client.local_addr()?, port);
    assert_eq!(gateway.metric("witgate_reloads_total{result=\"applied\"}")?, 1.0);
    Ok(())
}

#[test]
fn an_invalid_file_is_refused_with_its_reason_and_the_old_version_stays() -> Result<()> {
    let gateway = start()?;
    let valid = responder(200, None, "two")?;
    let mut flipped = valid.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 0x40;
    let keyvalue = "include request-filter; import keyvalue;";
    let imports_keyvalue = "(module (import \"witgate:gateway/keyvalue@0.1.0\" \"delete\" (func $delete (param i32 i32 i32)))
        (memory (export \"memory\") 1) (func (export \"cabi_realloc\") (param i32 i32 i32 i32) (result i32) (i32.const 8192))
        (func (export \"witgate:gateway/request-handler@0.1.0#handle-request\") (result i32)
          (call $delete (i32.const 0) (i32.const 1) (i32.const 1024)) (i32.const 0)))";
    let stranger = "import stranger: interface { hello: func(); } export other: interface { run: func(); }";
    let strange = "(module (import \"stranger\" \"hello\" (func $hello)) (func (export \"other#run\") (call $hello)))";
    let unknown = "import stranger: interface { hello: func(); } include request-filter;";
    let imports_unknown = "(module (import \"stranger\" \"hello\" (func $hello)) (memory (export \"memory\") 1)
        (func (export \"cabi_realloc\") (param i32 i32 i32 i32) (result i32) (i32.const 8192))
        (func (export \"witgate:gateway/request-handler@0.1.0#handle-request\") (result i32) (call $hello) (i32.const 0)))";
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("empty", vec![], "not-wasm"),
        ("text", b"hello".to_vec(), "not-wasm"),
        ("a core module", b"\0asm\x01\0\0\0".to_vec(), "core-module"),
        ("cut off", valid[..valid.len() - 20].to_vec(), "malformed"),
        ("one bit flipped", flipped, ""),
        ("another world", component(stranger, strange)?, "wrong-world"),
        ("an unknown import", component(unknown, imports_unknown)?, "wrong-world"),
        ("an import that is not granted", component(keyvalue, imports_keyvalue)?, "not-granted"),
        ("a start that traps", module("(func $s (unreachable)) (start $s)", "(i32.const 0)")?, "instantiate"),
        ("a start that never ends", module("(func $s (loop $l (br $l))) (start $s)", "(i32.const 0)")?, "instantiate"),
        ("4 GiB of memory", filter_with_4_gib()?, "limits"),
    ];
    for (before, (name, bytes, reason)) in cases.into_iter().enumerate() {
        gateway.replace("f.wasm", bytes)?;
        wait_until(name, || gateway.logged("was refused").len() == before + 1);
        let line = gateway.logged("was refused").pop().unwrap_or_default();
        println!("{name}: {line}");
        ensure!(line.contains(&format!("\"reason\":\"{reason}")), "{name}: {line}");
        ensure!(responds_with(&gateway, "one"), "{name}: the old version must stay in service");
    }
    gateway.replace("f.wasm", valid)?;
    wait_until("a valid file is served after invalid ones", || responds_with(&gateway, "two"));
    assert!(gateway.metric("witgate_filter_load_failures_total{filter=\"f\",reason=\"not-granted\"}")? == 1.0);
    Ok(())
}

/// A filter whose memory has the maximum size, 4 GiB.
fn filter_with_4_gib() -> Result<Vec<u8>> {
    component(
        "include request-filter;",
        "(module (memory (export \"memory\") 65536) (func (export \"cabi_realloc\") (param i32 i32 i32 i32) (result i32) (i32.const 0))
          (func (export \"witgate:gateway/request-handler@0.1.0#handle-request\") (result i32) (i32.const 0)))",
    )
}

#[test]
fn a_partially_written_file_is_refused_until_it_is_complete() -> Result<()> {
    let gateway = start()?;
    let bytes = responder(200, None, "two")?;
    let path = gateway.path("f.wasm");
    std::fs::write(&path, &bytes[..bytes.len() / 2])?;
    wait_until("the partial file is refused", || !gateway.logged("was refused").is_empty());
    assert!(responds_with(&gateway, "one"));
    std::fs::write(&path, &bytes)?;
    wait_until("the complete file is served", || responds_with(&gateway, "two"));
    Ok(())
}

#[test]
fn a_configuration_is_applied_completely_or_not_at_all() -> Result<()> {
    let setup = Setup::new(YAML)?;
    let with = |yaml: &str| setup.text(yaml);
    let valid =
        with(&format!("{YAML}\nlimits: {{in_flight: 7}}").replace("{filters: [f]", "{name: renamed, filters: [f]"));
    let invalid = with(&format!("{YAML}\nlimits: {{in_flite: 7}}"));
    let missing = with(&YAML.replace("f.wasm", "g.wasm"));
    let gateway = Setup::new(YAML)?.with("f.wasm", responder(200, None, "one")?)?.start()?;
    let running = std::fs::read_to_string(gateway.path("gateway.yaml"))?;
    // Each setup has its own state folder, and a reload cannot change it. So keep the running
    // one's.
    let state = |text: &str| text.replace(state_folder(text), state_folder(&running));
    for text in [invalid, missing] {
        let before = gateway.logged("was refused").len();
        gateway.replace("gateway.yaml", state(&text))?;
        wait_until("the configuration is refused", || gateway.logged("was refused").len() > before);
        assert!(responds_with(&gateway, "one"));
    }
    gateway.replace("gateway.yaml", state(&valid))?;
    wait_until("the valid configuration is applied", || {
        responds_with(&gateway, "one")
            && gateway
                .metric("witgate_requests_total{route=\"renamed\",method=\"GET\",status=\"200\"}")
                .is_ok_and(|n| n > 0.0)
    });
    Ok(())
}

/// The value of `state.directory` in a configuration.
fn state_folder(text: &str) -> &str {
    let start = text.find("directory: ").unwrap_or(0) + 11;
    &text[start..start + text[start..].find('}').unwrap_or(0)]
}

#[test]
fn a_hangup_signal_reloads_everything() -> Result<()> {
    let yaml = format!("reload: {{watch: false, interval: off}}\n{YAML}");
    let gateway = Setup::new(&yaml)?.with("f.wasm", responder(200, None, "one")?)?.start()?;
    gateway.replace("f.wasm", responder(200, None, "two")?)?;
    assert!(responds_with(&gateway, "one"));
    gateway.signal(Signal::HUP)?;
    wait_until("the new version serves", || responds_with(&gateway, "two"));
    Ok(())
}

#[test]
fn polling_finds_changes_without_a_file_watcher() -> Result<()> {
    let yaml = format!("reload: {{watch: false, interval: 100ms}}\n{YAML}");
    let gateway = Setup::new(&yaml)?.with("f.wasm", responder(200, None, "one")?)?.start()?;
    gateway.replace("f.wasm", responder(200, None, "two")?)?;
    wait_until("the new version serves", || responds_with(&gateway, "two"));
    Ok(())
}

#[test]
fn a_filter_whose_initial_memory_exceeds_its_limit_is_not_loaded() -> Result<()> {
    let yaml = YAML.replace("source: f.wasm", "source: f.wasm, memory: 128KiB");
    let error = Setup::new(&yaml)?.with("f.wasm", filter("(i32.const 0)")?)?.start().err();
    let error = error.map(|error| error.to_string()).unwrap_or_default();
    assert!(error.contains("starts with 192 KiB of memory, above its limit of 128 KiB"), "{error}");
    Ok(())
}

#[test]
fn version_and_digest_pins_are_enforced() -> Result<()> {
    let wasm = with_manifest(filter("(i32.const 0)")?, r#"{"name":"f","version":"1.2.3","request":{}}"#);
    for (pin, expected) in [
        ("version: 1.2.4", "the component's version is 1.2.3, but the configuration pins 1.2.4"),
        (&format!("sha256: {}", "0".repeat(64)), "but the configuration pins 0000"),
    ] {
        let yaml = YAML.replace("source: f.wasm", &format!("source: f.wasm, {pin}"));
        let error =
            Setup::new(&yaml)?.with("f.wasm", &wasm)?.start().err().map(|error| error.to_string()).unwrap_or_default();
        assert!(error.contains(expected), "{error}");
    }
    let yaml = YAML.replace("source: f.wasm", "source: f.wasm, version: 1.2.3");
    Setup::new(&yaml)?.with("f.wasm", &wasm)?.start()?;
    Ok(())
}

/// 50 keep-alive connections and 20 swaps: no request fails, and clients see both versions around
/// each swap.
#[test]
fn twenty_swaps_under_load_fail_no_request() -> Result<()> {
    const SWAPS: usize = 20;
    let gateway = Setup::new(YAML)?.with("f.wasm", responder(200, None, "0")?)?.start()?;
    let (stop, current) = (AtomicBool::new(false), AtomicUsize::new(0));
    let seen: Vec<Mutex<BTreeSet<usize>>> = (0..=SWAPS).map(|_| Mutex::default()).collect();
    let total = AtomicUsize::new(0);
    std::thread::scope(|scope| -> Result<()> {
        let load: Vec<_> = (0..50)
            .map(|_| {
                scope.spawn(|| -> Result<()> {
                    let mut client = gateway.client()?;
                    while !stop.load(Ordering::Relaxed) {
                        // Read before the request. The response may come from a later version, but
                        // never from one that the last completed swap replaced.
                        let swap = current.load(Ordering::SeqCst);
                        let response = client.get("/", &[])?;
                        ensure!(response.status == 200, "status {}", response.status);
                        let version: usize = response.text().parse()?;
                        ensure!(version + 1 >= swap, "version {version} served after swap {swap} was complete");
                        seen[swap].lock().unwrap().insert(version);
                        total.fetch_add(1, Ordering::Relaxed);
                    }
                    Ok(())
                })
            })
            .collect();
        for swap in 1..=SWAPS {
            wait_until("the previous version serves", || seen[swap - 1].lock().unwrap().contains(&(swap - 1)));
            current.store(swap, Ordering::SeqCst);
            wait_until("the old version still serves", || seen[swap].lock().unwrap().contains(&(swap - 1)));
            gateway.replace("f.wasm", responder(200, None, &swap.to_string())?)?;
            wait_until("the new version serves", || seen[swap].lock().unwrap().contains(&swap));
        }
        stop.store(true, Ordering::Relaxed);
        for thread in load {
            thread.join().unwrap()?;
        }
        Ok(())
    })?;
    println!("{} requests over {SWAPS} swaps, 0 failed", total.load(Ordering::Relaxed));
    for (swap, versions) in seen.iter().enumerate().skip(1) {
        let versions = versions.lock().unwrap();
        assert!(versions.contains(&(swap - 1)) && versions.contains(&swap), "swap {swap}: {versions:?}");
    }
    assert_eq!(gateway.metric("witgate_reloads_total{result=\"applied\"}")?, SWAPS as f64);
    Ok(())
}
