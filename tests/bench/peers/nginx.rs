//! nginx with its Lua module. Its configuration is nginx.conf in this folder.

use std::net::SocketAddr;

use anyhow::{Context as _, Result};

use super::process::{Environment, Peer, Ports, Process, configure, free_address, running_case};
use crate::machine;

pub(crate) const SETTINGS: &str = "worker_processes 1, access_log off, 256 keep-alive connections to the upstream, HTTP/1.1 without `Connection`, no limit of requests per connection, LuaJIT (`access_by_lua_block`)";

const PACKAGES: [&str; 2] = ["nginx", "libnginx-mod-http-lua"];
/// OpenResty's LuaJIT. Debian's other LuaJIT has the same file name and lacks functions that the
/// module needs.
const WITH: [&str; 4] = ["libnginx-mod-http-ndk", "lua-resty-", "libluajit2", "libpcre"];

pub(super) fn start(environment: &Environment) -> Result<Peer> {
    let root = environment.debian("nginx", &PACKAGES, &WITH)?;
    let folder = environment.folder_of("nginx")?;
    let (address, tls, http2) = (free_address()?, free_address()?, free_address()?);
    let text = |path: &str| root.path(path).display().to_string();
    let conf = folder.join("nginx.conf");
    let values = [
        ("FOLDER", folder.display().to_string()),
        ("MODULES", text("usr/lib/nginx/modules")),
        ("LUA", text("usr/share/lua/5.1")),
        ("ADDRESS", address.to_string()),
        ("TLS", tls.to_string()),
        ("HTTP2", http2.to_string()),
        ("CERTIFICATE", environment.certificate.display().to_string()),
        ("KEY", environment.key.display().to_string()),
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
        ports: Some(Ports { plain: address, tls, http2, path: "/transfer".into(), process: process.id() }),
        _process: process,
    })
}

/// nginx as the upstream of other gateways, until it is dropped. Its configuration is
/// nginx-upstream.conf.
#[derive(Debug)]
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    _process: Process,
}

/// Starts the upstream on the load's core. `/small` is a response of 1 KB, `/large` one of
/// `bytes`, and `/upload` answers with the number of bytes that it received.
pub(crate) fn upstream(environment: &Environment, bytes: u64) -> Result<Upstream> {
    let root = environment.debian("nginx", &PACKAGES, &WITH)?;
    let folder = environment.folder_of("nginx-upstream")?;
    let address = free_address()?;
    std::fs::write(folder.join("large"), vec![b'x'; usize::try_from(bytes)?])?;
    let text = |path: &str| root.path(path).display().to_string();
    let conf = folder.join("nginx.conf");
    let values = [
        ("FOLDER", folder.display().to_string()),
        ("MODULES", text("usr/lib/nginx/modules")),
        ("LUA", text("usr/share/lua/5.1")),
        ("ADDRESS", address.to_string()),
        ("SMALL", "x".repeat(1024)),
    ];
    configure(include_str!("nginx-upstream.conf"), &values, &conf)?;
    let mut command = root.command("usr/sbin/nginx");
    command.arg("-p").arg(&folder).args(["-e", "stderr", "-c"]).arg(conf);
    let mut process = environment.spawn_on(environment.cores.load, "nginx-upstream", &mut command)?;
    process.wait_for(address)?;
    Ok(Upstream { address, _process: process })
}
