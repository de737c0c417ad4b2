"""Installs the packages that a filter asks for, in ``requirements.txt`` or under ``[project]
dependencies`` of ``pyproject.toml``, into a folder of the build.

Without exact versions the same source would become another filter tomorrow, so a note says what to
write. A filter runs pure Python. The first attempt takes only wheels that have no machine code. If
a package has none, the second takes wheels of this machine and removes their C extensions, because
many packages work without them. This module does not know: components.
"""

import hashlib
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

# The version of Python in a component, and how pip names a wheel of pure Python.
PURE = ["--python-version", "3.14", "--implementation", "py", "--abi", "none", "--platform", "any"]
TIMEOUT_SECONDS = 300


class Refused(Exception):
    """The author's list of packages cannot be installed; the text says why."""


def requirements(source: Path) -> tuple[str, list[str]] | None:
    """The name of the file with the packages, and its lines. ``None`` if there are no packages."""
    file = source / "requirements.txt"
    if file.exists():
        lines = file.read_text().splitlines()
        return (file.name, lines) if any(line.split("#")[0].strip() for line in lines) else None
    project = source / "pyproject.toml"
    if not project.exists():
        return None
    try:
        wanted = tomllib.loads(project.read_text()).get("project", {}).get("dependencies", [])
    except tomllib.TOMLDecodeError as error:
        raise Refused(f"pyproject.toml: {error}\n") from None
    return (project.name, list(wanted)) if wanted else None


def install(source: Path, work: Path) -> tuple[Path, set[str]]:
    """Returns the folder of the packages, and the names of the C extensions that were left out."""
    folder = work / "packages/lib/site-packages"
    stamp, native, note = (work / "packages" / name for name in ("stamp", "native", "note"))
    wanted = requirements(source)
    text = "\n".join(wanted[1]) if wanted else ""
    digest = hashlib.sha256(text.encode()).hexdigest()
    has_paths = any(re.match(r"[./]|.*(@ *|^)file:", line) for line in text.splitlines())
    if stamp.exists() and stamp.read_text() == digest and not has_paths:
        _show(note.read_text())
        return folder, set(native.read_text().split())
    shutil.rmtree(work / "packages", ignore_errors=True)
    folder.mkdir(parents=True)
    removed = _install(source, folder, *wanted) if wanted else set()
    native.write_text(" ".join(sorted(removed)))
    note.write_text(_unpinned(folder, *wanted) if wanted else "")
    _show(note.read_text())
    stamp.write_text(digest)
    return folder, removed


def _show(note: str) -> None:
    """Prints a note for the author, if there is one."""
    if note:
        print(f"note: {note}", flush=True)


def _unpinned(folder: Path, name: str, lines: list[str]) -> str:
    """A note that names the installed packages without an exact version. Empty without any."""
    pinned = {_normal(found[1]) for line in lines if (found := _PINNED.match(line))}
    loose = []
    for path in sorted(folder.glob("*.dist-info")):
        package, _, version = path.name.removesuffix(".dist-info").rpartition("-")
        if _normal(package) not in pinned:
            loose.append(f"{_normal(package)}=={version}")
    advice = "write these exact versions, so that later builds use the same"
    return f"{name}: {advice}: {', '.join(loose)}" if loose else ""


# A requirement with an exact version, or from an address.
_PINNED = re.compile(r"\s*([A-Za-z0-9][A-Za-z0-9._-]*)\s*(?:\[[^\]]*\])?\s*(?:\(?\s*={2,3}\s*[^*,\s]+\s*\)?\s*(?:[;#\\].*)?$|@)")


def _normal(name: str) -> str:
    """The name of a package as the index compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _install(source: Path, folder: Path, name: str, lines: list[str]) -> set[str]:
    """Installs into ``folder``, which is empty."""
    file = folder.parent / "requirements.txt"
    file.write_text("\n".join(lines) + "\n")
    print("step: packages", flush=True)
    first = _pip(file, folder, PURE, source)
    if first is None:
        return set()
    shutil.rmtree(folder)
    folder.mkdir()
    second = _pip(file, folder, [], source)
    if second is not None:
        raise Refused(_explain(name, lines, second))
    removed = set()
    for path in sorted(folder.rglob("*")):
        if path.suffix in (".so", ".pyd") or ".so." in path.name:
            removed.add(".".join([*path.relative_to(folder).parent.parts, path.name.split(".")[0]]))
            path.unlink()
    return removed


def _pip(requirements: Path, folder: Path, options: list[str], source: Path) -> str | None:
    """Runs pip. Returns its message if it failed."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"]
    command += ["--no-compile", "--no-warn-conflicts", "--only-binary=:all:", "--target", str(folder), *options]
    try:
        result = subprocess.run(
            [*command, "-r", str(requirements)], cwd=source, capture_output=True, text=True, timeout=TIMEOUT_SECONDS
        )
    except subprocess.TimeoutExpired:
        return f"pip did not end within {TIMEOUT_SECONDS} s"
    return None if result.returncode == 0 else result.stderr + result.stdout


def _explain(name: str, lines: list[str], message: str) -> str:
    """The message of pip in one line, at the line of the package that it names."""
    errors = [line.removeprefix("ERROR: ") for line in message.splitlines() if line.startswith("ERROR: ")]
    error = errors[-1] if errors else message.strip().splitlines()[-1]
    package = re.search(r"(?:for|requirement:?|satisfies the requirement) ([A-Za-z0-9_.-]+)", error)
    at = 0
    for number, line in enumerate(lines, 1):
        if package and line.strip().lower().startswith(package[1].lower()):
            at = number
    advice = "a filter needs wheels, and a package that has none cannot be used"
    return f"{name}{f':{at}' if at else ''}: {error}; {advice}\n"
