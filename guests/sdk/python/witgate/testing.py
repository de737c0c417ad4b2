"""Unit tests of filters with pytest, without Wasm.

``fake(headers={"x-api-key": "a"})`` makes an exchange and returns the objects that a handler takes.
They are the objects that a filter uses in the gateway, on a fake of the gateway's functions.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from witgate import _fake, _fake_services
from witgate._fake import Fields, State
from witgate._fake_services import FakeAnswer, FakeCall, Service
from witgate._message import Request, Response

__all__ = ["Fake", "FakeCall", "State", "answer", "fake", "load", "reset"]


@dataclass
class Fake:
    """The exchange of a test."""

    request: Request
    """For ``on_request`` and ``on_response``."""
    response: Response
    """For ``on_response``."""
    state: State
    """What the exchange contains. ``log`` and ``notes`` show what the filter wrote."""


def fake(
    *,
    method: str = "GET",
    path: str = "/",
    query: str | None = None,
    headers: dict[str, str] | None = None,
    body: bytes | str = b"",
    status: int = 200,
    response_headers: dict[str, str] | None = None,
    response_body: bytes | str = b"",
    config: dict[str, str] | None = None,
    client_ip: str = "192.0.2.1",
    now: float = 1_700_000_000.0,
    http: Service | None = None,
    secrets: dict[str, bytes] | None = None,
) -> Fake:
    """Makes an exchange. Each call starts a new one; the key-value store is kept until ``reset()``.

    ``http`` responds to the calls of other services: ``http=lambda call: answer(200, call.url)``.
    Without it, each call is denied. ``secrets`` are the keys that the operator gives to the filter.

    ``now`` is the time that the gateway's clock shows, in seconds since 1970. It does not advance.

    Unlike in the gateway, edits take effect immediately, and their total number and size are not
    checked.
    """
    state = State(
        method,
        path,
        query,
        _fields(headers),
        _fields(response_headers),
        body.encode() if isinstance(body, str) else body,
        response_body.encode() if isinstance(response_body, str) else response_body,
        status,
        dict(config or {}),
        client_ip=client_ip,
        now=now,
    )
    _fake.enter(state)
    _fake_services.set_up(http, secrets)
    return Fake(Request(), Response(), state)


def answer(status: int, body: bytes | str = b"", headers: dict[str, str] | None = None) -> FakeAnswer:
    """Makes the response of a service."""
    return FakeAnswer(status, _fields(headers), body.encode() if isinstance(body, str) else body)


def reset() -> None:
    """Empties the key-value store and the limiter."""
    _fake.clear_store()


def _fields(headers: dict[str, str] | None) -> Fields:
    return [(name.lower(), value) for name, value in (headers or {}).items()]


def load(test_file: str) -> ModuleType:
    """Loads the ``filter.py`` of the folder above a test: ``load(__file__)``.

    Use it instead of an import: the module of every filter is called ``filter``, and an import
    would return the first one that was loaded.
    """
    path = Path(test_file).resolve().parent.parent / "filter.py"
    spec = importlib.util.spec_from_file_location(f"filter_{path.parent.name}", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"cannot load {path}: a test must be in the folder tests/ beside filter.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
