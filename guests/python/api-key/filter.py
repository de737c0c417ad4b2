"""Accepts a request only with an API key, and hides credentials from the upstream.

The same filter exists in TypeScript and Rust; the benchmarks compare the three.
"""

from witgate import Reply, Request, config, reply


def on_request(request: Request) -> Reply | None:
    key = request.header("x-api-key")
    expected = config.get("key")
    if key is None or (expected is not None and key != expected):
        return reply(401, {"error": "missing or wrong api key"})
    request.set_header("x-user", "alice")
    for name in ("authorization", "cookie"):
        if request.header(name) is not None:
            request.set_header(name, "REDACTED")
    return None
