#!/usr/bin/env python3
"""Builds a filter for each package of a corpus, serves it, and compares what the package computes.

``run.py npm`` and ``run.py pypi`` print a table and end with exit code 1 if fewer packages work
than the target. Further arguments are the names of the only packages to try. It needs the
registries and about half an hour, so it is no part of ``just test`` but of ``just corpus``. The
corpora are npm.json and pypi.json: name, version, import, expression, and its value; ``refused``
stands for a package that the build refuses.
"""

import json
import re
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
BIN = HERE.parent.parent / "target/release"
TARGETS = {"npm": 34, "pypi": 30}
GATEWAY = """\
listeners: [{{name: main, address: "127.0.0.1:{port}"}}]
admin: off
state: {{directory: {state}}}
log: {{access: off}}
timeouts: {{filters: 9s}}
upstreams: {{echo: {{builtin: echo, timeout: 20s}}}}
filters: {{f: {{source: {component}, timeout: 8s, memory: 256MiB}}}}
routes: [{{filters: [f], upstream: echo}}]
"""


def write_filter(kind: str, folder: Path, package: tuple[str, str, str, str]) -> None:
    """A filter that answers with the value of the expression."""
    name, version, imported, expression = package
    folder.mkdir(parents=True)
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    (folder / "filter.toml").write_text(f'name = "{slug}"\nversion = "1.0.0"\n[request]\n')
    if kind == "pypi":
        (folder / "requirements.txt").write_text(f"{name}=={version}\n" if version else f"{name}\n")
        (folder / "filter.py").write_text(
            f"# mypy: ignore-errors\n{imported}\nfrom witgate import reply\n\n"
            f"def on_request(request):\n    return reply(200, str({expression}))\n"
        )
        return
    (folder / "src").mkdir()
    (folder / "package.json").write_text(json.dumps({"dependencies": {name: version or "*"}}))
    (folder / "src/filter.ts").write_text(
        f'// @ts-nocheck\n{imported};\nimport {{ reply }} from "@witgate/filter";\n'
        f"export function onRequest() {{\n  return reply(200, String({expression}));\n}}\n"
    )
    npm = ["npm", "install", "--package-lock-only", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    subprocess.run(npm, cwd=folder, check=True, capture_output=True)


def build(folder: Path, out: Path) -> str | None:
    """Builds the filter. Returns the message if that failed."""
    command = [BIN / "componentize", "build", folder, "--out-dir", out]
    result = subprocess.run(command, capture_output=True, text=True)
    return None if result.returncode == 0 else result.stderr.partition("not built")[2].strip()


def answer(component: Path, state: Path) -> str:
    """What the filter answers."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    config = component.with_suffix(".yaml")
    config.write_text(GATEWAY.format(port=port, state=state, component=component))
    gateway = subprocess.Popen([BIN / "witgate", "run", "--config", config], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        for _ in range(2400):
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=20) as response:
                    return str(response.read().decode())
            except urllib.error.HTTPError:
                break
            except OSError:
                if gateway.poll() is not None:
                    break
                time.sleep(0.1)
    finally:
        gateway.terminate()
        log, _ = gateway.communicate()
    failures = [line for line in log.splitlines() if "a filter failed" in line or "error" in line.lower()]
    return f"failed: {(failures or log.splitlines() or ['no answer'])[-1]}"


def main() -> int:
    kind, only = sys.argv[1], sys.argv[2:]
    corpus = [entry for entry in json.loads((HERE / f"{kind}.json").read_text()) if not only or entry[0] in only]
    worked = refused = 0
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root)
        for number, (name, version, imported, expression, expected) in enumerate(corpus):
            source, out = folder / str(number), folder / "out" / str(number)
            write_filter(kind, source, (name, version, imported, expression))
            refusal = build(source, out)
            if refusal is not None:
                refused += 1
                result = "refused: " + " ".join(refusal.split())[:300]
                verdict = "as expected" if expected == "refused" else "MISSING"
            else:
                result = answer(next(out.glob("*.wasm")), folder / "state")
                is_right = result == expected
                worked += is_right
                verdict = "works" if is_right else f"WRONG, expected {expected!r}:"
            print(f"| {name} {version} | {verdict} | {result[:400]} |", flush=True)
    print(f"{kind}: {worked} of {len(corpus)} work, {refused} are refused; the target is {TARGETS[kind]}")
    return 0 if only or worked >= TARGETS[kind] else 1


if __name__ == "__main__":
    sys.exit(main())
