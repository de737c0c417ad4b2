"""Greets callers by name."""

from witgate import Reply, Request, config, log, reply


def on_request(request: Request) -> Reply | None:
    """Returning a reply answers the client. Returning None lets the request continue."""
    name = request.header("x-name")
    if name is None:
        return reply(400, {"error": "send your name in x-name"})
    log.info(f"greeting {name}")
    request.set_header("x-greeting", f"{config.get('greeting') or 'hello'}, {name}")
    return None
