"""Unit tests, without Wasm."""

from witgate.testing import load

redacted = load(__file__).redacted


def test_secrets_are_replaced_at_any_depth() -> None:
    assert redacted({"a": [{"token": "x"}], "b": 1}) == {"a": [{"token": "REDACTED"}], "b": 1}
