"""Limits the requests of each client."""

import math

from witgate import Policy, Reply, Request, client, config, limiter, reply


def on_request(request: Request) -> Reply | None:
    """The gateway's limiter counts, because variables of a filter do not outlive a call."""
    limit = int(config.get("limit") or "100")
    decision = limiter.take(client().ip, Policy(limit, 60_000))
    if decision.allowed:
        return None
    seconds = math.ceil(decision.retry_after_ms / 1000)
    return reply(429, {"error": "too many requests"}, {"retry-after": str(seconds)})
