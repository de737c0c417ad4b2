"""Makes randomness, output and waiting of the standard library work in a component. The entry
imports this module before the author's module.

The memory of a filter is a snapshot that is taken at build time. ``random`` would start from the
same state in every instance, so this module takes seeds from the gateway. The clock needs no help:
the builder connects the clock of the C library to the gateway (componentize/src/optimize).

There is no gateway at build time. The clock then stands still (componentize/python/fixed_clock.py),
because some libraries read it when they are imported. Randomness raises an error, because the value
would be the same in every instance.
"""

import _signal
import hashlib
import hmac
import io
import locale
import logging  # noqa: F401 - so that its streams exist before they are replaced
import os
import random
import secrets  # noqa: F401
import sys
import time
import uuid  # noqa: F401
from typing import Any, NoReturn

from witgate import _database, _host, _locks
from witgate._check import without_surrogates

# Whether the build is over, so that the functions of the gateway can be called.
running = False


def _require_gateway(what: str) -> None:
    if not running:
        raise RuntimeError(f"{what} cannot be used while the filter is built: call it inside on_request or on_response")


# --- randomness -----------------------------------------------------------------------------------


def _urandom(size: int, /) -> bytes:
    """Replaces ``os.urandom``. The gateway returns at most 64 KiB per call."""
    _require_gateway("randomness")
    if size < 0:
        raise ValueError("negative argument not allowed")
    parts = []
    while size > 0:
        part = min(size, 65536)
        parts.append(_host.random.bytes(part))
        size -= part
    return b"".join(parts)


class _Random(random.Random):
    """Replaces ``random.Random``: without a seed, the first use takes one from the gateway, so that
    a generator can be made while the filter is built."""

    _is_seeded = False

    def __new__(cls, *args: Any, **options: Any) -> "_Random":
        # Without an argument, the base class would read a seed from the operating system.
        return super().__new__(cls, 0)

    def seed(self, a: Any = None, version: int = 2) -> None:
        self._is_seeded = a is not None
        if a is not None:
            super().seed(a, version)

    def _take_seed(self) -> None:
        super().seed(int.from_bytes(_urandom(32)))
        self._is_seeded = True

    def random(self) -> float:
        if not self._is_seeded:
            self._take_seed()
        return super().random()

    def getrandbits(self, k: int, /) -> int:
        if not self._is_seeded:
            self._take_seed()
        return super().getrandbits(k)

    def getstate(self) -> tuple[Any, ...]:
        if not self._is_seeded:
            self._take_seed()
        return super().getstate()

    def setstate(self, state: tuple[Any, ...]) -> None:
        super().setstate(state)
        self._is_seeded = True


def _install_randomness() -> None:
    os.urandom = _urandom
    setattr(random, "_urandom", _urandom)
    # The functions of the module are methods of one generator. It is seeded in each call anew,
    # because the snapshot is taken before its first use.
    generator = _Random()
    for name in random.__all__:
        if name[0].islower() and hasattr(generator, name):
            setattr(random, name, getattr(generator, name))
    setattr(random, "_inst", generator)
    _Random.__name__ = _Random.__qualname__ = "Random"
    _Random.__module__ = "random"
    setattr(random, "Random", _Random)


# --- waiting and ending ---------------------------------------------------------------------------


def _sleep(seconds: float, /) -> None:
    if seconds == 0:
        return
    raise RuntimeError("time.sleep is not available in a filter: a call has to end within its timeout")


def _exit(status: object = None, /) -> NoReturn:
    raise SystemExit(status)


def _raise_signal(number: int, /) -> NoReturn:
    raise RuntimeError(f"signal {number} cannot be raised: a filter is no process; raise an exception instead")


# --- hashes ---------------------------------------------------------------------------------------


def _pbkdf2_hmac(
    hash_name: str, password: bytes, salt: bytes, iterations: int, dklen: int | None = None
) -> bytes:
    """Replaces ``hashlib.pbkdf2_hmac``, which CPython has only with OpenSSL."""
    if iterations < 1:
        raise ValueError("iteration value must be greater than 0.")
    inner = hmac.new(bytes(password), digestmod=hash_name)
    dklen = inner.digest_size if dklen is None else dklen
    if dklen < 1:
        raise ValueError("key length must be greater than 0.")
    derived, block = b"", 0
    while len(derived) < dklen:
        block += 1
        keyed = inner.copy()
        keyed.update(bytes(salt) + block.to_bytes(4))
        digest = keyed.digest()
        total = int.from_bytes(digest)
        for _ in range(iterations - 1):
            keyed = inner.copy()
            keyed.update(digest)
            digest = keyed.digest()
            total ^= int.from_bytes(digest)
        derived += total.to_bytes(inner.digest_size)
    return derived[:dklen]


# --- output ---------------------------------------------------------------------------------------


class _LogStream(io.TextIOBase):
    """Replaces ``sys.stdout`` and ``sys.stderr``: writes whole lines to the gateway's log. The rest
    of a line is written when the call ends."""

    encoding = "utf-8"
    errors = "backslashreplace"

    def __init__(self, name: str, level: str) -> None:
        self.name = name
        self._level = level
        self.rest = ""
        self.buffer = _Bytes(self)

    def reconfigure(self, **_: object) -> None:
        """The stream stays as it is."""

    def writable(self) -> bool:
        return True

    def write(self, text: str, /) -> int:
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        lines = (self.rest + text).split("\n")
        self.rest = lines.pop()
        for line in lines:
            self._log(line)
        return len(text)

    def _log(self, line: str) -> None:
        if running:
            _host.log.write(getattr(_host.log.Level, self._level), without_surrogates(line))

    def write_rest(self) -> None:
        """Writes the line that has no end yet."""
        rest, self.rest = self.rest, ""
        self._log(rest)


class _Bytes(io.RawIOBase):
    """The ``buffer`` of a stream: takes bytes."""

    def __init__(self, stream: _LogStream) -> None:
        self._stream = stream

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:
        self._stream.write(bytes(data).decode("utf-8", "replace"))
        return len(data)


_stdout, _stderr = _LogStream("<stdout>", "INFO"), _LogStream("<stderr>", "WARN")


def flush() -> None:
    """Writes what a call left unfinished: ``print("a", end="")``."""
    if _stdout.rest:
        _stdout.write_rest()
    if _stderr.rest:
        _stderr.write_rest()


class _TextIOWrapper(io.TextIOWrapper):
    """Replaces ``io.TextIOWrapper``: text without an encoding is UTF-8, as on other systems. The
    locale of WASI would make it ASCII."""

    def __init__(self, buffer: Any, encoding: str | None = None, *args: Any, **options: Any) -> None:
        super().__init__(buffer, "utf-8" if encoding in (None, "locale") else encoding, *args, **options)


def _install_encoding() -> None:
    _TextIOWrapper.__name__ = _TextIOWrapper.__qualname__ = "TextIOWrapper"
    _TextIOWrapper.__module__ = "_io"
    setattr(io, "TextIOWrapper", _TextIOWrapper)
    setattr(locale, "getencoding", lambda: "utf-8")
    setattr(locale, "getpreferredencoding", lambda do_setlocale=True: "utf-8")


_original_write = os.write


def _write(descriptor: int, data: bytes, /) -> int:
    """Replaces ``os.write``, for the two standard outputs."""
    stream = {1: _stdout, 2: _stderr}.get(descriptor)
    if stream is None:
        return _original_write(descriptor, data)
    return stream.buffer.write(data)


def finish() -> None:
    """Replaces what the build itself uses. The snapshot is taken after it."""
    setattr(sys, "__stdout__", _stdout)
    setattr(sys, "__stderr__", _stderr)


def install() -> None:
    """Replaces the functions. Does nothing outside a component."""
    if not _host.INSIDE:
        return
    _install_randomness()
    time.sleep = _sleep
    # There is no clock of processor time.
    for clock in ("process_time", "thread_time"):
        setattr(time, clock, time.perf_counter)
        setattr(time, f"{clock}_ns", time.perf_counter_ns)
    setattr(os, "_exit", _exit)
    os.abort = _exit
    setattr(os, "write", _write)
    setattr(_signal, "raise_signal", _raise_signal)
    _install_encoding()
    _locks.install()
    _database.install(_urandom)
    if not hasattr(hashlib, "pbkdf2_hmac"):
        setattr(hashlib, "pbkdf2_hmac", _pbkdf2_hmac)
    sys.stdout, sys.stderr = _stdout, _stderr


install()
