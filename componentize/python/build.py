"""Builds a Python filter into a component: packages, bindings, mypy beside componentize-py.

The componentize crate runs this script and documents the contract (src/toolchain/script.rs): lines
``step: NAME`` on standard output, and exit code 2 if the author's source is wrong.

The tools see only copies: of the source, the SDK and the packages. So the build does not write into
the author's folder, and the component does not depend on where that folder is.
"""

import argparse
import ast
import hashlib
import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fixed_system
import packages

EXIT_AUTHOR = 2
HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
SDK = ROOT / "guests/sdk/python"
BINDINGS = SDK / "generated"
TOOLS = Path(sys.executable).parent
# An endless loop at the top of a module would keep the build for ever.
TIMEOUT_SECONDS = 240
# Folders and files of the source that are not part of the filter.
LEFT_OUT = ("tests", "examples", "dist", "__pycache__", "node_modules", "target", ".*")
# Two folders that every state directory of a gateway has.
STATE_FOLDERS = ("artifacts", "functions")
# Modules of the SDK that a component does not need.
NOT_IN_COMPONENT = ("testing.py", "_fake.py", "__pycache__")

# The entry of the component. The sandbox comes first: it replaces randomness and output before the
# author's module can import them. The snapshot comes last: it arranges the memory.
ENTRY = """\
{clock}import witgate._sandbox
from witgate import _load
_filter = _load.load("filter", {phases}, {native})
from witgate import _entry
from wit_world import exports
{classes}
from witgate import _snapshot
_snapshot.finish()
"""
# Only an optimized component has a clock below Python.
CLOCK = "from witgate import _clock\n_clock.install()\n"
CLASSES = {
    "request": """\
class RequestHandler(exports.RequestHandler):
    def handle_request(self):
        return _entry.handle_request(_filter.on_request)
""",
    "response": """\
class ResponseHandler(exports.ResponseHandler):
    def handle_response(self):
        return _entry.handle_response(_filter.on_response)
""",
}
SIGNATURES = {
    "request": "def on_request(request: Request) -> Reply | None",
    "response": "def on_response(response: Response, request: ReadonlyRequest) -> Reply | None",
}
# mypy checks the type of each handler in this module; `check` moves its errors to filter.py.
CHECK = """\
from collections.abc import Awaitable, Callable
from witgate import ReadonlyRequest, Reply, Request, Response
import filter as _filter
"""
CHECKS = {
    "request": "on_request: Callable[[Request], Reply | None | Awaitable[Reply | None]] = _filter.on_request\n",
    "response": "on_response: Callable[[Response, ReadonlyRequest], Reply | None | Awaitable[Reply | None]]"
    " = _filter.on_response\n",
}


def generate_bindings() -> None:
    """Generates the modules of ``wit_world`` for mypy and editors, unless the WIT is unchanged."""
    digest = hashlib.sha256()
    for file in sorted((ROOT / "wit").iterdir()):
        digest.update(file.read_bytes())
    stamp = BINDINGS / ".wit"
    if stamp.exists() and stamp.read_text() == digest.hexdigest():
        return
    fresh = BINDINGS.with_name(f"generated.{os.getpid()}")
    command = [TOOLS / "componentize-py", "-d", ROOT / "wit", "-w", "host", "bindings", fresh]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    (fresh / ".wit").write_text(digest.hexdigest())
    shutil.rmtree(BINDINGS, ignore_errors=True)
    fresh.rename(BINDINGS)


def check(source: Path, phases: list[str], site: Path, work: Path) -> str:
    """Runs mypy --strict on filter.py and the author's modules that it imports. Packages are read,
    but not checked.

    Returns the author's mistakes, or nothing.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "witgate-mypy"
    module = work / "check/_witgate_check.py"
    module.parent.mkdir(parents=True, exist_ok=True)
    module.write_text(CHECK + "".join(CHECKS[phase] for phase in phases))
    site = readable_packages(site, work / "check/packages")
    settings = work / "check/mypy.ini"
    settings.write_text(mypy_settings(site))
    environment = {name: value for name, value in os.environ.items() if name not in ("MYPYPATH", "VIRTUAL_ENV")}
    environment["MYPYPATH"] = os.pathsep.join(map(str, [source, SDK, BINDINGS, site]))
    options = ["--no-error-summary", "--cache-dir", cache, "--config-file", settings, "--no-site-packages"]
    command = [sys.executable, "-m", "mypy", *options, *imported_modules(source), module]
    result = subprocess.run(command, cwd=source, env=environment, capture_output=True, text=True)
    return author_errors(result.stdout + result.stderr, source, phases) if result.returncode != 0 else ""


def imported_modules(source: Path) -> list[Path]:
    """filter.py and the files in the author's folder that it imports, directly or not. Other files,
    such as scripts and settings of tools, are no part of the filter."""
    found = [source / "filter.py"]
    for file in found:
        try:
            nodes = list(ast.walk(ast.parse(file.read_bytes())))
        except (OSError, SyntaxError, ValueError):
            # mypy explains it.
            continue
        for node in nodes:
            names = []
            folder = source
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                folder = file.parents[min(node.level, len(file.parents)) - 1] if node.level else source
                base = f"{node.module}." if node.module else ""
                names = [base + alias.name for alias in node.names] + ([node.module] if node.module else [])
            for name in names:
                parts = name.split(".")
                places = [folder.joinpath(*parts[:size]) for size in range(1, len(parts) + 1)]
                for path in [part for place in places for part in (place.with_suffix(".py"), place / "__init__.py")]:
                    if source in path.parents and path not in found and path.is_file():
                        found.append(path)
    return found


def readable_packages(site: Path, folder: Path) -> Path:
    """A folder with links to the packages, without those of which mypy has its own copy."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for path in site.iterdir():
        if path.name not in ("typing_extensions.py", "mypy_extensions.py"):
            (folder / path.name).symlink_to(path)
    return folder


def mypy_settings(site: Path) -> str:
    """The settings of mypy. A package without types counts as untyped, whatever is wrong in it."""
    names = sorted(path.name for path in site.iterdir() if path.suffix in ("", ".py") and path.stem.isidentifier())
    relaxed = "warn_return_any = False\ndisallow_subclassing_any = False\ndisallow_untyped_decorators = False\n"
    text = "[mypy]\nstrict = True\nfollow_imports = silent\npython_version = 3.14\n" + (relaxed if names else "")
    # A coroutine without `await` is true: `if check():` would let every request pass.
    text += "enable_error_code = truthy-bool, unused-awaitable\n"
    text += "[mypy-filter]\nimplicit_reexport = True\n"
    for name in names:
        is_typed = (site / name / "py.typed").exists()
        name = name.removesuffix(".py")
        mode = "silent" if is_typed else "skip"
        text += f"[mypy-{name}.*]\nignore_errors = True\nignore_missing_imports = True\nfollow_imports = {mode}\n"
    return text


def author_errors(output: str, source: Path, phases: list[str]) -> str:
    """The errors of mypy, with those about the type of a handler at its definition."""
    lines = []
    for line in output.splitlines():
        if "_witgate_check.py" not in line:
            if not re.search(r"missing-imports$|note: Hint: .*pip install|note: \(or run .mypy --install-types", line):
                lines.append(missing_package(line))
            continue
        phase = next((phase for phase in phases if f"on_{phase}" in line), None)
        found = re.search(r'expression has type "(.*?)", variable has type', line)
        if found is None and phase is None:
            continue
        if found is not None and phase is None:
            phase = "response" if "Response" in line.split("variable has type")[-1].split("[[")[1][:12] else "request"
        place = definition(source, f"on_{phase}")
        wanted = SIGNATURES[phase]
        if found is None:
            lines.append(f"filter.py: does not define on_{phase}, but filter.toml has [{phase}]: write `{wanted}: …`")
        else:
            lines.append(f"{place}: error: on_{phase} is {found[1]}, but the gateway calls `{wanted}`")
    return "\n".join(dict.fromkeys(lines)) + "\n"


def missing_package(line: str) -> str:
    """An error of mypy about a module that is not there, with what to do."""
    words = "Cannot find implementation or library stub for module named|Library stubs not installed for"
    found = re.match(rf'(.*: )error: (?:{words}) "(.*?)"', line)
    if found is None:
        return line
    name = found[2].partition(".")[0]
    if name in sys.stdlib_module_names:
        return f"{found[1]}error: {name} is not part of Python for WebAssembly, so a filter cannot use it"
    advice = f"add `{name}==VERSION` to requirements.txt beside filter.toml, or correct the name"
    return f"{found[1]}error: there is no module {found[2]}: {advice}"


def definition(source: Path, name: str) -> str:
    """The line of filter.py that defines ``name``."""
    for node in ast.walk(ast.parse((source / "filter.py").read_text())):
        match node:
            case (
                ast.FunctionDef(name=found) | ast.AsyncFunctionDef(name=found) | ast.ClassDef(name=found)
            ) if found == name:
                return f"filter.py:{node.lineno}"
            case ast.Assign() | ast.AnnAssign():
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                if any(isinstance(target, ast.Name) and target.id == name for target in targets):
                    return f"filter.py:{node.lineno}"
            case ast.ImportFrom() if any((alias.asname or alias.name) == name for alias in node.names):
                return f"filter.py:{node.lineno}"
    return "filter.py"


def build(options: argparse.Namespace, phases: list[str], site: Path, native: set[str], work: Path) -> None:
    """Writes the component to ``options.out``."""
    app, source = work / "app", work / "source"
    for folder in (app, source):
        shutil.rmtree(folder, ignore_errors=True)
    app.mkdir(parents=True)
    shutil.copytree(SDK / "witgate", app / "witgate", ignore=shutil.ignore_patterns(*NOT_IN_COMPONENT))
    shutil.copytree(options.source, source, ignore=left_out)
    if uses_time_zones(source, site):
        shutil.copytree(Path(packages_of_tools()) / "tzdata", app / "tzdata", dirs_exist_ok=True)
    entry = ENTRY.format(
        clock=CLOCK if os.environ.get("COMPONENTIZE_OPTIMIZE") == "no" else "",
        phases=phases,
        native=sorted(native) and {*native} or "set()",
        classes="\n".join(CLASSES[phase] for phase in phases),
    )
    (app / "_witgate_app.py").write_text(entry)
    for folder in (app, source, site):
        set_times(folder)
    command = [sys.executable, HERE / "fixed_clock.py", "-d", options.wit, "-w", options.world]
    command += ["componentize", "-s", "_witgate_app"]
    command += ["-p", app, "-p", source, "-o", options.out]
    # With VIRTUAL_ENV, componentize-py adds its packages and not those of the builder's Python.
    environment = os.environ | {"VIRTUAL_ENV": str(site.parent.parent)}
    try:
        seed = digest([app, source, site])
        result = fixed_system.run(list(map(str, command)), work, environment, TIMEOUT_SECONDS, seed)
    except subprocess.TimeoutExpired:
        fail(
            f"filter.py: its modules were not loaded within {TIMEOUT_SECONDS} s: "
            "is there an endless loop outside of the functions?\n"
        )
    if result.returncode != 0:
        output = result.stdout + result.stderr
        text = re.search(r"witgate: author's error\n(.*)\nwitgate: end", output, re.DOTALL)
        if text is not None:
            fail(text[1] + "\n")
        if trap := re.search(r"wasm trap: (.*)", output):
            advice = "a recursion without an end" if "stack" in trap[1] else "too much work or memory"
            fail(f"filter.py: the code at module level ended the interpreter ({trap[1]}): look for {advice}\n")
        sys.exit(output)


def left_out(folder: str, names: list[str]) -> set[str]:
    """The names in a folder that are not part of the filter."""
    # A gateway that was started in the folder of the filter keeps its state there.
    states = {name for name in names if all(Path(folder, name, part).is_dir() for part in STATE_FOLDERS)}
    return states | shutil.ignore_patterns(*LEFT_OUT)(folder, names)


def uses_time_zones(source: Path, site: Path) -> bool:
    """Whether a module of the filter or of its packages imports ``zoneinfo``."""
    files = [*source.rglob("*.py"), *site.rglob("*.py")]
    return any("zoneinfo" in path.read_text(errors="replace") for path in files)


def packages_of_tools() -> str:
    """The folder of the packages in requirements.lock."""
    return next(path for path in sys.path if path.endswith("site-packages"))


def digest(folders: list[Path]) -> bytes:
    """A digest of the names and contents of all files."""
    total = hashlib.sha256()
    for folder in folders:
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            total.update(str(path.relative_to(folder)).encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return total.digest()


def set_times(folder: Path) -> None:
    """Gives all files the same time: importlib reads it, so it would be in the snapshot."""
    for path in [folder, *folder.rglob("*")]:
        os.utime(path, (fixed_system.TIME, fixed_system.TIME))


def fail(text: str) -> None:
    """Ends the script with a message for the author."""
    sys.stderr.write(text)
    sys.exit(EXIT_AUTHOR)


def main() -> None:
    parser = argparse.ArgumentParser()
    for option in ["source", "wit", "world", "phases", "services", "out", "work"]:
        parser.add_argument(f"--{option}")
    options = parser.parse_args()
    # Otherwise the rest of a build that was killed would write into the folder of the next one.
    fixed_system.end_with_parent()
    phases = options.phases.split(",")
    source, work = Path(options.source), Path(options.work)
    try:
        site, native = packages.install(source, work)
    except packages.Refused as refusal:
        fail(str(refusal))
    print("step: bindings", flush=True)
    generate_bindings()
    print("step: component", flush=True)
    with ThreadPoolExecutor() as pool:
        # mypy is a process of its own, so it runs beside componentize-py.
        checked = pool.submit(end_at_mistakes, source, phases, site, work)
        try:
            build(options, phases, site, native, work)
        finally:
            # The mistakes that mypy finds come first, because they explain the others.
            checked.result()


def end_at_mistakes(source: Path, phases: list[str], site: Path, work: Path) -> None:
    """Checks the author's modules. Mistakes end the build at once: componentize-py needs seconds,
    and ends with this process (``fixed_system``)."""
    if mistakes := check(source, phases, site, work):
        sys.stderr.write(mistakes)
        sys.stderr.flush()
        os._exit(EXIT_AUTHOR)


if __name__ == "__main__":
    main()
