"""The exports of a filter: they call the author's handler and turn its result into the action that
the WIT expects. The entry that ``componentize`` generates uses them.

This module does not know any particular filter.
"""

from collections.abc import Callable
from types import TracebackType

from componentize_py_types import Err
from wit_world.imports import types

from witgate._message import ReadonlyRequest, Reply, Request, Response

_PROCEED_REQUEST = types.RequestAction_Proceed()
_PROCEED_RESPONSE = types.ResponseAction_Proceed()
_REQUEST = Request()
_READONLY = ReadonlyRequest()
_RESPONSE = Response()


def handle_request(on_request: Callable[[Request], Reply | None]) -> types.RequestAction:
    """The export ``request-handler``. Turns an exception into the ``err`` of the WIT function."""
    try:
        reply = on_request(_REQUEST)
        return _PROCEED_REQUEST if reply is None else types.RequestAction_Respond(_to_wit("on_request", reply))
    except Exception as failure:
        raise Err(failure_message(failure)) from None


def handle_response(on_response: Callable[[Response, ReadonlyRequest], Reply | None]) -> types.ResponseAction:
    """The export ``response-handler``. Turns an exception into the ``err`` of the WIT function."""
    try:
        reply = on_response(_RESPONSE, _READONLY)
        return _PROCEED_RESPONSE if reply is None else types.ResponseAction_Replace(_to_wit("on_response", reply))
    except Exception as failure:
        raise Err(failure_message(failure)) from None


def _to_wit(handler: str, reply: Reply) -> types.Response:
    if not isinstance(reply, Reply):
        returned = type(reply).__name__
        raise TypeError(f"{handler} returned {returned}, not a Reply or None: use `return reply(status, body)`")
    return types.Response(reply.status, reply.headers, reply.body)


def failure_message(failure: BaseException) -> str:
    """Returns the exception in one line, with the innermost frame of the author's source:
    ``ValueError: … (filter.py:12 in on_request)``."""
    place, trace = "", failure.__traceback__
    while trace is not None:
        place = _author_place(trace) or place
        trace = trace.tb_next
    return f"{type(failure).__name__}: {failure}{place}"


def _author_place(trace: TracebackType) -> str:
    """File, line and function of a frame. Empty if the frame is not in the author's source."""
    code = trace.tb_frame.f_code
    file = code.co_filename
    if "/witgate/" in file or "/python3" in file or file.startswith("<") or file.endswith("/_witgate_app.py"):
        return ""
    return f" ({file.rsplit('/', 1)[-1]}:{trace.tb_lineno} in {code.co_name})"
