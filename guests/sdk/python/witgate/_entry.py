"""The exports of a filter: they call the author's handler and turn its result into the action that
the WIT expects. The entry that ``componentize`` generates uses them.

This module does not know any particular filter.
"""

from collections.abc import Awaitable, Callable
from typing import cast

from componentize_py_types import Err
from wit_world.imports import types

from witgate import _check, _coroutines, _sandbox
from witgate._errors import describe
from witgate._message import ReadonlyRequest, Reply, Request, Response

_PROCEED_REQUEST = types.RequestAction_Proceed()
_PROCEED_RESPONSE = types.ResponseAction_Proceed()
_REQUEST = Request()
_READONLY = ReadonlyRequest()
_RESPONSE = Response()

Result = Reply | None
OnRequest = Callable[[Request], Result | Awaitable[Result]]
OnResponse = Callable[[Response, ReadonlyRequest], Result | Awaitable[Result]]


def handle_request(on_request: OnRequest) -> types.RequestAction:
    """The export ``request-handler``. Turns an exception into the ``err`` of the WIT function."""
    try:
        result = on_request(_REQUEST)
        if result is not None and not isinstance(result, Reply):
            result = _awaited("on_request", result)
        return _PROCEED_REQUEST if result is None else types.RequestAction_Respond(_to_wit(result))
    # SystemExit is not an Exception, and an exception that leaves this function is a trap.
    except BaseException as failure:
        raise Err(describe(failure, on_request)) from None
    finally:
        _sandbox.flush()


def handle_response(on_response: OnResponse) -> types.ResponseAction:
    """The export ``response-handler``. Turns an exception into the ``err`` of the WIT function."""
    try:
        result = on_response(_RESPONSE, _READONLY)
        if result is not None and not isinstance(result, Reply):
            result = _awaited("on_response", result)
        return _PROCEED_RESPONSE if result is None else types.ResponseAction_Replace(_to_wit(result))
    except BaseException as failure:
        raise Err(describe(failure, on_response)) from None
    finally:
        _sandbox.flush()


def _awaited(handler: str, result: object) -> Reply | None:
    """The result of an ``async`` handler."""
    if isinstance(result, Awaitable):
        result = _coroutines.run(cast(Awaitable[object], result))
    if result is None or isinstance(result, Reply):
        return result
    returned = type(result).__name__
    raise TypeError(f"{handler} returned {returned}, not a Reply or None: use `return reply(status, body)`")


def _to_wit(reply: Reply) -> types.Response:
    """Checks the reply again, because the author can change it after ``reply`` made it."""
    body = reply.body
    if type(body) is not bytes:
        if not isinstance(body, (bytes, bytearray, memoryview)):
            raise TypeError(f"Reply.body is bytes, but this is {type(body).__name__}: use `reply(status, body)`")
        body = bytes(body)
    return types.Response(_check.status(reply.status), _check.fields(reply.headers), _check.body(body))
