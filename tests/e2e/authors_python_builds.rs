//! Mistakes that the build of a Python filter refuses: the message names the file, the line and
//! what to do, and shows no stack of the builder.
//!
//! A few builds are part of every test run. The others take minutes: `just mistakes`. These tests
//! do not know: how the SDK finds a mistake.

use std::path::Path;
use std::process::Command;

use anyhow::Result;
use harness::repository;

/// What `componentize build` prints for a filter with these files. The build must fail.
fn refusal(files: &[(&str, &str)]) -> Result<String> {
    let folder = tempfile::tempdir()?;
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text);
    write("filter.toml", "name = \"wrong\"\nversion = \"1.0.0\"\n[request]\n")?;
    for (name, text) in files {
        write(name, text)?;
    }
    build(folder.path())
}

fn build(folder: &Path) -> Result<String> {
    let componentize = repository().join("target/release/componentize");
    let output =
        Command::new(componentize).arg("build").arg(folder).arg("--out-dir").arg(folder.join("out")).output()?;
    anyhow::ensure!(!output.status.success(), "the build worked");
    Ok(String::from_utf8_lossy(&output.stderr).into_owned())
}

/// The snapshot of CPython contains nothing of the folder, the time and the system of the build.
#[test]
fn the_same_sources_make_the_same_bytes_in_another_folder() -> Result<()> {
    let root = tempfile::tempdir()?;
    let folder = root.path().join("in/another/folder");
    std::fs::create_dir_all(root.path().join("in/another"))?;
    let copied = Command::new("cp").arg("-r").arg(repository().join("guests/python/api-key")).arg(&folder).status()?;
    anyhow::ensure!(copied.success(), "cp");
    let componentize = repository().join("target/release/componentize");
    let mut command = Command::new(componentize);
    let output = command.arg("build").arg(&folder).arg("--out-dir").arg(root.path().join("out")).output()?;
    anyhow::ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let here = std::fs::read(root.path().join("out/api-key.wasm"))?;
    let there = std::fs::read(repository().join("guests/dist/python/api-key.wasm"))?;
    let differing = here.iter().zip(&there).filter(|(one, other)| one != other).count();
    assert!(here == there, "{} and {} bytes, {differing} differ", here.len(), there.len());
    Ok(())
}

const IMPORTS: &str = "from witgate import Reply, Request, reply\n";

#[test]
fn a_mistake_is_refused_by_the_build_with_its_file_and_line() -> Result<()> {
    for (source, expected) in [
        (
            "def on_requests(request: Request) -> Reply | None:\n    return None\n",
            "filter.py: does not define on_request",
        ),
        (
            "def on_request(request: Request) -> str:\n    return \"a\"\n",
            "filter.py:2: error: on_request is Callable[[Request], str], but the gateway calls `def on_request(request: Request) -> Reply | None`",
        ),
        (
            "def on_request(request: Request, more: int) -> Reply | None:\n    return None\n",
            "filter.py:2: error: on_request is Callable[[Request, int], Reply | None]",
        ),
        (
            "def on_request(request: Request) -> Reply | None:\n    return reply(\"200\")\n",
            "filter.py:3: error: Argument 1 to \"reply\"",
        ),
        (
            "TABLE: dict[str, str] = {}\n\ndef find() -> str:\n    return TABLE[\"a\"]\n\nFOUND = find()\n\ndef on_request(request: Request) -> Reply | None:\n    return None\n",
            "KeyError: 'a' (filter.py:5 in find)",
        ),
    ] {
        let printed = refusal(&[("filter.py", &format!("{IMPORTS}{source}"))])?;
        assert!(printed.contains(expected), "{expected} not in {printed}");
    }
    // Only what the filter imports is checked: a script beside it may use what a filter cannot.
    let source = format!(
        "from rules import LIMIT\n{IMPORTS}\ndef on_request(request: Request) -> Reply | None:\n    return None\n"
    );
    let script = ("deploy.py", "import boto3\nprint boto3\n");
    let printed = refusal(&[("filter.py", &source), script, ("rules.py", "LIMIT: int = \"5\"\n")])?;
    assert!(printed.contains("rules.py:1: error: ") && !printed.contains("deploy.py"), "{printed}");
    Ok(())
}

/// Further mistakes, whose builds take minutes: `just mistakes` tries them.
const BUILD_MISTAKES: [(&str, &str); 22] = [
    ("def on_request(request: Request -> Reply | None:\n    return None\n", "filter.py:2: error: Expected `)`"),
    (
        "def on_request(request: Request) -> Reply | None:\nreturn None\n",
        "filter.py:3: error: Expected an indented block",
    ),
    (
        "import requests\n",
        "filter.py:2: error: there is no module requests: add `requests==VERSION` to requirements.txt",
    ),
    ("import ssl\n", "ssl is not part of Python for WebAssembly, so a filter cannot use it"),
    ("import ctypes\n", "ctypes is not part of Python for WebAssembly, so a filter cannot use it"),
    (
        "from witgate import config\nKEY = config.get(\"key\")\n",
        "cannot be used while the filter is built: call them inside on_request or on_response (filter.py:3 in <module>)",
    ),
    (
        "from witgate import log\nlog.info(\"loaded\")\n",
        "cannot be used while the filter is built: call them inside on_request or on_response (filter.py:3 in <module>)",
    ),
    (
        "import secrets\nKEY = secrets.token_hex()\n",
        "randomness cannot be used while the filter is built: call it inside on_request or on_response (filter.py:3",
    ),
    (
        "from witgate import keyvalue\nkeyvalue.get(\"a\")\n",
        "add `services = [\"keyvalue\"]` to filter.toml (filter.py:3",
    ),
    ("TEXT = open(\"missing.txt\").read()\n", "No such file or directory: 'missing.txt' (filter.py:2 in <module>)"),
    (
        "import sys\nsys.exit(3)\n",
        "SystemExit: 3: a filter cannot end the process; return a reply or None (filter.py:3",
    ),
    (
        "try:\n    int(\"x\")\nexcept ValueError as error:\n    raise LookupError(\"no table\") from error\n",
        "LookupError: no table (filter.py:5 in <module>); caused by ValueError: invalid literal",
    ),
    (
        "def f(n: int) -> int:\n    return f(n + 1)\nf(0)\n",
        "RecursionError: maximum recursion depth exceeded (filter.py:3 in f)",
    ),
    (
        "def on_request(request: Request): # type: ignore\n    yield 1\n",
        "on_request has `yield`, so its code never runs",
    ),
    ("class on_request:\n    pass\n", "filter.py:2: error: on_request is type[on_request], but the gateway calls"),
    (
        "def on_request(request: Request) -> Reply | None:\n    return repply(200)\n",
        "filter.py:3: error: Name \"repply\" is not defined; did you mean \"reply\"?",
    ),
    (
        "def on_request(request: Request) -> Reply | None:\n    return reply(200, request.headrs)\n",
        "filter.py:3: error: \"Request\" has no attribute \"headrs\"",
    ),
    (
        "def on_request(request: Request) -> Reply | None:\n    return reply(200, request.header(\"a\").lower())\n",
        "filter.py:3: error: Item \"None\" of \"str | None\" has no attribute \"lower\"",
    ),
    ("def on_request(request):\n    return None\n", "filter.py:2: error: Function is missing a type annotation"),
    (
        "def on_request(request: Request) -> Reply | None:\n    reply(200)\n",
        "filter.py:2: error: Missing return statement",
    ),
    (
        "import asyncio\nasync def on_request(request: Request) -> Reply | None:\n    asyncio.sleep(0)\n    return None\n",
        "filter.py:4: note: Are you missing an await?",
    ),
    ("on_request = 5\n", "filter.py:2: error: on_request is int, but the gateway calls `def on_request"),
];
/// The same for the lists of packages: requirements.txt, and what is imported.
const PACKAGE_MISTAKES: [(&str, &str, &str); 4] = [
    ("no-such-package-of-witgate==1.0", "", "requirements.txt:1: "),
    ("attrs==999.0", "", "requirements.txt:1: "),
    ("attrs===", "", "requirements.txt"),
    ("numpy==2.3.4", "import numpy\n", "C extension"),
];
const MANIFEST_MISTAKES: [(&str, &str); 7] = [
    ("name = \"a\"\n[request]\n", "filter.toml: missing field `version`: write version = \"0.1.0\""),
    (
        "name = \"a\"\nversion = \"1.0.0\"\nservices = \"keyvalue\"\n[request]\n",
        "filter.toml:3: invalid type: string \"keyvalue\", expected a list in [ ]",
    ),
    (
        "name = \"a\"\nversion = \"1.0.0\"\nrequst = 1\n",
        "filter.toml:3: unknown field `requst`, expected one of `name`",
    ),
    ("name = \"a\"\nversion = \"1.0.0\"\n", "a filter has at least one phase: add [request], [response] or both"),
    ("name = \"a\"\nversion = \"1\"\n[request]\n", "filter.toml:2: version: \"1\""),
    (
        "name = \"a\"\nversion = \"1.0.0\"\n[request]\nbody = \"all\"\n",
        "unknown variant `all`, expected `none` or `buffer`",
    ),
    (
        "name = \"a\"\nversion = \"1.0.0\"\nservices = [\"keyvalues\"]\n[request]\n",
        "the services are keyvalue, limiter",
    ),
];

#[test]
fn every_mistake_is_refused_by_the_build_with_its_place() -> Result<()> {
    if std::env::var_os("ALL_MISTAKES").is_none() {
        return Ok(());
    }
    let handler = "\ndef on_request(request: Request) -> Reply | None:\n    return None\n";
    let whole = |text: &str| format!("{IMPORTS}{text}{}", if text.contains("on_request") { "" } else { handler });
    let mut wrong = vec![];
    let mut check = |files: &[(&str, &str)], expected: &str| -> Result<()> {
        let printed = refusal(files)?;
        if !printed.contains(expected) || printed.contains("wasm backtrace") || printed.contains("Traceback") {
            wrong.push(format!("{expected} is not in {printed}"));
        }
        Ok(())
    };
    for (text, expected) in BUILD_MISTAKES {
        check(&[("filter.py", &whole(text))], expected)?;
    }
    for (packages, imported, expected) in PACKAGE_MISTAKES {
        check(&[("requirements.txt", packages), ("filter.py", &whole(imported))], expected)?;
    }
    for (manifest, expected) in MANIFEST_MISTAKES {
        check(&[("filter.toml", manifest), ("filter.py", &whole(""))], expected)?;
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    Ok(())
}
