"""Hides secrets in JSON bodies from the upstream."""

import json
from typing import Any

from witgate import Reply, Request

SECRETS = {"password", "token", "secret"}


def on_request(request: Request) -> Reply | None:
    if not (request.header("content-type") or "").startswith("application/json"):
        return None
    try:
        body = request.json()
    except ValueError:
        return None  # this is not JSON: the upstream will say so
    request.set_body(json.dumps(redacted(body)))
    return None


def redacted(value: Any) -> Any:
    """A copy of a JSON value in which secrets are replaced at any depth."""
    if isinstance(value, list):
        return [redacted(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {key: "REDACTED" if key in SECRETS else redacted(inner) for key, inner in value.items()}
