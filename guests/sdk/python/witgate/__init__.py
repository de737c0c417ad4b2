"""Write witgate filters in Python: ``from witgate import Request, Reply, reply, config``.

A filter is a module ``filter.py`` that defines ``on_request(request)``,
``on_response(response, request)`` or both. A handler may be ``async``.

- A handler that returns ``None`` lets the exchange continue with its edits.
- A handler that returns a ``Reply`` answers the client (``on_request``) or replaces the response
  (``on_response``). Its edits are discarded.
- If a handler raises an exception, its edits are discarded and the client receives status 502. The
  gateway logs the message with the file and line, and those of its causes.

The objects hold no state: each method calls one function of the gateway (wit/).
"""

from witgate._crypto import CryptoError, Secret, crypto
from witgate._message import ReadonlyRequest, Reply, Request, Response, reply
from witgate._outbound import HttpError, HttpResponse, http
from witgate._services import Decision, Policy, client, config, exchange_id, keyvalue, limiter, log, notes, route

__all__ = [
    "CryptoError",
    "Decision",
    "HttpError",
    "HttpResponse",
    "Policy",
    "ReadonlyRequest",
    "Reply",
    "Request",
    "Response",
    "Secret",
    "client",
    "config",
    "crypto",
    "exchange_id",
    "http",
    "keyvalue",
    "limiter",
    "log",
    "notes",
    "reply",
    "route",
]
