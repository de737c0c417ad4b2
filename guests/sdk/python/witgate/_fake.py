"""A fake of the gateway for unit tests: its functions over an exchange in memory.

Each class stands for the module of the same name in the generated bindings. This module does not
know the objects of the SDK (``testing`` does): they import it.
"""

from __future__ import annotations

import enum
import math
import os
from dataclasses import dataclass, field

Fields = list[tuple[str, str]]


@dataclass
class State:
    """The exchange that the functions below read and change."""

    method: str = "GET"
    path: str = "/"
    query: str | None = None
    request: Fields = field(default_factory=list)
    response: Fields = field(default_factory=list)
    body: bytes = b""
    response_body: bytes = b""
    status: int = 200
    config: dict[str, str] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    log: list[str] = field(default_factory=list)
    client_ip: str = "192.0.2.1"
    now: float = 1_700_000_000.0


_state = State()
# Values and the time at which they expire. Outlives an exchange, as the store of the gateway does.
_store: dict[str, tuple[bytes, float]] = {}


# Units taken, by key and policy, and when the window or the bucket began.
_counts: dict[tuple[str, object], tuple[float, float]] = {}


def enter(state: State) -> None:
    """Makes this the exchange that the functions below use."""
    global _state
    _state = state


def clear_store() -> None:
    """Empties the key-value store and the limiter."""
    _store.clear()
    _counts.clear()


def _values(fields: Fields, name: str) -> list[str]:
    return [value for own, value in fields if own == name.lower()]


def _joined_value(fields: Fields, name: str) -> str | None:
    values = _values(fields, name)
    separator = "; " if name.lower() == "cookie" else ", "
    return separator.join(values) if values else None


def _bytes(value: str | None) -> bytes | None:
    return None if value is None else value.encode()


def _without(fields: Fields, name: str) -> Fields:
    return [(own, value) for own, value in fields if own != name.lower()]


class request:  # noqa: N801 - stands for a module
    method = staticmethod(lambda: _state.method)
    scheme = staticmethod(lambda: "http")
    authority = staticmethod(lambda: _joined_value(_state.request, "host") or "")
    path = staticmethod(lambda: _state.path)
    query = staticmethod(lambda: _state.query)
    header = staticmethod(lambda name: _joined_value(_state.request, name))
    header_values = staticmethod(lambda name: _values(_state.request, name))
    header_bytes = staticmethod(lambda name: _bytes(_joined_value(_state.request, name)))
    headers = staticmethod(lambda: list(_state.request))
    body = staticmethod(lambda: _state.body)


class request_edit:  # noqa: N801
    @staticmethod
    def set_header(name: str, value: str) -> None:
        _state.request = [*_without(_state.request, name), (name.lower(), value)]

    @staticmethod
    def append_header(name: str, value: str) -> None:
        _state.request.append((name.lower(), value))

    @staticmethod
    def remove_header(name: str) -> None:
        _state.request = _without(_state.request, name)

    @staticmethod
    def set_path(path: str) -> None:
        _state.path = path

    @staticmethod
    def set_query(query: str | None) -> None:
        _state.query = query

    @staticmethod
    def set_body(body: bytes) -> None:
        _state.body = body


class response:  # noqa: N801
    status = staticmethod(lambda: _state.status)
    local = staticmethod(lambda: False)
    header = staticmethod(lambda name: _joined_value(_state.response, name))
    header_values = staticmethod(lambda name: _values(_state.response, name))
    header_bytes = staticmethod(lambda name: _bytes(_joined_value(_state.response, name)))
    headers = staticmethod(lambda: list(_state.response))
    body = staticmethod(lambda: _state.response_body)

    @staticmethod
    def set_status(status: int) -> None:
        _state.status = status

    @staticmethod
    def set_header(name: str, value: str) -> None:
        _state.response = [*_without(_state.response, name), (name.lower(), value)]

    @staticmethod
    def append_header(name: str, value: str) -> None:
        _state.response.append((name.lower(), value))

    @staticmethod
    def remove_header(name: str) -> None:
        _state.response = _without(_state.response, name)

    @staticmethod
    def set_body(body: bytes) -> None:
        _state.response_body = body


@dataclass
class _Client:
    ip: str
    port: int = 12345
    tls: None = None


class exchange:  # noqa: N801
    client = staticmethod(lambda: _Client(_state.client_ip))
    route = staticmethod(lambda: "test")
    id = staticmethod(lambda: "0" * 32)
    note = staticmethod(lambda name: _state.notes.get(name))

    @staticmethod
    def set_note(name: str, value: str) -> None:
        _state.notes[name] = value


class config:  # noqa: N801
    get = staticmethod(lambda key: _state.config.get(key))
    keys = staticmethod(lambda: sorted(_state.config))


class log:  # noqa: N801
    class Level(enum.Enum):
        TRACE = 0
        DEBUG = 1
        INFO = 2
        WARN = 3
        ERROR = 4

    @staticmethod
    def write(level: Level, message: str) -> None:
        _state.log.append(f"{level.name.lower()}: {message}")


@dataclass
class _Datetime:
    seconds: int
    nanoseconds: int


class clock:  # noqa: N801
    now = staticmethod(lambda: _Datetime(int(_state.now), int(_state.now % 1 * 1e9)))
    ticks = staticmethod(lambda: int(_state.now * 1e6) % 2**32)


class random:  # noqa: N801
    bytes = staticmethod(os.urandom)
    number = staticmethod(lambda: int.from_bytes(os.urandom(4)))


class keyvalue:  # noqa: N801
    @staticmethod
    def get(key: str) -> bytes | None:
        value, expires = _store.get(key, (b"", 0.0))
        return value if expires > _state.now else None

    @staticmethod
    def set(key: str, value: bytes, ttl_ms: int) -> None:
        _store[key] = (value, _state.now + ttl_ms / 1000 if ttl_ms else float("inf"))

    @staticmethod
    def delete(key: str) -> bool:
        return _store.pop(key, None) is not None

    @staticmethod
    def increment(key: str, delta: int, ttl_ms: int) -> int:
        old = keyvalue.get(key)
        total = int(old or 0) + delta
        if old is None:
            keyvalue.set(key, str(total).encode(), ttl_ms)
        else:
            _store[key] = (str(total).encode(), _store[key][1])
        return total

    @staticmethod
    def get_many(keys: list[str]) -> list[bytes | None]:
        return [keyvalue.get(key) for key in keys]

    @staticmethod
    def compare_and_swap(key: str, expected: bytes | None, value: bytes, ttl_ms: int) -> bool:
        if keyvalue.get(key) != expected:
            return False
        keyvalue.set(key, value, ttl_ms)
        return True


class limiter:  # noqa: N801
    class Algorithm(enum.Enum):
        SLIDING_WINDOW = 0
        TOKEN_BUCKET = 1

    @dataclass(frozen=True)
    class Policy:
        algorithm: limiter.Algorithm
        limit: int
        window_ms: int
        burst: int

    @dataclass
    class Decision:
        allowed: bool
        remaining: int
        reset_ms: int
        retry_after_ms: int

    @dataclass
    class Error_Invalid:  # noqa: N801 - the name that the bindings use
        value: str

    class Err(Exception):
        def __init__(self, value: object) -> None:
            self.value = value

    @staticmethod
    def take(key: str, cost: int, policy: limiter.Policy) -> limiter.Decision:
        """A window that begins with the first unit and does not slide, or a token bucket."""
        limit, window = policy.limit, policy.window_ms
        is_bucket = policy.algorithm is limiter.Algorithm.TOKEN_BUCKET
        most = policy.burst if is_bucket and policy.burst else limit
        if cost > most:
            text = f"a cost of {cost} is more than the {most} units that the policy ever allows"
            raise limiter.Err(limiter.Error_Invalid(text))
        since, used = _counts.get((key, policy), (_state.now, 0.0))
        elapsed = (_state.now - since) * 1000
        if is_bucket:
            since, used = _state.now, max(0.0, used - elapsed * limit / window)
        elif elapsed >= window:
            since, used, elapsed = _state.now, 0.0, 0.0
        allowed = used + cost <= most
        if allowed:
            used += cost
        _counts[(key, policy)] = (since, used)
        reset = used * window / limit if is_bucket else window - elapsed
        retry = (used + cost - most) * window / limit if is_bucket else reset
        return limiter.Decision(allowed, int(most - used), math.ceil(reset), 0 if allowed else math.ceil(retry))
