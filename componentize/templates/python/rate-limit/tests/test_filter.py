"""Unit tests, without Wasm."""

from witgate.testing import fake, load, reset

on_request = load(__file__).on_request


def send(client_ip: str) -> int:
    answer = on_request(fake(client_ip=client_ip, config={"limit": "2"}).request)
    return 200 if answer is None else int(answer.status)


def test_a_request_above_the_limit_is_answered_with_429() -> None:
    reset()
    assert [send("192.0.2.1") for _ in range(3)] == [200, 200, 429]


def test_clients_are_counted_separately() -> None:
    reset()
    assert [send("192.0.2.1"), send("192.0.2.1"), send("192.0.2.2")] == [200, 200, 200]
