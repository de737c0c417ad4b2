"""Packs the SDKs for npm, PyPI and cargo, with their types, for `deploy/packages/build`.

Editors, type checkers and unit tests use these packages. `witgate build` does not: it brings the
SDK that fits its own WIT. Each package says in its metadata which WIT it speaks.
"""

import gzip
import io
import json
import re
import shutil
import subprocess
import tarfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SDK = ROOT / "guests/sdk"
TOOLS = ROOT / "componentize"
# Modules of the Python SDK that only the builder uses.
BUILD_ONLY = {"_clock.py", "_image.py", "_late_imports.py", "_load.py", "_snapshot.py", "_warmup.py", "_encodings.py"}


def wit_version() -> str:
    """The package that the SDKs speak, such as ``witgate:gateway@0.1.0``."""
    for path in sorted((ROOT / "wit").glob("*.wit")):
        if found := re.search(r"^package ([\w:@.-]+);", path.read_text(), re.MULTILINE):
            return found[1]
    raise SystemExit("wit/: no file names the package")


def npm(out: Path, work: Path, version: str) -> None:
    """The package ``@witgate/filter``: declarations and JavaScript of the SDK."""
    work.mkdir(parents=True)
    types = sorted((SDK / "typescript/generated").rglob("*.d.ts"))
    config = {
        "extends": str(SDK / "typescript/tsconfig.json"),
        "compilerOptions": {
            "noEmit": False, "declaration": True, "rewriteRelativeImportExtensions": True,
            "rootDir": str(SDK / "typescript/src"), "outDir": str(work / "dist"),
        },
        "include": [str(SDK / "typescript/src"), str(SDK / "typescript/generated")],
    }
    (work / "tsconfig.json").write_text(json.dumps(config))
    tsc = TOOLS / "typescript/node_modules/.bin/tsc"
    subprocess.run([tsc, "--project", work / "tsconfig.json"], check=True)
    (work / "tsconfig.json").unlink()
    for path in (work / "dist").rglob("*.d.ts"):
        # Of an import of `./reply.ts` in a declaration, compilers would look for the source.
        path.write_text(re.sub(r'(["\'])(\.{1,2}/[^"\']+)\.ts\1', r"\1\2.js\1", path.read_text()))
    shutil.copyfile(SDK / "typescript/src/sandbox.d.ts", work / "dist/sandbox.d.ts")
    for path in types:
        target = work / "dist/wit" / path.name
        target.parent.mkdir(exist_ok=True)
        shutil.copyfile(path, target)
    references = [f"wit/{path.name}" for path in types if path.name != "host.d.ts"]
    index = work / "dist/index.d.ts"
    lines = [f'/// <reference path="./{name}" />\n' for name in ["sandbox.d.ts", *references]]
    index.write_text("".join(lines) + index.read_text())
    names = {".": "index"} | {f"./{name}": name for name in ("keyvalue", "limiter", "http", "crypto", "testing")}
    package = {
        "name": "@witgate/filter", "version": version, "license": "Apache-2.0", "type": "module",
        "description": "Types and unit tests for witgate filters in TypeScript",
        "witgate": {"wit": wit_version()}, "engines": {"node": ">=20"}, "files": ["dist", "LICENSE"],
        "exports": {name: {"types": f"./dist/{file}.d.ts", "default": f"./dist/{file}.js"} for name, file in names.items()},
    }
    (work / "package.json").write_text(json.dumps(package, indent=2))
    shutil.copyfile(ROOT / "LICENSE", work / "LICENSE")
    subprocess.run(["npm", "pack", "--silent", "--pack-destination", out, work], check=True, stdout=subprocess.DEVNULL)


def wheel_files(version: str) -> dict[str, bytes]:
    """The files of the wheel ``witgate-filter``: the module ``witgate`` and the bindings."""
    files = {}
    for path in sorted((SDK / "python/witgate").iterdir()):
        if path.is_file() and path.name not in BUILD_ONLY:
            files[f"witgate/{path.name}"] = path.read_bytes()
    generated = SDK / "python/generated"
    for path in sorted(generated.rglob("*.py*")):
        if "__pycache__" not in path.parts and not path.name.startswith("."):
            files[str(path.relative_to(generated))] = path.read_bytes()
    files["wit_world/py.typed"] = b""
    info = f"witgate_filter-{version}.dist-info"
    files[f"{info}/METADATA"] = (
        f"Metadata-Version: 2.1\nName: witgate-filter\nVersion: {version}\n"
        "Summary: Types and unit tests for witgate filters in Python\nLicense: Apache-2.0\nRequires-Python: >=3.11\n"
        f"Keywords: {wit_version()}\n\nThis package speaks the WIT package {wit_version()}.\n"
    ).encode()
    files[f"{info}/WHEEL"] = b"Wheel-Version: 1.0\nGenerator: witgate\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    files[f"{info}/LICENSE"] = (ROOT / "LICENSE").read_bytes()
    return files


def crate(out: Path, version: str, when: int) -> None:
    """The crate ``witgate-filter``, with the WIT, as ``cargo package`` would write it."""
    manifest = tomllib.loads((SDK / "rust/Cargo.toml").read_text())
    shared = tomllib.loads((ROOT / "guests/rust/Cargo.toml").read_text())["workspace"]["package"]
    bindgen = manifest["dependencies"]["wit-bindgen"]
    text = (
        f'[package]\nname = "witgate-filter"\nversion = "{version}"\nedition = "{shared["edition"]}"\n'
        f'license = "{shared["license"]}"\ndescription = "{manifest["package"]["description"]}"\n\n'
        f'[package.metadata.witgate]\nwit = "{wit_version()}"\n\n'
        f'[features]\ndefault = {json.dumps(manifest["features"]["default"])}\nheap = []\n\n'
        f'[dependencies]\nwit-bindgen = {{ version = "{bindgen["version"]}", default-features = false, '
        f'features = {json.dumps(bindgen["features"])} }}\n'
    )
    files = {"Cargo.toml": text.encode(), "LICENSE": (ROOT / "LICENSE").read_bytes()}
    for path in sorted((SDK / "rust/src").rglob("*.rs")):
        files[f"src/{path.relative_to(SDK / 'rust/src')}"] = path.read_bytes().replace(b"../../../wit", b"wit")
    for path in sorted((ROOT / "wit").glob("*.wit")):
        files[f"wit/{path.name}"] = path.read_bytes()
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(f"witgate-filter-{version}/{name}")
            entry.size, entry.mtime, entry.mode = len(content), when, 0o644
            tar.addfile(entry, io.BytesIO(content))
    path = out / f"witgate-filter-{version}.crate"
    with path.open("wb") as file, gzip.GzipFile("", "wb", fileobj=file, mtime=when) as packed:
        packed.write(data.getvalue())
