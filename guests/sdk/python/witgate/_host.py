"""The gateway's functions: the generated bindings inside a component, a fake of them outside (see ``witgate.testing``)."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wit_world.imports import clock, config, exchange, keyvalue, log, random, request, request_edit, response

    INSIDE = True
else:
    try:
        import wit_world  # noqa: F401

        INSIDE = True
    except ModuleNotFoundError:
        INSIDE = False
    if INSIDE:
        from wit_world.imports import clock, config, exchange, log, random, request

        # A world has only what its manifest asks for.
        try:
            from wit_world.imports import request_edit
        except ImportError:
            request_edit = None
        try:
            from wit_world.imports import response
        except ImportError:
            response = None
        try:
            from wit_world.imports import keyvalue
        except ImportError:
            keyvalue = None
    else:
        from witgate.testing import (
            clock,
            config,
            exchange,
            keyvalue,
            log,
            random,
            request,
            request_edit,
            response,
        )

__all__ = ["INSIDE", "clock", "config", "exchange", "keyvalue", "log", "random", "request", "request_edit", "response"]
