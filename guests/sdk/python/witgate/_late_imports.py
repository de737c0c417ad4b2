"""Imports while a filter is built what its calls would import, because a call has no files.

That is what functions of the author and of packages import, and what the standard library imports
late. A module that is still missing in a call raises ``ModuleNotFoundError``. Price: each module
enlarges the memory of the filter, so the lists below have only what common calls need.

This module does not know: the gateway.
"""

import ast
import importlib
import importlib.util
import linecache
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from witgate import _encodings, _errors, _files

_ROUNDS_MAX = 4
_MODULES_MAX = 400

# Modules that the standard library imports in functions that every filter may call.
_ALWAYS = """_strptime calendar locale heapq traceback linecache tracemalloc warnings unicodedata
    encodings.ascii encodings.latin_1 encodings.iso8859_1 encodings.cp1252 encodings.utf_8_sig
    encodings.utf_16 encodings.utf_16_le encodings.utf_16_be encodings.utf_32 encodings.idna
    encodings.punycode encodings.utf_7 encodings.unicode_escape encodings.raw_unicode_escape encodings.hex_codec
    encodings.base64_codec stringprep""".split()
# Further modules, for filters that have imported the first one.
_LATE = {
    "asyncio": "asyncio.base_events asyncio.taskgroups asyncio.timeouts contextvars",
    "concurrent.futures": "concurrent.futures.thread",
    "csv": "io",
    "dataclasses": "inspect",
    "email": "email.parser email.generator email.charset email.base64mime email.quoprimime email.policy",
    "encodings": "encodings.cp437 encodings.iso8859_15 encodings.iso8859_2 encodings.cp1251 encodings.cp1250",
    "fractions": "decimal",
    "functools": "typing",
    "html": "html.entities",
    "http.client": "email.parser",
    "http.cookies": "string",
    "importlib.metadata": "importlib.metadata._adapters email.message",
    "importlib.resources": "importlib.resources.readers importlib.readers importlib.resources._adapters",
    "json": "json.scanner json.decoder json.encoder",
    "pickle": "_compat_pickle",
    "pprint": "dataclasses",
    "sqlite3": "sqlite3.dbapi2 sqlite3.dump",
    "statistics": "bisect",
    "typing": "annotationlib",
    "unittest.mock": "asyncio",
    "xml.dom.minidom": "xml.dom.expatbuilder",
    "xml.etree.ElementTree": "xml.etree.ElementPath pyexpat",
    "xml.sax": "xml.sax.expatreader",
    "zoneinfo": "zoneinfo._common zoneinfo._tzpath importlib.resources",
}
# The same for modules that this package imports itself: only if the author or a package does too.
_LATE_IF_WANTED = {"ast": "_ast_unparse"}
# Modules that no call can use; some print or open things when they are imported.
_NEVER = set("this antigravity tkinter turtle idlelib pdb test pydoc webbrowser _pyrepl readline curses".split())
# Modules that the standard library imports late for uses that no filter has, and that are large.
_LARGE = set(
    """argparse asyncio bdb cProfile cmd code concurrent ctypes distutils doctest email
    ensurepip ftplib getpass http importlib multiprocessing netrc optparse pkgutil platform
    profile pstats runpy shutil smtplib ssl sysconfig tarfile timeit trace unittest venv xml
    xmlrpc zipapp zipfile""".split()
)
_PROGRAMS = {"main", "_main", "test", "_test"}
# The modules that were there before the author's were imported: `_ALWAYS` has what these import.
_base: set[str] = set()


def remember_base() -> None:
    """Must be called before the author's module is imported."""
    _base.update(sys.modules)


def load() -> None:
    """Imports the modules, and remembers the lines of the author's sources for tracebacks."""
    for name in _ALWAYS:
        _try_import(name)
    done: set[str] = set()
    for number in range(_ROUNDS_MAX):
        fresh = [name for name in list(sys.modules) if name not in done]
        if not fresh or len(sys.modules) > _MODULES_MAX + 200:
            break
        done.update(fresh)
        for name in fresh:
            for late in _LATE.get(name, "").split():
                _try_import(late)
            module = sys.modules.get(name)
            if module is not None and not _is_own(name):
                top = name.partition(".")[0]
                is_standard = top in sys.stdlib_module_names
                # The author or a package imports a standard module in the first two rounds.
                if is_standard and (number > 1 or top in _LARGE):
                    continue
                for wanted in _imports(module):
                    if not is_standard or wanted.partition(".")[0] not in _LARGE:
                        _try_import(wanted)
                    if not is_standard:
                        _try_import(_LATE_IF_WANTED.get(wanted, wanted))
    if "zoneinfo" in sys.modules:
        _load_time_zones()


def _is_own(name: str) -> bool:
    """Whether a module belongs to the interpreter, to this package or to the bindings."""
    top = name.partition(".")[0]
    is_ours = top in ("__main__", "witgate", "wit_world", "_witgate_app")
    return name in _base or is_ours or top.startswith(("componentize_py", "poll_loop", "encodings"))


def _try_import(name: str) -> None:
    if name in sys.modules or name.partition(".")[0] in _NEVER:
        return
    try:
        importlib.import_module(name)
    # An import that fails here fails again where the author wrote it.
    except BaseException:
        sys.modules.pop(name, None)


def _imports(module: ModuleType) -> Iterator[str]:
    """The names of the modules that a module imports anywhere in its source."""
    file = getattr(module, "__file__", None)
    if not isinstance(file, str) or not file.endswith(".py"):
        return
    try:
        with open(file, encoding="utf-8") as source:
            text = source.read()
        tree = ast.parse(text)
    except (OSError, ValueError, SyntaxError):
        return
    if _errors.author_file(file):
        # Without a time, linecache does not look for the file, which no call has.
        linecache.cache[file] = (len(text), None, text.splitlines(True), file)
    package = getattr(module, "__package__", None) or ""
    is_standard = module.__name__.partition(".")[0] in sys.stdlib_module_names
    pending: list[ast.AST] = [tree]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.If) and _is_for_types(node.test):
            pending += node.orelse
            continue
        if is_standard and isinstance(node, ast.FunctionDef) and node.name in _PROGRAMS:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from _from_names(node, package)
        elif isinstance(node, ast.Call):
            yield from _called_import(node)
        pending += ast.iter_child_nodes(node)


def _called_import(node: ast.Call) -> Iterator[str]:
    """The module of ``import_module("name")`` and ``__import__("name")``."""
    function = getattr(node.func, "attr", getattr(node.func, "id", ""))
    if function in ("import_module", "__import__") and node.args:
        match node.args[0]:
            case ast.Constant(value=str(name)) if name and not name.startswith("."):
                yield name


def _is_for_types(test: ast.expr) -> bool:
    """Whether a branch runs only in a type checker, or only in a program that is started."""
    if isinstance(test, ast.Compare):
        return isinstance(test.left, ast.Name) and test.left.id == "__name__"
    name = test.attr if isinstance(test, ast.Attribute) else getattr(test, "id", "")
    return name == "TYPE_CHECKING"


def _from_names(node: ast.ImportFrom, package: str) -> Iterator[str]:
    """The module of ``from … import …``, and those of its names that are modules."""
    base = node.module or ""
    if node.level:
        parts = package.split(".")
        base = ".".join([*parts[: len(parts) - node.level + 1], *([base] if base else [])])
    if not base:
        return
    yield base
    module = sys.modules.get(base)
    if module is not None and hasattr(module, "__path__"):
        yield from (f"{base}.{alias.name}" for alias in node.names if not hasattr(module, alias.name))


def _load_time_zones() -> None:
    """Keeps the files of the package tzdata in memory for ``zoneinfo``, if the package is there."""
    import zoneinfo
    from importlib import resources
    from io import BytesIO

    files: dict[str, bytes] = {}

    def read(folder: Any, prefix: str) -> None:
        for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
            if entry.is_dir():
                if not entry.name.startswith("__"):
                    read(entry, f"{prefix}{entry.name}/")
            elif not entry.name.endswith((".py", ".pyc")):
                content = entry.read_bytes()
                if content.startswith(b"TZif"):
                    files[prefix + entry.name] = content

    try:
        read(resources.files("tzdata.zoneinfo"), "")
    except ModuleNotFoundError:
        return

    def load_tzdata(key: str) -> BytesIO:
        content = files.get(key)
        if content is None:
            raise zoneinfo.ZoneInfoNotFoundError(f"No time zone found with key {key}")
        return BytesIO(content)

    setattr(sys.modules["zoneinfo._common"], "load_tzdata", load_tzdata)
    setattr(zoneinfo, "available_timezones", lambda: set(files))


class _Refusal:
    """The last finder: explains why a module cannot be imported in a call."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> None:
        raise ModuleNotFoundError(
            f"No module named {name!r}: a call of a filter has no files; import it at the top of a module", name=name
        )


def close() -> None:
    """Makes an import that needs a file an error. The builder has no files for a call to find."""
    sys.meta_path[:] = [finder for finder in sys.meta_path if getattr(finder, "__name__", "") != "PathFinder"]
    sys.meta_path += [_encodings.Finder, _files.Finder, _Refusal]
    sys.path_importer_cache.clear()
    setattr(importlib.util, "find_spec", _find_spec)


_original_find_spec = importlib.util.find_spec


def _find_spec(name: str, package: str | None = None) -> Any:
    """Replaces ``importlib.util.find_spec``, with which packages ask whether another is there."""
    try:
        return _original_find_spec(name, package)
    except ModuleNotFoundError as failure:
        # The parent of a module must be there, in CPython too.
        if failure.name == importlib.util.resolve_name(name, package):
            return None
        raise
