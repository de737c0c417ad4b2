"""The parts of the memory layout that can be tested outside a component."""

import ast
import re
import sys
from pathlib import Path
from types import CodeType

from witgate import _image


def outer(number: int) -> list[int]:
    def inner(other: int) -> int:
        return number + other

    return [inner(one) for one in (1, 2)]


def test_copied_code_behaves_the_same_and_has_another_address() -> None:
    before = outer.__code__
    inner = [one for one in before.co_consts if isinstance(one, CodeType)]
    outer.__code__ = _image.copied(before)
    assert outer(3) == [4, 5]
    assert outer.__code__ == before and outer.__code__ is not before
    assert outer.__code__.co_firstlineno == before.co_firstlineno, "line numbers in tracebacks are kept"
    assert not set(map(id, inner)) & set(map(id, outer.__code__.co_consts))


def test_live_objects_include_constants_of_code_but_not_the_search_itself() -> None:
    found = _image.reachable([outer])
    ids = set(map(id, found))
    assert {id(outer), id(outer.__code__), id(type(outer))} <= ids
    assert all(id(one) in ids for one in outer.__code__.co_consts)
    assert len(ids) == len(found)
    before = len(_image.reachable([outer]))
    assert abs(len(_image.reachable([outer])) - before) < 10, "objects that the search itself makes are not counted"


def test_an_interpreter_with_another_memory_layout_is_not_changed() -> None:
    assert sys.maxsize > 1 << 32 and not _image.is_supported()


def test_the_builder_looks_for_the_same_magic() -> None:
    source = Path(__file__).parents[4] / "componentize/src/optimize/immortal_objects.rs"
    literal = re.search(r'^const MAGIC: .* = (b".*");$', source.read_text(), re.MULTILINE)
    assert literal is not None
    assert ast.literal_eval(literal[1]) == _image._MAGIC
