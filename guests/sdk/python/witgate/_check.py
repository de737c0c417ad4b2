"""Checks the values that go to the gateway, so that a mistake is an exception with the author's
file and line. The gateway itself can only end the call.

Text may have lone surrogates, which UTF-8 cannot express; they become U+FFFD. The common case of
each check is one line without a regular expression, because calls pay for every page of memory that
they write. This module does not know the functions of the gateway.
"""

import re
from typing import TypeGuard

STATUS_MIN, STATUS_MAX = 200, 599
BODY_BYTES_MAX = 8 << 20
_TTL_MS_MAX = (1 << 32) - 1
_KEYS_MAX = 64
_NOTE_NAME_BYTES_MAX, _NOTE_BYTES_MAX = 64, 4096

# Header fields that only the gateway writes (wit/request.wit).
_GATEWAY_FIELDS = frozenset(
    """host content-length via connection http2-settings keep-alive proxy-connection te trailer
    transfer-encoding upgrade""".split()
)
_is_token = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+").fullmatch
_find_control = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]").search
_is_path = re.compile(r"/[!-\"$->@-~]*").fullmatch
_is_query = re.compile(r"[!\"$-~]*").fullmatch


def text(value: object, what: str) -> str:
    """Returns the text with each lone surrogate replaced. Raises ``TypeError`` for another type."""
    if type(value) is str and value.isascii():
        return value
    if not isinstance(value, str):
        raise TypeError(f"{what} is text, but this is {_kind(value)}: {value!r:.100}{_hint(value)}")
    return without_surrogates(value)


def without_surrogates(value: str) -> str:
    """Joins pairs of surrogates and replaces each lone one by U+FFFD."""
    try:
        value.encode()
        return value
    except UnicodeEncodeError:
        return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def field_name(value: object) -> str:
    """Checks the name of a header field that the filter writes."""
    if _is_plain_name(value):
        return value
    name = text(value, "the name of a header field")
    if not _is_token(name):
        raise ValueError(f"{name!r:.100} cannot be the name of a header field: use letters, digits and -")
    if name.lower() in _GATEWAY_FIELDS:
        raise ValueError(f"only the gateway writes the header field {name!r}: leave it out")
    return name


def _is_plain_name(value: object) -> TypeGuard[str]:
    """Whether this is a lower-case name of letters, digits and ``-`` that a filter may write."""
    return (
        type(value) is str
        and value.islower()
        and value.isascii()
        and value not in _GATEWAY_FIELDS
        and value.replace("-", "_").isidentifier()
    )


def field_value(value: object, name: str) -> str:
    """Checks the value of a header field that the filter writes."""
    if type(value) is str and value.isascii() and value.isprintable():
        return value
    checked = text(value, f"the value of the header field {name!r}")
    if not checked.isprintable() and (control := _find_control(checked)):
        raise ValueError(f"the value of the header field {name!r} has the control character {control[0]!r}: remove it")
    return checked


def status(value: object) -> int:
    """Checks the status of a response."""
    if type(value) is int and STATUS_MIN <= value <= STATUS_MAX:
        return value
    number = integer(value, "a status")
    if not STATUS_MIN <= number <= STATUS_MAX:
        raise ValueError(f"the status {number} is not between {STATUS_MIN} and {STATUS_MAX}: use one of those")
    return number


def path(value: object) -> str:
    """Checks a path for the upstream."""
    checked = text(value, "a path")
    if not _is_path(checked):
        raise ValueError(f"{checked!r:.100} is not a path: begin with / and percent-encode it (urllib.parse.quote)")
    return checked


def query(value: object) -> str | None:
    """Checks a query for the upstream."""
    if value is None:
        return None
    checked = text(value, "a query")
    if not _is_query(checked):
        raise ValueError(f"{checked!r:.100} is not a query: percent-encode it (urllib.parse.urlencode)")
    return checked


def body(value: bytes) -> bytes:
    """Checks the size of a body."""
    if len(value) > BODY_BYTES_MAX:
        raise ValueError(f"the body has {len(value)} bytes, above the limit of {BODY_BYTES_MAX}: send less")
    return value


def integer(value: object, what: str) -> int:
    """Checks that a value is a whole number. A subclass such as ``http.HTTPStatus`` is one."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{what} is a whole number (int), but this is {_kind(value)}: {value!r:.100}; use int(…)")
    return int(value)


def ttl_ms(value: object) -> int:
    """Checks a time to live in milliseconds. 0 means that the key does not expire."""
    number = integer(value, "ttl_ms, in milliseconds,")
    if not 0 <= number <= _TTL_MS_MAX:
        raise ValueError(f"ttl_ms is {number}, which is not between 0 and {_TTL_MS_MAX}")
    return number


def delta(value: object) -> int:
    """Checks what is added to a counter."""
    number = integer(value, "delta")
    if not -(1 << 31) <= number < 1 << 31:
        raise ValueError(f"delta is {number}, which does not fit into 32 bits")
    return number


def keys(value: object) -> list[str]:
    """Checks the keys of one read."""
    if not isinstance(value, (list, tuple)):
        raise TypeError(f"keys is a list of texts, but this is {_kind(value)}: {value!r:.100}")
    if len(value) > _KEYS_MAX:
        raise ValueError(f"one call reads at most {_KEYS_MAX} keys, and these are {len(value)}")
    return [text(key, "a key") for key in value]


def units(value: object, what: str, least: int, most: int) -> int:
    """Checks a whole number for the limiter."""
    number = integer(value, what)
    if not least <= number <= most:
        raise ValueError(f"{what} is {number}, which is not between {least} and {most}")
    return number


def note_name(value: object) -> str:
    """Checks the name of a note."""
    name = text(value, "the name of a note")
    if not 1 <= len(name.encode()) <= _NOTE_NAME_BYTES_MAX:
        raise ValueError(f"the name of a note has 1 to {_NOTE_NAME_BYTES_MAX} bytes, not {name!r:.100}: shorten it")
    return name


def note_value(value: object, name: str) -> str:
    """Checks the value of a note."""
    checked = text(value, f"the value of the note {name!r}")
    if len(checked.encode()) > _NOTE_BYTES_MAX:
        size = len(checked.encode())
        raise ValueError(f"the note {name!r} has {size} bytes, above the limit of {_NOTE_BYTES_MAX}: store less")
    return checked


def fields(value: object) -> list[tuple[str, str]]:
    """Checks the header fields of a reply: pairs of name and value."""
    if not isinstance(value, (list, tuple)):
        raise TypeError(f"Reply.headers is a list of pairs, but this is {_kind(value)}: {value!r:.100}")
    checked: list[tuple[str, str]] = []
    for pair in value:
        if type(pair) is tuple and len(pair) == 2 and _is_plain_name(pair[0]):
            text = pair[1]
            if type(text) is str and text.isascii() and text.isprintable():
                checked.append(pair)
                continue
        if not isinstance(pair, (list, tuple)) or len(pair) != 2:
            raise TypeError(f"Reply.headers has {pair!r:.100}, which is not a pair of name and value")
        name = field_name(pair[0])
        checked.append((name, field_value(pair[1], name)))
    return checked


def _kind(value: object) -> str:
    return "None" if value is None else type(value).__name__


def _hint(value: object) -> str:
    if isinstance(value, (bytes, bytearray)):
        return " (use .decode())"
    return " (check for None first)" if value is None else " (use str(…))"
