//! Runs the build script of TypeScript or Python.
//!
//! The contract with `typescript/build.mjs` and `python/build.py` is a command line and an exit
//! code:
//!
//! ```text
//! PROGRAM SCRIPT --source DIR --wit DIR --world filter --phases request,response
//!     --services keyvalue --out FILE --work DIR
//! ```
//!
//! With `--serve` as its only argument, a script builds again and again (`Worker`): each line of
//! its standard input is a JSON object with `args` and `env`, and its output ends with
//! `end: EXIT CODE`.
//!
//! The variable `COMPONENTIZE_OPTIMIZE` is `no` if the component will not be optimized, and
//! `COMPONENTIZE_DEV` is `yes` if a fast build matters more than a fast component.
//!
//! The environment variable COMPONENTIZE_BODIES lists the phases whose body the gateway buffers.
//! The script writes a component to FILE. It prints `step: NAME` on standard output when a step
//! begins, and `note: TEXT` for something that the author should know. Exit code 2 means that the
//! author's source is wrong; the other output is then shown to the author unchanged. This module
//! does not know: the steps of a script.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context as _, anyhow, ensure};
use witgate_manifest::BodyMode;

use super::language::{BuildError, Job};
use crate::progress::Progress;
use crate::wit::WORLD;

/// The exit code of a script if the author's source is wrong.
const EXIT_AUTHOR: i32 = 2;

/// Runs `program` with `script` and returns the component that it wrote.
pub(crate) fn build(program: &OsStr, script: &Path, job: &Job, progress: &mut Progress) -> Result<Vec<u8>, BuildError> {
    let out = job.work.join("raw.wasm");
    // Without this, a script that writes nothing would return the file of the previous build.
    let _ = std::fs::remove_file(&out);
    let (arguments, environment) = (arguments(job, &out), environment(job));
    let output = if job.keeps_tools {
        Worker::with(program, script, |worker| worker.build(&arguments, &environment, progress))
    } else {
        let mut command = Command::new(program);
        run(command.arg(script).args(&arguments).envs(environment), progress)
    };
    let output = output.with_context(|| format!("{}", program.display()))?;
    match output.exit_code {
        Some(0) => Ok(std::fs::read(&out).with_context(|| format!("{} wrote no {}", script.display(), out.display()))?),
        Some(EXIT_AUTHOR) => Err(BuildError::Author(output.text)),
        code => {
            let code = code.map_or_else(|| "a signal".to_owned(), |code| format!("exit code {code}"));
            Err(BuildError::Tool(anyhow!("{} ended with {code}\n{}", script.display(), output.text.trim_end())))
        }
    }
}

fn arguments(job: &Job, out: &Path) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = vec![];
    for (option, path) in [("--source", job.source), ("--wit", job.wit), ("--work", job.work), ("--out", out)] {
        arguments.extend([option.into(), path.into()]);
    }
    let phases: Vec<&str> = job.manifest.phases().map(|(name, _)| name).collect();
    let services = job.manifest.services.join(",");
    let rest = ["--world", WORLD, "--phases", &phases.join(","), "--services", &services];
    arguments.extend(rest.map(OsString::from));
    arguments
}

fn environment(job: &Job) -> [(&'static str, String); 3] {
    let buffered: Vec<&str> =
        job.manifest.phases().filter(|(_, phase)| phase.body == BodyMode::Buffer).map(|(name, _)| name).collect();
    let answer = |flag| if flag { "yes" } else { "no" }.to_owned();
    [
        ("COMPONENTIZE_BODIES", buffered.join(",")),
        ("COMPONENTIZE_OPTIMIZE", answer(job.optimize)),
        ("COMPONENTIZE_DEV", answer(job.keeps_tools)),
    ]
}

/// A script that stays for further builds. Gain: neither the language nor its libraries start
/// again. Price: a process that waits. It ends when this program ends, because its input closes.
struct Worker {
    child: Child,
    output: BufReader<ChildStdout>,
}

/// The worker of this process. There is one, because `witgate dev` builds one filter.
static WORKER: Mutex<Option<Worker>> = Mutex::new(None);

impl Worker {
    /// Calls `build` with the running worker, or with a new one. A worker that failed is ended.
    fn with(
        program: &OsStr,
        script: &Path,
        mut build: impl FnMut(&mut Self) -> anyhow::Result<ScriptOutput>,
    ) -> anyhow::Result<ScriptOutput> {
        let mut slot = WORKER.lock().unwrap_or_else(PoisonError::into_inner);
        // A script ends by itself if the source of the last build has an endless loop.
        if let Some(mut worker) = slot.take() {
            let built = build(&mut worker);
            if built.as_ref().is_ok_and(ScriptOutput::is_complete) {
                *slot = Some(worker);
                return built;
            }
            worker.end();
        }
        let mut worker = Self::start(program, script)?;
        let built = build(&mut worker);
        if built.as_ref().is_ok_and(ScriptOutput::is_complete) {
            *slot = Some(worker);
        } else {
            worker.end();
        }
        built
    }

    fn end(mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    fn start(program: &OsStr, script: &Path) -> anyhow::Result<Self> {
        let mut command = Command::new(program);
        command.arg(script).arg("--serve").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().context("the program cannot be run")?;
        let output = child.stdout.take().context("the script has no standard output")?;
        Ok(Self { child, output: BufReader::new(output) })
    }

    fn build(
        &mut self,
        arguments: &[OsString],
        environment: &[(&str, String)],
        progress: &mut Progress,
    ) -> anyhow::Result<ScriptOutput> {
        let texts: Vec<&str> = arguments.iter().filter_map(|argument| argument.to_str()).collect();
        ensure!(texts.len() == arguments.len(), "the folder's path is not UTF-8");
        let environment: BTreeMap<_, _> = environment.iter().cloned().collect();
        let input = self.child.stdin.as_mut().context("the script has no standard input")?;
        writeln!(input, "{}", serde_json::json!({ "args": texts, "env": environment }))?;
        let (mut text, mut line) = (String::new(), String::new());
        loop {
            line.clear();
            if self.output.read_line(&mut line)? == 0 {
                return Ok(ScriptOutput { exit_code: None, text });
            }
            let shown = line.trim_end();
            if let Some(code) = shown.strip_prefix("end: ") {
                return Ok(ScriptOutput { exit_code: code.parse().ok(), text });
            }
            match shown.strip_prefix("step: ") {
                Some(step) => progress.step(step),
                None => writeln!(text, "{shown}")?,
            }
        }
    }
}

struct ScriptOutput {
    /// `None` if a signal ended the script.
    exit_code: Option<i32>,
    /// Standard output without the steps, followed by standard error.
    text: String,
}

impl ScriptOutput {
    /// Whether the script came to a result, even if that is the author's mistake.
    fn is_complete(&self) -> bool {
        matches!(self.exit_code, Some(0 | EXIT_AUTHOR))
    }
}

fn run(command: &mut Command, progress: &mut Progress) -> anyhow::Result<ScriptOutput> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().context("the program cannot be run")?;
    let mut stderr = child.stderr.take().context("the script has no standard error")?;
    let stdout = child.stdout.take().context("the script has no standard output")?;
    // Both outputs are read in parallel: a script blocks if one of its pipes is full.
    let errors = std::thread::spawn(move || {
        let mut bytes = vec![];
        let _ = stderr.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    });
    let mut text = String::new();
    for line in BufReader::new(stdout).split(b'\n') {
        let line = line?;
        let line = String::from_utf8_lossy(&line);
        match line.trim_end().strip_prefix("step: ") {
            Some(step) => progress.step(step),
            None => match line.trim_end().strip_prefix("note: ") {
                Some(note) => progress.note(note),
                None => writeln!(text, "{line}")?,
            },
        }
    }
    let status = child.wait()?;
    text.push_str(&errors.join().unwrap_or_default());
    Ok(ScriptOutput { exit_code: status.code(), text })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter_toml;

    /// The result of a build with this shell script.
    fn outcome(text: &str) -> anyhow::Result<Result<Vec<u8>, BuildError>> {
        let work = tempfile::tempdir()?;
        let script = work.path().join("build.sh");
        std::fs::write(&script, text)?;
        let manifest =
            filter_toml::parse("name = \"a\"\nversion = \"1.0.0\"\n[request]", "f").map_err(anyhow::Error::msg)?;
        let job = Job {
            source: work.path(),
            manifest: &manifest,
            wit: work.path(),
            work: work.path(),
            optimize: true,
            keeps_tools: false,
        };
        Ok(build("sh".as_ref(), &script, &job, &mut Progress::new("test", true)))
    }

    #[test]
    fn the_component_is_the_file_of_the_script() -> anyhow::Result<()> {
        let text = "echo 'step: one'; while [ $# -gt 0 ]; do [ $1 = --out ] && printf wasm > $2; shift; done";
        assert_eq!(outcome(text)?.ok(), Some(b"wasm".to_vec()));
        Ok(())
    }

    #[test]
    fn a_mistake_of_the_author_is_shown_unchanged() -> anyhow::Result<()> {
        let failure = outcome("echo 'step: tsc'; echo 'src/filter.ts(3,5): error TS2322: no' >&2; exit 2")?.err();
        assert!(matches!(&failure, Some(BuildError::Author(text)) if text == "src/filter.ts(3,5): error TS2322: no\n"));
        Ok(())
    }

    #[test]
    fn the_error_of_a_failed_script_has_its_output() -> anyhow::Result<()> {
        for (text, expected) in [
            ("echo no disk >&2; exit 1", "ended with exit code 1\nno disk"),
            ("kill -9 $$", "ended with a signal"),
            ("true", "wrote no "),
        ] {
            let failure = outcome(text)?.err().map(|failure| failure.to_string()).unwrap_or_default();
            assert!(failure.contains(expected), "{expected} not in {failure}");
        }
        Ok(())
    }
}
