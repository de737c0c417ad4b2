//! Takes away what a process does not need: the network, files, other processes, new programs.
//!
//! Landlock limits files and TCP ports, as far as the kernel knows it; seccomp refuses system calls
//! with an error. Both last until the process ends and hold for its later threads. So a process
//! enters the sandbox while it has one thread, and before it reads untrusted files.
//!
//! This module does not know: what the process does.

use std::collections::BTreeMap;
use std::path::Path;

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetStatus, Scope,
};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    apply_filter,
};

/// The newest version of Landlock whose restrictions are asked for.
const LANDLOCK: ABI = ABI::V6;
/// Files of the system that tell the number of processors.
const PROCESSOR_FILES: [&str; 3] = ["/sys/fs/cgroup", "/proc/self/cgroup", "/proc/self/mountinfo"];

/// System calls that a compiler never makes: the network, new programs, other processes, the
/// kernel's own objects, and those with a record of exploits.
const DENIED: &[i64] = &[
    libc::SYS_socket,
    libc::SYS_socketpair,
    libc::SYS_connect,
    libc::SYS_bind,
    libc::SYS_listen,
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_sendmmsg,
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_pidfd_open,
    libc::SYS_pidfd_getfd,
    libc::SYS_pidfd_send_signal,
    libc::SYS_kcmp,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_reboot,
    libc::SYS_open_by_handle_at,
    libc::SYS_name_to_handle_at,
    libc::SYS_fanotify_init,
    libc::SYS_mknodat,
    libc::SYS_personality,
    libc::SYS_setuid,
    libc::SYS_setgid,
    libc::SYS_setreuid,
    libc::SYS_setresuid,
    libc::SYS_setgroups,
    libc::SYS_capset,
    libc::SYS_acct,
    libc::SYS_swapon,
    libc::SYS_quotactl,
];

/// Enters the sandbox. Only the files below `folders` stay accessible, and open descriptors.
/// Returns what holds, for the log.
///
/// # Errors
/// A message if the kernel has a mechanism and refuses its rules.
pub fn enter(folders: &[&Path]) -> Result<String, String> {
    let files = limit_files(folders).map_err(|error| format!("landlock: {error}"))?;
    let calls = limit_system_calls().map_err(|error| format!("seccomp: {error}"))?;
    Ok(format!("{files}, {calls}"))
}

fn limit_files(folders: &[&Path]) -> Result<&'static str, landlock::RulesetError> {
    let all = AccessFs::from_all(LANDLOCK);
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(all)?
        .handle_access(AccessNet::from_all(LANDLOCK))?
        .scope(Scope::from_all(LANDLOCK))?
        .create()?;
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let mut allowed: Vec<(&Path, BitFlags<AccessFs>)> = vec![];
    allowed.extend(folders.iter().map(|folder| (*folder, all & !BitFlags::from(AccessFs::Execute))));
    allowed.extend(PROCESSOR_FILES.iter().map(|file| (Path::new(*file), read)));
    for (path, access) in allowed {
        // A path that does not exist needs no rule.
        if let Ok(opened) = PathFd::new(path) {
            let access = if path.is_dir() { access } else { access & AccessFs::from_file(LANDLOCK) };
            rules = rules.add_rule(PathBeneath::new(opened, access))?;
        }
    }
    Ok(match rules.restrict_self()?.ruleset {
        RulesetStatus::FullyEnforced => "landlock",
        RulesetStatus::PartiallyEnforced => "landlock of an older kernel",
        RulesetStatus::NotEnforced => "no landlock",
    })
}

fn limit_system_calls() -> Result<&'static str, String> {
    let refuse = SeccompAction::Errno(libc::EPERM as u32);
    // The C library falls back from clone3, whose flags a filter cannot read, to clone.
    let missing = SeccompAction::Errno(libc::ENOSYS as u32);
    let clone3 = BTreeMap::from([(libc::SYS_clone3, vec![])]);
    let mut denied: BTreeMap<i64, Vec<SeccompRule>> = DENIED.iter().map(|call| (*call, vec![])).collect();
    denied.insert(libc::SYS_clone, vec![new_process().map_err(|error| error.to_string())?]);
    let filters = [(clone3, missing), (denied, refuse)].map(|(rules, action)| compile(rules, action));
    for filter in filters {
        match apply_filter(&filter?) {
            Ok(()) => {}
            Err(seccompiler::Error::Seccomp(error) | seccompiler::Error::Prctl(error))
                if error.raw_os_error() == Some(libc::EINVAL) =>
            {
                return Ok("no seccomp");
            }
            Err(error) => return Err(error.to_string()),
        }
    }
    Ok("seccomp")
}

/// A clone that makes a process instead of a thread.
fn new_process() -> Result<SeccompRule, seccompiler::BackendError> {
    let thread = libc::CLONE_THREAD as u64;
    let is_no_thread = SeccompCondition::new(0, SeccompCmpArgLen::Qword, SeccompCmpOp::MaskedEq(thread), 0)?;
    SeccompRule::new(vec![is_no_thread])
}

fn compile(rules: BTreeMap<i64, Vec<SeccompRule>>, action: SeccompAction) -> Result<BpfProgram, String> {
    let arch = std::env::consts::ARCH.try_into().map_err(|error: seccompiler::BackendError| error.to_string())?;
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, action, arch).map_err(|error| error.to_string())?;
    filter.try_into().map_err(|error: seccompiler::BackendError| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs in a thread of its own, which the sandbox holds for alone.
    #[test]
    fn a_sandboxed_thread_has_no_network_and_starts_no_program_but_threads() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().to_owned();
        let inside = std::thread::spawn(move || -> anyhow::Result<String> {
            rustix::thread::set_no_new_privs(true)?;
            let holds = enter(&[&path]).map_err(anyhow::Error::msg)?;
            anyhow::ensure!(std::net::TcpListener::bind("127.0.0.1:0").is_err(), "no socket");
            anyhow::ensure!(std::net::TcpStream::connect("127.0.0.1:1").is_err(), "no connection");
            anyhow::ensure!(std::process::Command::new("/bin/true").status().is_err(), "no program");
            std::fs::write(path.join("f"), "x")?;
            if holds.starts_with("landlock") {
                anyhow::ensure!(std::fs::read("/etc/hostname").is_err(), "no other file");
            }
            anyhow::ensure!(std::thread::spawn(|| 7).join().is_ok_and(|seven| seven == 7), "threads");
            Ok(holds)
        });
        let holds = inside.join().map_err(|_| anyhow::anyhow!("the sandboxed thread panicked"))??;
        assert!(holds.ends_with("seccomp"), "{holds}");
        Ok(())
    }
}
