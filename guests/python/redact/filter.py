"""Hides credentials and personal data from the upstream, in header fields and in a JSON body.

In the body, the filter replaces the whole value of a secret key (password, token, …). In other
texts it replaces e-mail addresses and card numbers; Luhn's check tells card numbers from other
digits. A body that is not JSON passes unchanged.
"""

import json
import re
from typing import Any

from witgate import Reply, Request

REDACTED = "REDACTED"
HEADERS = ("authorization", "cookie", "x-api-key")
SECRET_KEYS = {"password", "passwd", "secret", "token", "access_token", "refresh_token", "ssn", "card_number", "cvv"}
EMAIL = re.compile(r"[A-Za-z0-9._%+-]+@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+")
CARD = re.compile(r"(?<!\d)\d(?:[ -]?\d){12,18}(?!\d)")


def on_request(request: Request) -> Reply | None:
    for name in HEADERS:
        if request.header(name) is not None:
            request.set_header(name, REDACTED)
    content_type = request.header("content-type") or ""
    if content_type.split(";")[0].strip().endswith("json"):
        redact_body(request)
    return None


def redact_body(request: Request) -> None:
    try:
        body = request.json()
    except ValueError:
        return
    clean = redacted(body)
    if clean != body:
        request.set_body(json.dumps(clean, ensure_ascii=False))


def redacted(value: Any) -> Any:
    """Returns a copy of a JSON value with personal data replaced at any depth."""
    if isinstance(value, dict):
        return {key: REDACTED if key.lower() in SECRET_KEYS else redacted(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [redacted(inner) for inner in value]
    if isinstance(value, str):
        return CARD.sub(lambda match: REDACTED if is_card(match[0]) else match[0], EMAIL.sub(REDACTED, value))
    return value


def is_card(text: str) -> bool:
    """Tells whether the check digit is right (Luhn's algorithm, ISO/IEC 7812-1)."""
    digits = [int(c) for c in text if c.isdigit()]
    doubled = [2 * d - 9 if d > 4 else 2 * d for d in digits[-2::-2]]
    return (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0
