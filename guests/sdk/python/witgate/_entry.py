"""What the generated entry of a filter calls: the author's handler in, the action that the WIT wants out. Must not know any filter."""

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
    """The export ``request-handler``."""
    try:
        reply = on_request(_REQUEST)
        return _PROCEED_REQUEST if reply is None else types.RequestAction_Respond(_raw(reply))
    except Exception as failure:
        raise Err(describe(failure)) from None


def handle_response(on_response: Callable[[Response, ReadonlyRequest], Reply | None]) -> types.ResponseAction:
    """The export ``response-handler``."""
    try:
        reply = on_response(_RESPONSE, _READONLY)
        return _PROCEED_RESPONSE if reply is None else types.ResponseAction_Replace(_raw(reply))
    except Exception as failure:
        raise Err(describe(failure)) from None


def _raw(reply: Reply) -> types.Response:
    if not isinstance(reply, Reply):
        raise TypeError(f"a handler returns None or a Reply, not {type(reply).__name__}: use reply(status, body)")
    return types.Response(reply.status, reply.headers, reply.body)


def describe(failure: BaseException) -> str:
    """``ValueError: … (filter.py:12 in on_request)``: the innermost frame of the author's source."""
    where, trace = "", failure.__traceback__
    while trace is not None:
        place = _place(trace)
        where = place or where
        trace = trace.tb_next
    return f"{type(failure).__name__}: {failure}{where}"


def _place(trace: TracebackType) -> str:
    code = trace.tb_frame.f_code
    file = code.co_filename
    if "/witgate/" in file or "/python3" in file or file.startswith("<") or file.endswith("/_witgate_app.py"):
        return ""
    return f" ({file.rsplit('/', 1)[-1]}:{trace.tb_lineno} in {code.co_name})"
