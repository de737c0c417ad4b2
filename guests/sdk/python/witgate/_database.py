"""Makes the random numbers of SQLite those of the gateway.

SQLite seeds its generator once, and the state would be in the snapshot: each call would get the
same numbers. So each connection gets the SQL functions ``random`` and ``randomblob`` of this
module. It waits until ``_sqlite3`` is imported, because most filters have no database.
"""

import sys
from collections.abc import Callable
from importlib.machinery import BuiltinImporter, ModuleSpec
from types import ModuleType
from typing import Any

_NAME = "_sqlite3"
_FACTORY = 5


_random_bytes: Callable[[int], bytes] | None = None


def _random() -> int:
    return int.from_bytes(_blob(8), "little", signed=True)


def _blob(size: Any) -> bytes:
    """At least one byte, as in SQLite."""
    assert _random_bytes is not None
    return _random_bytes(max(int(size or 0), 1))


def _change(module: Any) -> None:
    original, connect = module.Connection, module.connect

    class Connection(original):  # type: ignore[misc]
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            self.create_function("random", 0, _random)
            self.create_function("randomblob", 1, _blob)

    def connect_with_randomness(*args: Any, **options: Any) -> Any:
        if len(args) <= _FACTORY:
            options.setdefault("factory", Connection)
        return connect(*args, **options)

    Connection.__module__, Connection.__qualname__ = "sqlite3", "Connection"
    connect_with_randomness.__name__ = connect_with_randomness.__qualname__ = "connect"
    module.Connection, module.connect = Connection, connect_with_randomness


class _Finder:
    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        if name != _NAME:
            return None
        sys.meta_path.remove(_Finder)
        spec = BuiltinImporter.find_spec(name)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader)
        return spec


class _Loader:
    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        module: ModuleType | None = self._loader.create_module(spec)
        return module

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        _change(module)


def install(random_bytes: Callable[[int], bytes]) -> None:
    """Waits for the import of SQLite."""
    global _random_bytes
    _random_bytes = random_bytes
    sys.meta_path.insert(0, _Finder)
