"""What a filter can ask of the gateway besides the request and the response."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar

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
    def get_many(keys: list[str]) -> list[str | None]:
        """Returns the values of at most 64 keys, in their order. An absent or expired key gives
        ``None``."""
        checked = _check.keys(keys)
        values = _call_store("get_many", ", ".join(checked[:2]), lambda: _host.keyvalue.get_many(checked))
        return [None if value is None else value.decode() for value in values]

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

    @staticmethod
    def compare_and_swap(key: str, expected: str | None, value: str, ttl_ms: int = 0) -> bool:
        """Sets a key if its value is ``expected``, or if the key is absent and ``expected`` is
        ``None``. Returns True if it did; on False read the value again and decide anew.

        A counter has its decimal text as the value. The new value is not a counter.
        """
        key, data, ttl_ms = _check.text(key, "a key"), _check.text(value, "a value").encode(), _check.ttl_ms(ttl_ms)
        before = None if expected is None else _check.text(expected, "the expected value").encode()
        return _call_store(
            "compare_and_swap", key, lambda: _host.keyvalue.compare_and_swap(key, before, data, ttl_ms)
        )


@dataclass(frozen=True)
class Policy:
    """A limit: ``limit`` units in a sliding window of ``window_ms``.

    With ``algorithm="token-bucket"`` a bucket holds ``burst`` units and gains ``limit`` units in
    ``window_ms``.
    """

    limit: int
    """Units in a window, 1 to 1,000,000."""
    window_ms: int
    """The length of the window in milliseconds, 1 to 2,678,400,000 (31 days)."""
    algorithm: Literal["sliding-window", "token-bucket"] = "sliding-window"
    burst: int = 0
    """The units that a token bucket holds, 1 to 1,000,000; with 0 it is ``limit``."""


@dataclass(frozen=True)
class Decision:
    """The decision of the limiter."""

    allowed: bool
    """Whether the units were taken. If not, nothing was taken."""
    remaining: int
    """The units that can be taken at this moment."""
    reset_ms: int
    """Milliseconds until the current window ends, or until the bucket is full again."""
    retry_after_ms: int
    """Milliseconds until the same request can succeed. 0 if it was allowed."""


class limiter:  # noqa: N801
    """Limits rates. Requires ``services = ["limiter"]`` in filter.toml and
    ``capabilities: [limiter]`` in gateway.yaml.

    All instances of the filter share the counts; other filters cannot see them.
    """

    @staticmethod
    def take(key: str, policy: Policy, cost: int = 1) -> Decision:
        """Takes ``cost`` units of a key if the policy allows it. A cost of 0 takes nothing and
        shows what remains.

        The function is atomic: of simultaneous calls exactly as many succeed as the policy allows.
        A key has 1 to 256 bytes; each combination of key and policy has a count of its own.
        Raises ``RuntimeError`` if the store cannot be reached or the policy can never allow the
        cost.
        """
        key, cost = _check.text(key, "a key"), _check.units(cost, "cost", 0, 1_000_000)
        limit = _check.units(policy.limit, "limit", 1, 1_000_000)
        window_ms = _check.units(policy.window_ms, "window_ms", 1, 2_678_400_000)
        burst = _check.units(policy.burst, "burst", 0, 1_000_000)
        raw = _host.limiter
        if raw is None:
            raise RuntimeError('limiter is not available: add `services = ["limiter"]` to filter.toml')
        if policy.algorithm not in ("sliding-window", "token-bucket"):
            raise ValueError(f"algorithm is sliding-window or token-bucket, not {policy.algorithm!r:.100}")
        is_bucket = policy.algorithm == "token-bucket"
        algorithm = raw.Algorithm.TOKEN_BUCKET if is_bucket else raw.Algorithm.SLIDING_WINDOW
        try:
            decision = raw.take(key, cost, raw.Policy(algorithm, limit, window_ms, burst))
        except Exception as refusal:
            error = getattr(refusal, "value", None)
            if error is None:
                raise
            kind = type(error).__name__.removeprefix("Error_").lower()
            reason = "a key has 1 to 256 bytes" if kind == "toolarge" else getattr(error, "value", error)
            raise RuntimeError(f"limiter.take of key {key!r}: {kind}: {reason}") from None
        return Decision(decision.allowed, decision.remaining, decision.reset_ms, decision.retry_after_ms)


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
