"""Calls that a filter will make, made while it is built: the interpreter rewrites code that runs, numbers the names of modules and remembers where it found methods, and what it does
here it need not do in every call.

A stand-in takes the place of the gateway. None of the author's functions runs: what those keep in variables would then be in every instance. Must not know: any filter.
"""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FunctionType

from componentize_py_types import Err, Ok, Some
from wit_world.imports import types

from witgate import _entry, _host, _services
from witgate._message import Reply, Request, Response, reply

# Code is rewritten when it runs for the second time, and once more where it turns out otherwise.
_TIMES = 20


def rehearse() -> None:
    """Everything."""
    for _ in range(_TIMES):
        _entry.handle_request(lambda request: None)
        _entry.handle_request(lambda request: reply(401, {"error": "text", "list": [1, 2.5, None, True]}))
        _entry.handle_response(lambda response, request: None)
        try:
            _entry.handle_request(_fail)
        except Err:
            pass
        # What the bindings make of a handler's end.
        _made(Ok(None), Some("text"), types.RequestAction_Proceed(), types.ResponseAction_Proceed())
    with _gateway():
        for _ in range(_TIMES):
            for ask in (_ask_services, _ask_request, _ask_response):
                ask()
    _number_names()


def _fail(request: Request) -> Reply | None:
    raise ValueError(json.loads('{"why": ["text", 1, 2.5, null, true]}')["why"][0])


@contextmanager
def _gateway() -> Iterator[None]:
    """Calls of the gateway end here with a text. By a function in C, as the real one is: code that calls one is rewritten otherwise than code that calls Python."""
    runtime = sys.modules["componentize_py_runtime"]
    real, hook = getattr(runtime, "call_import"), sys.breakpointhook
    sys.breakpointhook = lambda *_: "text"
    setattr(runtime, "call_import", breakpoint)
    try:
        yield
    finally:
        setattr(runtime, "call_import", real)
        sys.breakpointhook = hook


def _ask_services() -> None:
    _services.config.get("name")
    _services.config.keys()
    _services.notes.get("name")
    _services.notes.set("name", "text")
    _services.client()
    _services.route()
    for write in (_services.log.debug, _services.log.info, _services.log.warn, _services.log.error):
        write("text")


def _ask_request() -> None:
    request = Request()
    _made(request.method, request.scheme, request.authority, request.path, request.query, request.headers, request.body)
    request.header("name")
    request.header_values("name")
    if _host.request_edit is not None:
        _edit(request.set_header, request.append_header)
        request.remove_header("name")
        request.set_path("text")
        request.set_query("text")
        request.set_body("text")


def _ask_response() -> None:
    if _host.response is None:
        return
    response = Response()
    _made(response.status, response.local, response.headers, response.body)
    response.header("name")
    response.header_values("name")
    response.status = 200
    _edit(response.set_header, response.append_header)
    response.remove_header("name")
    response.set_body("text")


def _made(*values: object) -> None:
    """They were made to get here."""


def _edit(*ways: Callable[[str, str], None]) -> None:
    for way in ways:
        way("name", "text")


def _number_names() -> None:
    """Code that looks up a name of a module remembers the number of the module's set of names, which is given when it is first wanted. Not in the standard library: that is many modules, and
    what numbering them leaves over costs more than it saves."""
    for name, module in list(sys.modules.items()):
        names = getattr(module, "__dict__", None)
        if name.split(".")[0] not in sys.stdlib_module_names and isinstance(names, dict) and "__name__" in names:
            own = FunctionType(_look.__code__.replace(), names)
            for _ in range(_TIMES):
                own()


def _look() -> object:
    return __name__
