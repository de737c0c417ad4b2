"""Calls of other services: ``http``."""

import json
from dataclasses import dataclass
from typing import Any

from witgate import _check, _host
from witgate._message import _encode

_TIMEOUT_MS_MAX = (1 << 32) - 1


class HttpError(RuntimeError):
    """Why a call has no response. ``kind`` is one of

    - ``denied``: the operator did not grant the origin, or its host has a forbidden address.
    - ``invalid``: the method, the URL or a header field is not valid.
    - ``limit``: the number of calls, or the size of the request or the response.
    - ``timeout``: the time is up.
    - ``unavailable``: the service cannot be reached, or closed the connection early.

    The text says what to do.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


@dataclass(frozen=True)
class HttpResponse:
    """A response. A status such as 404 or 500 is a response and not an error, and a redirect is
    never followed."""

    status: int
    """The status code."""
    headers: list[tuple[str, str]]
    """Names in lower case, and values."""
    body: bytes
    """The body."""

    @property
    def ok(self) -> bool:
        """Whether the status is 200 to 299."""
        return 200 <= self.status < 300

    @property
    def text(self) -> str:
        """The body as text. Bytes that are not UTF-8 become U+FFFD."""
        return self.body.decode("utf-8", "replace")

    def json(self) -> Any:
        """Returns the value that the body's JSON stands for. Raises ``ValueError`` if it is not
        JSON."""
        return json.loads(self.body)

    def header(self, name: str) -> str | None:
        """Returns the value of a header field, lines joined by ``, ``, or ``None``."""
        values = [value for own, value in self.headers if own == name.lower()]
        return ", ".join(values) if values else None


class http:  # noqa: N801 - authors use it like a module
    """Calls other services. Requires ``services = ["http"]`` in filter.toml, and
    ``capabilities: [http]`` with the origins under ``http:`` in gateway.yaml.

    Each function waits for the whole response. The wait holds no thread of the gateway, and it does
    not count against the filter's timeout. Raises ``HttpError`` if there is no response.
    """

    @staticmethod
    def get(url: str, headers: dict[str, str] | None = None, timeout_ms: int = 0) -> HttpResponse:
        """Sends a GET."""
        return http.send("GET", url, headers=headers, timeout_ms=timeout_ms)

    @staticmethod
    def post(url: str, body: object = b"", headers: dict[str, str] | None = None, timeout_ms: int = 0) -> HttpResponse:
        """Sends a POST. Text and bytes are sent as they are, any other value as JSON with its
        ``content-type``."""
        fields = dict(headers or {})
        is_plain = isinstance(body, (str, bytes, bytearray, memoryview))
        if not is_plain and not any(name.lower() == "content-type" for name in fields):
            fields["content-type"] = "application/json"
        return http.send("POST", url, body, fields, timeout_ms)

    @staticmethod
    def send(
        method: str,
        url: str,
        body: object = b"",
        headers: dict[str, str] | None = None,
        timeout_ms: int = 0,
    ) -> HttpResponse:
        """Sends a request with any method. The wait is at most ``timeout_ms``; with 0 the
        operator's bound holds alone (``http.wait``)."""
        method, url = _check.text(method, "a method"), _check.text(url, "a URL")
        fields = _check.fields(list(headers.items())) if headers else []
        data = _encode(body)
        timeout = _check.units(timeout_ms, "timeout_ms", 0, _TIMEOUT_MS_MAX)
        raw = _host.http
        if raw is None:
            raise RuntimeError('http is not available: add `services = ["http"]` to filter.toml')
        try:
            response = raw.send(raw.Request(method, url, fields, data, timeout))
        except Exception as refusal:
            error = getattr(refusal, "value", None)
            if error is None:
                raise
            kind = type(error).__name__.removeprefix("Error_").lower()
            raise HttpError(kind, f"{method} {url}: {kind}: {getattr(error, 'value', error)}") from None
        return HttpResponse(response.status, [(name, value) for name, value in response.headers], response.body)
