"""Unit tests without Wasm."""

import json

from witgate.testing import fake, load

filter_ = load(__file__)
JSON = {"content-type": "application/json; charset=utf-8"}


def test_credentials_in_headers_go() -> None:
    request = fake(headers={"Authorization": "Bearer a", "x-other": "b"}).request
    assert filter_.on_request(request) is None
    assert (request.header("authorization"), request.header("x-other"), request.header("cookie")) == ("REDACTED", "b", None)


def test_personal_data_in_json_goes_at_any_depth() -> None:
    body = {"user": {"Password": "x", "note": "mail ann@example.com or call 12345"}, "cards": ["4111 1111 1111 1111", "4111111111111112"], "n": 1}
    request = fake(headers=JSON, body=json.dumps(body)).request
    filter_.on_request(request)
    assert request.json() == {
        "user": {"Password": "REDACTED", "note": "mail REDACTED or call 12345"},
        "cards": ["REDACTED", "4111111111111112"],
        "n": 1,
    }


def test_what_is_no_json_stays() -> None:
    for headers, body in [(JSON, b"{broken"), (JSON, b"\xff"), ({"content-type": "text/plain"}, b"ann@example.com"), ({}, b"")]:
        request = fake(headers=headers, body=body).request
        filter_.on_request(request)
        assert request.body == body


def test_a_clean_body_is_not_touched() -> None:
    request = fake(headers=JSON, body='{"a":   1}').request
    filter_.on_request(request)
    assert request.body == b'{"a":   1}'
