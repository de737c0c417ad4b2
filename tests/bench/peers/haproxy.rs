//! HAProxy with a Lua action. Its configuration is haproxy.cfg and haproxy.lua in this folder.

use std::fs;

use anyhow::{Context as _, Result};

use super::process::{Environment, Peer, Ports, configure, free_address, running_case};
use crate::machine;

pub(crate) const SETTINGS: &str =
    "nbthread 1, no log, http-reuse always, pool-max-conn without limit, Lua action (`lua-load`)";

pub(super) fn start(environment: &Environment) -> Result<Peer> {
    let root = environment.debian("haproxy", &["haproxy"], &["liblua", "libopentracing", "libpcre"])?;
    let folder = environment.folder_of("haproxy")?;
    let (plain, lua) = (free_address()?, free_address()?);
    let (tls, http2) = (free_address()?, free_address()?);
    let pem = [&environment.certificate, &environment.key]
        .map(fs::read_to_string)
        .into_iter()
        .collect::<Result<String, _>>()?;
    fs::write(folder.join("tls.pem"), pem)?;
    let conf = folder.join("haproxy.cfg");
    fs::write(folder.join("api-key.lua"), include_str!("haproxy.lua"))?;
    let values = [
        ("FOLDER", folder.display().to_string()),
        ("ADDRESS", plain.to_string()),
        ("SECOND", lua.to_string()),
        ("TLS", tls.to_string()),
        ("HTTP2", http2.to_string()),
        ("UPSTREAM", environment.upstream.to_string()),
    ];
    configure(include_str!("haproxy.cfg"), &values, &conf)?;
    let mut command = root.command("usr/sbin/haproxy");
    let mut process = environment.spawn("haproxy", command.args(["-db", "-q", "-f"]).arg(conf))?;
    process.wait_for(lua)?;
    let version =
        machine::first_line(root.command("usr/sbin/haproxy").arg("-v")).context("HAProxy prints no version")?;
    Ok(Peer {
        version: version.split(' ').filter(|word| *word != "version").take(2).collect::<Vec<_>>().join(" "),
        cases: vec![running_case("haproxy", plain, "/", &process), running_case("haproxy-lua", lua, "/", &process)],
        ports: Some(Ports { plain, tls, http2, path: String::new(), process: process.id() }),
        _process: process,
    })
}
