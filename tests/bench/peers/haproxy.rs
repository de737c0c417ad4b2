//! HAProxy with Lua (haproxy.cfg and haproxy.lua beside this file).

use std::fs;

use anyhow::{Context as _, Result};

use super::{Peer, Place, configure, free_address, running};
use crate::machine;

pub(crate) const SETTINGS: &str =
    "nbthread 1, no log, http-reuse always, pool-max-conn without limit, Lua action (`lua-load`)";

pub(super) fn start(place: &Place) -> Result<Peer> {
    let root = place.debian("haproxy", &["haproxy"], &["liblua", "libopentracing", "libpcre"])?;
    let folder = place.of("haproxy")?;
    let (plain, lua) = (free_address()?, free_address()?);
    let conf = folder.join("haproxy.cfg");
    fs::write(folder.join("api-key.lua"), include_str!("haproxy.lua"))?;
    let values = [
        ("FOLDER", folder.display().to_string()),
        ("ADDRESS", plain.to_string()),
        ("SECOND", lua.to_string()),
        ("UPSTREAM", place.upstream.to_string()),
    ];
    configure(include_str!("haproxy.cfg"), &values, &conf)?;
    let mut command = root.command("usr/sbin/haproxy");
    let mut process = place.spawn("haproxy", command.args(["-db", "-q", "-f"]).arg(conf))?;
    process.wait_for(lua)?;
    let version = machine::says(root.command("usr/sbin/haproxy").arg("-v")).context("no version")?;
    Ok(Peer {
        version: version.split(' ').filter(|word| *word != "version").take(2).collect::<Vec<_>>().join(" "),
        cases: vec![running("haproxy", plain, "/", &process), running("haproxy-lua", lua, "/", &process)],
        _process: process,
    })
}
