"""Unit tests, without Wasm."""

from witgate.testing import fake, load

on_request = load(__file__).on_request


def test_a_request_without_the_key_or_with_a_wrong_key_is_answered_with_401() -> None:
    for headers in ({}, {"x-api-key": "wrong"}):
        assert on_request(fake(headers=headers, config={"key": "s3cret"}).request).status == 401


def test_without_a_configured_key_nobody_is_let_in() -> None:
    assert on_request(fake(headers={"x-api-key": "any"}).request).status == 401


def test_the_key_is_hidden_from_the_upstream() -> None:
    request = fake(headers={"x-api-key": "s3cret"}, config={"key": "s3cret"}).request
    assert on_request(request) is None
    assert request.header("x-api-key") is None
