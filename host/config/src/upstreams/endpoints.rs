//! `endpoints:`, `component:` or `builtin:` of an upstream: who answers.
//!
//! This module does not know: how a host name is resolved.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use http::uri::Authority;
use rustls::pki_types::ServerName;

use super::component::UpstreamComponent;
use crate::outbound::Direct;
use crate::yaml::{Node, Section, Value};

/// Balancing examines every endpoint for each request, so their number has a bound.
const ENDPOINTS_MAX: usize = 256;
const WEIGHT_MAX: u32 = 1000;

/// The servers of an upstream.
#[derive(Debug, Clone, PartialEq)]
pub enum UpstreamTarget {
    /// `endpoints:`, 1 to 256, all different.
    Endpoints(Vec<EndpointConfig>),
    /// `component:`: a WebAssembly component answers.
    Component(Box<UpstreamComponent>),
    /// `builtin: echo`: the gateway itself answers with the request as JSON. For first tests.
    Echo,
}

/// An endpoint and its weight.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointConfig {
    /// Where the endpoint is.
    pub address: EndpointAddress,
    /// Its share of the requests in proportion to the weights of the others. Default 1; 0 (no
    /// requests) to 1000.
    pub weight: u32,
}

/// Where a server is, or the name of several: `http://host:port`, `https://host:port`,
/// `srv+http://name`, `srv+https://name` or `unix:/path`. The gateway resolves names while it runs.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct EndpointAddress {
    /// What `host` is.
    pub kind: AddressKind,
    /// A name in lower case, an IP address (IPv6 without brackets), or the path of a socket.
    pub host: String,
    /// Default 80, for `https://` 443. 0 for SRV records, which have ports, and for UNIX sockets.
    pub port: u16,
    /// Whether the endpoint is `https://`; the same for all endpoints of an upstream.
    pub tls: bool,
}

/// The kinds of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AddressKind {
    /// A host name with A and AAAA records, or an IP address.
    Host,
    /// A name with SRV records (RFC 2782).
    Srv,
    /// The path of a UNIX socket.
    Unix,
}

impl fmt::Display for EndpointAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, host, port, .. } = self;
        match kind {
            AddressKind::Host => {}
            AddressKind::Srv => return formatter.write_str(host),
            AddressKind::Unix => return write!(formatter, "unix:{host}"),
        }
        if host.contains(':') { write!(formatter, "[{host}]:{port}") } else { write!(formatter, "{host}:{port}") }
    }
}

impl UpstreamTarget {
    pub(crate) fn read(upstream: &Section, base: &Path) -> Self {
        let builtin = upstream.choice("builtin", &[("echo", Self::Echo)], "the only builtin is echo");
        if ["endpoints", "component", "builtin"].into_iter().filter(|key| upstream.has(key)).count() != 1 {
            let message = "give one of endpoints, such as [\"http://127.0.0.1:9000\"], component, and builtin: echo";
            upstream.error(upstream.line(), "endpoints", message);
        }
        let component = UpstreamComponent::read(upstream, base).map(|component| Self::Component(Box::new(component)));
        builtin.or(component).unwrap_or_else(|| Self::Endpoints(read_endpoints(upstream)))
    }

    /// The component that answers, if one does.
    pub fn component(&self) -> Option<&UpstreamComponent> {
        if let Self::Component(component) = self { Some(component) } else { None }
    }

    /// The direct calls of a component.
    pub(crate) fn direct_calls(&self) -> impl Iterator<Item = &Direct> {
        self.component().into_iter().flat_map(|component| component.code.http.direct())
    }

    pub(crate) fn endpoints(&self) -> &[EndpointConfig] {
        if let Self::Endpoints(endpoints) = self { endpoints } else { &[] }
    }
}

fn read_endpoints(upstream: &Section) -> Vec<EndpointConfig> {
    let Some(node) = upstream.get("endpoints") else { return vec![] };
    let nodes = node.as_list();
    if nodes.is_empty() {
        upstream.error(node.line, "endpoints", "is empty: an upstream has at least one endpoint");
    }
    if nodes.len() > ENDPOINTS_MAX {
        let message = format!("{} endpoints: at most {ENDPOINTS_MAX} are allowed", nodes.len());
        upstream.error(node.line, "endpoints", message);
    }
    let mut endpoints: Vec<EndpointConfig> = vec![];
    for (index, node) in nodes.iter().take(ENDPOINTS_MAX).enumerate() {
        let Some(endpoint) = EndpointConfig::read(upstream, index, node) else { continue };
        if endpoints.iter().any(|other| other.address == endpoint.address) {
            let message = format!("{}: is listed twice: give it a weight instead", endpoint.address);
            upstream.error(node.line, &format!("endpoints[{index}]"), message);
        }
        if let Some(advice) = suspicious_ip(&endpoint.address.host) {
            upstream.warn(node.line, &format!("endpoints[{index}]"), format!("{}: {advice}", endpoint.address));
        }
        endpoints.push(endpoint);
    }
    if !endpoints.is_empty() && endpoints.iter().all(|endpoint| endpoint.weight == 0) {
        let message = "all weights are 0, so every request gets a 503: give one of them a weight";
        upstream.warn(node.line, "endpoints", message);
    }
    endpoints
}

impl EndpointConfig {
    /// `http://a:1`, or `{url: http://a:1, weight: 3}`.
    fn read<'a>(upstream: &Section<'a>, index: usize, node: &'a Node) -> Option<Self> {
        if let Value::Scalar { text, .. } = &node.value
            && has_password(text)
        {
            // The message does not quote the text, because it contains a password.
            let message = "the URL of an endpoint has no user and password: write them into a field of the request, \
                           such as headers: {request: {set: {authorization: {env: NAME}}}} in the route";
            upstream.error(node.line, &format!("endpoints[{index}]"), message);
            return None;
        }
        if matches!(node.value, Value::Scalar { .. }) || node.reference().is_some() {
            let address = upstream.value(&format!("endpoints[{index}]"), node, parse_url)?;
            return Some(Self { address, weight: 1 });
        }
        upstream.item("endpoints", index, node, |section| {
            section.require("url", "write http://host:port");
            let weight = section.number("weight", 0, WEIGHT_MAX).unwrap_or(1);
            Some(Self { address: section.scalar("url", parse_url)?, weight })
        })
    }
}

fn has_password(url: &str) -> bool {
    let authority = url.split_once("://").map_or(url, |(_, rest)| rest).split('/').next();
    !url.starts_with("unix:") && authority.is_some_and(|authority| authority.contains('@'))
}

/// What to write in place of a URL in the form of another gateway.
fn url_advice(text: &str) -> Option<String> {
    if text.contains(['$', '{']) {
        return Some("variables have no meaning in a text: write {env: NAME}, whose value is the whole URL".into());
    }
    let (scheme, rest) = text.split_once("://")?;
    match scheme {
        "ws" => Some(format!("a WebSocket begins as a request of HTTP: write http://{rest}")),
        "wss" => Some(format!("a WebSocket begins as a request of HTTP: write https://{rest}")),
        "h2c" | "h2" | "grpc" => Some(format!("write http://{rest}, and protocol: h2 in the upstream")),
        "grpcs" => Some(format!("write https://{rest}, and protocol: h2 in the upstream")),
        "tcp" => Some(format!("the gateway speaks HTTP to endpoints: write http://{rest}")),
        "http" | "https" => {
            let (host, port) = rest.trim_end_matches('/').rsplit_once(':')?;
            let has_brackets = !host.contains(':') || host.contains('[');
            (!has_brackets).then(|| format!("an IPv6 address has brackets: write {scheme}://[{host}]:{port}"))
        }
        _ => None,
    }
}

fn parse_url(text: &str) -> Result<EndpointAddress, String> {
    if !text.starts_with("unix:")
        && let Some(advice) = url_advice(text)
    {
        return Err(advice);
    }
    if let Some(path) = text.strip_prefix("unix:") {
        return parse_socket(path);
    }
    let with_scheme = format!("http://{text}");
    if !text.contains("://") && !text.is_empty() && parse_tcp(&with_scheme).is_ok() {
        return Err(format!("has no scheme: write {with_scheme}, or https://{text} for TLS"));
    }
    match text.strip_prefix("srv+") {
        Some(url) => parse_srv(parse_tcp(url)?, url),
        None => parse_tcp(text),
    }
}

/// The longest path that a socket address holds.
const SOCKET_PATH_BYTES_MAX: usize = 107;

fn parse_socket(path: &str) -> Result<EndpointAddress, String> {
    if !path.starts_with('/') || path.ends_with('/') || path.contains('\0') {
        return Err("write unix: and the absolute path of the socket, such as unix:/run/app.sock".into());
    }
    if path.len() > SOCKET_PATH_BYTES_MAX {
        return Err(format!("the path of a socket has at most {SOCKET_PATH_BYTES_MAX} bytes"));
    }
    let host = format!("/{}", path.trim_start_matches('/'));
    Ok(EndpointAddress { kind: AddressKind::Unix, host, port: 0, tls: false })
}

fn parse_srv(address: EndpointAddress, url: &str) -> Result<EndpointAddress, String> {
    let has_port =
        url.trim_end_matches('/').ends_with(|last: char| last.is_ascii_digit()) && url.matches(':').count() > 1;
    if has_port || address.host.parse::<IpAddr>().is_ok() {
        return Err(
            "SRV records have the ports: write srv+http:// and a name, such as srv+http://_http._tcp.api.internal"
                .into(),
        );
    }
    Ok(EndpointAddress { kind: AddressKind::Srv, port: 0, ..address })
}

fn parse_tcp(text: &str) -> Result<EndpointAddress, String> {
    let invalid = || "write http://host:port, https://host:port or unix:/path".to_owned();
    let (tls, authority) = match text.strip_prefix("https://") {
        Some(authority) => (true, authority),
        None => (false, text.strip_prefix("http://").ok_or_else(invalid)?),
    };
    let authority = authority.strip_suffix('/').unwrap_or(authority);
    if authority.starts_with('[') && authority.contains('%') {
        return Err("a link-local address with a zone is not supported: write a global or unique local address".into());
    }
    let (origin, path) = authority.split_once('/').unwrap_or((authority, ""));
    if !path.is_empty() && origin.parse::<Authority>().is_ok() {
        return Err(format!(
            "an endpoint has no path: write http://host:port or https://host:port, and add the path with `rewrite: {{prefix: /{path}}}` in a route whose match.path is a prefix"
        ));
    }
    let parsed: Authority = authority.parse().map_err(|_| invalid())?;
    if parsed.host().is_empty() || authority.contains('@') || authority.contains('/') {
        return Err(invalid());
    }
    if authority.len() > parsed.host().len() && parsed.port_u16().is_none() {
        return Err("the port is not between 0 and 65535".into());
    }
    let host = parsed.host().trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
    if !host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._:".contains(&byte)) {
        return Err("the host is neither a DNS name nor an IP address".into());
    }
    let is_service = host.starts_with('_');
    if tls && !is_service && ServerName::try_from(host.as_str()).is_err() {
        return Err("no certificate can have this host: write a DNS name or an IP address".into());
    }
    if parsed.port_u16() == Some(0) {
        return Err("no server has port 0: write the server's port".into());
    }
    check_ip(&host)?;
    Ok(EndpointAddress {
        kind: AddressKind::Host,
        host,
        port: parsed.port_u16().unwrap_or(if tls { 443 } else { 80 }),
        tls,
    })
}

/// Refuses addresses to which TCP cannot connect.
fn check_ip(host: &str) -> Result<(), String> {
    match host.parse::<IpAddr>() {
        Ok(IpAddr::V6(ip)) if ip.is_unicast_link_local() => Err(
            "a link-local address (fe80::/10) needs a zone, which a URL cannot have: write a global or unique local address".into(),
        ),
        Ok(ip) if ip.is_multicast() || ip == IpAddr::V4(Ipv4Addr::BROADCAST) => {
            Err("TCP cannot connect to a multicast or broadcast address: write the address of one server".into())
        }
        _ => Ok(()),
    }
}

/// Advice about an address that is probably a mistake.
fn suspicious_ip(host: &str) -> Option<&'static str> {
    match host.parse::<IpAddr>().ok()? {
        IpAddr::V4(ip) if ip.is_link_local() => Some(
            "169.254.0.0/16 is link-local: clouds serve credentials of the machine there (169.254.169.254), so a route to it is dangerous",
        ),
        ip if ip.is_unspecified() => Some(
            "this address means any interface of a listener: for a server on this machine write 127.0.0.1 or [::1]",
        ),
        _ => None,
    }
}
