"""A Python filter's source → a component: bindings from the WIT, mypy, componentize-py. Called by the componentize crate, which documents the
contract (src/language.rs): ``step: NAME`` lines on standard output, exit code 2 where the author's source is at fault."""

import argparse
import ast
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

AUTHOR = 2
HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
SDK = ROOT / "guests/sdk/python"
BINDINGS = SDK / "generated"
TOOLS = Path(sys.executable).parent

# The SDK first: it routes clock, randomness and output before the author's module can import them. Last what makes the image cheap to begin from.
APP = """\
import witgate._sandbox
import filter as _filter
from witgate import _entry
from wit_world import exports
{classes}
from witgate import _snapshot
_snapshot.finish()
"""
CLASSES = {
    "request": "class RequestHandler(exports.RequestHandler):\n    def handle_request(self):\n        return _entry.handle_request(_filter.on_request)\n",
    "response": "class ResponseHandler(exports.ResponseHandler):\n    def handle_response(self):\n        return _entry.handle_response(_filter.on_response)\n",
}


def bindings() -> None:
    """The modules of ``wit_world`` for mypy and editors, made anew when the WIT changes."""
    digest = hashlib.sha256()
    for file in sorted((ROOT / "wit").iterdir()):
        digest.update(file.read_bytes())
    stamp = BINDINGS / ".wit"
    if stamp.exists() and stamp.read_text() == digest.hexdigest():
        return
    fresh = BINDINGS.with_name(f"generated.{os.getpid()}")
    tool(["componentize-py", "-d", ROOT / "wit", "-w", "host", "bindings", fresh])
    (fresh / ".wit").write_text(digest.hexdigest())
    shutil.rmtree(BINDINGS, ignore_errors=True)
    fresh.rename(BINDINGS)


def check(source: Path, phases: list[str]) -> None:
    """mypy --strict, and the handlers that filter.toml promises."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "witgate-mypy"
    files = [path for path in source.rglob("*.py") if not {"tests", ".venv"} & set(path.relative_to(source).parts)]
    environment = os.environ | {"MYPYPATH": f"{source}:{SDK}:{BINDINGS}"}
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--cache-dir", cache, "--follow-imports=silent"]
    result = subprocess.run([*command, *sorted(files)], cwd=source, env=environment, capture_output=True, text=True)
    if result.returncode != 0:
        fail(result.stdout + result.stderr)
    names = {node.name for node in ast.parse((source / "filter.py").read_text()).body if isinstance(node, ast.FunctionDef)}
    for phase in phases:
        if f"on_{phase}" not in names:
            fail(f"filter.py: does not define on_{phase}, but filter.toml has [{phase}]: write `def on_{phase}(…)`\n")


def component(source: Path, wit: Path, world: str, phases: list[str], work: Path, out: Path) -> None:
    app = work / "app"
    shutil.rmtree(app, ignore_errors=True)
    app.mkdir(parents=True)
    (app / "_witgate_app.py").write_text(APP.format(classes="\n".join(CLASSES[phase] for phase in phases)))
    result = subprocess.run(
        [TOOLS / "componentize-py", "-d", wit, "-w", world, "componentize", "-s", "_witgate_app", "-p", app, "-p", source, "-p", SDK, "-o", out],
        cwd=work,
        capture_output=True,
        text=True,
    )
    if result.returncode != 0:
        said = result.stdout + result.stderr
        # An exception while the author's module is imported, with its Python traceback.
        if "Traceback" in said and "filter.py" in said:
            fail(said)
        sys.exit(said)


def tool(command: list[object]) -> None:
    subprocess.run([TOOLS / str(command[0]), *map(str, command[1:])], check=True, stdout=subprocess.DEVNULL)


def fail(text: str) -> None:
    sys.stderr.write(text)
    sys.exit(AUTHOR)


def main() -> None:
    parser = argparse.ArgumentParser()
    for option in ["source", "wit", "world", "phases", "services", "out", "work"]:
        parser.add_argument(f"--{option}")
    options = parser.parse_args()
    phases = options.phases.split(",")
    source, work = Path(options.source), Path(options.work)
    print("step: bindings", flush=True)
    bindings()
    print("step: mypy", flush=True)
    check(source, phases)
    print("step: component", flush=True)
    component(source, Path(options.wit), options.world, phases, work, Path(options.out))


if __name__ == "__main__":
    main()
