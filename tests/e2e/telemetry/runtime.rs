//! Changes of the logs while the gateway runs.

use anyhow::Result;
use harness::{Setup, wait_until};
use rustix::process::Signal;

/// Only the signal reloads: the watcher would reload the same change a second time.
const ECHO: &str = "reload: {watch: false, interval: off}\nupstreams: {echo: {builtin: echo}}\nroutes: [{name: all, match: {path: /a}, upstream: echo}]";

#[test]
fn a_reload_changes_the_level_and_the_access_log() -> Result<()> {
    let gateway = Setup::new(ECHO)?.level("info").start()?;
    assert_eq!(gateway.get("/b", &[])?.status, 404);
    let reload = |level: &str, access: &str| -> Result<()> {
        let setup = Setup::new(ECHO)?.level(level);
        let setup = if access.is_empty() { setup } else { setup.access_log(access) };
        let state = gateway.path("state").display().to_string();
        let own = setup.path("state").display().to_string();
        gateway.replace("gateway.yaml", setup.text(ECHO).replace(&own, &state))?;
        let before = gateway.logged("is in service").len();
        gateway.signal(Signal::HUP)?;
        wait_until("the configuration is in service", || gateway.logged("is in service").len() > before);
        Ok(())
    };
    reload("info,witgate=debug", "fields: [path]")?;
    assert!(gateway.logged("no-route").is_empty(), "debug lines were off");
    assert_eq!(gateway.get("/b", &[])?.status, 404);
    gateway.wait_logged("no-route", 1);
    assert_eq!(gateway.wait_accessed("/b", 1), ["{\"path\":\"/b\"}"]);
    reload("info", "fields: [status]")?;
    assert_eq!(gateway.get("/c", &[])?.status, 404);
    gateway.wait_accessed("{\"status\":404}", 1);
    assert_eq!(gateway.logged("no-route").len(), 1, "debug lines are off again");
    reload("info", "")?;
    assert_eq!(gateway.get("/d", &[])?.status, 404);
    let before = gateway.logged("was refused").len();
    gateway.replace("gateway.yaml", Setup::new(ECHO)?.level("witgate=loud").text(ECHO))?;
    gateway.signal(Signal::HUP)?;
    wait_until("an invalid level is refused", || gateway.logged("was refused").len() > before);
    assert_eq!(gateway.accessed("").len(), 2, "the access log is off");
    Ok(())
}

#[test]
fn the_admin_listener_changes_the_level() -> Result<()> {
    let gateway = Setup::new(ECHO)?.level("info").start()?;
    let debug_lines = || gateway.logged("no-route").len();
    let level = |level: &[&str]| -> Result<(Option<i32>, String)> {
        let admin = gateway.admin.to_string();
        let arguments = ["ctl", "--admin", &admin, "level"];
        harness::witgate(arguments.iter().copied().chain(level.iter().copied()))
    };
    assert_eq!(gateway.get("/b", &[])?.status, 404);
    assert_eq!(level(&["info,witgate=debug"])?, (Some(0), "the level is info,witgate=debug\n".into()));
    assert_eq!(gateway.get("/b", &[])?.status, 404);
    gateway.wait_logged("no-route", 1);
    let (code, text) = level(&["loud"])?;
    assert!(code == Some(1) && text.contains("the levels are"), "{text}");
    assert_eq!(level(&[])?, (Some(0), "the level is info\n".into()));
    assert_eq!(gateway.get("/b", &[])?.status, 404);
    assert_eq!(debug_lines(), 1);
    Ok(())
}
