"""Where the objects of a filter lie in the memory that its image is made of.

Every call begins with this image, and each page that the call writes is copied back after it; more than 32 separate runs of such pages cost page
faults besides (docs/performance.md). So what a call writes should be little, and lie together. Must not know: filters, the gateway.
"""

import gc
import sys
from array import array
from collections.abc import Iterable
from types import CodeType, FunctionType

# Room above all objects: more than a call allocates, as a rule.
_ABOVE = 1 << 20
_HOLES_MAX = 1 << 17
# A count that CPython takes for "not counted, never freed" (5 << 28 is what 3.14 itself gives such objects where a word has 32 bits).
_IMMORTAL = 5 << 28
_MAGIC = b"witgate pins:\0\xfe\xff"

# Where code goes that stays where it is.
_STAYS = 9
# Modules that others import but that no call has a use for.
_NEVER_RUN = set(
    """asyncio concurrent selectors socket ssl subprocess importlib _frozen_importlib _frozen_importlib_external zipimport inspect ast dis opcode tokenize
    threading signal os shutil tempfile pathlib typing traceback linecache annotationlib bz2 lzma gzip contextvars platform site poll_loop""".split()
)

_kept: list[object] = []


def is_known() -> bool:
    """Whether this is the interpreter whose memory is known here."""
    return sys.implementation.name == "cpython" and sys.version_info[:2] == (3, 14) and sys.maxsize == (1 << 31) - 1


def fill() -> None:
    """Leaves no hole between old objects, so that new ones go side by side above them all: componentize-py's CPython takes every object from the
    C library's allocator, which prefers a hole of the right size wherever it is."""
    mark = bytes(_ABOVE)
    holes: list[object] = [None] * _HOLES_MAX
    above: list[object] = [mark]
    found = 0
    # Largest first: what a hole has left over is a hole for the smaller ones.
    for size in [*(1 << power for power in range(19, 13, -1)), *range(8192, 512, -64), *range(512, -1, -8)]:
        while found < _HOLES_MAX:
            one = bytes(size) if size else object()
            if id(one) > id(mark):
                above.append(one)
                break
            holes[found] = one
            found += 1
    # What is above is free again, in one piece.
    _kept.append(holes)


def gather_code() -> None:
    """Copies the code of functions to where it lies together, the author's first: the interpreter writes into code that runs, at every branch."""
    functions = [one for one in gc.get_objects() if isinstance(one, FunctionType) and _place(one) < _STAYS]
    for one in sorted(functions, key=lambda one: (_place(one), one.__module__)):
        # Kept, or it would leave a hole.
        _kept.append(one.__code__)
        one.__code__ = copied(one.__code__)


def _place(function: FunctionType) -> int:
    package = (function.__module__ or "").split(".")[0]
    if package == "wit_world":
        # Not what makes the many classes of the bindings.
        return _STAYS if function.__name__.startswith("__") else 1
    if not package or package in _NEVER_RUN or package.startswith("componentize_py"):
        return _STAYS
    return 2 if package in sys.stdlib_module_names else 0


def copied(code: CodeType) -> CodeType:
    """The same code, and in it that of inner functions, at another place."""
    return code.replace(co_consts=tuple(copied(one) if isinstance(one, CodeType) else one for one in code.co_consts))


def alive(roots: Iterable[object]) -> list[object]:
    """All objects that can be reached. Into code, the collector does not look by itself."""
    found: dict[int, object] = {}
    # Not looked into: its keys are only made here.
    found[id(found)] = found
    todo = list(roots)
    while todo:
        fresh = [one for one in todo if id(one) not in found]
        found.update((id(one), one) for one in fresh)
        todo = gc.get_referents(*fresh)
        for one in fresh:
            if isinstance(one, CodeType):
                todo += [one.co_consts, *one.co_consts, *one.co_names, *one.co_varnames, one.co_filename, one.co_name, one.co_qualname]
    return list(found.values())


def pin() -> None:
    """Asks ``componentize`` to have no object counted that is alive now: a table of each one's address and its type's (``src/flatten/pins.rs``)."""
    objects = alive(gc.get_objects())
    table = array("I", _MAGIC)
    table.extend([1, _IMMORTAL, len(objects)])
    for one in objects:
        table.append(id(one))
        table.append(id(type(one)))
    _kept.append(table)
