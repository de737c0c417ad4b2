"""Finds the region of a client by its address, and allows or refuses regions.

A region is a name with a list of networks, such as a country from a list that a provider of
geographic data sells, or an office. The most specific network that contains the address decides;
a client in none of them is in the region `other`. The policy `clients` of a route is simpler where
allowing and refusing networks is all that is needed.
"""

import json
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from witgate import Reply, Request, client, config, notes, reply

Network = IPv4Network | IPv6Network

OTHER = "other"


def on_request(request: Request) -> Reply | None:
    region = region_of(address(client().ip), json.loads(config.get("regions") or "{}"))
    allow, deny = names("allow"), names("deny")
    if region in deny or (allow and region not in allow):
        return reply(403, {"error": "this service is not available in your region"})
    # Replaces what the client sent: only its address says where it is.
    request.set_header(config.get("header") or "x-region", region)
    notes.set("ip-list.region", region)
    return None


def address(text: str) -> IPv4Address | IPv6Address:
    """Returns the address; an IPv4 address that is written as IPv6 is one."""
    found = ip_address(text)
    return getattr(found, "ipv4_mapped", None) or found


def region_of(ip: IPv4Address | IPv6Address, regions: dict[str, list[str]]) -> str:
    """Returns the region with the most specific network that contains the address."""
    found, longest = OTHER, -1
    for region, networks in regions.items():
        for text in networks:
            network = parse(region, text)
            if network.prefixlen > longest and ip in network:
                found, longest = region, network.prefixlen
    return found


def parse(region: str, text: str) -> Network:
    try:
        return ip_network(text)
    except ValueError as error:
        raise ValueError(f"config regions: {region}: {error}") from None


def names(key: str) -> set[str]:
    return set(json.loads(config.get(key) or "[]"))
