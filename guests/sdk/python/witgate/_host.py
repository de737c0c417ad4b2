"""The functions of the gateway: in a component the generated bindings, elsewhere the fake of
``witgate._fake``."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wit_world.imports import (
        clock,
        config,
        crypto,
        exchange,
        http,
        keyvalue,
        limiter,
        log,
        random,
        request,
        request_edit,
        response,
    )

    INSIDE = True
else:
    try:
        import wit_world  # noqa: F401

        INSIDE = True
    except ModuleNotFoundError:
        INSIDE = False
    if INSIDE:
        from wit_world.imports import clock, config, exchange, log, random, request

        # These interfaces are missing if the manifest does not ask for the phase or the service.
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
        try:
            from wit_world.imports import limiter
        except ImportError:
            limiter = None
        try:
            from wit_world.imports import http
        except ImportError:
            http = None
        try:
            from wit_world.imports import crypto
        except ImportError:
            crypto = None
    else:
        from witgate._fake import (
            clock,
            config,
            exchange,
            keyvalue,
            limiter,
            log,
            random,
            request,
            request_edit,
            response,
        )
        from witgate._fake_services import crypto, http

__all__ = [
    "INSIDE",
    "clock",
    "config",
    "crypto",
    "exchange",
    "http",
    "keyvalue",
    "limiter",
    "log",
    "random",
    "request",
    "request_edit",
    "response",
]
