"""Test fixture: says what it finds in its globals, then writes to all of them. A later call must find nothing."""

import sys

from witgate import Reply, Request, reply

counter = 0
items: list[int] = []
table: dict[str, int] = {}


def on_request(request: Request) -> Reply:
    global counter
    found = {"counter": counter, "list": len(items), "table": len(table), "mark": getattr(sys, "mark", 0)}
    counter += 1
    items.extend(range(1000))
    table.update({str(i): i for i in range(1000)})
    setattr(sys, "mark", 1)
    return reply(200, found)
