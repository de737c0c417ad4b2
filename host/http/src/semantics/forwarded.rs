//! The client's address, and the fields that tell it to the upstream: X-Forwarded-For, -Proto,
//! -Host and Forwarded (RFC 7239).
//!
//! Anybody can send these fields, so they count only if the operator trusts the peer. The fields of
//! an untrusted peer are replaced by what the connection itself shows; those of a trusted peer are
//! extended. The client is the rightmost address that is not a trusted proxy's, because the client
//! could have written everything left of it. Both kinds of fields are sent with the same chain, so
//! that an upstream cannot read two different clients. This module does not know: anything of the
//! gateway.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

/// Hops of a chain that are read and sent, the peer's included. Hops left of them are dropped.
const HOPS_MAX: usize = 32;
/// Bytes of an incoming field; a longer one counts as absent. It is more than the longest field
/// that is sent, so that the next gateway can read what this one wrote.
const BYTES_MAX: usize = 12 << 10;
/// Bytes of a name or an address in a chain.
const HOP_BYTES_MAX: usize = 64;
/// Bytes of a host, which is at most a DNS name with a port.
const HOST_BYTES_MAX: usize = 255;
const _: () =
    assert!(HOPS_MAX * (", for=\"[]\";host=\"\";proto=https".len() + HOP_BYTES_MAX + HOST_BYTES_MAX) <= BYTES_MAX);

/// What the connection itself shows about its peer.
#[derive(Debug, Clone, Copy)]
pub struct Peer<'a> {
    /// The peer's address, or the address from the PROXY protocol.
    pub ip: IpAddr,
    /// Whether the peer uses TLS.
    pub is_tls: bool,
    /// The request's host with its port, or an empty text.
    pub host: &'a str,
}

/// The fields of the request, one value for each line. They are read only if the peer is trusted.
#[derive(Debug, Clone, Copy, Default)]
pub struct Incoming<'a> {
    /// `x-forwarded-for`.
    pub x_for: &'a [&'a [u8]],
    /// `x-forwarded-proto`.
    pub x_proto: &'a [&'a [u8]],
    /// `x-forwarded-host`.
    pub x_host: &'a [&'a [u8]],
    /// `forwarded`.
    pub forwarded: &'a [&'a [u8]],
}

/// The client, and the fields for the upstream. Each replaces all lines of the incoming field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing<'a> {
    /// The client's address for logs, limits and filters.
    pub client: IpAddr,
    /// `x-forwarded-for`: the chain, the peer last.
    pub x_for: String,
    /// `x-forwarded-proto`: the client's scheme, `http` or `https`.
    pub x_proto: &'static str,
    /// `x-forwarded-host`: the host that the client requested; empty if it is unknown.
    pub x_host: Cow<'a, str>,
    /// `forwarded`: the same chain in the syntax of RFC 7239.
    pub forwarded: String,
}

/// Whether an address belongs to a trusted proxy.
pub fn is_trusted(ip: IpAddr, trusted: &[IpNet]) -> bool {
    let ip = ip.to_canonical();
    trusted.iter().any(|net| net.contains(&ip))
}

/// Returns the client's address and the fields for the upstream.
pub fn forward<'a>(peer: &Peer<'a>, trusted: &[IpNet], incoming: &Incoming<'a>) -> Outgoing<'a> {
    let ip = peer.ip.to_canonical();
    let peer_proto = if peer.is_tls { "https" } else { "http" };
    let mut out = Outgoing {
        client: ip,
        x_for: String::new(),
        x_proto: peer_proto,
        x_host: Cow::Borrowed(peer.host),
        forwarded: String::new(),
    };
    if is_trusted(ip, trusted) {
        let x_for = x_for_hops(incoming.x_for);
        let elements = forwarded_hops(incoming.forwarded);
        // A proxy that knows only one of the two fields passes the client's other field through. So
        // X-Forwarded-For takes precedence, which nearly all proxies write.
        let (chain, use_forwarded) =
            if x_for.is_empty() { (&elements, true) } else { (&x_for, have_same_addresses(&x_for, &elements)) };
        let client = client_of(chain, trusted);
        if let Some(ip) = client.and_then(|at| chain[at].ip) {
            out.client = ip;
        }
        let element = client.filter(|_| use_forwarded).and_then(|at| elements.get(at));
        out.x_proto =
            last_member(incoming.x_proto).and_then(proto).or(element.and_then(|hop| hop.proto)).unwrap_or(peer_proto);
        if let Some(host) = last_member(incoming.x_host).filter(|host| is_host(host)) {
            out.x_host = Cow::Borrowed(host);
        } else if let Some(host) = element.and_then(|hop| hop.host.clone()) {
            out.x_host = host;
        }
        // The peer is appended. If the chain is full, a hop is dropped that is not the client,
        // because the next gateway must find the same client.
        let surplus = (chain.len() == HOPS_MAX).then_some(usize::from(client == Some(0)));
        for (at, hop) in chain.iter().enumerate().filter(|(at, _)| Some(*at) != surplus) {
            push_x_for(&mut out.x_for, hop);
            push_forwarded(&mut out.forwarded, if use_forwarded { &elements[at] } else { hop });
        }
    }
    push_x_for(&mut out.x_for, &Hop::of(ip));
    let peer_hop = Hop { proto: Some(peer_proto), host: Some(Cow::Borrowed(peer.host)), ..Hop::of(ip) };
    push_forwarded(&mut out.forwarded, &peer_hop);
    out
}

/// One hop of a chain.
#[derive(Debug, Clone, Default)]
struct Hop<'a> {
    /// The text of the hop, without quotes.
    text: Cow<'a, str>,
    /// The address. None for `unknown` and for obfuscated names.
    ip: Option<IpAddr>,
    proto: Option<&'static str>,
    host: Option<Cow<'a, str>>,
}

impl<'a> Hop<'a> {
    fn of(ip: IpAddr) -> Self {
        Self { ip: Some(ip), ..Self::default() }
    }

    /// None if the text must not be forwarded.
    fn parse(text: Cow<'a, str>) -> Option<Self> {
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-:[]".contains(&byte);
        if text.is_empty() || text.len() > HOP_BYTES_MAX || !text.bytes().all(is_allowed) {
            return None;
        }
        let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(&text);
        let ip = bare.parse().ok().or_else(|| text.parse().ok().map(|address: SocketAddr| address.ip()));
        Some(Self { ip: ip.map(|ip: IpAddr| ip.to_canonical()), text, ..Self::default() })
    }
}

/// The client's position in the chain: the rightmost address that is not trusted. If all addresses
/// are trusted, the leftmost address right of any hop without an address.
fn client_of(chain: &[Hop], trusted: &[IpNet]) -> Option<usize> {
    let mut client = None;
    for (at, hop) in chain.iter().enumerate().rev() {
        let Some(ip) = hop.ip else { break };
        client = Some(at);
        if !is_trusted(ip, trusted) {
            break;
        }
    }
    client
}

/// The hops of X-Forwarded-For: the rightmost [`HOPS_MAX`] at most, and none left of an invalid
/// hop.
fn x_for_hops<'a>(lines: &[&'a [u8]]) -> Vec<Hop<'a>> {
    let Some(lines) = ascii_lines(lines) else { return vec![] };
    let members =
        lines.iter().rev().flat_map(|line| line.rsplit(',')).map(str::trim_ascii).filter(|text| !text.is_empty());
    let mut chain: Vec<Hop> = members.map(|text| Hop::parse(text.into())).take(HOPS_MAX).map_while(|hop| hop).collect();
    chain.reverse();
    chain
}

/// The hops of Forwarded. Empty if the field has a syntax error anywhere.
fn forwarded_hops<'a>(lines: &[&'a [u8]]) -> Vec<Hop<'a>> {
    let Some(lines) = ascii_lines(lines) else { return vec![] };
    let mut chain = vec![];
    for line in lines {
        let mut rest = line.trim_ascii();
        while !rest.is_empty() {
            match element(rest) {
                Some((hop, after)) => {
                    chain.push(hop);
                    rest = after;
                }
                None => return vec![],
            }
        }
    }
    chain.drain(..chain.len().saturating_sub(HOPS_MAX));
    chain
}

/// Parses one `forwarded-element`; also returns the text after its comma.
fn element(mut rest: &str) -> Option<(Hop<'_>, &str)> {
    let (mut hop, mut seen) = (Hop { text: "unknown".into(), ..Hop::default() }, [false; 3]);
    loop {
        let (name, after) = rest.split_once('=')?;
        if !is_token(name) {
            return None;
        }
        let (value, after) = value(after)?;
        // Readers differ on a parameter that occurs twice in an element.
        let at = ["for", "proto", "host"].iter().position(|known| name.eq_ignore_ascii_case(known));
        if at.is_some_and(|at| std::mem::replace(&mut seen[at], true)) {
            return None;
        }
        match at {
            Some(0) => hop = Hop { proto: hop.proto, host: hop.host, ..Hop::parse(value)? },
            Some(1) => hop.proto = proto(&value),
            Some(2) => hop.host = Some(value).filter(|host| is_host(host)),
            // `by` and extensions are not forwarded.
            _ => {}
        }
        let after = after.trim_ascii_start();
        match after.as_bytes().first() {
            None => return Some((hop, "")),
            Some(b';') => rest = &after[1..],
            Some(b',') => return Some((hop, after[1..].trim_ascii_start())),
            Some(_) => return None,
        }
    }
}

/// Parses a token or a quoted string; also returns the text after it.
fn value(text: &str) -> Option<(Cow<'_, str>, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([';', ',', ' ', '\t']).unwrap_or(text.len());
        return is_token(&text[..end]).then(|| (text[..end].into(), &text[end..]));
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value.into(), &quoted[at + 1..])),
            '\\' => value.push(characters.next()?.1),
            _ => value.push(character),
        }
    }
    None
}

/// The lines as text. None if they are not visible ASCII or are too long.
fn ascii_lines<'a>(lines: &[&'a [u8]]) -> Option<Vec<&'a str>> {
    let is_plain = |line: &&[u8]| line.iter().all(|byte| matches!(byte, b'\t' | b' '..=b'~'));
    if lines.iter().map(|line| line.len()).sum::<usize>() > BYTES_MAX || !lines.iter().all(is_plain) {
        return None;
    }
    lines.iter().map(|line| std::str::from_utf8(line).ok()).collect()
}

/// The last member of a list field, which the nearest proxy wrote.
fn last_member<'a>(lines: &[&'a [u8]]) -> Option<&'a str> {
    std::str::from_utf8(lines.last()?).ok()?.rsplit(',').next().map(str::trim_ascii)
}

/// The scheme of a request. Some proxies write `ws` and `wss` for a WebSocket, which is a request
/// by http or https (RFC 6455, section 3).
fn proto(text: &str) -> Option<&'static str> {
    let known = [("http", "http"), ("https", "https"), ("ws", "http"), ("wss", "https")];
    known.into_iter().find(|(name, _)| text.eq_ignore_ascii_case(name)).map(|(_, scheme)| scheme)
}

fn is_host(text: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte);
    !text.is_empty() && text.len() <= HOST_BYTES_MAX && text.bytes().all(is_allowed)
}

fn is_token(text: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(is_allowed)
}

/// Whether both fields have the same addresses.
fn have_same_addresses(x_for: &[Hop], forwarded: &[Hop]) -> bool {
    x_for.len() == forwarded.len() && x_for.iter().zip(forwarded).all(|(a, b)| a.ip == b.ip)
}

fn push_x_for(list: &mut String, hop: &Hop) {
    let comma = if list.is_empty() { "" } else { ", " };
    // Writing to a `String` cannot fail.
    let _ = match hop.ip {
        Some(ip) => write!(list, "{comma}{ip}"),
        None => write!(list, "{comma}{}", hop.text),
    };
}

fn push_forwarded(list: &mut String, hop: &Hop) {
    list.push_str(if list.is_empty() { "for=" } else { ", for=" });
    let _ = match hop.ip {
        Some(IpAddr::V4(ip)) => write!(list, "{ip}"),
        Some(IpAddr::V6(ip)) => write!(list, "\"[{ip}]\""),
        // An obfuscated name begins with an underscore (RFC 7239, section 6.3).
        None if hop.text.starts_with('_') && is_token(&hop.text) => write!(list, "{}", hop.text),
        None => write!(list, "unknown"),
    };
    if let Some(host) = hop.host.as_deref().filter(|host| is_host(host)) {
        let quote = if is_token(host) { "" } else { "\"" };
        let _ = write!(list, ";host={quote}{host}{quote}");
    }
    if let Some(proto) = hop.proto {
        let _ = write!(list, ";proto={proto}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn nets() -> Vec<IpNet> {
        ["10.0.0.0/8", "fd00::/8"].iter().filter_map(|net| net.parse().ok()).collect()
    }

    fn peer(ip: &str) -> Peer<'static> {
        Peer { ip: ip.parse().unwrap_or(IpAddr::from([0; 4])), is_tls: true, host: "a.example:8443" }
    }

    fn with(ip: &str, x_for: &[&str], forwarded: &[&str]) -> Outgoing<'static> {
        let x_for: Vec<&[u8]> = x_for.iter().map(|line| line.as_bytes()).collect();
        let forwarded: Vec<&[u8]> = forwarded.iter().map(|line| line.as_bytes()).collect();
        let out =
            forward(&peer(ip), &nets(), &Incoming { x_for: &x_for, forwarded: &forwarded, ..Incoming::default() });
        Outgoing { x_host: Cow::Owned(out.x_host.into_owned()), ..out }
    }

    #[test]
    fn an_untrusted_peer_is_the_client_whatever_it_sends() {
        let out = with("192.0.2.7", &["10.1.1.1, 6.6.6.6"], &["for=6.6.6.6;proto=http"]);
        assert_eq!(out.client.to_string(), "192.0.2.7");
        assert_eq!(out.x_for, "192.0.2.7");
        assert_eq!(out.forwarded, "for=192.0.2.7;host=\"a.example:8443\";proto=https");
        assert_eq!((out.x_proto, &*out.x_host), ("https", "a.example:8443"));
        assert_eq!(
            with("::ffff:192.0.2.7", &[], &[]).x_for,
            "192.0.2.7",
            "an IPv4-mapped IPv6 address is an IPv4 address"
        );
        assert_eq!(
            with("2001:db8::7", &[], &[]).forwarded,
            "for=\"[2001:db8::7]\";host=\"a.example:8443\";proto=https"
        );
    }

    #[test]
    fn the_client_is_the_rightmost_address_that_is_not_trusted() {
        for (x_for, client) in [
            (vec![], "10.0.0.1"),
            (vec!["192.0.2.7"], "192.0.2.7"),
            (vec!["6.6.6.6, 192.0.2.7"], "192.0.2.7"),
            (vec!["6.6.6.6, 192.0.2.7, 10.0.0.9", "10.0.0.8"], "192.0.2.7"),
            (vec!["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
            (vec!["6.6.6.6, unknown, 10.0.0.2"], "10.0.0.2"),
            (vec!["6.6.6.6, <x>"], "10.0.0.1"),
            (vec!["192.0.2.7:4711"], "192.0.2.7"),
            (vec!["[2001:db8::7]:4711, fd00::1"], "2001:db8::7"),
            (vec!["2001:db8::7"], "2001:db8::7"),
            (vec![" ,192.0.2.7,, "], "192.0.2.7"),
        ] {
            assert_eq!(with("10.0.0.1", &x_for, &[]).client.to_string(), client, "{x_for:?}");
        }
    }

    #[test]
    fn the_scheme_of_a_websocket_is_that_of_its_request() {
        for (sent, scheme) in [("wss", "https"), ("WS", "http"), ("https", "https"), ("ftp", "https")] {
            let proto: &[&[u8]] = &[sent.as_bytes()];
            let incoming = Incoming { x_proto: proto, ..Incoming::default() };
            assert_eq!(forward(&peer("10.0.0.1"), &nets(), &incoming).x_proto, scheme, "{sent}");
        }
    }

    #[test]
    fn a_trusted_peers_fields_are_extended() {
        let out = with("10.0.0.1", &["192.0.2.7, [2001:db8::7]:1"], &[]);
        assert_eq!(out.x_for, "192.0.2.7, 2001:db8::7, 10.0.0.1");
        assert_eq!(
            out.forwarded,
            "for=192.0.2.7, for=\"[2001:db8::7]\", for=10.0.0.1;host=\"a.example:8443\";proto=https"
        );
        let out =
            with("10.0.0.1", &[], &["For=\"[2001:db8::7]:1\";Proto=http;by=_x;host=b, for=_hidden", "for=10.0.0.2"]);
        assert_eq!(out.client.to_string(), "10.0.0.2");
        assert_eq!(out.x_for, "2001:db8::7, _hidden, 10.0.0.2, 10.0.0.1");
        assert!(
            out.forwarded
                .starts_with("for=\"[2001:db8::7]\";host=b;proto=http, for=_hidden, for=10.0.0.2, for=10.0.0.1;")
        );
    }

    #[test]
    fn the_two_fields_never_name_different_clients() {
        let same = with("10.0.0.1", &["192.0.2.7"], &["for=192.0.2.7;proto=http;host=b.example"]);
        assert!(same.forwarded.starts_with("for=192.0.2.7;host=b.example;proto=http, for=10.0.0.1;"));
        assert_eq!((same.x_proto, &*same.x_host), ("http", "b.example"));
        let other = with("10.0.0.1", &["192.0.2.7"], &["for=6.6.6.6;proto=http"]);
        assert!(other.forwarded.starts_with("for=192.0.2.7, for=10.0.0.1;"), "{}", other.forwarded);
        assert_eq!(other.x_proto, "https");
    }

    #[test]
    fn consecutive_gateways_find_the_same_client_in_the_longest_chain() {
        let proxies: Vec<String> = (0..40).map(|at| format!("fd00::{at:x}")).collect();
        let host = "h".repeat(HOST_BYTES_MAX);
        let elements =
            proxies.iter().rev().take(HOPS_MAX).rev().map(|ip| format!("for=\"[{ip}]\";host={host};proto=https"));
        let (mut x_for, mut forwarded) = (proxies.join(", "), elements.collect::<Vec<_>>().join(", "));
        assert!(forwarded.len() <= BYTES_MAX);
        for _ in 0..3 {
            let (by_x, by_forwarded) = (with("10.0.0.1", &[&x_for], &[]), with("10.0.0.1", &[], &[&forwarded]));
            let first = proxies[proxies.len() - HOPS_MAX].clone();
            assert_eq!((by_x.client.to_string(), by_forwarded.client.to_string()), (first.clone(), first));
            assert_eq!(by_forwarded.x_for, by_x.x_for);
            (x_for, forwarded) = (by_x.x_for, by_forwarded.forwarded);
            assert_eq!((x_for.split(',').count(), forwarded.split(',').count()), (HOPS_MAX, HOPS_MAX));
        }
        let with_stranger = with("10.0.0.1", &[&format!("6.6.6.6, 192.0.2.7, {}", ["10.0.0.2"; 30].join(", "))], &[]);
        assert!(with_stranger.x_for.starts_with("192.0.2.7, 10.0.0.2"), "hops left of the client are dropped first");
    }

    #[test]
    fn a_broken_forwarded_field_counts_as_absent() {
        for bad in [
            "for",
            "for=",
            "=1",
            "for=a b",
            "for=\"1.2.3.4",
            "for=1.2.3.4;for=1.2.3.5",
            "for=1.2.3.4 x",
            "for=a\u{e9}",
            "for=\"a\\",
            ",;",
        ] {
            assert_eq!(with("10.0.0.1", &[], &[bad]).x_for, "10.0.0.1", "{bad}");
        }
    }

    #[test]
    fn the_nearest_proxy_decides_scheme_and_host() {
        let incoming = Incoming {
            x_proto: &[b"https", b"https, http"],
            x_host: &[b"x.example, y.example"],
            ..Incoming::default()
        };
        let out = forward(&peer("10.0.0.1"), &nets(), &incoming);
        assert_eq!((out.x_proto, &*out.x_host), ("http", "y.example"));
        let out =
            forward(&peer("10.0.0.1"), &nets(), &Incoming { x_proto: &[b"gopher"], x_host: &[b"a b"], ..incoming });
        assert_eq!((out.x_proto, &*out.x_host), ("https", "a.example:8443"));
    }

    proptest! {
        #[test]
        fn forwarded_fields_are_bounded_and_can_be_read_again(
            x_for in "([0-9a-f:.,_\\[\\] ]|10\\.0\\.0\\.1|, ){0,200}",
            forwarded in "(for=|proto=http|host=|\"|\\\\|;|,| |1\\.2\\.3\\.4|_a|\\[::1\\]){0,60}",
        ) {
            let trusted = nets();
            let incoming = Incoming { x_for: &[x_for.as_bytes()], forwarded: &[forwarded.as_bytes()], ..Incoming::default() };
            let out = forward(&peer("10.0.0.1"), &trusted, &incoming);
            prop_assert!(out.x_for.len() <= HOPS_MAX * (2 + HOP_BYTES_MAX) && out.forwarded.len() <= BYTES_MAX);
            prop_assert!(out.x_for.bytes().chain(out.forwarded.bytes()).all(|byte| (b' '..0x7f).contains(&byte)));
            // The next gateway, which trusts this one, reads the same client from either field.
            let next = Peer { ip: IpAddr::from([10, 9, 9, 9]), is_tls: false, host: "" };
            let (by_x, by_forwarded) = (&[out.x_for.as_bytes()], &[out.forwarded.as_bytes()]);
            let a = forward(&next, &trusted, &Incoming { x_for: by_x, ..Incoming::default() });
            let b = forward(&next, &trusted, &Incoming { forwarded: by_forwarded, ..Incoming::default() });
            prop_assert_eq!(a.client, out.client);
            prop_assert_eq!(b.client, out.client);
        }
    }
}
