"""Data files that a call can read."""

import builtins
import importlib.machinery
import importlib.util
import io
import os
from pathlib import Path

import pytest
from witgate import _errors, _files


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for path, text in {"a.txt": "é", "b/c.json": "{}", "late.py": "VALUE = 5", "tests/d.txt": "", "README.md": "", ".e": ""}.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(text, encoding="utf-8")
    (tmp_path / "large.bin").write_bytes(bytes(_files._FILE_BYTES_MAX + 1))
    monkeypatch.setattr(_errors, "author_root", f"{tmp_path}/")
    for module, name in [(builtins, "open"), (io, "open"), (os, "stat"), (os, "listdir"), (os, "scandir")]:
        monkeypatch.setattr(module, name, getattr(module, name))
    loader = importlib.machinery.SourceFileLoader
    monkeypatch.setattr(loader, "get_data", loader.get_data)
    monkeypatch.setattr(_files, "_files", {})
    monkeypatch.setattr(_files, "_folders", {})
    monkeypatch.setattr(_files, "_roots", lambda: [str(tmp_path)])
    return tmp_path


def test_files_are_read_after_they_are_gone(folder: Path) -> None:
    _files.keep()
    (folder / "a.txt").unlink()
    (folder / "b/c.json").unlink()
    (folder / "b").rmdir()
    _files.install()
    with open("a.txt") as file:
        assert file.read() == "é"
    assert (folder / "b/c.json").read_bytes() == b"{}"
    assert [path.name for path in (folder / "b").iterdir()] == ["c.json"]
    assert os.path.isdir("b") and os.path.getsize("a.txt") == 2
    assert [entry.path for entry in os.scandir("b")] == ["b/c.json"]
    with pytest.raises(FileNotFoundError):
        open(folder / "b/other.json")
    with pytest.raises(FileNotFoundError):
        open(folder / "b/c.json", "w")


def test_tests_and_large_files_are_left_out(folder: Path) -> None:
    _files.keep()
    assert sorted(path.removeprefix(f"{folder}/") for path in _files._files) == ["a.txt", "b/c.json", "late.py"]


def test_modules_are_imported_from_kept_files(folder: Path) -> None:
    _files.keep()
    (folder / "late.py").unlink()
    _files.install()
    spec = _files.Finder.find_spec("late")
    assert spec is not None and spec.loader is not None and _files.Finder.find_spec("missing") is None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.VALUE == 5
