"""What a filter can ask of the gateway beside the exchange's two messages."""

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from witgate import _host

if TYPE_CHECKING:
    from wit_world.imports.types import ClientInfo

T = TypeVar("T")


class config:  # noqa: N801 - reads as a module
    """The filter's configuration: what stands under ``config:`` in gateway.yaml."""

    @staticmethod
    def get(key: str) -> str | None:
        """The value of a key as text; None where it is not set. Lists and mappings come as JSON text."""
        return _host.config.get(key)

    @staticmethod
    def keys() -> list[str]:
        """All keys that are set."""
        return _host.config.keys()


class log:  # noqa: N801
    """Lines for the gateway's log. ``print`` and ``logging`` go there too."""

    @staticmethod
    def debug(message: str) -> None:
        _host.log.write(_host.log.Level.DEBUG, message)

    @staticmethod
    def info(message: str) -> None:
        _host.log.write(_host.log.Level.INFO, message)

    @staticmethod
    def warn(message: str) -> None:
        _host.log.write(_host.log.Level.WARN, message)

    @staticmethod
    def error(message: str) -> None:
        _host.log.write(_host.log.Level.ERROR, message)


class notes:  # noqa: N801
    """Strings attached to the exchange: how a filter's two phases, and filters among each other, speak."""

    @staticmethod
    def get(name: str) -> str | None:
        return _host.exchange.note(name)

    @staticmethod
    def set(name: str, value: str) -> None:
        _host.exchange.set_note(name, value)


def client() -> "ClientInfo":
    """Who sent the request."""
    return _host.exchange.client()


def route() -> str:
    """The name of the route in gateway.yaml."""
    return _host.exchange.route()


class keyvalue:  # noqa: N801
    """Values that outlive a call; needs ``services = ["keyvalue"]`` in filter.toml and ``capabilities: [keyvalue]`` in gateway.yaml.

    One store for all instances of this filter; each function is atomic. They raise RuntimeError where the store says no.
    """

    @staticmethod
    def get(key: str) -> str | None:
        """The value of a key; None where it is absent or expired."""
        value = _told(lambda: _host.keyvalue.get(key))
        return None if value is None else value.decode()

    @staticmethod
    def set(key: str, value: str, ttl_ms: int = 0) -> None:
        """Sets a key, for ``ttl_ms`` milliseconds or, with 0, for good."""
        _told(lambda: _host.keyvalue.set(key, value.encode(), ttl_ms))

    @staticmethod
    def delete(key: str) -> bool:
        """Removes a key; True where it was there."""
        return _told(lambda: _host.keyvalue.delete(key))

    @staticmethod
    def increment(key: str, delta: int = 1, ttl_ms: int = 0) -> int:
        """Adds to a counter and gives the sum. Only a new counter gets the ``ttl_ms``."""
        return _told(lambda: _host.keyvalue.increment(key, delta, ttl_ms))


def _told(call: Callable[[], T]) -> T:
    """The bindings raise an ``Err`` of their own type: an author expects one that says something."""
    if _host.keyvalue is None:
        raise RuntimeError('keyvalue is not there: add `services = ["keyvalue"]` to filter.toml')
    try:
        return call()
    except Exception as refusal:
        value = getattr(refusal, "value", None)
        if value is None:
            raise
        raise RuntimeError(f"keyvalue: {type(value).__name__.removeprefix('Error_')} {getattr(value, 'value', '')}".rstrip()) from None
