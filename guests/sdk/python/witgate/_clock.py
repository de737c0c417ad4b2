"""Replaces the clock of the standard library in a component that is not optimized.

The builder connects the clock of the C library to the gateway when it optimizes a component.
Without that, ``time.time`` would trap. This module is only for comparisons: the classes of
``datetime`` are subclasses here, so ``repr`` and ``pickle`` differ from CPython.
"""

import datetime
import time
from typing import Any

from witgate import _host, _sandbox

_original_time, _original_time_ns = time.time, time.time_ns
_original_gmtime, _original_strftime, _original_asctime = time.gmtime, time.strftime, time.asctime


def _time_ns() -> int:
    if not _sandbox.running:
        return _original_time_ns()
    now = _host.clock.now()
    return now.seconds * 1_000_000_000 + now.nanoseconds


def _time() -> float:
    return _time_ns() / 1e9 if _sandbox.running else _original_time()


def _monotonic_ns() -> int:
    return _host.clock.ticks() * 1000 if _sandbox.running else 0


def _monotonic() -> float:
    return _monotonic_ns() / 1e9


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


def install() -> None:
    """Replaces the functions and classes."""
    time.time, time.time_ns = _time, _time_ns
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
