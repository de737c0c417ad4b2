//! nginx with its Lua module (nginx.conf beside this file).

use anyhow::{Context as _, Result};

use super::{Peer, Place, configure, free_address, running};
use crate::machine;

pub(crate) const SETTINGS: &str = "worker_processes 1, access_log off, 256 keep-alive connections to the upstream, HTTP/1.1 without `Connection`, no limit of requests per connection, LuaJIT (`access_by_lua_block`)";

pub(super) fn start(place: &Place) -> Result<Peer> {
    // LuaJIT of OpenResty: Debian's other one has the same file name and lacks what the module needs.
    let with = ["libnginx-mod-http-ndk", "lua-resty-", "libluajit2", "libpcre"];
    let root = place.debian("nginx", &["nginx", "libnginx-mod-http-lua"], &with)?;
    let folder = place.of("nginx")?;
    let address = free_address()?;
    let text = |path: &str| root.path(path).display().to_string();
    let conf = folder.join("nginx.conf");
    let values = [
        ("FOLDER", folder.display().to_string()),
        ("MODULES", text("usr/lib/nginx/modules")),
        ("LUA", text("usr/share/lua/5.1")),
        ("ADDRESS", address.to_string()),
        ("UPSTREAM", place.upstream.to_string()),
    ];
    configure(include_str!("nginx.conf"), &values, &conf)?;
    let mut command = root.command("usr/sbin/nginx");
    let mut process = place.spawn("nginx", command.arg("-p").arg(&folder).args(["-e", "stderr", "-c"]).arg(conf))?;
    process.wait_for(address)?;
    let version = machine::says(root.command("usr/sbin/nginx").arg("-v")).context("no version")?;
    Ok(Peer {
        version: version.replace("nginx version: ", "").replace('/', " "),
        cases: vec![running("nginx", address, "/plain", &process), running("nginx-lua", address, "/lua", &process)],
        _process: process,
    })
}
