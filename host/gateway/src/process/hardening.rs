//! Keeps the gateway's memory, which contains keys and credentials, from other processes of its
//! user and from core dumps.
//!
//! This module does not know: what is in memory.

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

/// Set to 1, it allows debuggers and core dumps.
const DEBUG_VARIABLE: &str = "WITGATE_ALLOW_DEBUGGING";

/// Forbids core dumps and debuggers of other processes, except root's. What the process opens in
/// /proc about itself must be open before.
///
/// # Errors
/// The error of the system call.
pub fn protect_memory() -> std::io::Result<()> {
    if std::env::var_os(DEBUG_VARIABLE).is_some_and(|value| value == "1") {
        return Ok(());
    }
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    Ok(())
}

/// Warns if the process has more rights than it needs.
pub fn warn_of_root() {
    if rustix::process::geteuid().is_root() {
        tracing::warn!(
            "the gateway runs as root: an attacker who takes it over has the whole host; run it as a user of its own (for ports below 1024 with CAP_NET_BIND_SERVICE)"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_core_dump_and_no_debugger() -> std::io::Result<()> {
        protect_memory()?;
        assert_eq!(rustix::process::dumpable_behavior()?, DumpableBehavior::NotDumpable);
        assert_eq!(rustix::process::getrlimit(Resource::Core).maximum, Some(0));
        Ok(())
    }
}
