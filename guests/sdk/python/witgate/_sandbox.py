"""Makes the standard library's clock, randomness and output work in a component: imported before the author's module.

A filter's memory is a snapshot made when it was built, without a system below it: ``time.time`` would trap, and ``random`` would begin from the same seed in
every instance. All of them go to the gateway, under every name by which an author may import them. While the snapshot is made there is no gateway: the
clock then shows the builder's time (some libraries look at it when imported), but randomness is refused, since it would be the same in every instance for ever.
"""

import datetime
import io
import logging  # noqa: F401 - looks at the clock when imported: before that is routed
import os
import random
import secrets  # noqa: F401
import sys
import time
import uuid  # noqa: F401
from typing import Any

from witgate import _host

running = False


def _needs_gateway(what: str) -> None:
    if not running:
        raise RuntimeError(f"{what} is not there while the filter is built: call it inside on_request or on_response")


# --- randomness -----------------------------------------------------------------------------------------------------------------


def _urandom(size: int, /) -> bytes:
    """os.urandom: the gateway gives at most 64 KiB at once."""
    _needs_gateway("randomness")
    parts = []
    while size > 0:
        part = min(size, 65536)
        parts.append(_host.random.bytes(part))
        size -= part
    return b"".join(parts)


class _Random(random.Random):
    """random.Random whose missing seed comes from the gateway."""

    def seed(self, a: Any = None, version: int = 2) -> None:
        super().seed(int.from_bytes(_urandom(32)) if a is None else a, version)

    def __new__(cls, *args: Any) -> "_Random":
        # The base class seeds itself when made: with nothing given it would ask the system.
        return super().__new__(cls, 0)


def _route_randomness() -> None:
    os.urandom = _urandom
    setattr(random, "_urandom", _urandom)
    system = random.SystemRandom()
    # The module's functions are methods of one generator: here of one without a state, so that nothing is frozen in the snapshot.
    for name in random.__all__:
        if name[0].islower() and hasattr(system, name):
            setattr(random, name, getattr(system, name))
    setattr(random, "_inst", system)
    setattr(random, "Random", _Random)


# --- the clock ------------------------------------------------------------------------------------------------------------------

_built_time, _built_ns = time.time, time.time_ns
_built_gmtime, _built_strftime, _built_asctime = time.gmtime, time.strftime, time.asctime


def _time_ns() -> int:
    if not running:
        return _built_ns()
    now = _host.clock.now()
    return now.seconds * 1_000_000_000 + now.nanoseconds


def _time() -> float:
    return _time_ns() / 1e9 if running else _built_time()


def _monotonic_ns() -> int:
    return _host.clock.ticks() * 1000 if running else 0


def _monotonic() -> float:
    return _monotonic_ns() / 1e9


def _sleep(seconds: float, /) -> None:
    raise RuntimeError("time.sleep is not there in a filter: a call should end at once")


def _gmtime(seconds: float | None = None, /) -> time.struct_time:
    return _built_gmtime(_time() if seconds is None else seconds)


def _strftime(format: str, when: Any = None, /) -> str:
    return _built_strftime(format, _gmtime() if when is None else when)


def _asctime(when: Any = None, /) -> str:
    return _built_asctime(_gmtime() if when is None else when)


def _ctime(seconds: float | None = None, /) -> str:
    return _asctime(_gmtime(seconds))


_date, _datetime = datetime.date, datetime.datetime


class _DateType(type):
    """Values that the library's own code makes are dates too."""

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, _datetime if issubclass(cls, _datetime) else _date)


class _Date(_date, metaclass=_DateType):
    @classmethod
    def today(cls) -> Any:
        return cls.fromtimestamp(_time())


class _Datetime(_datetime, metaclass=_DateType):
    @classmethod
    def now(cls, tz: datetime.tzinfo | None = None) -> Any:
        return cls.fromtimestamp(_time(), datetime.UTC).astimezone(tz) if tz else cls.fromtimestamp(_time(), datetime.UTC).replace(tzinfo=None)

    @classmethod
    def utcnow(cls) -> Any:
        return cls.now()

    @classmethod
    def today(cls) -> Any:
        return cls.now()


def _route_clock() -> None:
    time.time, time.time_ns, time.sleep = _time, _time_ns, _sleep
    for clock in ("monotonic", "perf_counter", "process_time", "thread_time"):
        setattr(time, clock, _monotonic)
        setattr(time, f"{clock}_ns", _monotonic_ns)
    # There are no time zones in the sandbox: local time is UTC.
    setattr(time, "gmtime", _gmtime)
    setattr(time, "localtime", _gmtime)
    setattr(time, "strftime", _strftime)
    setattr(time, "asctime", _asctime)
    setattr(time, "ctime", _ctime)
    _Date.__name__ = _Date.__qualname__ = "date"
    _Datetime.__name__ = _Datetime.__qualname__ = "datetime"
    setattr(datetime, "date", _Date)
    setattr(datetime, "datetime", _Datetime)


# --- output ---------------------------------------------------------------------------------------------------------------------


class _LogStream(io.TextIOBase):
    """print and logging: whole lines to the gateway's log."""

    def __init__(self, level: str) -> None:
        self._level = level
        self._rest = ""

    def writable(self) -> bool:
        return True

    def write(self, text: str, /) -> int:
        lines = (self._rest + text).split("\n")
        self._rest = lines.pop()
        if running:
            for line in lines:
                _host.log.write(getattr(_host.log.Level, self._level), line)
        return len(text)


def install() -> None:
    """Routes everything. Does nothing outside a component."""
    if not _host.INSIDE:
        return
    _route_randomness()
    _route_clock()
    sys.stdout = _LogStream("INFO")
    sys.stderr = _LogStream("WARN")


install()
