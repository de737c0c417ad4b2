"""Unit tests, without Wasm."""

from witgate.testing import fake, load

on_request = load(__file__).on_request


def test_a_request_without_a_key_is_answered_with_401() -> None:
    answer = on_request(fake().request)
    assert (answer.status, answer.headers) == (401, [("content-type", "application/json")])


def test_a_request_with_a_wrong_key_is_answered_with_401() -> None:
    assert on_request(fake(headers={"x-api-key": "a"}, config={"key": "b"}).request).status == 401


def test_a_request_with_the_key_passes_and_its_credentials_are_hidden_from_the_upstream() -> None:
    request = fake(headers={"X-Api-Key": "b", "cookie": "id=1"}, config={"key": "b"}).request
    assert on_request(request) is None
    assert request.header("x-user") == "alice"
    assert request.header("cookie") == "REDACTED"
    assert request.header("authorization") is None
