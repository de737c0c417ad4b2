//! Files that gateway.yaml includes: they are read again when one changes, appears or disappears,
//! and a team's mistake keeps the configuration that works.

use anyhow::{Result, ensure};
use harness::{Gateway, Setup, wait_until};

const YAML: &str = "include: [{files: team-*.yaml, paths: [/t], upstreams: [echo]}]\n\
    upstreams: {echo: {builtin: echo}}\nroutes: [{match: {path: /own}, upstream: echo}]";

fn team_file(status: u16) -> String {
    format!("routes:\n- match: {{path: /t/{status}}}\n  respond: {{status: {status}}}\n")
}

fn status(gateway: &Gateway, path: &str) -> u16 {
    gateway.get(path, &[]).map_or(0, |response| response.status)
}

#[test]
fn included_files_are_read_again_when_one_changes_appears_or_disappears() -> Result<()> {
    let gateway = Setup::new(YAML)?.with("team-a.yaml", team_file(201))?.start()?;
    ensure!(status(&gateway, "/t/201") == 201 && status(&gateway, "/t/202") == 404);
    gateway.replace("team-a.yaml", team_file(202))?;
    wait_until("the change is in service", || status(&gateway, "/t/202") == 202);
    gateway.replace("team-b.yaml", team_file(203))?;
    wait_until("the new file is in service", || status(&gateway, "/t/203") == 203);
    ensure!(status(&gateway, "/t/202") == 202);
    std::fs::remove_file(gateway.path("team-a.yaml"))?;
    wait_until("the routes of the removed file are gone", || status(&gateway, "/t/202") == 404);
    Ok(())
}

#[test]
fn a_mistake_of_a_team_keeps_the_configuration_and_names_its_file() -> Result<()> {
    let gateway = Setup::new(YAML)?.with("team-a.yaml", team_file(201))?.start()?;
    gateway.replace("team-a.yaml", "routes:\n- {match: {path: /own/x}, upstream: echo}\n")?;
    let lines = gateway.wait_logged("team-a.yaml:2: routes[1].match", 1);
    ensure!(lines[0].contains("at or below /t"), "{lines:?}");
    ensure!(status(&gateway, "/t/201") == 201);
    Ok(())
}
