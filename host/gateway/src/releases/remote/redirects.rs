//! Where a server may send the gateway: not to addresses that only this host can reach.
//!
//! Otherwise a server, or whoever controls it, could read the metadata of a cloud machine or of an
//! internal service by a redirect. The addresses are checked when a name is resolved, so that a
//! name cannot change in between. This module does not know: requests.

use std::net::{IpAddr, SocketAddr};

use reqwest::Url;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use witgate_http::semantics::public_address::is_public;

/// Redirects of one request.
pub(super) const REDIRECTS_MAX: usize = 5;

/// Resolves names to public addresses only.
pub(super) struct PublicAddresses;

impl Resolve for PublicAddresses {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let public: Vec<SocketAddr> = found.filter(|address| is_public(address.ip())).collect();
            if public.is_empty() {
                return Err(private(name.as_str()).into());
            }
            Ok(Box::new(public.into_iter()) as Addrs)
        })
    }
}

/// Checks a redirect: the scheme stays, and a literal address is public.
///
/// # Errors
/// A message for the operator.
pub(super) fn check(from: &Url, to: &Url, private_addresses: bool) -> Result<(), String> {
    let host = to.host_str().unwrap_or_default();
    if from.scheme() != to.scheme() {
        return Err(format!("a redirect from {} to {}://{host} changes the scheme", from.scheme(), to.scheme()));
    }
    let address: Option<IpAddr> = host.trim_start_matches('[').trim_end_matches(']').parse().ok();
    if !private_addresses && !is_same_server(from, to) && address.is_some_and(|address| !is_public(address)) {
        return Err(private(host));
    }
    Ok(())
}

/// Whether two URLs lead to one server.
pub(super) fn is_same_server(one: &Url, other: &Url) -> bool {
    one.host() == other.host() && one.port_or_known_default() == other.port_or_known_default()
}

fn private(host: &str) -> String {
    format!("a redirect leads to the private address of {host}: allow it with `private_addresses: true` in `sources`")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_this_host_and_of_private_networks_are_not_public() -> anyhow::Result<()> {
        for text in [
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.0.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "224.0.0.1",
            "255.255.255.255",
            "198.18.0.1",
            "::1",
            "::",
            "fe80::1",
            "fd00::1",
            "::ffff:10.0.0.1",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
            "2001:db8::1",
            // A mapped address says something else than it seems to.
            "::ffff:8.8.8.8",
        ] {
            assert!(!is_public(text.parse()?), "{text}");
        }
        for text in ["8.8.8.8", "100.128.0.1", "2606:4700::1111"] {
            assert!(is_public(text.parse()?), "{text}");
        }
        Ok(())
    }

    #[test]
    fn a_redirect_keeps_its_scheme_and_leaves_private_addresses_alone() -> anyhow::Result<()> {
        let from: Url = "https://a.example/f".parse()?;
        let check = |to: &str, allowed| -> anyhow::Result<bool> { Ok(check(&from, &to.parse()?, allowed).is_ok()) };
        assert!(check("https://b.example/f", false)? && check("https://8.8.8.8/f", false)?);
        assert!(!check("http://a.example/f", true)?, "another scheme");
        assert!(!check("https://169.254.169.254/f", false)? && !check("https://[::1]/f", false)?);
        assert!(check("https://10.0.0.1/f", true)?);
        // Spellings of 127.0.0.1 and of the metadata service, which URLs bring into one form.
        for host in [
            "2130706433",
            "0x7f000001",
            "0x7f.1",
            "017700000001",
            "0177.0.0.1",
            "127.1",
            "127.0.0.1.",
            "%31%32%37.0.0.1",
            "0xa9fea9fe",
            "2852039166",
            "0251.0376.0251.0376",
            "[::ffff:7f00:1]",
            "[::ffff:169.254.169.254]",
            "[64:ff9b::7f00:1]",
            "[2002:7f00:1::]",
            "[fd00:ec2::254]",
            "0",
            "198.18.0.1",
            "100.64.0.1",
            "255.255.255.255",
        ] {
            assert!(!check(&format!("https://{host}/f"), false)?, "{host}");
        }
        for host in ["[fe80::1%25eth0]", "127.0.0.256", "0x100000000"] {
            assert!(format!("https://{host}/f").parse::<Url>().is_err(), "{host}");
        }
        Ok(())
    }
}
