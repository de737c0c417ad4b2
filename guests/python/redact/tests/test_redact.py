"""Unit tests, without Wasm."""

import json

from witgate.testing import fake, load

filter_ = load(__file__)
JSON = {"content-type": "application/json; charset=utf-8"}


def test_credentials_in_header_fields_are_replaced() -> None:
    request = fake(headers={"Authorization": "Bearer a", "x-other": "b"}).request
    assert filter_.on_request(request) is None
    values = [request.header(name) for name in ("authorization", "x-other", "cookie")]
    assert values == ["REDACTED", "b", None]


def test_personal_data_in_json_is_replaced_at_any_depth() -> None:
    body = {
        "user": {"Password": "x", "note": "mail ann@example.com or call 12345"},
        "cards": ["4111 1111 1111 1111", "4111111111111112"],
        "n": 1,
    }
    request = fake(headers=JSON, body=json.dumps(body)).request
    filter_.on_request(request)
    assert request.json() == {
        "user": {"Password": "REDACTED", "note": "mail REDACTED or call 12345"},
        "cards": ["REDACTED", "4111111111111112"],
        "n": 1,
    }


def test_a_body_that_is_not_json_passes_unchanged() -> None:
    text = {"content-type": "text/plain"}
    for headers, body in [(JSON, b"{broken"), (JSON, b"\xff"), (text, b"ann@example.com"), ({}, b"")]:
        request = fake(headers=headers, body=body).request
        filter_.on_request(request)
        assert request.body == body


def test_a_body_without_personal_data_keeps_its_bytes() -> None:
    request = fake(headers=JSON, body='{"a":   1}').request
    filter_.on_request(request)
    assert request.body == b'{"a":   1}'
