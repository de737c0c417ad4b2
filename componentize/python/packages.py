"""Installs the packages that a filter asks for, in ``requirements.txt`` or under ``[project]
dependencies`` of ``pyproject.toml``, into a folder of the build.

A filter runs pure Python. The first attempt takes only wheels that have no machine code. If a
package has none, the second takes wheels of this machine and removes their C extensions, because
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
    stamp, native = work / "packages/stamp", work / "packages/native"
    wanted = requirements(source)
    text = "\n".join(wanted[1]) if wanted else ""
    digest = hashlib.sha256(text.encode()).hexdigest()
    if stamp.exists() and stamp.read_text() == digest:
        return folder, set(native.read_text().split())
    shutil.rmtree(work / "packages", ignore_errors=True)
    folder.mkdir(parents=True)
    removed = _install(source, folder, *wanted) if wanted else set()
    native.write_text(" ".join(sorted(removed)))
    stamp.write_text(digest)
    return folder, removed


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
