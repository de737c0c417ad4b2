//! The policies of a route that need no filter: which clients may use it, and changes of header
//! fields.
//!
//! This module does not know: filters, upstreams.

use std::net::IpAddr;

use http::HeaderMap;

use witgate_config::{ClientNetworks, HeaderEdits};
use witgate_http::error::{Error, Kind};

/// Refuses a client that may not use the route.
pub fn check_client(networks: &ClientNetworks, client: IpAddr) -> Result<(), Error> {
    let client = client.to_canonical();
    let is_in = |list: &[ipnet::IpNet]| list.iter().any(|network| network.contains(&client));
    let refuse = |why: &str| Err(Error::new(Kind::Forbidden, format!("the client {client} {why} of the route")));
    if is_in(&networks.deny) {
        return refuse("is in clients.deny");
    }
    if !networks.allow.is_empty() && !is_in(&networks.allow) {
        return refuse("is not in clients.allow");
    }
    Ok(())
}

/// Removes, sets and adds fields.
pub fn edit(edits: &HeaderEdits, headers: &mut HeaderMap) {
    for name in &edits.remove {
        headers.remove(name);
    }
    for (name, value) in &edits.set {
        headers.insert(name, value.clone());
    }
    for (name, value) in &edits.add {
        headers.append(name, value.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn networks(allow: &[&str], deny: &[&str]) -> ClientNetworks {
        let parse = |list: &[&str]| list.iter().filter_map(|text| text.parse().ok()).collect();
        ClientNetworks { allow: parse(allow), deny: parse(deny) }
    }

    #[test]
    fn deny_takes_precedence_over_allow() -> Result<(), std::net::AddrParseError> {
        let both = networks(&["10.0.0.0/8", "fd00::/8"], &["10.1.0.0/16"]);
        for (client, allowed) in [
            ("10.2.3.4", true),
            ("10.1.2.3", false),
            ("192.0.2.1", false),
            ("fd00::1", true),
            ("::ffff:10.2.3.4", true),
        ] {
            assert_eq!(check_client(&both, client.parse()?).is_ok(), allowed, "{client}");
        }
        assert!(check_client(&networks(&[], &["10.0.0.0/8"]), "192.0.2.1".parse()?).is_ok());
        assert!(check_client(&networks(&[], &[]), "192.0.2.1".parse()?).is_ok());
        Ok(())
    }
}
