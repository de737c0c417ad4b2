//! Runs the script of TypeScript or Python.
//!
//! The contract: `PROGRAM SCRIPT --source DIR --wit DIR --world filter --phases request,response --services keyvalue --out FILE --work DIR`.
//! The script writes a component to FILE and prints `step: NAME` on standard output as each step begins. Exit code 2 says that the author's
//! source is at fault: what stands on standard error is then shown as it is. Must not know: what the scripts do.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, anyhow};

use crate::language::{Failure, Job};
use crate::progress::Progress;
use crate::world::WORLD;

/// The exit code by which a script says that the author's source is at fault.
const AUTHOR: i32 = 2;

/// The component that `script` makes.
pub(crate) fn build(program: &OsStr, script: &Path, job: &Job, progress: &mut Progress) -> Result<Vec<u8>, Failure> {
    let out = job.work.join("raw.wasm");
    // A script that forgets to write must not pass with the last run's file.
    let _ = std::fs::remove_file(&out);
    let mut command = Command::new(program);
    command.arg(script);
    for (option, path) in [("--source", job.source), ("--wit", job.wit), ("--work", job.work), ("--out", &out)] {
        command.arg(option).arg(path);
    }
    command.args(["--world", WORLD, "--phases", &job.manifest.phases()]);
    command.args(["--services", &job.manifest.services.join(",")]);
    let said = run(&mut command, progress).with_context(|| format!("{}", program.display()))?;
    match said.code {
        Some(0) => Ok(std::fs::read(&out).with_context(|| format!("{} wrote no {}", script.display(), out.display()))?),
        Some(AUTHOR) => Err(Failure::Author(said.text)),
        code => {
            let code = code.map_or_else(|| "a signal".to_owned(), |code| format!("exit code {code}"));
            Err(Failure::Tool(anyhow!("{} ended with {code}\n{}", script.display(), said.text.trim_end())))
        }
    }
}

struct Said {
    /// None where a signal ended it.
    code: Option<i32>,
    /// Standard output without the steps, then standard error.
    text: String,
}

fn run(command: &mut Command, progress: &mut Progress) -> anyhow::Result<Said> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().context("cannot be run")?;
    let mut stderr = child.stderr.take().context("no standard error")?;
    let stdout = child.stdout.take().context("no standard output")?;
    // Read beside standard output, or a tool that says much would wait for ever.
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
            None => writeln!(text, "{line}")?,
        }
    }
    let status = child.wait()?;
    text.push_str(&errors.join().unwrap_or_default());
    Ok(Said { code: status.code(), text })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::Manifest;

    /// What becomes of a shell script in the place of a language's.
    fn outcome(text: &str) -> anyhow::Result<Result<Vec<u8>, Failure>> {
        let work = tempfile::tempdir()?;
        let script = work.path().join("build.sh");
        std::fs::write(&script, text)?;
        let manifest =
            Manifest::parse("name = \"a\"\nversion = \"1.0.0\"\n[request]", "f").map_err(anyhow::Error::msg)?;
        let job = Job { source: work.path(), manifest: &manifest, wit: work.path(), work: work.path() };
        Ok(build("sh".as_ref(), &script, &job, &mut Progress::new("test")))
    }

    #[test]
    fn the_component_is_what_the_script_wrote() -> anyhow::Result<()> {
        let text = "echo 'step: one'; while [ $# -gt 0 ]; do [ $1 = --out ] && printf wasm > $2; shift; done";
        assert_eq!(outcome(text)?.ok(), Some(b"wasm".to_vec()));
        Ok(())
    }

    #[test]
    fn an_authors_mistake_is_shown_as_it_was_said() -> anyhow::Result<()> {
        let failure = outcome("echo 'step: tsc'; echo 'src/filter.ts(3,5): error TS2322: no' >&2; exit 2")?.err();
        assert!(matches!(&failure, Some(Failure::Author(said)) if said == "src/filter.ts(3,5): error TS2322: no\n"));
        Ok(())
    }

    #[test]
    fn a_tool_that_fails_is_named_with_what_it_said() -> anyhow::Result<()> {
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
