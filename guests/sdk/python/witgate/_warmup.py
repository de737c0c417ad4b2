"""Warms up the interpreter while a filter is built, by the calls that the filter will make.

Gain: CPython rewrites code when it first runs, assigns version numbers to the namespaces of modules
and caches the methods that it finds. After a warm-up, a call of the filter does not write this
again, and each page that a call writes must be copied back. Price: a build runs the SDK a few
hundred times.

A stand-in replaces the gateway. None of the author's functions runs, because values that they store
would then be in every instance. This module does not know any particular filter.
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

# CPython specialises code in its second run, and again if the first specialisation does not fit.
_RUNS = 20


def run() -> None:
    """Runs every function of the SDK until the interpreter has settled."""
    for _ in range(_RUNS):
        _entry.handle_request(lambda request: None)
        _entry.handle_request(lambda request: reply(401, {"error": "text", "list": [1, 2.5, None, True]}))
        _entry.handle_response(lambda response, request: None)
        try:
            _entry.handle_request(_fail)
        except Err:
            pass
        # The values into which the bindings convert the result of a handler.
        _discard(Ok(None), Some("text"), types.RequestAction_Proceed(), types.ResponseAction_Proceed())
    with _stand_in():
        for _ in range(_RUNS):
            for use in (_use_services, _use_request, _use_response):
                use()
    _number_namespaces()


def _fail(request: Request) -> Reply | None:
    raise ValueError(json.loads('{"why": ["text", 1, 2.5, null, true]}')["why"][0])


@contextmanager
def _stand_in() -> Iterator[None]:
    """Makes every call of the gateway return a text.

    The stand-in is ``breakpoint``, a function in C like the real one, because CPython specialises a
    call of a C function in another way than a call of a Python function.
    """
    runtime = sys.modules["componentize_py_runtime"]
    original, hook = getattr(runtime, "call_import"), sys.breakpointhook
    sys.breakpointhook = lambda *_: "text"
    setattr(runtime, "call_import", breakpoint)
    try:
        yield
    finally:
        setattr(runtime, "call_import", original)
        sys.breakpointhook = hook


def _use_services() -> None:
    _services.config.get("name")
    _services.config.keys()
    _services.notes.get("name")
    _services.notes.set("name", "text")
    _services.client()
    _services.route()
    _services.exchange_id()
    for write in (_services.log.debug, _services.log.info, _services.log.warn, _services.log.error):
        write("text")


def _use_request() -> None:
    request = Request()
    _discard(request.method, request.scheme, request.authority, request.path, request.query)
    _discard(request.headers, request.body)
    request.header("name")
    request.header_values("name")
    if _host.request_edit is not None:
        _edit(request.set_header, request.append_header)
        request.remove_header("name")
        request.set_path("/text")
        request.set_query("text")
        request.set_body("text")


def _use_response() -> None:
    if _host.response is None:
        return
    response = Response()
    _discard(response.status, response.local, response.headers, response.body)
    response.header("name")
    response.header_values("name")
    response.status = 200
    _edit(response.set_header, response.append_header)
    response.remove_header("name")
    response.set_body("text")


def _discard(*values: object) -> None:
    """Takes values whose computation is the purpose of the call."""


def _edit(*functions: Callable[[str, str], None]) -> None:
    for function in functions:
        function("name", "text")


def _number_namespaces() -> None:
    """Makes CPython assign a version number to the namespace of each module.

    Code that looks up a global caches this number, which is assigned at the first look-up. The
    standard library is left out: it has many modules, and numbering them all leaves more holes in
    memory than it saves.
    """
    for name, module in list(sys.modules.items()):
        namespace = getattr(module, "__dict__", None)
        is_standard = name.split(".")[0] in sys.stdlib_module_names
        if not is_standard and isinstance(namespace, dict) and "__name__" in namespace:
            look_up = FunctionType(_look_up.__code__.replace(), namespace)
            for _ in range(_RUNS):
                look_up()


def _look_up() -> object:
    return __name__
