//! Single values as text: durations, sizes, names, paths, hosts, addresses.
//!
//! Each function returns the typed value, or the end of an error message that says what to write.
//! This module does not know: where a value stands, which keys exist.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use http::HeaderName;
use http::uri::Authority;
use ipnet::IpNet;
use witgate_http::semantics::path::normalize;

pub(crate) const MILLISECOND: Duration = Duration::from_millis(1);
pub(crate) const SECOND: Duration = Duration::from_secs(1);
pub(crate) const HOUR: Duration = Duration::from_secs(3600);

const NAME_CHARS_MAX: usize = 64;

/// A duration with its unit, such as `500ms` or `10s`.
pub(crate) fn duration(text: &str, min: Duration, max: Duration) -> Result<Duration, String> {
    match parse_duration(text) {
        None => Err("write a duration such as 500ms, 10s, 2m or 1h (whole numbers)".into()),
        Some(value) if value < min || value > max => Err(format!("write a duration between {min:?} and {max:?}")),
        Some(value) => Ok(value),
    }
}

/// A size in bytes, with or without a unit.
pub(crate) fn size(text: &str, min: usize, max: usize) -> Result<usize, String> {
    match parse_size(text) {
        None => Err("write a size such as 64KiB, 16MiB or 1000000 (bytes)".into()),
        Some(bytes) if bytes < min || bytes > max => {
            Err(format!("write a size between {} and {}", display_size(min), display_size(max)))
        }
        Some(bytes) => Ok(bytes),
    }
}

/// The name of a listener, route, upstream or filter.
pub(crate) fn name(text: &str) -> Result<String, String> {
    let is_allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-".contains(c);
    let starts_well = text.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
    if starts_well && text.len() <= NAME_CHARS_MAX && text.chars().all(is_allowed) {
        Ok(text.to_owned())
    } else {
        Err(format!(
            "a name has 1 to {NAME_CHARS_MAX} of a-z, 0-9, '.', '_' and '-', and begins with a letter or digit"
        ))
    }
}

/// A status such as `200`, or a range such as `200-399`.
pub(crate) fn status_range(text: &str) -> Result<(u16, u16), String> {
    let (from, to) = text.split_once('-').unwrap_or((text, text));
    match (from.parse(), to.parse()) {
        (Ok(from), Ok(to)) if 100 <= from && from <= to && to <= 599 => Ok((from, to)),
        _ => Err(match text.as_bytes() {
            [digit @ b'1'..=b'5', b'x' | b'X', b'x' | b'X'] => {
                let digit = char::from(*digit);
                format!("write the range {digit}00-{digit}99")
            }
            _ => "write a status such as 200, or a range such as 200-399".into(),
        }),
    }
}

/// A share between 0 and 1, such as `0.1`.
pub(crate) fn share(text: &str) -> Result<f64, String> {
    let share = text.parse().ok().filter(|share| (0.0..=1.0).contains(share));
    share.ok_or_else(|| "write a share between 0 and 1, such as 0.1".into())
}

/// A token (RFC 9110, section 5.6.2), such as a method.
pub(crate) fn token(text: &str) -> Result<String, String> {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if !text.is_empty() && text.bytes().all(is_allowed) {
        Ok(text.to_owned())
    } else {
        Err("is not a token (RFC 9110, section 5.6.2)".into())
    }
}

pub(crate) fn header_name(text: &str) -> Result<HeaderName, String> {
    HeaderName::from_bytes(text.as_bytes()).map_err(|_| "is not a header name (RFC 9110, section 5.1)".into())
}

/// A method that a client can send. Methods are case-sensitive (RFC 9110, section 9.1).
pub(crate) fn method(text: &str) -> Result<String, String> {
    const KNOWN: [&str; 10] =
        ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "CONNECT", "TRACE", "PROPFIND"];
    let upper = text.to_ascii_uppercase();
    if matches!(text, "*" | "ANY" | "ALL") {
        return Err("is not a method: remove the key methods to match every method".into());
    }
    if upper != text && KNOWN.contains(&upper.as_str()) {
        return Err(format!("methods are case-sensitive, so no request has this one: write {upper}"));
    }
    if text == "CONNECT" || text == "TRACE" {
        return Err("the gateway answers CONNECT and TRACE with 405 before it looks for a route: remove it".into());
    }
    token(text)
}

/// A path in normal form: the gateway compares normalized paths, so any other would never match.
pub(crate) fn path(text: &str) -> Result<String, String> {
    let is_plain = text.bytes().all(|byte| byte > b' ' && byte < 0x7f && byte != b'?' && byte != b'#');
    if let Some((_, rest)) = text.split_once("://") {
        let path = rest.split_once('/').map_or("", |(_, path)| path);
        return Err(format!("a path has no scheme and no host: write /{path}"));
    }
    if !text.starts_with('/') || !is_plain {
        return Err("a path begins with /, has no query and only visible ASCII (%-encode the rest)".into());
    }
    match normalize(text) {
        Ok(_) if text.split('/').any(is_placeholder) => Err(
            "a path is not a pattern, and * and {} have no meaning in it: a prefix such as /v1 also matches all below it; \
             for anything else write {regex: \"^/v1/[^/]+$\"}"
                .into(),
        ),
        Ok(normal) if normal == text => Ok(text.to_owned()),
        Ok(normal) => Err(format!("is not in normal form: write {normal}")),
        Err(why) => Err(why.to_owned()),
    }
}

/// Whether a segment of a path is a placeholder in other products' patterns: `*`, `**`, `*.png`,
/// `{id}`.
fn is_placeholder(segment: &str) -> bool {
    segment.starts_with('*') || (segment.starts_with('{') && segment.ends_with('}'))
}

/// A host without port, in lower case; `*.` in front stands for any name below it.
pub(crate) fn host(text: &str) -> Result<String, String> {
    let name = text.strip_prefix("*.").unwrap_or(text);
    if name.is_empty() || !name.bytes().all(may_be_in_host) || (name.contains(':') && !name.starts_with('[')) {
        return Err(host_advice(text));
    }
    if let Some(bare) = name.strip_suffix('.') {
        return Err(format!("hosts are compared without the final dot: write {bare}"));
    }
    if name.split('.').any(str::is_empty) && !name.starts_with('[') {
        return Err(match name.strip_prefix('.') {
            Some(rest) if !rest.split('.').any(str::is_empty) => format!("write *.{rest} for any name below {rest}"),
            _ => "has an empty label between two dots, so no request has this host".into(),
        });
    }
    Ok(text.to_ascii_lowercase())
}

/// Whether a host, an IP address in brackets or a port may contain this byte.
fn may_be_in_host(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte)
}

/// What to write in place of a text that is not a host name.
fn host_advice(text: &str) -> String {
    if text == "*" {
        return "leave host out: a route without it takes requests for any host".into();
    }
    if let Some((scheme, rest)) = text.split_once("://") {
        let name = rest.split('/').next().unwrap_or(rest);
        return format!("a host has no scheme: write {name} without {scheme}://");
    }
    if let Some((name, path)) = text.split_once('/') {
        return format!("a host has no path: write host: {name} and path: /{path}");
    }
    if text.parse::<std::net::Ipv6Addr>().is_ok() {
        return format!("an IPv6 address has brackets: write \"[{text}]\"");
    }
    if let Some((name, port)) = text.rsplit_once(':')
        && port.bytes().all(|byte| byte.is_ascii_digit())
    {
        return format!("the port of a request's host is not compared: write {name}");
    }
    if !text.is_ascii() {
        return "clients send such a name in its ASCII form, which begins with xn--: write that form".into();
    }
    if text.contains('*') {
        return "* stands only for the labels before a name, as in *.example.com".into();
    }
    "write a host name without port, such as api.example.com or *.example.com".into()
}

/// A host with an optional port, in lower case.
pub(crate) fn authority(text: &str) -> Result<String, String> {
    if text.contains(['$', '{', '%']) {
        return Err("variables have no meaning here: write the host itself".into());
    }
    match text.parse::<Authority>() {
        Ok(parsed) if !parsed.host().is_empty() && text.bytes().all(may_be_in_host) => Ok(text.to_ascii_lowercase()),
        _ => Err("write a host, with a port if it needs one: api.example.com or api.example.com:8443".into()),
    }
}

pub(crate) fn socket_address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "write an IP address and a port, such as 127.0.0.1:8080 or [::]:8080".into())
}

/// A network; a single address is a network of one.
pub(crate) fn network(text: &str) -> Result<IpNet, String> {
    text.parse::<IpAddr>()
        .map(IpNet::from)
        .or_else(|_| text.parse())
        .map(unmapped)
        .map_err(|_| "write a network such as 10.0.0.0/8 or fd00::/8, or one address".into())
}

/// IPv4 addresses in IPv6 (`::ffff:10.0.0.0/104`) as a network of IPv4, because addresses are
/// compared in that form.
fn unmapped(network: IpNet) -> IpNet {
    const MAPPED_BITS: u8 = 96;
    let IpNet::V6(mapped) = network else { return network };
    let length = mapped.prefix_len().checked_sub(MAPPED_BITS);
    let address = mapped.addr().to_ipv4_mapped();
    let unmapped = address.zip(length).and_then(|(address, length)| IpNet::new(address.into(), length).ok());
    unmapped.unwrap_or(network)
}

/// A digest as `sha256sum` prints it.
pub(crate) fn sha256(text: &str) -> Result<[u8; 32], String> {
    let mut digest = [0; 32];
    hex::decode_to_slice(text, &mut digest).map_err(|_| "write 64 hexadecimal digits (sha256sum FILE)".to_owned())?;
    Ok(digest)
}

fn parse_duration(text: &str) -> Option<Duration> {
    let end = text.find(|c: char| !c.is_ascii_digit())?;
    let number: u64 = text[..end].parse().ok()?;
    Some(match &text[end..] {
        "ms" => Duration::from_millis(number),
        "s" => Duration::from_secs(number),
        "m" => Duration::from_secs(number.checked_mul(60)?),
        "h" => Duration::from_secs(number.checked_mul(3600)?),
        _ => return None,
    })
}

fn parse_size(text: &str) -> Option<usize> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: usize = text[..end].parse().ok()?;
    let unit = match &text[end..] {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "KB" | "kB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        _ => return None,
    };
    number.checked_mul(unit)
}

/// A size as gateway.yaml writes it.
pub(crate) fn display_size(bytes: usize) -> String {
    match bytes {
        bytes if bytes >= 1 << 30 && bytes % (1 << 30) == 0 => format!("{}GiB", bytes >> 30),
        bytes if bytes >= 1 << 20 && bytes % (1 << 20) == 0 => format!("{}MiB", bytes >> 20),
        bytes if bytes >= 1 << 10 && bytes % (1 << 10) == 0 => format!("{}KiB", bytes >> 10),
        bytes => bytes.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_that_is_no_host_name_gets_advice() {
        for (bad, advice) in [
            ("*", "leave host out"),
            ("https://a.test/x", "write a.test without https://"),
            ("a.test/x/y", "write host: a.test and path: /x/y"),
            ("::1", "write \"[::1]\""),
            ("a.test:8080", "not compared: write a.test"),
            ("bücher.test", "xn--"),
            ("*a.test", "*.example.com"),
            ("a b", "write a host name"),
        ] {
            let error = host(bad).err().unwrap_or_default();
            assert!(error.contains(advice), "{bad}: {error}");
        }
    }

    #[test]
    fn a_network_of_mapped_addresses_is_one_of_ipv4() {
        let read = |text| network(text).map(|network| network.to_string()).unwrap_or_default();
        assert_eq!(read("::ffff:10.0.0.0/104"), "10.0.0.0/8");
        assert_eq!(read("::ffff:10.0.0.1"), "10.0.0.1/32");
        assert_eq!((read("fd00::/8"), read("::/0")), ("fd00::/8".into(), "::/0".into()));
    }

    #[test]
    fn units() {
        assert_eq!(parse_duration("500ms"), Some(Duration::from_millis(500)));
        assert_eq!(parse_duration("2m"), Some(Duration::from_secs(120)));
        for bad in ["", "5", "-1s", "1.5s", "1d", "99999999999999999999s", "18446744073709551615h"] {
            assert_eq!(parse_duration(bad), None, "{bad}");
        }
        assert_eq!(parse_size("64KiB"), Some(65536));
        assert_eq!(parse_size("16MB"), Some(16_000_000));
        assert_eq!(parse_size("7"), Some(7));
        for bad in ["", "x", "-1", "1TiB", "99999999999GiB"] {
            assert_eq!(parse_size(bad), None, "{bad}");
        }
    }
}
