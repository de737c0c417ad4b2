"""Unit tests, without Wasm. The signatures of the fake are codes by the `kid` of a key."""

import base64
import json
import time
from typing import Any

import pytest

from witgate import Reply, Request, crypto
from witgate.testing import FakeCall, answer, fake, load, reset

filter = load(__file__)
NOW = 1_700_000_000.0
CONFIG = {"jwks_url": "https://issuer.example/keys", "issuer": "https://issuer.example", "audience": "api"}
CLAIMS = {"iss": "https://issuer.example", "aud": ["api"], "sub": "ada", "exp": NOW + 60}
KEYS = [{"kty": "RSA", "kid": "a", "use": "sig"}, {"kty": "EC", "kid": "b", "alg": "ES256"}]


class Issuer:
    def __init__(self) -> None:
        self.keys: list[dict[str, str]] = KEYS
        self.status = 200
        self.fetches = 0

    def __call__(self, call: FakeCall) -> Any:
        assert call.url == CONFIG["jwks_url"]
        self.fetches += 1
        return answer(self.status, json.dumps({"keys": self.keys}))


@pytest.fixture
def issuer() -> Issuer:
    reset()
    return Issuer()


def token(kid: str, alg: Any = "RS256", claims: dict[str, object] = CLAIMS, **header: object) -> str:
    def encode(part: bytes) -> str:
        return base64.urlsafe_b64encode(part).decode().rstrip("=")

    signed = ".".join(encode(json.dumps(part).encode()) for part in ({"alg": alg, "kid": kid, **header}, claims))
    signature = crypto.sign(alg, {"kid": kid}, signed) if alg in ("RS256", "ES256") else b"x"
    return f"{signed}.{encode(signature)}"


def send(
    issuer: Issuer, bearer: str | None, monkeypatch: pytest.MonkeyPatch, now: float = NOW
) -> tuple[Reply | None, Request, list[str]]:
    monkeypatch.setattr(time, "time", lambda: now)
    headers = {"x-user": "root"} | ({} if bearer is None else {"authorization": f"Bearer {bearer}"})
    exchange = fake(config=CONFIG, headers=headers, http=issuer, now=now)
    return filter.on_request(exchange.request), exchange.request, exchange.state.log


def test_tokens_of_both_algorithms_pass_and_the_keys_are_fetched_once(
    issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for bearer in (token("a"), token("b", "ES256"), token("a")):
        refusal, request, _ = send(issuer, bearer, monkeypatch)
        assert (refusal, request.header("x-user"), request.header("authorization")) == (None, "ada", None)
    assert issuer.fetches == 1


def test_tokens_that_say_or_are_something_else_are_refused(issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    head, _, signature = token("a").split(".")
    forged = base64.urlsafe_b64encode(json.dumps({**CLAIMS, "sub": "root"}).encode()).decode().rstrip("=")
    for bearer, why in [
        (None, "required"),
        ("x.y.z", "malformed"),
        (token("a", claims={**CLAIMS, "exp": NOW - 31}), "expired"),
        (token("a", claims={**CLAIMS, "exp": "never"}), "expired"),
        (token("a", claims={**CLAIMS, "nbf": NOW + 31}), "not valid yet"),
        (token("a", claims={**CLAIMS, "iss": "other"}), "another issuer"),
        (token("a", claims={**CLAIMS, "aud": "other"}), "another audience"),
        (token("a", "none"), "algorithm"),
        (token("a", "HS256"), "algorithm"),
        (token("a", crit=["x"]), "extension"),
        (token("b", "RS256"), "signature"),
        (f"{head}.{forged}.{signature}", "signature"),
    ]:
        refusal, _, _ = send(issuer, bearer, monkeypatch)
        assert refusal is not None and refusal.status == 401, bearer
        assert why in refusal.body.decode()


def test_an_unknown_key_makes_the_filter_fetch_the_keys_again_but_not_often(
    issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert send(issuer, token("a"), monkeypatch)[0] is None
    issuer.keys = [{"kty": "EC", "kid": "c"}]
    assert send(issuer, token("c", "ES256"), monkeypatch, NOW + 11)[0] is None
    assert issuer.fetches == 2
    for number in range(10):
        refusal = send(issuer, token(f"invented-{number}"), monkeypatch, NOW + 11)[0]
        assert refusal is not None and refusal.status == 401
    assert issuer.fetches == 2


def test_known_keys_stay_in_use_while_the_issuer_fails(issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    issuer.status = 500
    refusal = send(issuer, token("a"), monkeypatch)[0]
    assert refusal is not None and refusal.status == 503
    reset()
    issuer.status = 200
    assert send(issuer, token("a"), monkeypatch)[0] is None
    issuer.status = 500
    refusal, _, lines = send(issuer, token("c"), monkeypatch, NOW + 11)
    assert refusal is not None and refusal.status == 401
    assert "cannot be fetched again" in lines[0]
