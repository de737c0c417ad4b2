"""The request and the response as objects, and the reply that a filter makes itself.

The state of a message is in the gateway: each method calls one function of wit/.
"""

import json
from dataclasses import dataclass, field
from typing import Any

from witgate import _check
from witgate._host import request as _request
from witgate._host import request_edit as _edit
from witgate._host import response as _response


@dataclass
class Reply:
    """A complete response. Make one with ``reply``."""

    status: int
    """The status code, 200 to 599."""
    headers: list[tuple[str, str]] = field(default_factory=list)
    """Names and values; a name may appear several times. The gateway adds ``content-length``."""
    body: bytes = b""
    """At most 8 MiB. Empty with status 204 and 304."""


def reply(status: int, body: object = None, headers: dict[str, str] | None = None) -> Reply:
    """Makes a response for the handler to return: ``return reply(401, {"error": "no key"})``.

    ``status`` is 200 to 599. Text and bytes are sent as they are, any other value as JSON; ``None``
    means no body.

    If ``headers`` has no ``content-type``, text is sent as ``text/plain; charset=utf-8`` and JSON
    as ``application/json``. Bytes have no default.

    Raises ``TypeError`` or ``ValueError`` for what HTTP does not allow.
    """
    status = _check.status(status)
    if headers is not None and not hasattr(headers, "items"):
        kind = type(headers).__name__
        raise TypeError(f"headers is a dict of names and values, but this is {kind}; for pairs use Reply(status, pairs, body)")
    fields = _check.fields(list(headers.items())) if headers else []
    if body is None:
        return Reply(status, fields)
    if isinstance(body, (bytes, bytearray, memoryview)):
        return Reply(status, fields, _check.body(bytes(body)))
    if not any(name.lower() == "content-type" for name, _ in fields):
        fields.append(("content-type", "text/plain; charset=utf-8" if isinstance(body, str) else "application/json"))
    return Reply(status, fields, _encode(body))


class ReadonlyRequest:
    """The request, for reading. In ``on_response`` it is the request as all filters left it."""

    __slots__ = ()

    @property
    def method(self) -> str:
        """The method, such as ``GET``."""
        return _request.method()

    @property
    def scheme(self) -> str:
        """``https`` if the client reached the gateway over TLS, otherwise ``http``."""
        return _request.scheme()

    @property
    def authority(self) -> str:
        """The host, and the port if the client gave one, in lower case. Empty if there is none."""
        return _request.authority()

    @property
    def path(self) -> str:
        """The path without the query, percent-encoded. It begins with ``/``."""
        return _request.path()

    @property
    def query(self) -> str | None:
        """The query without the ``?``. ``None`` if there is no ``?``."""
        return _request.query()

    def header(self, name: str) -> str | None:
        """Returns the value of a header field, or ``None`` if the field is absent.

        The case of the name does not matter. Several lines are joined with ``", "`` (those of
        ``cookie`` with ``"; "``).
        """
        return _request.header(_check.text(name, "a name"))

    def header_values(self, name: str) -> list[str]:
        """Returns the value of each line of a header field, in order. Empty if it is absent."""
        return _request.header_values(_check.text(name, "a name"))

    def header_bytes(self, name: str) -> bytes | None:
        """Returns the value of a header field as it was received, for values that are not UTF-8."""
        return _request.header_bytes(_check.text(name, "a name"))

    @property
    def headers(self) -> list[tuple[str, str]]:
        """All header fields in order, names in lower case. ``header(name)`` costs less."""
        return _request.headers()


class Request(ReadonlyRequest):
    """The request, for reading and changing.

    A getter returns the new value as soon as it is set. The gateway applies the edits when
    ``on_request`` returns ``None``; it discards them if the handler returns a reply or raises an
    exception.

    A name or value that HTTP forbids raises ``TypeError`` or ``ValueError``, and so does a field
    that only the gateway writes, such as ``host`` or ``content-length`` (wit/request.wit has the
    list).
    """

    __slots__ = ()

    def set_header(self, name: str, value: str) -> None:
        """Sets a header field. Replaces all lines of the field."""
        name = _check.field_name(name)
        _edit.set_header(name, _check.field_value(value, name))

    def append_header(self, name: str, value: str) -> None:
        """Adds a line to a header field. Keeps the lines that the field already has."""
        name = _check.field_name(name)
        _edit.append_header(name, _check.field_value(value, name))

    def remove_header(self, name: str) -> None:
        """Removes all lines of a header field. Does nothing if the field is absent."""
        _edit.remove_header(_check.field_name(name))

    def set_path(self, path: str) -> None:
        """Sets the path for the upstream: percent-encoded, begins with ``/``, without the query."""
        _edit.set_path(_check.path(path))

    def set_query(self, query: str | None) -> None:
        """Sets the query for the upstream, without the ``?``. ``None`` removes the query."""
        _edit.set_query(_check.query(query))

    @property
    def body(self) -> bytes:
        """The whole body. Requires ``body = "buffer"`` under ``[request]`` in filter.toml."""
        return _request.body()

    def json(self) -> Any:
        """Returns the whole body, parsed as JSON. Requires what ``body`` does.

        Raises ``ValueError`` if the body is not valid JSON, an empty body included, and
        ``RecursionError`` if it is nested too deep. A byte order mark is skipped.
        """
        return json.loads(_request.body())

    def set_body(self, body: object) -> None:
        """Replaces the body, with at most 8 MiB.

        Bytes and text are sent as they are, any other value as JSON.
        """
        _edit.set_body(_encode(body))


class Response:
    """The response, for reading and changing.

    A getter returns the new value as soon as it is set. The gateway applies the edits when
    ``on_response`` returns ``None``; it discards them if the handler returns a reply or raises an
    exception.

    A status, name or value that HTTP forbids raises ``TypeError`` or ``ValueError``, and so does a
    field that only the gateway writes, such as ``content-length`` (wit/request.wit has the list).
    """

    __slots__ = ()

    @property
    def status(self) -> int:
        """The status code, 200 to 599."""
        return _response.status()

    @status.setter
    def status(self, status: int) -> None:
        _response.set_status(_check.status(status))

    @property
    def local(self) -> bool:
        """True if a filter or the gateway made the response, False if the upstream sent it."""
        return _response.local()

    def header(self, name: str) -> str | None:
        """Returns the value of a header field, or ``None`` if the field is absent.

        The case of the name does not matter. Several lines are joined with ``", "``; use
        ``header_values`` for ``set-cookie``.
        """
        return _response.header(_check.text(name, "a name"))

    def header_values(self, name: str) -> list[str]:
        """Returns the value of each line of a header field, in order. Empty if it is absent."""
        return _response.header_values(_check.text(name, "a name"))

    def header_bytes(self, name: str) -> bytes | None:
        """Returns the value of a header field as it was received, for values that are not UTF-8."""
        return _response.header_bytes(_check.text(name, "a name"))

    @property
    def headers(self) -> list[tuple[str, str]]:
        """All header fields in order, names in lower case. ``header(name)`` costs less."""
        return _response.headers()

    def set_header(self, name: str, value: str) -> None:
        """Sets a header field. Replaces all lines of the field."""
        name = _check.field_name(name)
        _response.set_header(name, _check.field_value(value, name))

    def append_header(self, name: str, value: str) -> None:
        """Adds a line to a header field. Keeps the lines that the field already has."""
        name = _check.field_name(name)
        _response.append_header(name, _check.field_value(value, name))

    def remove_header(self, name: str) -> None:
        """Removes all lines of a header field. Does nothing if the field is absent."""
        _response.remove_header(_check.field_name(name))

    @property
    def body(self) -> bytes:
        """The whole body as the upstream sent it, still encoded if ``content-encoding`` is set.

        Requires ``body = "buffer"`` under ``[response]`` in filter.toml.
        """
        return _response.body()

    def json(self) -> Any:
        """Returns the whole body, parsed as JSON. Requires what ``body`` does.

        Raises ``ValueError`` if the body is not valid JSON, an empty body included, and
        ``RecursionError`` if it is nested too deep. A byte order mark is skipped.
        """
        return json.loads(_response.body())

    def set_body(self, body: object) -> None:
        """Replaces the body, with at most 8 MiB.

        Bytes and text are sent as they are, any other value as JSON.
        """
        _response.set_body(_encode(body))


# NaN is no JSON, and `json.dumps` would write it.
_json = json.JSONEncoder(allow_nan=False)


def _encode(body: object) -> bytes:
    """A body as bytes: text in UTF-8, bytes as they are, any other value as JSON."""
    if isinstance(body, (bytes, bytearray, memoryview)):
        return _check.body(bytes(body))
    if hasattr(body, "__await__"):
        raise TypeError("the body is a coroutine: write `await` before it")
    text = body if isinstance(body, str) else _json.encode(body)
    try:
        return _check.body(text.encode())
    except UnicodeEncodeError:
        return _check.body(_check.without_surrogates(text).encode())
