"""Unit tests, without Wasm."""

from witgate.testing import fake, load

on_request = load(__file__).on_request


def test_a_caller_without_a_name_is_refused() -> None:
    assert on_request(fake().request).status == 400


def test_a_caller_is_greeted() -> None:
    request = fake(headers={"x-name": "Ann"}, config={"greeting": "good morning"}).request
    assert on_request(request) is None
    assert request.header("x-greeting") == "good morning, Ann"
