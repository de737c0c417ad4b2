"""Imports the author's module while a filter is built, and says what is wrong with it.

The builder (componentize/python/build.py) shows the author the text between the marks. This module
does not know: the gateway.
"""

import importlib
import inspect
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any, NoReturn

from witgate import _errors, _late_imports

BEGIN, END = "witgate: author's error", "witgate: end"
# How many modules of the standard library may be absent.
_ABSENT_MAX = 8
_PARAMETERS = {"request": ("request",), "response": ("response", "request")}


def load(name: str, phases: list[str], native: set[str]) -> ModuleType:
    """Returns the author's module, which defines the handler of each phase. ``native`` are the C
    extensions that were left out of the packages."""
    _late_imports.remember_base()
    root = next((folder for folder in sys.path if os.path.exists(f"{folder}/{name}.py")), "")
    _errors.author_root = f"{root}/"
    with _without_gateway():
        module = _import(name, native)
    for phase in phases:
        _check_handler(module, phase)
    return module


@contextmanager
def _without_gateway() -> Iterator[None]:
    """Makes every function of the gateway raise: there is no gateway while the filter is built,
    and a call would end the interpreter without a place."""
    runtime = sys.modules.get("componentize_py_runtime")
    original = getattr(runtime, "call_import", None)

    def refuse(*_: object) -> NoReturn:
        raise RuntimeError(
            "the functions of the gateway (config, keyvalue, log, request …) cannot be used while the filter is "
            "built: call them inside on_request or on_response"
        )

    if runtime is not None:
        setattr(runtime, "call_import", refuse)
    try:
        yield
    finally:
        if runtime is not None:
            setattr(runtime, "call_import", original)


def _import(name: str, native: set[str]) -> ModuleType:
    """Imports the author's module. If a package needs a module of the standard library that is not
    there, such as ssl, tries again with one whose use raises ``ImportError``: most packages import
    it for something that a filter does not do."""
    before = set(sys.modules)
    for _ in range(_ABSENT_MAX):
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as failure:
            absent = failure.name or ""
            if absent.partition(".")[0] not in sys.stdlib_module_names or not _is_for_package(failure):
                _fail(_errors.report(failure) + _advice(failure, native))
        except BaseException as failure:
            _fail(_errors.report(failure) + _advice(failure, native))
        for loaded in set(sys.modules) - before:
            del sys.modules[loaded]
        # The stand-in takes the name of the public module: ssl, not _ssl.
        for stood in {absent, absent.removeprefix("_")}:
            sys.modules[stood] = _Absent(stood)
            before.add(stood)
    return importlib.import_module(name)


def _is_for_package(failure: BaseException) -> bool:
    """Whether a package imports what is absent, and not the author."""
    files, trace = [], failure.__traceback__
    while trace is not None:
        files.append(trace.tb_frame.f_code.co_filename)
        trace = trace.tb_next
    others = [file for file in files if not file.startswith(("<", "/python/")) and "/witgate/" not in file]
    return bool(others) and not _errors.author_file(others[-1])


class _Absent(ModuleType):
    """A module that is not there. Every name in it is a class whose use raises ``ImportError``."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if name.endswith("VERSION_INFO"):
            return (9, 9, 9)
        if name.endswith("_VERSION"):
            return "OpenSSL is absent"
        if name.isupper() or name.startswith(("OP_", "PROTOCOL_", "HAS_")):
            return 0
        text = f"{self.__name__}.{name} is not part of Python for WebAssembly"

        def refuse(*_: object, **__: object) -> NoReturn:
            raise ImportError(text)

        bases = (OSError,) if name.endswith(("Error", "error")) else (object,)
        made = type(name, bases, {} if bases == (OSError,) else {"__init__": refuse})
        setattr(self, name, made)
        return made


def _check_handler(module: ModuleType, phase: str) -> None:
    handler: Any = getattr(module, f"on_{phase}", None)
    parameters = ", ".join(_PARAMETERS[phase])
    if handler is None:
        _fail(
            f"{module.__name__}.py: does not define on_{phase}, but filter.toml has [{phase}]: "
            f"write `def on_{phase}({parameters})`, or remove [{phase}] from filter.toml"
        )
    place = _errors._definition(handler) or f"{module.__name__}.py"
    if not callable(handler):
        _fail(f"{place}: on_{phase} is {type(handler).__name__}, not a function: write `def on_{phase}({parameters})`")
    if inspect.isgeneratorfunction(handler) or inspect.isasyncgenfunction(handler):
        _fail(f"{place}: on_{phase} has `yield`, so its code never runs: return a reply or None")
    try:
        inspect.signature(handler).bind(*_PARAMETERS[phase])
    except TypeError as mismatch:
        _fail(f"{place}: on_{phase} cannot be called with ({parameters}): {mismatch}")
    except ValueError:
        # A function in C may have no signature.
        pass


def _advice(failure: BaseException, native: set[str]) -> str:
    """What to do about an import that fails."""
    if isinstance(failure, ModuleNotFoundError) and failure.name:
        top = failure.name.partition(".")[0]
        if top in sys.stdlib_module_names or top.removeprefix("_") in sys.stdlib_module_names:
            top = top.removeprefix("_")
            return f"\n{top} is not part of Python for WebAssembly, so a filter cannot use it"
        if failure.name in native or top in native:
            return f"\n{failure.name} is a C extension, which cannot run in a filter: use a package in pure Python"
        return f"\nadd the package of {top} to requirements.txt beside filter.toml"
    needed: BaseException | None = failure
    while needed is not None:
        if isinstance(needed, ImportError) and needed.name in native:
            return f"\n{needed.name} is a C extension, which cannot run in a filter: use a package in pure Python"
        needed = needed.__cause__ or needed.__context__
    packages = sorted({name.partition(".")[0] for name in native})
    if isinstance(failure, ImportError) and packages:
        return f"\nC extensions, which cannot run in a filter, were left out of: {', '.join(packages)}"
    return ""


def _fail(text: str) -> NoReturn:
    _errors.unraisable(f"{BEGIN}\n{text}\n{END}")
    sys.exit(1)
