//! The metrics `process_*` that Prometheus expects of every process, from /proc.
//!
//! They are read when they are asked for. What cannot be read is left out. This module does not
//! know: the gateway.

use std::fmt::Write as _;
use std::fs;

/// Ticks of a second in /proc/self/stat: always 100 on Linux (USER_HZ).
const TICKS_PER_SECOND: f64 = 100.0;

/// The metrics as OpenMetrics text without an end mark.
pub(super) fn metrics() -> String {
    let mut text = String::new();
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The second field is the name in parentheses, which may contain spaces.
    let fields: Vec<&str> = stat.rsplit_once(')').map_or(vec![], |(_, rest)| rest.split_whitespace().collect());
    let field = |number: usize| fields.get(number - 3).and_then(|field| field.parse::<f64>().ok());
    if let (Some(user), Some(system)) = (field(14), field(15)) {
        let seconds = (user + system) / TICKS_PER_SECOND;
        push(&mut text, "process_cpu_seconds", "counter", "User and system CPU time", Some("seconds"), seconds);
    }
    if let (Some(started), Some(boot)) = (field(22), boot_time()) {
        let seconds = boot + started / TICKS_PER_SECOND;
        push(&mut text, "process_start_time_seconds", "gauge", "Unix time of the start", Some("seconds"), seconds);
    }
    if let Some(bytes) = field(23) {
        push(&mut text, "process_virtual_memory_bytes", "gauge", "Virtual memory", Some("bytes"), bytes);
    }
    if let Some(kib) =
        line("/proc/self/status", "VmRSS:").and_then(|rest| rest.split_whitespace().next()?.parse::<f64>().ok())
    {
        push(&mut text, "process_resident_memory_bytes", "gauge", "Resident memory", Some("bytes"), kib * 1024.0);
    }
    if let Ok(open) = fs::read_dir("/proc/self/fd") {
        // Less the one that reads the folder.
        let open = open.count().saturating_sub(1) as f64;
        push(&mut text, "process_open_fds", "gauge", "Open file descriptors", None, open);
    }
    if let Some(max) =
        line("/proc/self/limits", "Max open files").and_then(|rest| rest.split_whitespace().next()?.parse().ok())
    {
        push(&mut text, "process_max_fds", "gauge", "The soft limit of open file descriptors", None, max);
    }
    text
}

fn push(text: &mut String, name: &str, kind: &str, help: &str, unit: Option<&str>, value: f64) {
    let suffix = if kind == "counter" { "_total" } else { "" };
    // Writing to a `String` cannot fail.
    let _ = write!(text, "# HELP {name} {help}.\n# TYPE {name} {kind}\n");
    if let Some(unit) = unit {
        let _ = writeln!(text, "# UNIT {name} {unit}");
    }
    let _ = writeln!(text, "{name}{suffix} {value}");
}

fn boot_time() -> Option<f64> {
    line("/proc/stat", "btime ")?.trim().parse().ok()
}

/// The rest of the line that begins so.
fn line(file: &str, start: &str) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    text.lines().find_map(|line| line.strip_prefix(start)).map(str::to_owned)
}
