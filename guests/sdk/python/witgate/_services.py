"""What a filter can ask of the gateway besides the request and the response."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from witgate import _check, _host

if TYPE_CHECKING:
    from wit_world.imports.types import ClientInfo

T = TypeVar("T")


class config:  # noqa: N801 - authors use it like a module
    """The configuration of the filter: the values under ``config:`` in gateway.yaml."""

    @staticmethod
    def get(key: str) -> str | None:
        """Returns the value of a key as text, or ``None`` if the key is not set.

        A value that is not a string is returned as JSON text.
        """
        return _host.config.get(_check.text(key, "a key"))

    @staticmethod
    def keys() -> list[str]:
        """Returns all keys that are set, sorted."""
        return _host.config.keys()


class log:  # noqa: N801
    """Writes lines to the gateway's log, which adds the name of the filter and the id of the
    exchange. ``print`` and ``logging`` write there too.

    A message that is not text is converted with ``str``. A line is cut after 4 KiB. Lines after the
    64th of a call are dropped.
    """

    @staticmethod
    def debug(message: object) -> None:
        """Writes information for the author of the filter."""
        _write(_host.log.Level.DEBUG, message)

    @staticmethod
    def info(message: object) -> None:
        """Writes an event of normal operation."""
        _write(_host.log.Level.INFO, message)

    @staticmethod
    def warn(message: object) -> None:
        """Writes a condition that an operator should look at."""
        _write(_host.log.Level.WARN, message)

    @staticmethod
    def error(message: object) -> None:
        """Writes a failure."""
        _write(_host.log.Level.ERROR, message)


def _write(level: Any, message: object) -> None:
    _host.log.write(level, _check.text(message if isinstance(message, str) else str(message), "a message"))


class notes:  # noqa: N801
    """Notes: named strings that are attached to the exchange.

    Use them to pass data from ``on_request`` to ``on_response``, or to a later filter. Neither the
    client nor the upstream sees them.

    A filter may add 32 notes to an exchange, and one more ends the call. A name has 1 to 64 bytes,
    a value at most 4 KiB. Begin a name with the name of your filter: ``limiter.remaining``.
    """

    @staticmethod
    def get(name: str) -> str | None:
        """Returns the value of a note, or ``None`` if no filter has set it."""
        return _host.exchange.note(_check.text(name, "the name of a note"))

    @staticmethod
    def set(name: str, value: str) -> None:
        """Sets a note. It is discarded if the handler raises an exception."""
        name = _check.note_name(name)
        _host.exchange.set_note(name, _check.note_value(value, name))


def client() -> "ClientInfo":
    """Returns the client that sent the request: its address and, if encrypted, its TLS
    connection."""
    return _host.exchange.client()


def route() -> str:
    """Returns the name of the route in gateway.yaml."""
    return _host.exchange.route()


def exchange_id() -> str:
    """Returns the id of the exchange, which the log lines and ``x-request-id`` carry: 32 lower-case
    hexadecimal digits."""
    return _host.exchange.id()


class keyvalue:  # noqa: N801
    """Values that outlive a call. Requires ``services = ["keyvalue"]`` in filter.toml and
    ``capabilities: [keyvalue]`` in gateway.yaml.

    All instances of the filter share one store; other filters cannot see it. Each function is
    atomic. A key has 1 to 256 bytes, a value at most 64 KiB. Each function raises ``RuntimeError``
    if the store refuses, for example because it is full.
    """

    @staticmethod
    def get(key: str) -> str | None:
        """Returns the value of a key, or ``None`` if the key is absent or has expired."""
        key = _check.text(key, "a key")
        value = _call_store("get", key, lambda: _host.keyvalue.get(key))
        return None if value is None else value.decode()

    @staticmethod
    def set(key: str, value: str, ttl_ms: int = 0) -> None:
        """Sets a key. It expires after ``ttl_ms`` milliseconds; with 0 it does not expire."""
        key, data, ttl_ms = _check.text(key, "a key"), _check.text(value, "a value").encode(), _check.ttl_ms(ttl_ms)
        _call_store("set", key, lambda: _host.keyvalue.set(key, data, ttl_ms))

    @staticmethod
    def delete(key: str) -> bool:
        """Removes a key. Returns True if the key was there and had not expired."""
        key = _check.text(key, "a key")
        return _call_store("delete", key, lambda: _host.keyvalue.delete(key))

    @staticmethod
    def increment(key: str, delta: int = 1, ttl_ms: int = 0) -> int:
        """Adds ``delta`` to a counter and returns the sum, which must fit into 32 bits.

        A new counter starts at 0 and expires after ``ttl_ms`` milliseconds (0: does not expire).
        Later increments do not prolong its life.
        """
        key, delta, ttl_ms = _check.text(key, "a key"), _check.delta(delta), _check.ttl_ms(ttl_ms)
        return _call_store("increment", key, lambda: _host.keyvalue.increment(key, delta, ttl_ms))


_REASONS = {
    "Error_TooLarge": "too-large: a key has 1 to 256 bytes and a value at most 64 KiB",
    "Error_Full": "full: raise filters.NAME.keyvalue in gateway.yaml, or let keys expire",
    "Error_NotANumber": "not-a-number: the value is not a counter, or the sum does not fit into 32 bits",
}


def _call_store(operation: str, key: str, call: Callable[[], T]) -> T:
    """Calls the store. The bindings raise an ``Err`` without a message: raises a ``RuntimeError``
    with a message instead."""
    if _host.keyvalue is None:
        raise RuntimeError('keyvalue is not available: add `services = ["keyvalue"]` to filter.toml')
    try:
        return call()
    except Exception as refusal:
        error = getattr(refusal, "value", None)
        if error is None:
            raise
        reason = _REASONS.get(type(error).__name__) or f"unavailable: {getattr(error, 'value', error)}"
        raise RuntimeError(f"keyvalue.{operation} of key {key!r}: {reason}") from None
