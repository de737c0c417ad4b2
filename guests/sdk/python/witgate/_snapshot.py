"""The end of a build: called last by the generated entry, it leaves the filter's memory as calls should find it. Runs none of the author's functions: what those
keep in variables would then be in every instance."""

import gc
import json

from componentize_py_types import Err

from witgate import _entry, _image, _sandbox
from witgate._message import Reply, Request, reply


def finish() -> None:
    """Everything. The collector stays off: an instance lives for one call, and what the collector marks would have to be copied back."""
    _sandbox.running = True
    gc.collect()
    gc.disable()
    known = _image.is_known()
    if known:
        _image.fill()
        _image.gather_code()
    _warm()
    if known:
        _image.pin()
    gc.freeze()
    if known:
        # Again: what all this left over.
        _image.fill()


def _warm() -> None:
    """The interpreter rewrites code that runs often, and remembers where it found names: done here, it need not be done in every call."""
    for _ in range(20):
        _entry.handle_request(lambda request: None)
        _entry.handle_request(lambda request: reply(401, {"error": "text", "list": [1, 2.5, None, True]}))
        _entry.handle_response(lambda response, request: None)
        try:
            _entry.handle_request(_fail)
        except Err:
            pass


def _fail(request: Request) -> Reply | None:
    raise ValueError(json.loads('{"why": ["text", 1, 2.5, null, true]}')["why"][0])
