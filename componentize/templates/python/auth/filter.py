"""Accepts a request only with the API key, and hides the key from the upstream."""

from witgate import Reply, Request, config, reply


def on_request(request: Request) -> Reply | None:
    """Returning a reply answers the client. Returning None lets the request continue."""
    key = request.header("x-api-key")
    if key is None or key != config.get("key"):
        return reply(401, {"error": "missing or wrong API key"})
    request.remove_header("x-api-key")
    request.set_header("x-authenticated", "yes")
    return None
