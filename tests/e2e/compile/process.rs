//! The compiler process: its resource limits, its scheduling policy and its end.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use harness::wat::with_functions_of;
use harness::{Gateway, wait_until, wait_up_to};
use rustix::process::{Pid, Signal};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use super::{COMPILE_MAX, responds_with, start};

/// Field numbers of proc_pid_stat(5), which start at 1.
const NICE_FIELD: usize = 19;
const POLICY_FIELD: usize = 41;
/// The policy number of SCHED_IDLE (sched(7)).
const SCHED_IDLE: i32 = 5;

#[test]
fn the_compiler_is_a_child_process_that_ends_with_the_gateway() -> Result<()> {
    let mut gateway = start("")?;
    gateway.replace("f.wasm", with_functions_of(std::iter::repeat_n(20_000, 400))?)?;
    let mut child = None;
    wait_until("the gateway starts a compiler process", || {
        child = children(gateway.id()).pop();
        child.is_some()
    });
    let child = child.context("there is no compiler process")?;
    let of = |file: &str| std::fs::read_to_string(format!("/proc/{child}/{file}"));
    wait_until("the compiler has its limits", || {
        let limits = of("limits").unwrap_or_default();
        stat_field(child, POLICY_FIELD) == Some(SCHED_IDLE)
            && limits.lines().any(|line| line.starts_with("Max address space") && line.contains("2147483648"))
            && limits.lines().any(|line| line.starts_with("Max cpu time") && line.contains("120"))
    });
    ensure!(!of("environ")?.contains("PATH="), "the compiler must not inherit the environment");
    gateway.signal(Signal::KILL)?;
    gateway.wait(Duration::from_secs(10))?;
    wait_until("the compiler process ends", || !Path::new(&format!("/proc/{child}")).exists() || is_zombie(child));
    Ok(())
}

/// A busy core leaves no CPU time for SCHED_IDLE. The gateway then restarts the compiler with the
/// normal policy.
#[test]
fn a_starving_compiler_restarts_at_normal_priority() -> Result<()> {
    let gateway = start("")?;
    let [core, _] = first_core_and_rest()?;
    pin_to_core(gateway.id(), &core)?;
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // Without pinning the compiler does not starve, and the test fails.
            if sched_setaffinity(None, &core).is_ok() {
                while !stop.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            }
        });
        let seen = (|| {
            gateway.replace("f.wasm", with_functions_of(std::iter::repeat_n(20_000, 200))?)?;
            let mut policies = vec![];
            wait_up_to(COMPILE_MAX, "the compiler has the normal policy", || {
                let child = children(gateway.id()).pop();
                policies.extend(
                    child.and_then(|child| Some((stat_field(child, POLICY_FIELD)?, stat_field(child, NICE_FIELD)?))),
                );
                policies.last().is_some_and(|last| *last == (0, compiler_nice(&gateway)))
            });
            ensure!(
                policies.iter().any(|(policy, _)| *policy == SCHED_IDLE),
                "the compiler did not start as SCHED_IDLE: {policies:?}"
            );
            gateway.wait_logged("restarting it with low priority", 1);
            ensure!(responds_with(&gateway, "one"), "the old version must stay in service");
            Ok(())
        })();
        stop.store(true, Ordering::Relaxed);
        seen
    })
}

/// The ids of a process's children.
fn children(process: u32) -> Vec<u32> {
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{process}/task")) else { return vec![] };
    let of = |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
    let all: String = tasks.filter_map(Result::ok).map(of).collect();
    all.split_whitespace().filter_map(|id| id.parse().ok()).collect()
}

/// A field of `/proc/PID/stat`. The first after the command name is field 3.
fn stat_field(process: u32, field: usize) -> Option<i32> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    stat.rsplit(')').next()?.split(' ').nth(field - 2)?.parse().ok()
}

/// The first available core and the others. Both are the same if there is only one.
pub(super) fn first_core_and_rest() -> Result<[CpuSet; 2]> {
    let mut rest = sched_getaffinity(None)?;
    let core = (0..CpuSet::MAX_CPU).find(|core| rest.is_set(*core)).context("this process may use no core")?;
    let mut first = CpuSet::new();
    first.set(core);
    if rest.count() > 1 {
        rest.unset(core);
    }
    Ok([first, rest])
}

/// Pins all threads of a process to one core.
pub(super) fn pin_to_core(process: u32, core: &CpuSet) -> Result<()> {
    for task in std::fs::read_dir(format!("/proc/{process}/task"))? {
        sched_setaffinity(Pid::from_raw(task?.file_name().to_string_lossy().parse()?), core)?;
    }
    Ok(())
}

/// The nice value of a compiler with the normal policy.
fn compiler_nice(gateway: &Gateway) -> i32 {
    stat_field(gateway.id(), NICE_FIELD).map_or(0, |own| (own + 5).min(19))
}

fn is_zombie(process: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('Z'))
}
