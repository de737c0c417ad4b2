"""What of the image's making can be seen without an image."""

import sys
from pathlib import Path
from types import CodeType

from witgate import _image


def outer(number: int) -> list[int]:
    def inner(other: int) -> int:
        return number + other

    return [inner(one) for one in (1, 2)]


def test_copied_code_does_the_same_and_is_elsewhere() -> None:
    before = outer.__code__
    inner = [one for one in before.co_consts if isinstance(one, CodeType)]
    outer.__code__ = _image.copied(before)
    assert outer(3) == [4, 5]
    assert outer.__code__ == before and outer.__code__ is not before
    assert outer.__code__.co_firstlineno == before.co_firstlineno, "lines in failures stay"
    assert not set(map(id, inner)) & set(map(id, outer.__code__.co_consts))


def test_alive_looks_into_code_and_not_at_itself() -> None:
    found = _image.alive([outer])
    ids = set(map(id, found))
    assert {id(outer), id(outer.__code__), id(type(outer))} <= ids
    assert all(id(one) in ids for one in outer.__code__.co_consts)
    assert len(ids) == len(found)
    before = len(_image.alive([outer]))
    assert abs(len(_image.alive([outer])) - before) < 10, "what is made on the way does not count"


def test_another_interpreter_is_left_alone() -> None:
    assert sys.maxsize > 1 << 32 and not _image.is_known()


def test_the_magic_is_the_builders() -> None:
    source = Path(__file__).parents[4] / "componentize/src/flatten/pins.rs"
    assert 'b"witgate pins:\\0\\xfe\\xff"' in source.read_text()
    assert _image._MAGIC == b"witgate pins:\0\xfe\xff"
