"""Locks for a program with one thread.

A wait for a lock that is held would end the interpreter, because nothing else could release it. So
such a wait raises ``RuntimeError``, and one with a timeout fails at once. ``threading.Lock`` is a
class of this module; events, conditions, semaphores and queues are built on it. ``RLock`` never
waits in one thread. This module does not know: filters, the gateway.
"""

import _thread
import sys
import threading
from types import TracebackType

_allocate = _thread.allocate_lock
_TEXT = (
    "this waits for a lock, an event or a queue that nothing else can release or fill, because a filter has one "
    "thread: use a timeout, or do not wait"
)


class Lock:
    """Replaces ``threading.Lock``."""

    __slots__ = ("_lock", "__weakref__")

    def __init__(self) -> None:
        self._lock = _allocate()

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        if not blocking and timeout != -1:
            raise ValueError("can't specify a timeout for a non-blocking call")
        if timeout < 0 and timeout != -1:
            raise ValueError("timeout value must be a non-negative number")
        if self._lock.acquire(False):
            return True
        if blocking and timeout == -1:
            raise RuntimeError(_TEXT)
        return False

    acquire_lock = acquire

    def release(self) -> None:
        self._lock.release()

    release_lock = release

    def locked(self) -> bool:
        return self._lock.locked()

    locked_lock = locked

    def _at_fork_reinit(self) -> None:
        self._lock = _allocate()

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.release()

    def __repr__(self) -> str:
        return f"<{'locked' if self.locked() else 'unlocked'} threading.Lock object at {id(self):#x}>"


def install() -> None:
    """Replaces the locks, before the author's module is imported."""
    Lock.__module__ = "threading"
    setattr(_thread, "allocate_lock", Lock)
    setattr(_thread, "lock", Lock)
    setattr(_thread, "LockType", Lock)
    setattr(threading, "Lock", Lock)
    setattr(threading, "_allocate_lock", Lock)


def replace_queue() -> None:
    """Replaces the queue that is written in C, which has a lock of its own."""
    queue = sys.modules.get("queue")
    if queue is not None:
        setattr(queue, "SimpleQueue", getattr(queue, "_PySimpleQueue"))
