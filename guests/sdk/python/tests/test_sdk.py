"""The objects and functions that filters use, on the fake of the gateway."""

import pytest

from witgate import _fake, config, keyvalue, log, notes, reply
from witgate.testing import fake, reset


def test_the_type_of_the_body_sets_content_type_unless_the_filter_sets_it() -> None:
    assert (reply(204).headers, reply(204).body) == ([], b"")
    assert reply(200, "é").body == "é".encode()
    assert reply(200, {"a": 1}).headers == [("content-type", "application/json")]
    assert reply(200, "<p>", {"Content-Type": "text/html"}).headers == [("Content-Type", "text/html")]
    assert type(reply(200, bytearray(b"x")).body) is bytes, "the bindings trap on a bytearray"


def test_a_request_can_be_read_and_edited() -> None:
    request = fake(method="POST", path="/a", query="b=1", headers={"X-A": "1"}, body='{"c": 2}').request
    assert (request.method, request.path, request.query) == ("POST", "/a", "b=1")
    assert (request.header("x-a"), request.header("x-b")) == ("1", None)
    assert request.json() == {"c": 2}
    request.append_header("x-a", "2")
    assert (request.header("X-A"), request.header_values("x-a")) == ("1, 2", ["1", "2"])
    request.remove_header("x-a")
    request.set_body({"d": 3})
    request.set_query(None)
    assert (request.header("x-a"), request.body, request.query) == (None, b'{"d": 3}', None)


def test_a_response_can_be_read_and_edited() -> None:
    response = fake(status=404, response_headers={"server": "x"}, response_body="no").response
    response.status = 200
    response.remove_header("server")
    response.set_header("x-a", "1")
    response.set_body("yes")
    assert (response.status, response.headers, response.body) == (200, [("x-a", "1")], b"yes")


def test_a_filter_can_use_configuration_notes_log_and_key_value_store() -> None:
    reset()
    exchange = fake(config={"limit": "5"})
    assert (config.get("limit"), config.get("none"), config.keys()) == ("5", None, ["limit"])
    notes.set("a", "1")
    log.warn("careful")
    assert (notes.get("a"), notes.get("b"), exchange.state.log) == ("1", None, ["warn: careful"])
    assert [keyvalue.increment("k"), keyvalue.increment("k", 2), keyvalue.get("k")] == [1, 3, "3"]
    assert [keyvalue.delete("k"), keyvalue.get("k")] == [True, None]


def test_a_key_expires_after_its_time_to_live() -> None:
    reset()
    fake(now=100.0)
    keyvalue.set("k", "v", 1000)
    fake(now=100.9)
    assert keyvalue.get("k") == "v"
    fake(now=101.1)
    assert keyvalue.get("k") is None


def test_a_body_that_is_not_json_raises_value_error() -> None:
    with pytest.raises(ValueError):
        fake(body="{").request.json()


def test_a_refusal_of_the_store_becomes_a_runtime_error_that_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    class Error_NotANumber:  # noqa: N801 - the name that the bindings use
        pass

    class Err(Exception):
        value = Error_NotANumber()

    def refuse(key: str, delta: int, ttl_ms: int) -> int:
        raise Err

    monkeypatch.setattr(_fake.keyvalue, "increment", refuse)
    with pytest.raises(RuntimeError, match="keyvalue.increment of key 'k': not-a-number: the value is not a counter"):
        keyvalue.increment("k")
