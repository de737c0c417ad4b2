"""The objects and functions that filters use, on the fake of the gateway."""

import pytest

from witgate import (
    CryptoError,
    HttpError,
    Policy,
    Secret,
    _fake,
    config,
    crypto,
    http,
    keyvalue,
    limiter,
    log,
    notes,
    reply,
)
from witgate._errors import describe
from witgate._locks import Lock
from witgate.testing import FakeCall, answer, fake, reset


def test_the_type_of_the_body_sets_content_type_unless_the_filter_sets_it() -> None:
    assert (reply(204).headers, reply(204).body) == ([], b"")
    assert reply(200, "é").body == "é".encode()
    assert reply(200, {"a": 1}).headers == [("content-type", "application/json")]
    assert reply(200, "<p>", {"Content-Type": "text/html"}).headers == [("Content-Type", "text/html")]
    assert type(reply(200, bytearray(b"x")).body) is bytes, "the bindings trap on a bytearray"


def test_a_body_holds_only_what_json_can_hold() -> None:
    for value in (float("nan"), {"a": [float("inf")]}):
        with pytest.raises(ValueError, match="not JSON compliant"):
            reply(200, value)


def test_a_wait_for_a_lock_that_nothing_releases_raises() -> None:
    lock = Lock()
    with lock:
        assert lock.locked() and not lock.acquire(False) and not lock.acquire(timeout=0.1)
        with pytest.raises(RuntimeError, match="nothing else can release"):
            lock.acquire()
    assert not lock.locked() and lock.acquire()
    with pytest.raises(ValueError):
        lock.acquire(False, 1)


def test_a_request_can_be_read_and_edited() -> None:
    request = fake(method="POST", path="/a", query="b=1", headers={"X-A": "1"}, body='{"c": 2}').request
    assert (request.method, request.path, request.query) == ("POST", "/a", "b=1")
    assert (request.header("x-a"), request.header("x-b")) == ("1", None)
    assert request.json() == {"c": 2}
    request.append_header("x-a", "2")
    assert (request.header("X-A"), request.header_values("x-a")) == ("1, 2", ["1", "2"])
    request.append_header("cookie", "a=1")
    request.append_header("Cookie", "b=2")
    assert request.header("cookie") == "a=1; b=2"
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


def test_several_keys_are_read_at_once() -> None:
    reset()
    keyvalue.set("a", "1")
    assert keyvalue.get_many(["a", "b", "a"]) == ["1", None, "1"]
    assert keyvalue.get_many([]) == []
    with pytest.raises(ValueError, match="at most 64 keys"):
        keyvalue.get_many(["a"] * 65)


def test_a_swap_needs_the_expected_value() -> None:
    reset()
    assert [keyvalue.compare_and_swap("k", None, "a"), keyvalue.compare_and_swap("k", None, "b")] == [True, False]
    assert [keyvalue.compare_and_swap("k", "a", "b"), keyvalue.get("k")] == [True, "b"]
    keyvalue.increment("n", 7)
    assert keyvalue.compare_and_swap("n", "7", "x") is True


def test_a_limiter_takes_units_until_the_limit() -> None:
    reset()
    fake(now=100.0)
    window = Policy(limit=2, window_ms=1000)
    assert [limiter.take("k", window).allowed for _ in range(3)] == [True, True, False]
    refused = limiter.take("k", window)
    assert (refused.remaining, refused.reset_ms, refused.retry_after_ms) == (0, 1000, 1000)
    bucket = Policy(limit=10, window_ms=1000, algorithm="token-bucket", burst=20)
    assert limiter.take("k", bucket, cost=20).remaining == 0
    assert limiter.take("k", bucket).retry_after_ms == 100
    fake(now=101.0)
    assert (limiter.take("k", window).allowed, limiter.take("k", bucket, cost=0).remaining) == (True, 10)
    with pytest.raises(RuntimeError, match="limiter.take of key 'k': invalid: a cost of 3 is more than the 2 units"):
        limiter.take("k", window, cost=3)
    with pytest.raises(ValueError, match="limit is 0"):
        limiter.take("k", Policy(limit=0, window_ms=1))


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


def test_values_that_the_gateway_cannot_take_are_refused_with_advice() -> None:
    request = fake().request
    for call, kind, text in [
        (lambda: request.set_header("x-a", 42), TypeError, "use str"),  # type: ignore[arg-type]
        (lambda: request.set_header("x-a", b"a"), TypeError, "decode"),  # type: ignore[arg-type]
        (lambda: request.set_header("a b", "1"), ValueError, "cannot be the name"),
        (lambda: request.set_header("Host", "a"), ValueError, "only the gateway writes"),
        (lambda: request.set_header("Via", "1.1 a"), ValueError, "only the gateway writes"),
        (lambda: request.remove_header("http2-settings"), ValueError, "only the gateway writes"),
        (lambda: request.set_header("x-a", "1\n"), ValueError, "control character"),
        (lambda: request.set_path("/a?b"), ValueError, "not a path"),
        (lambda: request.set_query("a#b"), ValueError, "not a query"),
        (lambda: reply(99), ValueError, "between 200 and 599"),
        (lambda: reply(True), TypeError, "whole number"),
        (lambda: reply(200, headers={"x-a": 1}), TypeError, "text"),  # type: ignore[dict-item]
        (lambda: reply(200, b"x" * (8 * 2**20 + 1)), ValueError, "limit"),
        (lambda: keyvalue.set("k", "v", -1), ValueError, "ttl_ms"),
        (lambda: keyvalue.set("k", "v", 0.5), TypeError, "whole number"),  # type: ignore[arg-type]
        (lambda: keyvalue.increment("k", 2**31), ValueError, "32 bits"),
        (lambda: notes.set("", "v"), ValueError, "1 to 64 bytes"),
    ]:
        with pytest.raises(kind, match=text):
            call()
    request.set_header("X-Tab", "a\tb é")
    assert request.header("x-tab") == "a\tb é"


def test_lone_surrogates_are_replaced_and_pairs_are_joined() -> None:
    exchange = fake()
    log.info("a\ud800b")
    exchange.request.set_body("\ud83d\ude00\udc00")
    assert exchange.state.log == ["info: a\ufffdb"]
    assert exchange.request.body == "😀\ufffd".encode()


def test_json_with_a_byte_order_mark_is_parsed() -> None:
    assert fake(body=b"\xef\xbb\xbf{}").request.json() == {}


def test_a_message_may_be_any_value_with_a_text() -> None:
    exchange = fake()
    log.info(ValueError("why"))
    assert exchange.state.log == ["info: why"]


def test_a_description_has_the_causes_notes_and_places() -> None:
    def fail() -> None:
        try:
            int("x")
        except ValueError as failure:
            failure.add_note("in a")
            raise ExceptionGroup("all", [KeyError("k")]) from failure

    with pytest.raises(ExceptionGroup) as caught:
        fail()
    text = describe(caught.value)
    assert text.startswith("ExceptionGroup: all (1 sub-exception) [KeyError: 'k'] (test_sdk.py:")
    assert "; caused by ValueError: invalid literal for int() with base 10: 'x'; note: in a (test_sdk.py:" in text
    assert "a filter cannot end the process" in describe(SystemExit(1))


def test_a_call_of_a_service_has_the_parts_that_the_filter_gives() -> None:
    calls = []

    def service(call: FakeCall) -> object:
        calls.append((call.method, call.url, dict(call.headers), call.body, call.timeout_ms))
        return answer(201, '{"a": 1}', {"X-A": "1"})

    fake(http=service)  # type: ignore[arg-type]
    response = http.post("https://a.example", {"b": 2}, {"x-b": "1"}, timeout_ms=50)
    assert (response.status, response.ok, response.header("x-a"), response.json()) == (201, True, "1", {"a": 1})
    assert http.get("https://a.example/y").text == '{"a": 1}'
    assert calls == [
        ("POST", "https://a.example", {"x-b": "1", "content-type": "application/json"}, b'{"b": 2}', 50),
        ("GET", "https://a.example/y", {}, b"", 0),
    ]


def test_a_call_without_a_response_raises_an_error_of_its_kind() -> None:
    fake()
    with pytest.raises(HttpError, match="GET https://a.example: denied: give the fake") as caught:
        http.get("https://a.example")
    assert caught.value.kind == "denied"
    with pytest.raises(ValueError, match="only the gateway writes"):
        http.get("https://a.example", {"host": "b"})
    with pytest.raises(ValueError, match="timeout_ms"):
        http.get("https://a.example", timeout_ms=-1)


def test_digests_codes_signatures_and_encryption() -> None:
    fake(secrets={"shared": b"Jefe"})
    assert crypto.digest("SHA-1", "abc").hex() == "a9993e364706816aba3e25717850c26c9cd0d89d"
    code = crypto.hmac("SHA-256", Secret("shared"), "what do ya want for nothing?")
    assert code.hex() == "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
    assert crypto.equal(code, bytes(code)) and not crypto.equal("a", "b")
    signed = crypto.sign("ES256", {"kid": "k"}, "data")
    assert crypto.verify("ES256", '{"kid": "k"}', b"data", signed)
    assert not crypto.verify("RS256", {"kid": "k"}, b"data", signed)
    sealed = crypto.encrypt(bytes(32), "text", "more")
    assert crypto.decrypt(bytes(32), sealed, "more") == b"text"
    assert crypto.decrypt(bytes(32), sealed) is None and crypto.decrypt(bytes(32), b"short") is None
    assert len(crypto.derive("SHA-256", "password", "salt", 2, 32)) == 32
    with pytest.raises(CryptoError, match="crypto.hmac: denied: there is no key 'absent'"):
        crypto.hmac("SHA-256", Secret("absent"), "x")
    with pytest.raises(ValueError, match="the hash is one of"):
        crypto.digest("MD5", "x")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="iterations"):
        crypto.derive("SHA-256", "p", "s", 0, 32)
