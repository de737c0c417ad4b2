//! `admin:`: the address and the socket for metrics, health, readiness and commands, who may read
//! them, and who may give commands.
//!
//! This module does not know: what is served there.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::listeners::Listener;
use crate::telemetry::{Secret, read_token};
use crate::tls::{Alpn, ListenerTls};
use crate::values::socket_address;
use crate::yaml::Section;

/// Names of client certificates with a role.
const CLIENTS_MAX: usize = 100;
/// The system stores a socket's path with 107 bytes at most; a temporary name is longer.
const SOCKET_PATH_BYTES_MAX: usize = 90;

/// The admin listener.
#[derive(Clone, PartialEq, Default)]
pub struct Admin {
    /// Where it listens over TCP. Default 127.0.0.1:9901; `None` for `off` and `false`.
    pub address: Option<SocketAddr>,
    /// The path of a UNIX socket. Its mode is 0600: whoever may open it may do everything. Default
    /// none.
    pub socket: Option<PathBuf>,
    /// TLS of the address. Default none.
    pub tls: Option<ListenerTls>,
    /// Whoever knows it may do everything. Default none: then only this host may.
    pub token: Option<Secret>,
    /// Whoever knows it may read. Default none: then everybody on this host may.
    pub read_token: Option<Secret>,
    /// What the certificates of clients may do.
    pub clients: AdminClients,
}

/// Names of client certificates, by role: `dns:…`, `uri:…` or `email:…` of an alternative name, or
/// a whole subject such as `CN=ops,O=Acme`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AdminClients {
    /// They may do everything.
    pub change: Vec<String>,
    /// They may read.
    pub read: Vec<String>,
}

impl Admin {
    pub(crate) fn read(top: &Section, base: &Path) -> Self {
        if top.is_off("admin") || top.is_false("admin") {
            return Self::default();
        }
        top.nested("admin", |section| {
            let is_off = section.is_off("address");
            let address = if is_off { None } else { section.scalar("address", socket_address) };
            let default = SocketAddr::from(([127, 0, 0, 1], 9901));
            let admin = Self {
                address: if is_off { None } else { Some(address.unwrap_or(default)) },
                socket: section.file("socket", base),
                tls: section.optional("tls", |section| read_tls(section, base)),
                token: read_token(section, "token"),
                read_token: read_token(section, "read_token"),
                clients: section.nested("clients", |section| AdminClients {
                    change: section.list("change", client),
                    read: section.list("read", client),
                }),
            };
            admin.check(section);
            admin
        })
    }

    /// Whether clients are asked for certificates.
    pub fn asks_for_certificates(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.client_auth.is_some())
    }

    fn check(&self, section: &Section) {
        let is_open = self.address.is_some_and(|address| !address.ip().is_loopback());
        if is_open && self.token.is_none() && self.read_token.is_none() && !self.asks_for_certificates() {
            let message = "others can reach this address: add `token`, which may do everything, or `read_token`, which may read, or `tls` with `client_auth`; or use 127.0.0.1";
            section.error_at(&["address"], message);
        }
        if self.token.is_some() && self.token == self.read_token {
            section.error_at(&["read_token"], "equals token: the token decides the role, so the two must differ");
        }
        if self.socket.as_ref().is_some_and(|path| path.as_os_str().len() > SOCKET_PATH_BYTES_MAX) {
            section.error_at(&["socket"], format!("the path of a socket has at most {SOCKET_PATH_BYTES_MAX} bytes"));
        }
        if self.tls.is_some() && self.address.is_none() {
            section.error_at(&["tls"], "has no effect without an address: remove it, or remove `address: off`");
        }
        let AdminClients { change, read } = &self.clients;
        if change.len() + read.len() > CLIENTS_MAX {
            section.error_at(&["clients"], format!("has more than {CLIENTS_MAX} names"));
        }
        let has_clients = !change.is_empty() || !read.is_empty();
        if has_clients && !self.asks_for_certificates() {
            section.error_at(
                &["clients"],
                "has no effect, because clients are not asked for certificates: add `tls: {client_auth: {ca: PATH}}`",
            );
        }
        if self.asks_for_certificates() && !has_clients {
            section.error_at(
                &["tls", "client_auth"],
                "no certificate has a role: list names under `clients.change` or `clients.read`",
            );
        }
        if let Some(both) = change.iter().find(|name| read.contains(name)) {
            section.error_at(
                &["clients", "read"],
                format!("{both} is also in `change`, which includes reading: remove one"),
            );
        }
    }
}

/// No listener has the address of the admin listener, or the port of it on all interfaces.
pub(crate) fn check_address(top: &Section, admin: &Admin, listeners: &[Listener]) {
    let Some(own) = admin.address.filter(|address| address.port() != 0) else { return };
    let is_same = |address: SocketAddr| {
        address.port() == own.port()
            && (address.ip() == own.ip()
                || (address.is_ipv4() == own.is_ipv4() && (address.ip().is_unspecified() || own.ip().is_unspecified())))
    };
    for (index, listener) in listeners.iter().enumerate() {
        if listener.address.tcp().is_some_and(is_same) {
            let message = format!("the admin listener is at {own}: choose another port, or set admin.address");
            top.error_at(&[&format!("listeners[{index}]"), "address"], message);
        }
    }
}

/// A listener with the name that certificates of the admin listener have in metrics and messages.
pub(crate) fn check_names(top: &Section, admin: &Admin, listeners: &[Listener]) {
    let taken = listeners.iter().position(|listener| listener.name == "admin").filter(|_| admin.tls.is_some());
    if let Some(index) = taken {
        let message = "admin.tls needs this name for its certificates: choose another one";
        top.error_at(&[&format!("listeners[{index}]"), "name"], message);
    }
}

/// The listener speaks HTTP/1.1 only.
fn read_tls(section: &Section, base: &Path) -> ListenerTls {
    let tls = ListenerTls::read(section, base);
    if section.has("protocols") {
        section.error_at(&["protocols"], "the admin listener speaks HTTP/1.1 only: remove it");
    }
    ListenerTls { protocols: vec![Alpn::Http1], ..tls }
}

fn client(text: &str) -> Result<String, String> {
    match text.split_once(':') {
        Some(("dns", name)) if !name.is_empty() => Ok(text.to_ascii_lowercase()),
        Some(("uri" | "email", name)) if !name.is_empty() => Ok(text.to_owned()),
        _ if text.contains('=') => Ok(text.to_owned()),
        _ => Err("write a name of the certificate such as dns:ops.example.com, uri:spiffe://example.com/ops or email:ops@example.com, or its whole subject such as CN=ops".into()),
    }
}
