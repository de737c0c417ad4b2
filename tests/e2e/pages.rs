//! Page faults and mapped pages of filters: only pages that calls touch are mapped, and no call
//! pays page faults for what earlier calls wrote.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result};
use harness::{Gateway, Setup, wait_up_to};

/// Headers of a request that `api-key` lets pass.
const PASSING: [&str; 2] = ["x-api-key: s3cret", "cookie: a=1"];

/// A language whose memory image is large: CPython's has 20 MiB.
const INTERPRETER: &str = "python";

/// A gateway with one worker thread and `api-key` in this language.
fn start(language: &str) -> Result<Gateway> {
    let yaml = "timeouts: {filters: 3s}\nupstreams: {echo: {builtin: echo}}\nfilters: {f: {source: f.wasm, timeout: 2s, config: {key: s3cret}}}\nroutes: [{filters: [f], upstream: echo}]";
    Setup::new(yaml)?.workers(1).with_guest("f.wasm", &format!("{language}/api-key"))?.start()
}

/// Minor page faults of the process so far (`minflt`, proc_pid_stat(5)).
fn faults(gateway: &Gateway) -> Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{}/stat", gateway.id()))?;
    let (_, numbers) = stat.rsplit_once(')').context("stat has no command name")?;
    Ok(numbers.split_whitespace().nth(7).context("stat has no minflt")?.parse()?)
}

/// The permissions of memory images in smaps: readable and writable.
const IMAGE: &str = " rw-p ";
/// The permissions of machine code in smaps.
const CODE: &str = " r-xp ";

/// Resident and total KiB of the mappings of compiled files (`.cwasm`) with these permissions
/// (proc_pid_smaps(5)).
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
fn a_rare_response_costs_later_calls_no_page_faults() -> Result<()> {
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
    // The pages that this call writes, with those of passing calls, form more runs than one
    // clean-up handles.
    assert_eq!(gateway.get("/", &["x-api-key: wrong"])?.status, 401);
    wait_up_to(Duration::from_secs(30), "calls cause no page faults", || pass().is_ok_and(|faults| faults < CALLS));
    Ok(())
}

#[test]
fn only_pages_that_calls_touch_are_mapped() -> Result<()> {
    let gateway = start(INTERPRETER)?;
    assert_eq!(gateway.get("/", &PASSING)?.status, 200);
    let (mapped, _) = mapped(&gateway, IMAGE)?;
    let pool = gateway.logged("the pool of instances").concat();
    // A call touches 130 pages. With fault-around the kernel would map 1,300.
    assert!(mapped > 100, "{mapped} KiB");
    assert_eq!(mapped < 1500, pool.contains("page by page"), "{mapped} KiB, {pool}");
    Ok(())
}

#[test]
fn the_code_of_a_small_filter_is_mapped_before_its_first_call() -> Result<()> {
    let gateway = start("typescript")?;
    let (before, size) = mapped(&gateway, CODE)?;
    assert!(size > 1000, "{size} KiB");
    assert_eq!(before, size, "KiB");
    // CPython's code is too large to prefault, and calls execute little of it.
    let (before, size) = mapped(&start(INTERPRETER)?, CODE)?;
    assert!(before < size / 2, "{before} of {size} KiB");
    Ok(())
}
