//! The PROXY protocol, versions 1 and 2 (haproxy.org, "The PROXY protocol"): a load balancer sends
//! the client's address before the client's first byte.
//!
//! The parser is strict and bounded, because the sender of this header chooses the address that
//! logs, limits and filters see. A listener is configured to require the header; it never detects
//! one, since a client could then send its own. This module does not know: anything of the gateway.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The longest header of version 1, with its CRLF.
const V1_BYTES_MAX: usize = 107;
/// The longest header of version 2, with the extensions (TLVs) that the sender adds.
const V2_BYTES_MAX: usize = 4096;
const V2_SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
const V2_HEAD: usize = 16;

/// Parses the header at the start of `bytes`: its length, and the client's address.
///
/// The address is none for the load balancer's own health checks and for unknown address families.
/// The result is none if more bytes are needed, which happens only below 4096 bytes. The error is
/// the reason why the header is rejected.
pub fn parse(bytes: &[u8]) -> Result<Option<(usize, Option<SocketAddr>)>, &'static str> {
    let starts = |signature: &[u8]| bytes.iter().zip(signature).all(|(byte, expected)| byte == expected);
    if starts(V2_SIGNATURE) {
        version_2(bytes)
    } else if starts(b"PROXY ") {
        version_1(bytes)
    } else {
        Err("no PROXY header")
    }
}

fn version_1(bytes: &[u8]) -> Result<Option<(usize, Option<SocketAddr>)>, &'static str> {
    let head = &bytes[..bytes.len().min(V1_BYTES_MAX)];
    let Some(end) = head.iter().position(|byte| matches!(byte, b'\r' | b'\n')) else {
        return if head.len() < V1_BYTES_MAX { Ok(None) } else { Err("a PROXY line of more than 107 bytes") };
    };
    match head.get(end..end + 2) {
        Some(b"\r\n") => {}
        // The CRLF arrives in two pieces.
        None if head[end] == b'\r' && head.len() < V1_BYTES_MAX => return Ok(None),
        _ => return Err("a PROXY line does not end with CRLF"),
    }
    let line = std::str::from_utf8(&head[..end]).map_err(|_| "a PROXY line is not ASCII")?;
    let address = match line.strip_prefix("PROXY ").unwrap_or_default() {
        "UNKNOWN" => None,
        rest if rest.starts_with("UNKNOWN ") => None,
        rest => Some(addresses(rest)?),
    };
    Ok(Some((end + 2, address)))
}

/// `TCP4 source destination port port`, with single spaces.
fn addresses(rest: &str) -> Result<SocketAddr, &'static str> {
    let mut parts = rest.split(' ');
    let mut next = || parts.next().ok_or("a PROXY line ends early");
    let family = next()?;
    let (source, destination) = (ip(family, next()?)?, ip(family, next()?)?);
    let (port, _) = (port(next()?)?, port(next()?)?);
    if parts.next().is_some() {
        return Err("a PROXY line has more than two addresses and ports");
    }
    debug_assert_eq!(source.is_ipv4(), destination.is_ipv4());
    Ok(SocketAddr::new(source, port))
}

fn ip(family: &str, text: &str) -> Result<IpAddr, &'static str> {
    let parsed = match family {
        "TCP4" => text.parse::<Ipv4Addr>().map(IpAddr::from).ok(),
        "TCP6" => text.parse::<Ipv6Addr>().map(IpAddr::from).ok(),
        _ => return Err("a PROXY line is of TCP4, TCP6 or UNKNOWN"),
    };
    parsed.ok_or("a PROXY line has an address that is not of its family")
}

fn port(text: &str) -> Result<u16, &'static str> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| plain).ok_or("a PROXY line has a port that is not between 0 and 65535")
}

fn version_2(bytes: &[u8]) -> Result<Option<(usize, Option<SocketAddr>)>, &'static str> {
    let Some(head) = bytes.get(..V2_HEAD) else { return Ok(None) };
    let end = V2_HEAD + usize::from(u16::from_be_bytes([head[14], head[15]]));
    if end > V2_BYTES_MAX {
        return Err("a PROXY header of more than 4096 bytes");
    }
    let is_local = match head[12] {
        0x20 => true,
        0x21 => false,
        _ => return Err("a PROXY header that is not version 2, LOCAL or PROXY"),
    };
    let Some(block) = bytes.get(V2_HEAD..end) else { return Ok(None) };
    if is_local {
        // The load balancer's own connection: the addresses are ignored.
        return Ok(Some((end, None)));
    }
    let short = "a PROXY header is shorter than its addresses";
    let address = match head[13] {
        // Unspecified, or a Unix socket: there is no IP address.
        0x00 => None,
        0x31 => block.get(..216).map(|_| None).ok_or(short)?,
        0x11 => {
            let addresses: [u8; 12] = block.get(..12).and_then(|part| part.try_into().ok()).ok_or(short)?;
            let [a, b, c, d, _, _, _, _, high, low, ..] = addresses;
            Some(SocketAddr::new(Ipv4Addr::new(a, b, c, d).into(), u16::from_be_bytes([high, low])))
        }
        0x21 => {
            let addresses: [u8; 36] = block.get(..36).and_then(|part| part.try_into().ok()).ok_or(short)?;
            let mut source = [0; 16];
            source.copy_from_slice(&addresses[..16]);
            let port = u16::from_be_bytes([addresses[32], addresses[33]]);
            Some(SocketAddr::new(Ipv6Addr::from(source).into(), port))
        }
        _ => return Err("a PROXY header of a family or protocol that is not TCP"),
    };
    Ok(Some((end, address)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn v2(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
        let length = u16::try_from(block.len()).unwrap_or(u16::MAX).to_be_bytes();
        [V2_SIGNATURE, &[command, family], &length, block].concat()
    }

    fn address(bytes: &[u8]) -> Option<String> {
        parse(bytes).ok().flatten().and_then(|(_, address)| address).map(|address| address.to_string())
    }

    #[test]
    fn a_line_has_the_clients_address() {
        let line = b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\nGET / HTTP/1.1\r\n";
        assert_eq!(parse(line).ok().flatten().map(|(length, _)| length), Some(45));
        assert_eq!(address(line).as_deref(), Some("192.0.2.7:56324"));
        assert_eq!(address(b"PROXY TCP6 2001:db8::7 ::1 1 2\r\n").as_deref(), Some("[2001:db8::7]:1"));
        assert_eq!(parse(b"PROXY UNKNOWN\r\nx"), Ok(Some((15, None))));
        assert_eq!(parse(b"PROXY UNKNOWN ff::1 whatever\r\n"), Ok(Some((30, None))));
        for at in 0..45 {
            assert_eq!(parse(&line[..at]), Ok(None), "the first {at} bytes");
        }
    }

    #[test]
    fn an_invalid_line_is_rejected() {
        for line in [
            "GET / HTTP/1.1\r\n",
            "PROXY TCP4 1.2.3.4 1.2.3.4 1 2\n",
            "PROXY TCP4 1.2.3.4 1.2.3.4 1 2\rx",
            "PROXY TCP4 1.2.3.4 1.2.3.4 1 2 3\r\n",
            "PROXY TCP4 1.2.3.4 1.2.3.4 1 2 \r\n",
            "PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n",
            "PROXY TCP4  1.2.3.4 1.2.3.4 1 2\r\n",
            "PROXY TCP4 01.2.3.4 1.2.3.4 1 2\r\n",
            "PROXY TCP4 ::1 ::1 1 2\r\n",
            "PROXY TCP6 1.2.3.4 ::1 1 2\r\n",
            "PROXY TCP4 1.2.3.4 1.2.3.4 01 2\r\n",
            "PROXY TCP4 1.2.3.4 1.2.3.4 +1 2\r\n",
            "PROXY TCP4 1.2.3.4 1.2.3.4 65536 2\r\n",
            "PROXY UDP4 1.2.3.4 1.2.3.4 1 2\r\n",
            "PROXY tcp4 1.2.3.4 1.2.3.4 1 2\r\n",
            "PROXY UNKNOWNX\r\n",
            "PROXY \r\n",
        ] {
            assert!(parse(line.as_bytes()).is_err(), "{line}");
        }
        let long = format!("PROXY UNKNOWN {}", "x".repeat(93));
        assert!(parse(long.as_bytes()).is_err());
    }

    #[test]
    fn a_binary_header_has_the_clients_address() {
        let four = [192, 0, 2, 7, 198, 51, 100, 1, 0x1f, 0x90, 1, 187];
        let tlv = [&four[..], &[4, 0, 1, 0]].concat();
        assert_eq!(address(&v2(0x21, 0x11, &four)).as_deref(), Some("192.0.2.7:8080"));
        assert_eq!(parse(&v2(0x21, 0x11, &tlv)).ok().flatten().map(|(length, _)| length), Some(32));
        let six = [&[0x20, 1, 0xd, 0xb8][..], &[0; 11], &[7], &[0; 16], &[0, 80, 1, 187]].concat();
        assert_eq!(address(&v2(0x21, 0x21, &six)).as_deref(), Some("[2001:db8::7]:80"));
        assert_eq!(parse(&v2(0x20, 0x11, &four)), Ok(Some((28, None))), "the load balancer's own health check");
        assert_eq!(parse(&v2(0x21, 0x00, &[1, 2, 3])), Ok(Some((19, None))));
        assert_eq!(parse(&v2(0x21, 0x31, &[0; 216])), Ok(Some((232, None))));
        let whole = v2(0x21, 0x11, &four);
        for at in 0..whole.len() {
            assert_eq!(parse(&whole[..at]), Ok(None), "the first {at} bytes");
        }
    }

    #[test]
    fn an_invalid_binary_header_is_rejected() {
        for (command, family, block) in [
            (0x11, 0x11, vec![0; 12]),
            (0x22, 0x11, vec![0; 12]),
            (0x21, 0x11, vec![0; 11]),
            (0x21, 0x21, vec![0; 35]),
            (0x21, 0x31, vec![0; 215]),
            (0x21, 0x12, vec![0; 12]),
            (0x21, 0x41, vec![0; 12]),
            (0x21, 0x11, vec![0; 4081]),
        ] {
            assert!(parse(&v2(command, family, &block)).is_err(), "{command:x} {family:x} {}", block.len());
        }
    }

    proptest! {
        #[test]
        fn more_bytes_are_needed_only_within_the_bounds(start in 0_usize..3, rest in proptest::collection::vec(any::<u8>(), 0..5000)) {
            let bytes = [[&b""[..], b"PROXY ", V2_SIGNATURE][start], &rest].concat();
            match parse(&bytes) {
                Ok(None) => prop_assert!(bytes.len() < V2_BYTES_MAX),
                Ok(Some((length, _))) => prop_assert!(length <= bytes.len() && length <= V2_BYTES_MAX),
                Err(_) => {}
            }
        }
    }
}
