//! nginx with its Lua module. Its configuration is nginx.conf in this folder.

use anyhow::{Context as _, Result};

use super::process::{Environment, Peer, configure, free_address, running_case};
use crate::machine;

pub(crate) const SETTINGS: &str = "worker_processes 1, access_log off, 256 keep-alive connections to the upstream, HTTP/1.1 without `Connection`, no limit of requests per connection, LuaJIT (`access_by_lua_block`)";

pub(super) fn start(environment: &Environment) -> Result<Peer> {
    // OpenResty's LuaJIT. Debian's other LuaJIT has the same file name and lacks functions that the
    // module needs.
    let with = ["libnginx-mod-http-ndk", "lua-resty-", "libluajit2", "libpcre"];
    let root = environment.debian("nginx", &["nginx", "libnginx-mod-http-lua"], &with)?;
    let folder = environment.folder_of("nginx")?;
    let address = free_address()?;
    let text = |path: &str| root.path(path).display().to_string();
    let conf = folder.join("nginx.conf");
    let values = [
        ("FOLDER", folder.display().to_string()),
        ("MODULES", text("usr/lib/nginx/modules")),
        ("LUA", text("usr/share/lua/5.1")),
        ("ADDRESS", address.to_string()),
        ("UPSTREAM", environment.upstream.to_string()),
    ];
    configure(include_str!("nginx.conf"), &values, &conf)?;
    let mut command = root.command("usr/sbin/nginx");
    let mut process =
        environment.spawn("nginx", command.arg("-p").arg(&folder).args(["-e", "stderr", "-c"]).arg(conf))?;
    process.wait_for(address)?;
    let version = machine::first_line(root.command("usr/sbin/nginx").arg("-v")).context("nginx prints no version")?;
    Ok(Peer {
        version: version.replace("nginx version: ", "").replace('/', " "),
        cases: vec![
            running_case("nginx", address, "/plain", &process),
            running_case("nginx-lua", address, "/lua", &process),
        ],
        _process: process,
    })
}
