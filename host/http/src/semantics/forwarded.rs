//! Who the client is, and what the upstream is told of it: X-Forwarded-For, -Proto, -Host and Forwarded (RFC 7239).
//!
//! Anybody can send these fields, so a peer's word counts only if the operator trusts it: an untrusted peer's fields are overwritten by what the connection
//! itself shows, a trusted peer's are appended to. The client is the rightmost address that is not a trusted proxy's: what stands left of it was written
//! by the client. Both families of fields leave with the same chain, so an upstream cannot read two clients. Must not know: anything of the
//! gateway.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

/// Hops of a chain that are read, and that leave, the peer's included; what stands left of them is dropped.
const NODES_MAX: usize = 32;
/// Bytes of incoming values that are read, per field; a longer one counts as absent. More than the longest field that leaves, so the next gateway
/// reads what this one wrote.
const BYTES_MAX: usize = 12 << 10;
/// Bytes of a name or an address in a chain.
const NODE_BYTES_MAX: usize = 64;
/// Bytes of a host, which is at most a DNS name with a port.
const HOST_BYTES_MAX: usize = 255;
const _: () =
    assert!(NODES_MAX * (", for=\"[]\";host=\"\";proto=https".len() + NODE_BYTES_MAX + HOST_BYTES_MAX) <= BYTES_MAX);

/// What the connection itself shows.
#[derive(Debug, Clone, Copy)]
pub struct Peer<'a> {
    /// The other end (behind the PROXY protocol: what that says).
    pub ip: IpAddr,
    /// Whether it spoke TLS to this gateway.
    pub is_tls: bool,
    /// The request's host with its port; may be empty.
    pub host: &'a str,
}

/// The fields as they came, a value for each line. Only read where the peer is trusted.
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

/// What goes on: one line for each field, in place of all that came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing<'a> {
    /// For logs, limits and filters.
    pub client: IpAddr,
    /// `x-forwarded-for`: the chain, the peer last.
    pub x_for: String,
    /// `x-forwarded-proto`: what the client spoke, `http` or `https`.
    pub x_proto: &'static str,
    /// `x-forwarded-host`: what the client asked for; empty where nobody said.
    pub x_host: Cow<'a, str>,
    /// `forwarded`: the same in the words of RFC 7239.
    pub forwarded: String,
}

/// Whether an address is one of the operator's proxies.
pub fn is_trusted(ip: IpAddr, trusted: &[IpNet]) -> bool {
    let ip = ip.to_canonical();
    trusted.iter().any(|net| net.contains(&ip))
}

/// The client's address and the fields for the upstream.
pub fn forward<'a>(peer: &Peer<'a>, trusted: &[IpNet], incoming: &Incoming<'a>) -> Outgoing<'a> {
    let ip = peer.ip.to_canonical();
    let own_proto = if peer.is_tls { "https" } else { "http" };
    let mut out = Outgoing {
        client: ip,
        x_for: String::new(),
        x_proto: own_proto,
        x_host: Cow::Borrowed(peer.host),
        forwarded: String::new(),
    };
    if is_trusted(ip, trusted) {
        let x_for = x_for_chain(incoming.x_for);
        let elements = elements(incoming.forwarded);
        // A proxy that knows only one of the two passes a client's other one through: the older field is what nearly all write.
        let (chain, told) = if x_for.is_empty() { (&elements, true) } else { (&x_for, agree(&x_for, &elements)) };
        let client = client_of(chain, trusted);
        if let Some(ip) = client.and_then(|at| chain[at].ip) {
            out.client = ip;
        }
        let element = client.filter(|_| told).and_then(|at| elements.get(at));
        out.x_proto =
            last(incoming.x_proto).and_then(proto).or(element.and_then(|node| node.proto)).unwrap_or(own_proto);
        if let Some(host) = last(incoming.x_host).filter(|host| is_host(host)) {
            out.x_host = Cow::Borrowed(host);
        } else if let Some(host) = element.and_then(|node| node.host.clone()) {
            out.x_host = host;
        }
        // The peer comes after them: where that is one hop too many, one goes that is not the client, whom the next gateway must find too.
        let surplus = (chain.len() == NODES_MAX).then_some(usize::from(client == Some(0)));
        for (at, node) in chain.iter().enumerate().filter(|(at, _)| Some(*at) != surplus) {
            push_x_for(&mut out.x_for, node);
            push_forwarded(&mut out.forwarded, if told { &elements[at] } else { node });
        }
    }
    push_x_for(&mut out.x_for, &Node::of(ip));
    let own = Node { proto: Some(own_proto), host: Some(Cow::Borrowed(peer.host)), ..Node::of(ip) };
    push_forwarded(&mut out.forwarded, &own);
    out
}

/// One hop of a chain.
#[derive(Debug, Clone, Default)]
struct Node<'a> {
    /// As it came, without quotes.
    text: Cow<'a, str>,
    /// None for `unknown` and names that a proxy made up.
    ip: Option<IpAddr>,
    proto: Option<&'static str>,
    host: Option<Cow<'a, str>>,
}

impl<'a> Node<'a> {
    fn of(ip: IpAddr) -> Self {
        Self { ip: Some(ip), ..Self::default() }
    }

    /// None where the text could not be passed on.
    fn parse(text: Cow<'a, str>) -> Option<Self> {
        let good = |byte: u8| byte.is_ascii_alphanumeric() || b"._-:[]".contains(&byte);
        if text.is_empty() || text.len() > NODE_BYTES_MAX || !text.bytes().all(good) {
            return None;
        }
        let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(&text);
        let ip = bare.parse().ok().or_else(|| text.parse().ok().map(|address: SocketAddr| address.ip()));
        Some(Self { ip: ip.map(|ip: IpAddr| ip.to_canonical()), text, ..Self::default() })
    }
}

/// The client's place in the chain: the rightmost address that is not trusted, else the last before something that is no address.
fn client_of(chain: &[Node], trusted: &[IpNet]) -> Option<usize> {
    let mut client = None;
    for (at, node) in chain.iter().enumerate().rev() {
        let Some(ip) = node.ip else { break };
        client = Some(at);
        if !is_trusted(ip, trusted) {
            break;
        }
    }
    client
}

/// The nodes of X-Forwarded-For, at most the rightmost [`NODES_MAX`], up to one that is not readable.
fn x_for_chain<'a>(lines: &[&'a [u8]]) -> Vec<Node<'a>> {
    let Some(lines) = texts(lines) else { return vec![] };
    let texts =
        lines.iter().rev().flat_map(|line| line.rsplit(',')).map(str::trim_ascii).filter(|text| !text.is_empty());
    let mut chain: Vec<Node> =
        texts.map(|text| Node::parse(text.into())).take(NODES_MAX).map_while(|node| node).collect();
    chain.reverse();
    chain
}

/// The elements of Forwarded; none where the field breaks its grammar anywhere.
fn elements<'a>(lines: &[&'a [u8]]) -> Vec<Node<'a>> {
    let Some(lines) = texts(lines) else { return vec![] };
    let mut chain = vec![];
    for line in lines {
        let mut rest = line.trim_ascii();
        while !rest.is_empty() {
            match element(rest) {
                Some((node, after)) => {
                    chain.push(node);
                    rest = after;
                }
                None => return vec![],
            }
        }
    }
    chain.drain(..chain.len().saturating_sub(NODES_MAX));
    chain
}

/// One `forwarded-element` and what follows its comma.
fn element(mut rest: &str) -> Option<(Node<'_>, &str)> {
    let (mut node, mut told) = (Node { text: "unknown".into(), ..Node::default() }, [false; 3]);
    loop {
        let (name, after) = rest.split_once('=')?;
        if !is_token(name) {
            return None;
        }
        let (value, after) = value(after)?;
        // A parameter twice in one element is read differently by different readers.
        let at = ["for", "proto", "host"].iter().position(|known| name.eq_ignore_ascii_case(known));
        if at.is_some_and(|at| std::mem::replace(&mut told[at], true)) {
            return None;
        }
        match at {
            Some(0) => node = Node { proto: node.proto, host: node.host, ..Node::parse(value)? },
            Some(1) => node.proto = proto(&value),
            Some(2) => node.host = Some(value).filter(|host| is_host(host)),
            // `by` and extensions are not passed on.
            _ => {}
        }
        let after = after.trim_ascii_start();
        match after.as_bytes().first() {
            None => return Some((node, "")),
            Some(b';') => rest = &after[1..],
            Some(b',') => return Some((node, after[1..].trim_ascii_start())),
            Some(_) => return None,
        }
    }
}

/// A token or a quoted string, and what follows it.
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

/// All lines as visible ASCII; none where that or the bound is broken.
fn texts<'a>(lines: &[&'a [u8]]) -> Option<Vec<&'a str>> {
    let is_plain = |line: &&[u8]| line.iter().all(|byte| matches!(byte, b'\t' | b' '..=b'~'));
    if lines.iter().map(|line| line.len()).sum::<usize>() > BYTES_MAX || !lines.iter().all(is_plain) {
        return None;
    }
    lines.iter().map(|line| std::str::from_utf8(line).ok()).collect()
}

/// What the nearest proxy wrote.
fn last<'a>(lines: &[&'a [u8]]) -> Option<&'a str> {
    std::str::from_utf8(lines.last()?).ok()?.rsplit(',').next().map(str::trim_ascii)
}

fn proto(text: &str) -> Option<&'static str> {
    ["http", "https"].into_iter().find(|known| text.eq_ignore_ascii_case(known))
}

fn is_host(text: &str) -> bool {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte);
    !text.is_empty() && text.len() <= HOST_BYTES_MAX && text.bytes().all(good)
}

fn is_token(text: &str) -> bool {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(good)
}

/// Whether both fields tell of the same hops.
fn agree(x_for: &[Node], forwarded: &[Node]) -> bool {
    x_for.len() == forwarded.len() && x_for.iter().zip(forwarded).all(|(a, b)| a.ip == b.ip)
}

fn push_x_for(list: &mut String, node: &Node) {
    let comma = if list.is_empty() { "" } else { ", " };
    // Writing to a string cannot fail.
    let _ = match node.ip {
        Some(ip) => write!(list, "{comma}{ip}"),
        None => write!(list, "{comma}{}", node.text),
    };
}

fn push_forwarded(list: &mut String, node: &Node) {
    list.push_str(if list.is_empty() { "for=" } else { ", for=" });
    let _ = match node.ip {
        Some(IpAddr::V4(ip)) => write!(list, "{ip}"),
        Some(IpAddr::V6(ip)) => write!(list, "\"[{ip}]\""),
        // A name that a proxy made up begins with an underscore (section 6.3).
        None if node.text.starts_with('_') && is_token(&node.text) => write!(list, "{}", node.text),
        None => write!(list, "unknown"),
    };
    if let Some(host) = node.host.as_deref().filter(|host| is_host(host)) {
        let quote = if is_token(host) { "" } else { "\"" };
        let _ = write!(list, ";host={quote}{host}{quote}");
    }
    if let Some(proto) = node.proto {
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
    fn an_untrusted_peer_is_the_client_whatever_it_says() {
        let out = with("192.0.2.7", &["10.1.1.1, 6.6.6.6"], &["for=6.6.6.6;proto=http"]);
        assert_eq!(out.client.to_string(), "192.0.2.7");
        assert_eq!(out.x_for, "192.0.2.7");
        assert_eq!(out.forwarded, "for=192.0.2.7;host=\"a.example:8443\";proto=https");
        assert_eq!((out.x_proto, &*out.x_host), ("https", "a.example:8443"));
        assert_eq!(with("::ffff:192.0.2.7", &[], &[]).x_for, "192.0.2.7", "an IPv4 address inside IPv6 is one");
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
    fn a_trusted_peer_is_appended_to() {
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
    fn the_two_fields_never_tell_of_different_clients() {
        let same = with("10.0.0.1", &["192.0.2.7"], &["for=192.0.2.7;proto=http;host=b.example"]);
        assert!(same.forwarded.starts_with("for=192.0.2.7;host=b.example;proto=http, for=10.0.0.1;"));
        assert_eq!((same.x_proto, &*same.x_host), ("http", "b.example"));
        let other = with("10.0.0.1", &["192.0.2.7"], &["for=6.6.6.6;proto=http"]);
        assert!(other.forwarded.starts_with("for=192.0.2.7, for=10.0.0.1;"), "{}", other.forwarded);
        assert_eq!(other.x_proto, "https");
    }

    #[test]
    fn gateways_after_one_another_find_the_same_client_in_the_longest_chain() {
        let proxies: Vec<String> = (0..40).map(|at| format!("fd00::{at:x}")).collect();
        let host = "h".repeat(HOST_BYTES_MAX);
        let elements =
            proxies.iter().rev().take(NODES_MAX).rev().map(|ip| format!("for=\"[{ip}]\";host={host};proto=https"));
        let (mut x_for, mut forwarded) = (proxies.join(", "), elements.collect::<Vec<_>>().join(", "));
        assert!(forwarded.len() <= BYTES_MAX);
        for _ in 0..3 {
            let (by_x, by_forwarded) = (with("10.0.0.1", &[&x_for], &[]), with("10.0.0.1", &[], &[&forwarded]));
            let first = proxies[proxies.len() - NODES_MAX].clone();
            assert_eq!((by_x.client.to_string(), by_forwarded.client.to_string()), (first.clone(), first));
            assert_eq!(by_forwarded.x_for, by_x.x_for);
            (x_for, forwarded) = (by_x.x_for, by_forwarded.forwarded);
            assert_eq!((x_for.split(',').count(), forwarded.split(',').count()), (NODES_MAX, NODES_MAX));
        }
        let with_stranger = with("10.0.0.1", &[&format!("6.6.6.6, 192.0.2.7, {}", ["10.0.0.2"; 30].join(", "))], &[]);
        assert!(with_stranger.x_for.starts_with("192.0.2.7, 10.0.0.2"), "what the client wrote goes first");
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
    fn the_nearest_proxy_says_what_the_client_spoke() {
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
        fn what_goes_on_is_bounded_and_reads_back(
            x_for in "([0-9a-f:.,_\\[\\] ]|10\\.0\\.0\\.1|, ){0,200}",
            forwarded in "(for=|proto=http|host=|\"|\\\\|;|,| |1\\.2\\.3\\.4|_a|\\[::1\\]){0,60}",
        ) {
            let trusted = nets();
            let incoming = Incoming { x_for: &[x_for.as_bytes()], forwarded: &[forwarded.as_bytes()], ..Incoming::default() };
            let out = forward(&peer("10.0.0.1"), &trusted, &incoming);
            prop_assert!(out.x_for.len() <= NODES_MAX * (2 + NODE_BYTES_MAX) && out.forwarded.len() <= BYTES_MAX);
            prop_assert!(out.x_for.bytes().chain(out.forwarded.bytes()).all(|byte| (b' '..0x7f).contains(&byte)));
            // The next gateway, which trusts this one, reads the same chain from either field, and the same client.
            let next = Peer { ip: IpAddr::from([10, 9, 9, 9]), is_tls: false, host: "" };
            let (by_x, by_forwarded) = (&[out.x_for.as_bytes()], &[out.forwarded.as_bytes()]);
            let a = forward(&next, &trusted, &Incoming { x_for: by_x, ..Incoming::default() });
            let b = forward(&next, &trusted, &Incoming { forwarded: by_forwarded, ..Incoming::default() });
            prop_assert_eq!(a.client, out.client);
            prop_assert_eq!(b.client, out.client);
        }
    }
}
