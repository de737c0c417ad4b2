"""Keeps the codecs of the standard library for calls, which have no files.

Each codec is a module of the package ``encodings``. The build keeps the compiled code of those that
are not imported, some 150 KiB, and a call that names one runs its code. So ``koi8-r`` and
``shift_jis`` are as in CPython, and an unknown name raises ``LookupError``. This module does not
know: filters, the gateway.
"""

import encodings
import importlib.machinery
import importlib.util
import marshal
import os
import sys
import zlib
from types import CodeType, ModuleType

# Codecs of Windows, and what two of the others import.
_LEFT_OUT = {"encodings.mbcs", "encodings.oem", "encodings._win_cp_codecs"}
_NEEDED = ("quopri", "bz2", "_compression")

_codes: dict[str, bytes] = {}


def keep() -> None:
    """Reads the code of the codecs that are not imported."""
    folder = list(encodings.__path__)[0]
    names = [f"encodings.{name[:-3]}" for name in sorted(os.listdir(folder)) if name.endswith(".py")]
    for name in (*names, *_NEEDED):
        if name in sys.modules or name in _LEFT_OUT or name == "encodings.__init__":
            continue
        try:
            spec = importlib.util.find_spec(name)
        except ImportError:
            continue
        code = spec.loader.get_code(name) if spec is not None and hasattr(spec.loader, "get_code") else None
        if code is not None:
            _codes[name] = zlib.compress(marshal.dumps(code), 9)


class Finder:
    """Finds the kept modules. A finder of ``sys.meta_path``."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> importlib.machinery.ModuleSpec | None:
        return importlib.util.spec_from_loader(name, _Loader()) if name in _codes else None


class _Loader:
    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        code: CodeType = marshal.loads(zlib.decompress(_codes[module.__name__]))
        exec(code, module.__dict__)
