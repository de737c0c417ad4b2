"""Write witgate filters in Python: ``from witgate import Request, Reply, reply, config``.

A filter is a module ``filter.py`` with ``on_request(request)``, ``on_response(response, request)`` or both. Returning nothing lets the exchange go on
with your edits; returning a reply answers here. Everything is thin: a method is one call of the gateway (the functions of wit/).
"""

from witgate._message import ReadonlyRequest, Reply, Request, Response, reply
from witgate._services import client, config, keyvalue, log, notes, route

__all__ = [
    "ReadonlyRequest",
    "Reply",
    "Request",
    "Response",
    "client",
    "config",
    "keyvalue",
    "log",
    "notes",
    "reply",
    "route",
]
