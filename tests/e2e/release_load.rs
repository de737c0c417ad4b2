//! Releases under load: commands and reloads fail no request and leave nothing behind. With an
//! environment variable, the same tests run for long or print figures (see the justfile).

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use harness::wat::{header_setter, state_reporter};
use harness::{Gateway, Setup, wait_until};
use rustix::process::Signal;
use serde_json::Value;

fn version(number: u32, build: usize) -> Result<Vec<u8>> {
    state_reporter("", &[&format!("(i32.const {number})")], &format!("(drop (i32.const {build}))"))
}

fn yaml(release: &str, comment: usize) -> String {
    format!(
        "# {comment}\nfilters: {{f: {{source: f.wasm, timeout: 400ms, release: {release}}}}}\nupstreams: {{echo: {{builtin: echo}}}}\nroutes: [{{filters: [f], upstream: echo}}]"
    )
}

fn state(gateway: &Gateway) -> Value {
    gateway.admin("/releases").map(|response| response.json()[0].clone()).unwrap_or_default()
}

fn command(gateway: &Gateway, command: &str) -> Result<()> {
    let response = gateway.admin_client()?.send("POST", &format!("/releases/f/{command}"), &[], b"")?;
    ensure!(response.status == 200, "{command}: {} {}", response.status, response.text());
    Ok(())
}

/// KiB of memory, and open files.
fn resources(gateway: &Gateway) -> Result<(u64, usize)> {
    let status = fs::read_to_string(format!("/proc/{}/status", gateway.id()))?;
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let resident = resident.trim().trim_end_matches(" kB").parse()?;
    Ok((resident, fs::read_dir(format!("/proc/{}/fd", gateway.id()))?.count()))
}

/// `RELEASE_SOAK` rounds, by default 15: each is a reload, a rollback and a promotion, and each
/// tenth one a new version.
#[test]
fn a_thousand_changes_fail_no_request() -> Result<()> {
    let rounds: usize = std::env::var("RELEASE_SOAK").ok().and_then(|text| text.parse().ok()).unwrap_or(15);
    const RELEASE: &str = "{steps: [50%, 100%], hold: 1h, gates: {errors: 100%}}";
    let setup = Setup::new(&yaml(RELEASE, 0))?.with("f.wasm", version(1, 0)?)?;
    let text = |round| setup_text(&setup, RELEASE, round);
    let texts: Vec<String> = (1..=rounds).map(text).collect();
    let gateway = setup.start()?;
    gateway.replace("f.wasm", version(2, 1)?)?;
    wait_until("the release runs", || state(&gateway)["state"] == "releasing");
    command(&gateway, "promote")?;
    let (stop, requests) = (AtomicBool::new(false), AtomicU64::new(0));
    let began = Instant::now();
    std::thread::scope(|scope| -> Result<()> {
        let load = || -> Result<()> {
            let mut client = gateway.client()?;
            while !stop.load(Ordering::Relaxed) {
                let response = client.get("/", &[])?;
                ensure!(response.status == 200 && ["1", "2"].contains(&&*response.text()), "{}", response.status);
                requests.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        };
        let loads = [scope.spawn(load), scope.spawn(load)];
        let changes = change(&gateway, &texts, &requests);
        stop.store(true, Ordering::Relaxed);
        for load in loads {
            load.join().map_err(|_| anyhow::anyhow!("a client panicked"))??;
        }
        changes
    })?;
    println!("{} changes, {} requests, 0 failed, {:?}", 3 * rounds, requests.into_inner(), began.elapsed());
    Ok(())
}

fn setup_text(setup: &Setup, release: &str, round: usize) -> String {
    setup.text(&yaml(release, round))
}

/// Makes the changes, and compares memory and open files of the last ones with the first ones.
fn change(gateway: &Gateway, texts: &[String], requests: &AtomicU64) -> Result<()> {
    let mut baseline = None;
    for (round, text) in texts.iter().enumerate() {
        let before = requests.load(Ordering::Relaxed);
        command(gateway, "rollback")?;
        command(gateway, "promote")?;
        gateway.replace("gateway.yaml", text)?;
        gateway.signal(Signal::HUP)?;
        gateway.wait_logged("the configuration is in service", round + 1);
        if round % 10 == 9 {
            gateway.replace("f.wasm", version(2, round + 2)?)?;
            wait_until("the release runs", || state(gateway)["state"] == "releasing");
            command(gateway, "promote")?;
        }
        wait_until("requests between changes", || requests.load(Ordering::Relaxed) > before + 2);
        if round == texts.len() / 3 {
            baseline = Some(resources(gateway)?);
        }
    }
    let (memory, files) = baseline.context("a baseline")?;
    let mut last = (0, 0);
    wait_until("memory and open files are where they were", || {
        last = resources(gateway).unwrap_or_default();
        last.0 < memory + memory / 5 + 4096 && last.1 <= files + 4
    });
    println!("memory {memory} KiB, then {} KiB; open files {files}, then {}", last.0, last.1);
    Ok(())
}

/// Prints the time from a rollback to the first answer of the old version.
#[test]
fn a_rollback_serves_the_old_version_at_once() -> Result<()> {
    let gateway = Setup::new(&yaml("{hold: 1h}", 0))?.with("f.wasm", version(1, 0)?)?.start()?;
    gateway.replace("f.wasm", version(2, 0)?)?;
    wait_until("the release runs", || state(&gateway)["state"] == "releasing");
    let mut times = vec![];
    let mut client = gateway.client()?;
    for _ in 0..20 {
        command(&gateway, "promote")?;
        assert_eq!(client.get("/", &[])?.text(), "2");
        let began = Instant::now();
        std::thread::scope(|scope| -> Result<()> {
            let rollback = scope.spawn(|| command(&gateway, "rollback"));
            while client.get("/", &[])?.text() != "1" {}
            times.push(began.elapsed());
            rollback.join().map_err(|_| anyhow::anyhow!("a panic"))?
        })?;
    }
    times.sort();
    println!("rollback to the first old answer: median {:?}, slowest {:?}", times[10], times[19]);
    Ok(())
}

/// Processor time of the gateway for each request, with `RELEASE_CPU` requests in each round.
#[test]
fn processor_time_of_a_canary_and_of_a_shadow() -> Result<()> {
    let Some(requests) = std::env::var("RELEASE_CPU").ok().and_then(|text| text.parse::<u32>().ok()) else {
        return Ok(());
    };
    let start = |release: &str, replaces: bool| -> Result<Gateway> {
        let gateway =
            Setup::new(&yaml(release, 0))?.workers(1).with("f.wasm", header_setter("x-a", "1", "")?)?.start()?;
        if replaces {
            gateway.replace("f.wasm", header_setter("x-a", "1", "(drop (i32.const 7))")?)?;
            wait_until("the release runs", || state(&gateway)["state"] == "releasing");
        }
        Ok(gateway)
    };
    let gateways = [
        ("no release", start("{hold: 1h}", false)?),
        ("canary 50%", start("{hold: 1h, steps: [50%, 100%], sticky: {header: x-user}}", true)?),
        ("shadow 10%", start("{hold: 1h, shadow: {share: 10%}}", true)?),
        ("shadow 100%", start("{hold: 1h, shadow: {share: 100%}}", true)?),
    ];
    let mut totals = [Duration::ZERO; 4];
    const ROUNDS: u32 = 8;
    for round in 0..=ROUNDS {
        for (index, (_, gateway)) in gateways.iter().enumerate() {
            let mut client = gateway.client()?;
            let before = cpu(gateway)?;
            for user in 0..requests {
                ensure!(client.get("/", &[&format!("x-user: {user}")])?.status == 200);
            }
            // The first round warms up.
            if round > 0 {
                totals[index] += cpu(gateway)?.saturating_sub(before);
            }
        }
    }
    for (index, (name, _)) in gateways.iter().enumerate() {
        let each = totals[index].as_secs_f64() * 1e6 / f64::from(requests * ROUNDS);
        let more = totals[index].as_secs_f64() / totals[0].as_secs_f64() - 1.0;
        println!("{name}: {each:.1} µs of processor time a request ({:+.1}%)", more * 100.0);
    }
    Ok(())
}

/// Processor time of all threads. schedstat counts nanoseconds, where stat counts ticks of 10 ms.
fn cpu(gateway: &Gateway) -> Result<Duration> {
    let mut total = 0;
    for task in fs::read_dir(format!("/proc/{}/task", gateway.id()))? {
        let text = fs::read_to_string(task?.path().join("schedstat"))?;
        total += text.split_whitespace().next().context("schedstat")?.parse::<u64>()?;
    }
    Ok(Duration::from_nanos(total))
}
