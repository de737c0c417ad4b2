"""Makes the clock, randomness and output of the standard library work in a component. The entry
imports this module before the author's module.

The memory of a filter is a snapshot that is taken at build time, without an operating system below
it: ``time.time`` would trap, and ``random`` would start from the same seed in every instance. This
module sends them to the gateway, under every name by which an author may import them.

There is no gateway at build time. The clock then shows the time of the build, because some
libraries read it when they are imported. Randomness raises an error, because the value would be the
same in every instance.
"""

import datetime
import io
import logging  # noqa: F401 - reads the clock when imported: before the clock is replaced
import os
import random
import secrets  # noqa: F401
import sys
import time
import uuid  # noqa: F401
from typing import Any

from witgate import _host

# Whether the build is over, so that the functions of the gateway can be called.
running = False


def _require_gateway(what: str) -> None:
    if not running:
        raise RuntimeError(f"{what} cannot be used while the filter is built: call it inside on_request or on_response")


# --- randomness -----------------------------------------------------------------------------------


def _urandom(size: int, /) -> bytes:
    """Replaces ``os.urandom``. The gateway returns at most 64 KiB per call."""
    _require_gateway("randomness")
    parts = []
    while size > 0:
        part = min(size, 65536)
        parts.append(_host.random.bytes(part))
        size -= part
    return b"".join(parts)


class _Random(random.Random):
    """Replaces ``random.Random``: without an argument, the seed comes from the gateway."""

    def seed(self, a: Any = None, version: int = 2) -> None:
        super().seed(int.from_bytes(_urandom(32)) if a is None else a, version)

    def __new__(cls, *args: Any) -> "_Random":
        # Without an argument, the base class would read a seed from the operating system.
        return super().__new__(cls, 0)


def _install_randomness() -> None:
    os.urandom = _urandom
    setattr(random, "_urandom", _urandom)
    system = random.SystemRandom()
    # The functions of the module are methods of one generator. SystemRandom has no state that the
    # snapshot could freeze.
    for name in random.__all__:
        if name[0].islower() and hasattr(system, name):
            setattr(random, name, getattr(system, name))
    setattr(random, "_inst", system)
    setattr(random, "Random", _Random)


# --- the clock ------------------------------------------------------------------------------------

_original_time, _original_time_ns = time.time, time.time_ns
_original_gmtime, _original_strftime, _original_asctime = time.gmtime, time.strftime, time.asctime


def _time_ns() -> int:
    if not running:
        return _original_time_ns()
    now = _host.clock.now()
    return now.seconds * 1_000_000_000 + now.nanoseconds


def _time() -> float:
    return _time_ns() / 1e9 if running else _original_time()


def _monotonic_ns() -> int:
    return _host.clock.ticks() * 1000 if running else 0


def _monotonic() -> float:
    return _monotonic_ns() / 1e9


def _sleep(seconds: float, /) -> None:
    raise RuntimeError("time.sleep is not available in a filter: a call has to end within its timeout")


def _gmtime(seconds: float | None = None, /) -> time.struct_time:
    return _original_gmtime(_time() if seconds is None else seconds)


def _strftime(format: str, when: Any = None, /) -> str:
    return _original_strftime(format, _gmtime() if when is None else when)


def _asctime(when: Any = None, /) -> str:
    return _original_asctime(_gmtime() if when is None else when)


def _ctime(seconds: float | None = None, /) -> str:
    return _asctime(_gmtime(seconds))


_date, _datetime = datetime.date, datetime.datetime


class _DateType(type):
    """Lets ``isinstance`` accept the dates that the standard library itself makes."""

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, _datetime if issubclass(cls, _datetime) else _date)


class _Date(_date, metaclass=_DateType):
    @classmethod
    def today(cls) -> Any:
        return cls.fromtimestamp(_time())


class _Datetime(_datetime, metaclass=_DateType):
    @classmethod
    def now(cls, tz: datetime.tzinfo | None = None) -> Any:
        now = cls.fromtimestamp(_time(), datetime.UTC)
        return now.astimezone(tz) if tz else now.replace(tzinfo=None)

    @classmethod
    def utcnow(cls) -> Any:
        return cls.now()

    @classmethod
    def today(cls) -> Any:
        return cls.now()


def _install_clock() -> None:
    time.time, time.time_ns, time.sleep = _time, _time_ns, _sleep
    for clock in ("monotonic", "perf_counter", "process_time", "thread_time"):
        setattr(time, clock, _monotonic)
        setattr(time, f"{clock}_ns", _monotonic_ns)
    # The sandbox has no time zone data: local time is UTC.
    setattr(time, "gmtime", _gmtime)
    setattr(time, "localtime", _gmtime)
    setattr(time, "strftime", _strftime)
    setattr(time, "asctime", _asctime)
    setattr(time, "ctime", _ctime)
    _Date.__name__ = _Date.__qualname__ = "date"
    _Datetime.__name__ = _Datetime.__qualname__ = "datetime"
    setattr(datetime, "date", _Date)
    setattr(datetime, "datetime", _Datetime)


# --- output ---------------------------------------------------------------------------------------


class _LogStream(io.TextIOBase):
    """Replaces ``sys.stdout`` and ``sys.stderr``: writes whole lines to the gateway's log."""

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
    """Replaces the functions. Does nothing outside a component."""
    if not _host.INSIDE:
        return
    _install_randomness()
    _install_clock()
    sys.stdout = _LogStream("INFO")
    sys.stderr = _LogStream("WARN")


install()
