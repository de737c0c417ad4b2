"""Unit tests, without Wasm."""

import json

import pytest
from witgate.testing import fake, load

filter_ = load(__file__)
REGIONS = {"office": ["192.0.2.0/24", "2001:db8:1::/48"], "lab": ["192.0.2.128/25"], "far": ["198.51.100.0/24"]}


def send(ip: str, **config: object) -> tuple[int, str | None]:
    values = {key: json.dumps(value) for key, value in {"regions": REGIONS, **config}.items()}
    exchange = fake(client_ip=ip, config=values, headers={"x-region": "forged"})
    refused = filter_.on_request(exchange.request)
    return (200 if refused is None else refused.status, exchange.request.header("x-region"))


def test_the_most_specific_network_decides() -> None:
    for ip, region in [
        ("192.0.2.1", "office"),
        ("192.0.2.200", "lab"),
        ("::ffff:198.51.100.7", "far"),
        ("2001:db8:1::5", "office"),
        ("203.0.113.1", "other"),
        ("2001:db8:2::", "other"),
    ]:
        assert send(ip) == (200, region)


def test_regions_are_allowed_or_refused() -> None:
    for ip, allow, deny, status in [
        ("192.0.2.1", ["office"], [], 200),
        ("192.0.2.200", ["office"], [], 403),
        ("203.0.113.1", ["office"], [], 403),
        ("203.0.113.1", ["other"], [], 200),
        ("198.51.100.7", [], ["far"], 403),
        ("192.0.2.1", [], ["far"], 200),
        ("198.51.100.7", ["far"], ["far"], 403),
    ]:
        assert send(ip, allow=allow, deny=deny)[0] == status, (ip, allow, deny)


def test_a_mistake_in_the_list_names_the_region() -> None:
    with pytest.raises(ValueError, match="config regions: office: .*host bits"):
        send("192.0.2.1", regions={"office": ["192.0.2.1/24"]})
