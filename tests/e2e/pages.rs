//! What the kernel does for a filter's memory: which of its pages are mapped, and that calls cost no page faults whatever the calls before them wrote.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result};
use harness::{Gateway, Setup, wait_up_to};

const PASSING: [&str; 2] = ["x-api-key: s3cret", "cookie: a=1"];

/// An image of 20 MiB.
const INTERPRETER: &str = "python";

/// `api-key` in this language, on one thread.
fn start(language: &str) -> Result<Gateway> {
    let yaml = "timeouts: {filters: 3s}\nupstreams: {echo: {builtin: echo}}\nfilters: {f: {source: f.wasm, timeout: 2s, config: {key: s3cret}}}\nroutes: [{filters: [f], upstream: echo}]";
    Setup::new(yaml)?.workers(1).with_guest("f.wasm", &format!("{language}/api-key"))?.start()
}

/// Page faults of the process so far that no disk was needed for (`minflt`, proc_pid_stat(5)).
fn faults(gateway: &Gateway) -> Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{}/stat", gateway.id()))?;
    let (_, numbers) = stat.rsplit_once(')').context("no stat")?;
    Ok(numbers.split_whitespace().nth(7).context("no faults")?.parse()?)
}

/// Memories' images in smaps: what may be written.
const IMAGE: &str = " rw-p ";
/// Machine code.
const CODE: &str = " r-xp ";

/// KiB that are mapped of files of compiled code with these permissions (proc_pid_smaps(5)), of how many.
fn mapped(gateway: &Gateway, permissions: &str) -> Result<(u64, u64)> {
    let maps = fs::read_to_string(format!("/proc/{}/smaps", gateway.id()))?;
    let (mut is_wanted, mut resident, mut size) = (false, 0, 0);
    let number = |text: &str| text.trim().trim_end_matches(" kB").parse::<u64>();
    for line in maps.lines() {
        if let (true, Some(rest)) = (is_wanted, line.strip_prefix("Rss:")) {
            resident += number(rest)?;
        } else if let (true, Some(rest)) = (is_wanted, line.strip_prefix("Size:")) {
            size += number(rest)?;
        } else if line.split_once(' ').is_some_and(|(range, _)| range.contains('-')) {
            is_wanted = line.contains(permissions) && line.ends_with(".cwasm");
        }
    }
    Ok((resident, size))
}

#[test]
fn a_rare_answer_costs_the_calls_after_it_no_page_faults() -> Result<()> {
    const CALLS: u64 = 50;
    let gateway = start(INTERPRETER)?;
    let mut client = gateway.client()?;
    let mut pass = || -> Result<u64> {
        let before = faults(&gateway)?;
        for _ in 0..CALLS {
            assert_eq!(client.get("/", &PASSING)?.status, 200);
        }
        Ok(faults(&gateway)? - before)
    };
    pass()?;
    // What this writes, beside what passing calls write, is in more pieces than are cleaned at once.
    assert_eq!(gateway.get("/", &["x-api-key: wrong"])?.status, 401);
    wait_up_to(Duration::from_secs(30), "calls without page faults", || pass().is_ok_and(|faults| faults < CALLS));
    Ok(())
}

#[test]
fn only_pages_that_calls_touch_are_mapped() -> Result<()> {
    let gateway = start(INTERPRETER)?;
    assert_eq!(gateway.get("/", &PASSING)?.status, 200);
    let (mapped, _) = mapped(&gateway, IMAGE)?;
    let how = gateway.logged("the pool of instances").concat();
    // 130 pages; with those around each, 1,300.
    assert!(mapped > 100, "{mapped} KiB");
    assert_eq!(mapped < 1500, how.contains("page by page"), "{mapped} KiB, {how}");
    Ok(())
}

#[test]
fn the_code_of_a_filter_that_is_not_large_is_there_before_its_first_call() -> Result<()> {
    let gateway = start("typescript")?;
    let (before, size) = mapped(&gateway, CODE)?;
    assert!(size > 1000, "{size} KiB");
    assert_eq!(before, size, "KiB");
    // CPython's is not, since calls need little of it.
    let (before, size) = mapped(&start(INTERPRETER)?, CODE)?;
    assert!(before < size / 2, "{before} of {size} KiB");
    Ok(())
}
