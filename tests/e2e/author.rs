//! The commands for authors of filters, as somebody uses them who has no checkout of this
//! repository: from an empty folder, with a home elsewhere.
//!
//! Only the installed tools of TypeScript and Python come from this repository, because their
//! installation takes minutes. These tests do not know: how a filter is built.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use harness::repository;
use serde_json::Value;

/// An empty folder and a home of an author.
struct Author {
    folder: tempfile::TempDir,
}

impl Author {
    fn new() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        fs::create_dir(folder.path().join("work"))?;
        Ok(Self { folder })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join("work").join(name)
    }

    /// `witgate` with these arguments, which are separated by spaces, in `folder`.
    fn command(&self, folder: &str, arguments: &str) -> Command {
        let mut command = Command::new(repository().join("target/release/witgate"));
        command.args(arguments.split(' ')).current_dir(self.path(folder));
        // cargo's and rustup's homes are found without HOME.
        command.env("HOME", self.folder.path().join("home")).env_remove("XDG_CACHE_HOME").env_remove("WITGATE_HOME");
        command.env("COMPONENTIZE_HOME", repository().join("componentize"));
        command
    }

    fn witgate(&self, folder: &str, arguments: &str) -> Result<Output> {
        Ok(self.command(folder, arguments).output()?)
    }

    /// The standard output of a command that must succeed.
    fn output(&self, folder: &str, arguments: &str) -> Result<String> {
        let output = self.witgate(folder, arguments)?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "witgate {arguments} ended with {}\n{text}\n{errors}", output.status);
        Ok(text)
    }

    /// The output of a command that must end with exit code 1.
    fn failure(&self, folder: &str, arguments: &str) -> Result<String> {
        let output = self.witgate(folder, arguments)?;
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        ensure!(output.status.code() == Some(1), "witgate {arguments} ended with {}\n{text}", output.status);
        Ok(text)
    }

    fn edit(&self, file: &str, from: &str, to: &str) -> Result<()> {
        let path = self.path(file);
        let text = fs::read_to_string(&path)?;
        ensure!(text.contains(from), "{from} is not in {file}");
        Ok(fs::write(path, text.replace(from, to))?)
    }
}

/// Makes what a gateway leaves in the folder of a filter in which it was started. Returns its
/// socket.
fn write_gateway_state(folder: &Path) -> Result<std::os::unix::net::UnixListener> {
    fs::create_dir_all(folder.join("state/artifacts"))?;
    fs::create_dir_all(folder.join("state/functions"))?;
    Ok(std::os::unix::net::UnixListener::bind(folder.join("state/handover.sock"))?)
}

#[test]
fn a_typescript_filter_from_nothing_to_a_comparison_of_versions() -> Result<()> {
    let author = Author::new()?;
    author.output("", "new greeter --lang ts")?;
    let _socket = write_gateway_state(&author.path("greeter"))?;
    let text = author.output("greeter", "test --junit junit.xml")?;
    ensure!(text.contains("unit tests  ok, vitest") && text.contains("2 of 2 passed"), "{text}");
    let junit = fs::read_to_string(author.path("greeter/junit.xml"))?;
    ensure!(junit.contains("testsuite name=\"examples\" tests=\"2\""), "{junit}");
    assert_eq!(author.output("greeter", "build")?, "dist/greeter.wasm\n");
    fs::copy(author.path("greeter/dist/greeter.wasm"), author.path("old.wasm"))?;

    let recording = "{\"name\":\"first\",\"request\":{\"headers\":{\"x-name\":\"Bob\"}},\"expect\":{\"action\":\"proceed\"}}\n\
        {\"request\":{\"path\":\"/x\"},\"expect\":{\"action\":\"respond\"}}\n";
    fs::write(author.path("exchanges.jsonl"), recording)?;
    let text = author.output("", "test old.wasm --replay exchanges.jsonl")?;
    assert_eq!(text, "0 of 2 exchanges differ\n");
    let text = author.output("", "test old.wasm --fuzz 1")?;
    ensure!(text.contains("fuzz        ok"), "{text}");
    let results: Value = serde_json::from_str(&author.output("", "test old.wasm --fuzz 1 --json")?)?;
    ensure!(results["fuzz"]["requests"].as_u64().is_some_and(|count| count > 0), "{results}");
    let bench: Value = serde_json::from_str(&author.output("", "bench greeter --seconds 1 --json")?)?;
    ensure!(bench[0]["calls"].as_u64().is_some_and(|calls| calls > 0), "{bench}");

    author.edit("greeter/src/filter.ts", "}, ${name}`", "} ${name}`")?;
    let text = author.failure("greeter", "test --no-unit")?;
    for expected in
        ["FAIL  greets-a-caller", "request.headers.x-greeting", "- hello, Ann", "+ hello Ann", "1 of 2 examples"]
    {
        ensure!(text.contains(expected), "{expected} is not in {text}");
    }
    let text = author.output("", "test greeter/dist/greeter.wasm --replay exchanges.jsonl --against old.wasm")?;
    ensure!(text.contains("1 of 2 exchanges differ"), "{text}");
    ensure!(text.contains("the upstream gets x-greeting: \"hello Bob\" instead of \"hello, Bob\""), "{text}");

    author.edit("greeter/examples/greets-a-caller.yaml", "action: proceed", "action: pass")?;
    let text = author.failure("greeter", "build")?;
    ensure!(text.contains("greets-a-caller.yaml:5: unknown variant `pass`"), "{text}");
    Ok(())
}

/// Requests of the recording, of which a fifth has no name.
const RECORDED: usize = 1000;

#[test]
fn recorded_traffic_shows_what_a_new_version_changes() -> Result<()> {
    let author = Author::new()?;
    author.output("", "new greeter --lang ts")?;
    author.output("greeter", "build")?;
    let component = fs::read(author.path("greeter/dist/greeter.wasm"))?;
    fs::write(author.path("old.wasm"), &component)?;
    let yaml = "upstreams: {echo: {builtin: echo}}\nfilters: {greeter: {source: greeter.wasm, config: {greeting: hi}}}\n\
        routes: [{name: api, filters: [greeter], upstream: echo}]";
    let gateway = harness::Setup::new(yaml)?.with("greeter.wasm", component)?.start()?;
    let record = |rest: &str| author.command("", &format!("test greeter --record {rest} --admin {}", gateway.admin));
    for (rest, expected) in
        [("a.txt", ".jsonl or .json"), ("a.json --filter other", "404: \"other\": there is no filter")]
    {
        let output = record(rest).output()?;
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.code() == Some(1) && text.contains(expected), "{rest}: {text}");
    }

    let mut recording = record(&format!("traffic.jsonl --count {RECORDED} --seconds 120"));
    let recording = recording.stdout(Stdio::piped()).spawn()?;
    gateway.wait_logged("an operator reads exchanges", 1);
    let mut client = gateway.client()?;
    for number in 0..RECORDED {
        let name = format!("x-name: Ann {number}");
        let fields = [&name, "x-api-key: s3cret"];
        let fields = if number % 5 == 0 { &fields[1..] } else { &fields[..] };
        client.get(&format!("/orders?id={number}&token=s3cret"), fields)?;
    }
    let output = recording.wait_with_output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(text, format!("recorded {RECORDED} calls of greeter in traffic.jsonl\n"));
    let recorded = fs::read_to_string(author.path("traffic.jsonl"))?;
    assert_eq!((recorded.lines().count(), recorded.contains("s3cret")), (RECORDED, false));

    // The configuration is no part of a recording, because it may hold secrets.
    let config = gateway.path("gateway.yaml");
    let replay = |component: &str, rest: &str| {
        let config = config.display();
        author.output("", format!("test {component} --replay traffic.jsonl --config {config} {rest}").trim_end())
    };
    assert_eq!(replay("old.wasm", "")?, format!("0 of {RECORDED} exchanges differ\n"));
    author.edit("greeter/src/filter.ts", "send your name in x-name", "who are you?")?;
    author.edit("greeter/src/filter.ts", "reply(400", "reply(401")?;
    author.edit("greeter/src/filter.ts", "?? \"hello\"}, ${name}", "?? \"hello\"} ${name}")?;
    author.output("greeter", "build")?;
    let text = replay("greeter/dist/greeter.wasm", "--against old.wasm")?;
    for expected in [
        "1000 of 1000 exchanges differ",
        "     800 x  the upstream gets x-greeting: \"hi Ann 1\" instead of \"hi, Ann 1\"",
        "     200 x  the client gets status 401 instead of 400",
        "     200 x  the client gets the body",
    ] {
        ensure!(text.contains(expected), "{expected} is not in\n{text}");
    }
    let alone = replay("greeter/dist/greeter.wasm", "")?;
    ensure!(alone.contains("800 x  request.headers.x-greeting is \"hi Ann 1\" instead of \"hi, Ann 1\""), "{alone}");

    // A flame graph names the line that takes the time.
    author.edit(
        "greeter/src/filter.ts",
        "  const name",
        "  for (let i = 0; i < 30_000; i++) Math.sqrt(i);\n  const name",
    )?;
    author.output("greeter", "build")?;
    let text = author.output("", "bench greeter/dist/greeter.wasm --seconds 2 --profile profile.svg")?;
    let svg = fs::read_to_string(author.path("profile.svg"))?;
    ensure!(text.contains("samples in profile.svg") && text.contains("%  src/filter.ts:5"), "{text}");
    for part in ["<svg ", "src/filter.ts:5: ", "a function of the interpreter", "QuickJS"] {
        ensure!(svg.contains(part), "{part} is not in\n{svg}");
    }
    Ok(())
}

#[test]
fn a_python_filter_is_built_and_tested_in_an_empty_folder() -> Result<()> {
    let author = Author::new()?;
    author.output("", "new limiter --lang py --template rate-limit")?;
    let _socket = write_gateway_state(&author.path("limiter"))?;
    let results: Value = serde_json::from_str(&author.output("limiter", "test --json")?)?;
    assert_eq!((&results["passed"], &results["unit_tests"]["tool"]), (&true.into(), &"pytest".into()), "{results}");
    let actions: Vec<&Value> =
        results["examples"].as_array().context("a list")?.iter().map(|case| &case["action"]).collect();
    assert_eq!(actions, ["proceed", "respond"]);
    Ok(())
}

/// Builds and tests all templates in all languages, which takes minutes: `just templates`.
#[test]
#[ignore = "takes minutes: just templates"]
fn every_template_builds_and_passes_its_tests() -> Result<()> {
    for language in ["ts", "py", "rust"] {
        for template in ["blank", "auth", "rate-limit", "body"] {
            let author = Author::new()?;
            author.output("", &format!("new filter --lang {language} --template {template}"))?;
            let text = author.output("filter", "test")?;
            println!("--- {language} {template}\n{text}");
        }
    }
    Ok(())
}

#[test]
fn a_folder_without_a_filter_is_refused_with_advice() -> Result<()> {
    let author = Author::new()?;
    author.output("", "new greeter --lang TS")?;
    fs::write(author.path("empty.jsonl"), "\n")?;
    for (arguments, expected) in [
        ("test", "there is no filter.toml"),
        ("test nothing.wasm", "nothing.wasm: there is no such file or folder"),
        ("test greeter --replay nothing.jsonl", "nothing.jsonl: No such file"),
        ("test greeter --replay empty.jsonl", "empty.jsonl: there is no exchange in it"),
        ("bench nothing.wasm", "nothing.wasm: there is no such file or folder"),
        ("build greeter/filter.toml", "this is a file: name the folder of the filter"),
        ("build greeter/examples", "there is no filter.toml"),
        ("new Greeter --lang ts", "begins with a-z, and has at most 64 characters of a-z, 0-9 and -; take \"greeter\""),
        ("new my_filter --lang py", "take \"my-filter\""),
        ("explain DEADLIN", "did you mean deadline?"),
        ("dev greeter --listen 80", "--listen: \"80\": write 0.0.0.0:80 for all interfaces"),
        ("dev greeter --upstream localhost:3000", "--upstream: "),
        ("dev greeter --set greeting", "--set greeting: write KEY=VALUE"),
    ] {
        let text = author.failure("", arguments)?;
        ensure!(text.contains(expected), "{arguments}: {expected} is not in {text}");
    }
    assert_eq!(author.witgate("", "new a --lang cobol")?.status.code(), Some(2));
    Ok(())
}

#[test]
fn codes_are_explained_and_shells_complete() -> Result<()> {
    let author = Author::new()?;
    let text = author.output("", "explain Deadline")?;
    ensure!(text.contains("cause") && text.contains("504"), "{text}");
    let text = author.output("", "explain 504")?;
    ensure!(text.contains("deadline") && text.contains("upstream-timeout") && !text.contains("no-route"), "{text}");
    let all: Value = serde_json::from_str(&author.output("", "explain --json")?)?;
    ensure!(all.as_array().is_some_and(|rows| rows.len() > 40), "{all}");
    ensure!(author.output("", "completions bash")?.contains("witgate"), "no completions");
    author.output("", "completions --man man")?;
    ensure!(Path::new(&author.path("man/witgate-build.1")).exists(), "no man page");
    Ok(())
}

/// `witgate dev`, ended by its process id.
struct Dev {
    child: std::process::Child,
    lines: std::sync::mpsc::Receiver<String>,
}

impl Dev {
    /// Starts it in the folder of a filter.
    fn start(author: &Author, folder: &str) -> Result<Self> {
        let mut command = author.command(folder, "dev --listen 127.0.0.1:0");
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn()?;
        let output = BufReader::new(child.stdout.take().context("a pipe")?);
        let (sender, lines) = std::sync::mpsc::channel();
        std::thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Ok(Self { child, lines })
    }

    /// Waits for a line that begins with `start`.
    fn wait_for(&self, start: &str) -> Result<String> {
        loop {
            let line = self.lines.recv_timeout(Duration::from_secs(300)).with_context(|| format!("no line {start}"))?;
            println!("{line}");
            if line.starts_with(start) {
                return Ok(line);
            }
        }
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_change_is_live_while_dev_runs() -> Result<()> {
    let author = Author::new()?;
    author.output("", "new greeter --lang ts")?;
    let dev = Dev::start(&author, "greeter")?;
    let line = dev.wait_for("live at ")?;
    let url = line.split(['/', ';']).nth(2).context("an address")?.to_owned();
    dev.wait_for("examples  2 of 2 passed")?;
    let get = || -> Result<String> { Ok(harness::Client::connect(url.parse()?)?.get("/", &[])?.text()) };
    ensure!(get()?.contains("send your name"), "{}", get()?);
    author.edit("greeter/src/filter.ts", "send your name in x-name", "who are you?")?;
    dev.wait_for("live after ")?;
    dev.wait_for("examples  1 of 2 passed")?;
    ensure!(get()?.contains("who are you?"), "{}", get()?);
    Ok(())
}
