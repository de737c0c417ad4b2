"""Test fixture: shows what an author's usual calls give in the sandbox, and fails in the ways that a header asks for."""

import os
import random
import secrets
import time
import uuid
from datetime import date, datetime
from random import random as uniform

from witgate import Reply, Request, reply


def on_request(request: Request) -> Reply:
    match request.header("x-fail"):
        case "throw":
            on_purpose()
        case "loop":
            while True:
                pass
        case "memory":
            hoard = []
            while True:
                hoard.append(bytearray(1 << 20))
        case "recursion":
            recurse(0)
    print("probe", 1)
    return reply(
        200,
        {
            "random": uniform(),
            "choice": random.randrange(2**60),
            "own": random.Random().random(),
            "uuid": str(uuid.uuid4()),
            "secret": secrets.token_hex(8),
            "urandom": os.urandom(8).hex(),
            "now": int(time.time() * 1000),
            "iso": datetime.now().isoformat(),
            "today": date.today().isoformat(),
            "isDate": isinstance(date.today(), date) and isinstance(datetime.now(), date) and isinstance(datetime.now().date(), date),
            "monotonic": time.monotonic() >= 0,
            "clock": time.strftime("%Y"),
        },
    )


def on_purpose() -> None:
    raise ValueError("on purpose")


def recurse(depth: int) -> int:
    return recurse(depth + 1) + 1
