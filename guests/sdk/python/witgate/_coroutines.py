"""Runs ``async`` handlers. Nothing outside the filter can wake a coroutine. If it has not ended
when no task is ready, ``run`` raises an error with its file and line.

If the filter imports asyncio, its event loop is one without timers and sockets. asyncio is not
imported for other filters, because it would enlarge their memory. This module does not know: the
gateway.
"""

import sys
from collections.abc import Awaitable, Callable
from typing import Any

from witgate import _errors

_WHAT = "waits for something that never happens in a filter, such as a timer, a socket or a future"

# Runs a coroutine on an event loop of asyncio, if the filter uses asyncio.
_runner: Callable[[Any], Any] | None = None


def run(awaitable: Awaitable[object]) -> object:
    """Returns the result of the awaitable. Raises ``RuntimeError`` if it never ends."""
    if _runner is not None:
        return _runner(awaitable)
    iterator = awaitable.__await__()
    try:
        iterator.send(None)
    except StopIteration as end:
        return end.value
    place = _waiting_place(awaitable)
    iterator.close()
    raise RuntimeError(f"the handler {_WHAT}{place and f' ({place})'}")


def _waiting_place(awaitable: object) -> str:
    """The innermost place of the author at which a coroutine waits."""
    place = ""
    while awaitable is not None:
        frame = getattr(awaitable, "cr_frame", None)
        if frame is not None and (file := _errors.author_file(frame.f_code.co_filename)):
            place = f"{file}:{frame.f_lineno} in {frame.f_code.co_name}"
        awaitable = getattr(awaitable, "cr_await", None)
    return place


def install() -> None:
    """Makes asyncio use the event loop of this module, if asyncio is imported."""
    if "asyncio" not in sys.modules:
        return
    import asyncio

    class Selector:
        """Has no sockets, so nothing becomes ready while the loop waits."""

        def select(self, timeout: float | None) -> list[object]:
            if timeout is None or timeout > 0:
                raise _Stuck
            return []

        def close(self) -> None:
            pass

    class Loop(asyncio.BaseEventLoop):
        def __init__(self) -> None:
            super().__init__()
            setattr(self, "_selector", Selector())

        def _process_events(self, events: list[object]) -> None:
            pass

        def _write_to_self(self) -> None:
            pass

    def runner(main: Any, **options: Any) -> Any:
        if asyncio._get_running_loop() is not None:
            raise RuntimeError("asyncio.run() cannot be called from a running event loop")
        loop = Loop()
        asyncio.set_event_loop(loop)
        try:
            task = loop.create_task(main if asyncio.iscoroutine(main) else _wrap(main))
            try:
                return loop.run_until_complete(task)
            except _Stuck:
                place = _waiting_place(task.get_coro())
                raise RuntimeError(f"the coroutine {_WHAT}{place and f' ({place})'}") from None
        finally:
            asyncio.set_event_loop(None)

    async def _wrap(awaitable: Any) -> Any:
        return await awaitable

    global _runner
    _runner = runner
    setattr(asyncio, "run", runner)
    setattr(asyncio, "new_event_loop", Loop)
    setattr(asyncio.events, "new_event_loop", Loop)


class _Stuck(BaseException):
    """Nothing is ready, and nothing can become ready."""
