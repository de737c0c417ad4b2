"""Builds a Python filter into a component: bindings from the WIT, mypy, componentize-py.

The componentize crate runs this script and documents the contract (src/toolchain/script.rs): lines
``step: NAME`` on standard output, and exit code 2 if the author's source is wrong.
"""

import argparse
import ast
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

EXIT_AUTHOR = 2
HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
SDK = ROOT / "guests/sdk/python"
BINDINGS = SDK / "generated"
TOOLS = Path(sys.executable).parent

# The entry of the component. The sandbox comes first: it replaces the clock, randomness and output
# before the author's module can import them. The snapshot comes last: it arranges the memory.
ENTRY = """\
import witgate._sandbox
import filter as _filter
from witgate import _entry
from wit_world import exports
{classes}
from witgate import _snapshot
_snapshot.finish()
"""
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


def generate_bindings() -> None:
    """Generates the modules of ``wit_world`` for mypy and editors, unless the WIT is unchanged."""
    digest = hashlib.sha256()
    for file in sorted((ROOT / "wit").iterdir()):
        digest.update(file.read_bytes())
    stamp = BINDINGS / ".wit"
    if stamp.exists() and stamp.read_text() == digest.hexdigest():
        return
    fresh = BINDINGS.with_name(f"generated.{os.getpid()}")
    run_tool(["componentize-py", "-d", ROOT / "wit", "-w", "host", "bindings", fresh])
    (fresh / ".wit").write_text(digest.hexdigest())
    shutil.rmtree(BINDINGS, ignore_errors=True)
    fresh.rename(BINDINGS)


def check(source: Path, phases: list[str]) -> None:
    """Runs mypy --strict, and checks that the handlers of filter.toml exist."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "witgate-mypy"
    files = [path for path in source.rglob("*.py") if not {"tests", ".venv"} & set(path.relative_to(source).parts)]
    environment = os.environ | {"MYPYPATH": f"{source}:{SDK}:{BINDINGS}"}
    options = ["--strict", "--no-error-summary", "--cache-dir", cache, "--follow-imports=silent"]
    command = [sys.executable, "-m", "mypy", *options, *sorted(files)]
    result = subprocess.run(command, cwd=source, env=environment, capture_output=True, text=True)
    if result.returncode != 0:
        fail(result.stdout + result.stderr)
    module = ast.parse((source / "filter.py").read_text())
    names = {node.name for node in module.body if isinstance(node, ast.FunctionDef)}
    for phase in phases:
        if f"on_{phase}" not in names:
            fail(f"filter.py: does not define on_{phase}, but filter.toml has [{phase}]: write `def on_{phase}(…)`\n")


def build(source: Path, wit: Path, world: str, phases: list[str], work: Path, out: Path) -> None:
    """Writes the component to ``out``."""
    app = work / "app"
    shutil.rmtree(app, ignore_errors=True)
    app.mkdir(parents=True)
    (app / "_witgate_app.py").write_text(ENTRY.format(classes="\n".join(CLASSES[phase] for phase in phases)))
    command = [TOOLS / "componentize-py", "-d", wit, "-w", world, "componentize", "-s", "_witgate_app"]
    command += ["-p", app, "-p", source, "-p", SDK, "-o", out]
    result = subprocess.run(command, cwd=work, capture_output=True, text=True)
    if result.returncode != 0:
        output = result.stdout + result.stderr
        # componentize-py reports an exception in the author's module only by its traceback.
        if "Traceback" in output and "filter.py" in output:
            fail(output)
        sys.exit(output)


def run_tool(command: list[object]) -> None:
    subprocess.run([TOOLS / str(command[0]), *map(str, command[1:])], check=True, stdout=subprocess.DEVNULL)


def fail(text: str) -> None:
    """Ends the script with a message for the author."""
    sys.stderr.write(text)
    sys.exit(EXIT_AUTHOR)


def main() -> None:
    parser = argparse.ArgumentParser()
    for option in ["source", "wit", "world", "phases", "services", "out", "work"]:
        parser.add_argument(f"--{option}")
    options = parser.parse_args()
    phases = options.phases.split(",")
    source, work = Path(options.source), Path(options.work)
    print("step: bindings", flush=True)
    generate_bindings()
    print("step: mypy", flush=True)
    check(source, phases)
    print("step: component", flush=True)
    build(source, Path(options.wit), options.world, phases, work, Path(options.out))


if __name__ == "__main__":
    main()
