"""The request and the response as objects, and the reply that a filter may make. Their state is in the gateway: each method is one call."""

import json
from dataclasses import dataclass, field
from typing import Any

from witgate._host import request as _request
from witgate._host import request_edit as _edit
from witgate._host import response as _response


@dataclass
class Reply:
    """An answer: made by ``reply``."""

    status: int
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""


def reply(status: int, body: object = None, headers: dict[str, str] | None = None) -> Reply:
    """An answer with a text, bytes or, for anything else, JSON as its body. ``status`` is 200 to 599."""
    fields = list((headers or {}).items())
    if body is None:
        return Reply(status, fields)
    if isinstance(body, (bytes, bytearray)):
        return Reply(status, fields, bytes(body))
    if not any(name.lower() == "content-type" for name, _ in fields):
        fields.append(("content-type", "text/plain; charset=utf-8" if isinstance(body, str) else "application/json"))
    return Reply(status, fields, _encode(body))


class ReadonlyRequest:
    """The request, to read."""

    __slots__ = ()

    @property
    def method(self) -> str:
        """``GET``, ``POST``, …"""
        return _request.method()

    @property
    def scheme(self) -> str:
        """``http`` or ``https``."""
        return _request.scheme()

    @property
    def authority(self) -> str:
        """Host and port."""
        return _request.authority()

    @property
    def path(self) -> str:
        """The path, percent-encoded."""
        return _request.path()

    @property
    def query(self) -> str | None:
        """What follows the ``?``."""
        return _request.query()

    def header(self, name: str) -> str | None:
        """One field, lines joined; None where it is absent. Case does not matter."""
        return _request.header(name)

    def header_values(self, name: str) -> list[str]:
        """Each line of one field."""
        return _request.header_values(name)

    @property
    def headers(self) -> list[tuple[str, str]]:
        """All fields. One ``header(name)`` costs less."""
        return _request.headers()


class Request(ReadonlyRequest):
    """The request, to read and to change. Changes happen when the handler has ended well."""

    __slots__ = ()

    def set_header(self, name: str, value: str) -> None:
        """This one value in the place of all."""
        _edit.set_header(name, value)

    def append_header(self, name: str, value: str) -> None:
        """One more line."""
        _edit.append_header(name, value)

    def remove_header(self, name: str) -> None:
        """No line."""
        _edit.remove_header(name)

    def set_path(self, path: str) -> None:
        """Another path for the upstream."""
        _edit.set_path(path)

    def set_query(self, query: str | None) -> None:
        """Another query for the upstream; None for none."""
        _edit.set_query(query)

    @property
    def body(self) -> bytes:
        """The whole body; needs ``body = "buffer"`` under [request] in filter.toml."""
        return _request.body()

    def json(self) -> Any:
        """The whole body as JSON; raises ValueError where it is none."""
        return json.loads(_request.body())

    def set_body(self, body: object) -> None:
        """Another body: bytes, text, or anything else as JSON."""
        _edit.set_body(_encode(body))


class Response:
    """The response, to read and to change. Changes happen when the handler has ended well."""

    __slots__ = ()

    @property
    def status(self) -> int:
        """200 to 599."""
        return _response.status()

    @status.setter
    def status(self, status: int) -> None:
        _response.set_status(status)

    @property
    def local(self) -> bool:
        """True where a filter or the gateway made the response."""
        return _response.local()

    def header(self, name: str) -> str | None:
        """One field, lines joined; None where it is absent."""
        return _response.header(name)

    def header_values(self, name: str) -> list[str]:
        """Each line of one field."""
        return _response.header_values(name)

    @property
    def headers(self) -> list[tuple[str, str]]:
        """All fields."""
        return _response.headers()

    def set_header(self, name: str, value: str) -> None:
        """This one value in the place of all."""
        _response.set_header(name, value)

    def append_header(self, name: str, value: str) -> None:
        """One more line."""
        _response.append_header(name, value)

    def remove_header(self, name: str) -> None:
        """No line."""
        _response.remove_header(name)

    @property
    def body(self) -> bytes:
        """The whole body; needs ``body = "buffer"`` under [response] in filter.toml."""
        return _response.body()

    def json(self) -> Any:
        """The whole body as JSON; raises ValueError where it is none."""
        return json.loads(_response.body())

    def set_body(self, body: object) -> None:
        """Another body: bytes, text, or anything else as JSON."""
        _response.set_body(_encode(body))


def _encode(body: object) -> bytes:
    if isinstance(body, (bytes, bytearray)):
        return bytes(body)
    return body.encode() if isinstance(body, str) else json.dumps(body).encode()
