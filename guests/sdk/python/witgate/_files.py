"""Keeps files of the author and of packages for calls, which have no files: a template beside
``filter.py``, what a package reads with ``importlib.resources``, and modules that are not
imported while the filter is built, because their names are computed.

The files are read while the filter is built and belong to its memory, so there is a bound on their
size. They can be read with ``open``, ``pathlib``, ``os`` and ``importlib.resources``; everything
else is as without files. A module that a call imports is compiled in that call. This module does
not know: the gateway.
"""

import builtins
import importlib.machinery
import importlib.util
import io
import os
import stat
import sys
from collections.abc import Iterator
from typing import Any

from witgate import _errors

_FILE_BYTES_MAX = 1 << 20
_TOTAL_BYTES_MAX = 4 << 20
_FILES_MAX = 2000
# Compiled code, and what only tools read. The time zones of tzdata are kept elsewhere.
_LEFT_OUT = (".pyc", ".pyi", ".so", ".pyd", ".toml", ".typed", "requirements.txt", "README.md")
_FOLDERS_LEFT_OUT = ("__pycache__", "tests", "test", "examples", "tzdata", "witgate", "node_modules", "target")

_files: dict[str, bytes] = {}
_folders: dict[str, list[str]] = {}


def keep() -> None:
    """Reads the files of the author and of the packages that are imported, data first."""
    loaded = {getattr(module, "__file__", None) for module in sys.modules.values()}
    found = [path for root in _roots() for path in _walk(root) if path not in loaded]
    total = 0
    for path in sorted(found, key=lambda path: path.endswith(".py")):
        size = os.stat(path).st_size
        if path in _files or size > _FILE_BYTES_MAX or total + size > _TOTAL_BYTES_MAX or len(_files) == _FILES_MAX:
            continue
        total += size
        with open(path, "rb") as file:
            _files[path] = file.read()
    for path in _files:
        _add_folders(path)


def _walk(root: str) -> Iterator[str]:
    """The paths of the files that may be kept."""
    for folder, inner, names in os.walk(root):
        inner[:] = sorted(name for name in inner if name not in _FOLDERS_LEFT_OUT and not name.startswith("."))
        for name in sorted(names):
            if not name.endswith(_LEFT_OUT) and not name.startswith("."):
                yield f"{folder.rstrip('/')}/{name}"


def _roots() -> Iterator[str]:
    """The folders of the author and of each package that is loaded."""
    if _errors.author_root:
        yield _errors.author_root
    seen = set()
    for name, module in sorted(sys.modules.items()):
        folders = getattr(module, "__path__", None)
        if "." in name or folders is None or name in sys.stdlib_module_names or name in _FOLDERS_LEFT_OUT:
            continue
        for folder in list(folders):
            if isinstance(folder, str) and not folder.startswith("/python/") and folder not in seen:
                seen.add(folder)
                yield folder


def _add_folders(path: str) -> None:
    while "/" in path[1:]:
        folder, _, name = path.rpartition("/")
        names = _folders.setdefault(folder, [])
        if name in names:
            return
        names.append(name)
        path = folder


def _kept(path: Any) -> str | None:
    """The path of a kept file or folder. A relative path begins at the author's folder."""
    try:
        name = os.fspath(path)
    except TypeError:
        return None
    if isinstance(name, bytes):
        name = name.decode("utf-8", "replace")
    name = os.path.normpath(name if name.startswith("/") else _errors.author_root + name)
    return name if name in _files or name in _folders else None


def install() -> None:
    """Makes the kept files readable. Does nothing if there are none."""
    if not _files:
        return
    original_open, original_stat = io.open, os.stat
    original_listdir, original_scandir = os.listdir, os.scandir
    original_data = importlib.machinery.SourceFileLoader.get_data

    def open_kept(file: Any, mode: str = "r", *args: Any, **options: Any) -> Any:
        path = _kept(file)
        if path is None or path not in _files or set(mode) & set("wax+"):
            return original_open(file, mode, *args, **options)
        data = io.BytesIO(_files[path])
        if "b" in mode:
            return data
        # The parameters of `open` after the mode: buffering, encoding, errors, newline.
        given = dict(zip(("buffering", "encoding", "errors", "newline"), args)) | options
        encoding = given.get("encoding") or "utf-8"
        return io.TextIOWrapper(data, encoding, given.get("errors"), given.get("newline"))

    def stat_kept(path: Any, *args: Any, **options: Any) -> Any:
        kept = _kept(path) if not isinstance(path, int) else None
        if kept is None:
            return original_stat(path, *args, **options)
        is_file = kept in _files
        mode = stat.S_IFREG | 0o444 if is_file else stat.S_IFDIR | 0o555
        return os.stat_result((mode, 0, 0, 1, 0, 0, len(_files[kept]) if is_file else 0, 0, 0, 0))

    def listdir_kept(path: Any = ".") -> Any:
        kept = _kept(path)
        return list(_folders[kept]) if kept in _folders else original_listdir(path)

    def scandir_kept(path: Any = ".") -> Any:
        kept = _kept(path)
        return _Entries(kept, os.fspath(path)) if kept is not None and kept in _folders else original_scandir(path)

    def data_kept(loader: Any, path: str) -> bytes:
        kept = _kept(path)
        return _files[kept] if kept is not None and kept in _files else original_data(loader, path)

    builtins.open = open_kept
    setattr(io, "open", open_kept)
    setattr(os, "stat", stat_kept)
    setattr(os, "listdir", listdir_kept)
    setattr(os, "scandir", scandir_kept)
    setattr(importlib.machinery.SourceFileLoader, "get_data", data_kept)


class Finder:
    """Finds modules among the kept files. A finder of ``sys.meta_path``."""

    @staticmethod
    def find_spec(name: str, path: Any = None, target: object = None) -> importlib.machinery.ModuleSpec | None:
        last = name.rpartition(".")[2]
        for folder in [_errors.author_root.rstrip("/")] if path is None else list(path):
            for file, is_package in ((f"{folder}/{last}/__init__.py", True), (f"{folder}/{last}.py", False)):
                if file in _files:
                    loader = importlib.machinery.SourceFileLoader(name, file)
                    places = [f"{folder}/{last}"] if is_package else None
                    return importlib.util.spec_from_file_location(
                        name, file, loader=loader, submodule_search_locations=places
                    )
        return None


class _Entry:
    """What ``os.scandir`` yields."""

    def __init__(self, folder: str, shown: str, name: str) -> None:
        self.name, self.path = name, os.path.join(shown, name)
        self._kept = f"{folder}/{name}"

    def is_dir(self, *, follow_symlinks: bool = True) -> bool:
        return self._kept in _folders

    def is_file(self, *, follow_symlinks: bool = True) -> bool:
        return self._kept in _files

    def is_symlink(self) -> bool:
        return False

    def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
        return os.stat(self.path)

    def __fspath__(self) -> str:
        return self.path


class _Entries:
    def __init__(self, folder: str, shown: str) -> None:
        self._entries = iter([_Entry(folder, shown, name) for name in _folders[folder]])

    def __iter__(self) -> "_Entries":
        return self

    def __next__(self) -> _Entry:
        return next(self._entries)

    def __enter__(self) -> "_Entries":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def close(self) -> None:
        pass
