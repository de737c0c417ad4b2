"""Many kinds of Python, one for each path: what the instance benchmark measures, and what a flattened build must answer like any other."""

import base64
import dataclasses
import datetime
import enum
import hashlib
import json
import random
import re
import string
from abc import ABC, abstractmethod
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterator
from typing import Any

from witgate import Reply, Request, reply

WORD = re.compile(r"(?P<name>[a-z]+)/(?P<version>\d+(?:\.\d+)*)", re.IGNORECASE)
TABLE = {f"key-{number}": number for number in range(1000)}


class Colour(enum.Enum):
    RED = 1
    GREEN = 2


@dataclasses.dataclass
class Point:
    x: int
    y: int = 0
    tags: list[str] = dataclasses.field(default_factory=list)


class Shape(ABC):
    def __init__(self, name: str) -> None:
        self.name = name

    @abstractmethod
    def area(self) -> float: ...

    def __str__(self) -> str:
        return f"{self.name}: {self.area():.2f}"


class Square(Shape):
    def __init__(self, side: float) -> None:
        super().__init__("square")
        self.side = side

    def area(self) -> float:
        return self.side**2


class Circle(Shape):
    def __init__(self, radius: float) -> None:
        super().__init__("circle")
        self.radius = radius

    def area(self) -> float:
        return 3.14159 * self.radius**2


class Refused(Exception):
    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


def nothing(request: Request) -> object:
    return None


def headers(request: Request) -> object:
    seen = {name: value for name, value in request.headers if not name.startswith("x-")}
    request.set_header("x-count", str(len(seen)))
    return sorted(seen)


def json_round(request: Request) -> object:
    body = request.json()
    body["count"] = len(body["items"])
    request.set_body(body)
    return json.dumps(body, sort_keys=True, indent=1)


def regex(request: Request) -> object:
    agent = request.header("user-agent") or ""
    found = [(match["name"], match["version"]) for match in WORD.finditer(agent)]
    return [found, re.sub(r"\s+", "-", agent), re.split(r"[;,]", agent)]


def dates(request: Request) -> object:
    day = datetime.datetime(2026, 2, 28, 23, 59, tzinfo=datetime.UTC)
    later = day + datetime.timedelta(minutes=1)
    assert datetime.datetime.now() > datetime.datetime(2020, 1, 1)
    return [later.isoformat(), later.strftime("%a, %d %b %Y"), str(later - day), datetime.date.fromisoformat("2026-01-02").weekday()]


def table(request: Request) -> object:
    own = {f"own-{number}": str(number) for number in range(1000)}
    return [len(own), sum(TABLE.values()), TABLE.get("key-77"), own["own-5"]]


def failures(request: Request) -> object:
    said = []
    calls: list[Callable[[], object]] = [lambda: int("x"), lambda: TABLE["a"], lambda: [1][2], lambda: 1 / 0]
    for call in calls:
        try:
            call()
        except (ValueError, LookupError, ArithmeticError) as failure:
            said.append(f"{type(failure).__name__}: {failure}")
    try:
        raise Refused("no") from ValueError("inner")
    except Refused as failure:
        said.append(f"{failure.why} {failure.__cause__}")
    return said


def text(request: Request) -> object:
    parts = [f"{number:04d}-{number * 7 % 13:x}" for number in range(200)]
    line = ",".join(parts)
    grown = ""
    for part in parts:
        grown += part.upper()
    return [len(line), grown[:40], line.replace(",", ";").encode().hex()[:40], string.Template("$a b").substitute(a="ü€😀")]


def classes(request: Request) -> object:
    shapes: list[Shape] = [Square(2), Circle(1.5), Square(1)]
    point = Point(1, tags=["a"])
    return [*map(str, sorted(shapes, key=lambda shape: shape.area())), repr(point), Colour.GREEN.name, point == Point(1)]


def numbers(n: int) -> Iterator[int]:
    a, b = 0, 1
    for _ in range(n):
        yield a
        a, b = b, a + b


def generators(request: Request) -> object:
    return [sum(numbers(90)), max(x * x % 97 for x in range(100)), list(zip("abc", numbers(3), strict=True)), 2**200]


def containers(request: Request) -> object:
    counted = Counter(request.header("user-agent") or "")
    groups: defaultdict[int, list[str]] = defaultdict(list)
    for word in (request.header("accept") or "").split(","):
        groups[len(word)].append(word)
    queue = deque(range(10), maxlen=5)
    return [sorted(counted.items())[:3], dict(groups), list(queue), list(OrderedDict(a=1, b=2)), sorted({3, 1, 2})]


def digests(request: Request) -> object:
    data = (request.header("cookie") or "").encode()
    return [hashlib.sha256(data).hexdigest(), base64.b64encode(data).decode(), int.from_bytes(data[:8])]


def chance(request: Request) -> object:
    assert random.random() != random.random()
    return 0 <= random.randrange(10) < 10


def large(request: Request) -> object:
    rows = [[column * row for column in range(100)] for row in range(100)]
    blob = bytearray(200_000)
    blob[1000:2000] = bytes(range(250)) * 4
    return [sum(map(sum, rows)), blob.count(7)]


def deep(request: Request) -> object:
    def depth(n: int) -> int:
        return 0 if n == 0 else 1 + depth(n - 1)

    return depth(150)


HANDLERS: dict[str, Callable[[Request], object]] = {
    handler.__name__: handler
    for handler in (nothing, headers, json_round, regex, dates, table, failures, text, classes, generators, containers, digests, chance, large, deep)
}


def on_request(request: Request) -> Reply | None:
    handler = HANDLERS.get(request.path[1:])
    if handler is None:
        raise Refused(f"no path {request.path}")
    answer: Any = handler(request)
    return None if answer is None else reply(200, {"answer": answer})
