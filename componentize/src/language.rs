//! What each language's tools are told: source and WIT in, a component without manifest out.
//!
//! TypeScript and Python have a script beside their lock files; Rust needs cargo and an encoder. An author's mistake comes back as [`Failure::Author`], in
//! the words of the tool that found it. Must not know: manifests' content beyond phases and services.

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};

use crate::manifest::Manifest;
use crate::progress::Progress;
use crate::setup;
use crate::world::WORLD;

/// The exit code by which a language's script says that the author's source is at fault.
const AUTHOR: i32 = 2;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Language {
    TypeScript,
    Python,
    Rust,
}

/// Why there is no component.
pub(crate) enum Failure {
    /// The author's source: shown as it is.
    Author(String),
    /// Anything else.
    Tool(anyhow::Error),
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Tool(error.into())
    }
}

/// Where things are for one build.
pub(crate) struct Job<'a> {
    pub(crate) source: &'a Path,
    pub(crate) manifest: &'a Manifest,
    pub(crate) wit: &'a Path,
    pub(crate) work: &'a Path,
}

impl Language {
    /// The language of a source folder, by the file that only it has.
    pub(crate) fn of(source: &Path) -> Option<Self> {
        let has = |file: &str| source.join(file).exists();
        match (has("Cargo.toml"), has("filter.py"), has("src/filter.ts")) {
            (true, _, _) => Some(Self::Rust),
            (_, true, _) => Some(Self::Python),
            (_, _, true) => Some(Self::TypeScript),
            _ => None,
        }
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::TypeScript => "typescript",
            Self::Python => "python",
            Self::Rust => "rust",
        }
    }

    /// Runs the language's tools.
    pub(crate) fn build(self, job: &Job, progress: &mut Progress) -> Result<Vec<u8>, Failure> {
        match self {
            Self::TypeScript => {
                setup::typescript()?;
                script(OsStr::new("node"), &setup::tools("typescript").join("build.mjs"), job, progress)
            }
            Self::Python => {
                setup::python()?;
                let tools = setup::tools("python");
                script(tools.join(".venv/bin/python").as_os_str(), &tools.join("build.py"), job, progress)
            }
            Self::Rust => rust(job, progress),
        }
    }
}

/// A language's script: it prints `step: NAME` for each step; exit code 2 is the author's mistake.
fn script(program: &OsStr, script: &Path, job: &Job, progress: &mut Progress) -> Result<Vec<u8>, Failure> {
    let out = job.work.join("raw.wasm");
    let mut child = Command::new(program)
        .arg(script)
        .args(["--world", WORLD, "--phases", &job.manifest.phases(), "--services", &job.manifest.services.join(",")])
        .arg("--source")
        .arg(job.source)
        .arg("--wit")
        .arg(job.wit)
        .arg("--work")
        .arg(job.work)
        .arg("--out")
        .arg(&out)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("{} cannot be run", program.display()))?;
    // Read beside standard output, or a tool that says much would wait for ever.
    let mut stderr = child.stderr.take().context("no standard error")?;
    let said = std::thread::spawn(move || {
        let mut text = String::new();
        let _ = stderr.read_to_string(&mut text);
        text
    });
    let mut other = String::new();
    for line in BufReader::new(child.stdout.take().context("no standard output")?).lines() {
        let line = line?;
        match line.strip_prefix("step: ") {
            Some(step) => progress.step(step),
            None => other.push_str(&format!("{line}\n")),
        }
    }
    let status = child.wait()?;
    let said = said.join().unwrap_or_default();
    match status.code() {
        Some(0) => Ok(std::fs::read(&out)?),
        Some(AUTHOR) => Err(Failure::Author(format!("{other}{said}"))),
        _ => Err(Failure::Tool(anyhow::anyhow!("{}: {status}\n{other}{said}", script.display()))),
    }
}

fn rust(job: &Job, progress: &mut Progress) -> Result<Vec<u8>, Failure> {
    progress.step("target");
    let toolchain = wasm_toolchain()?;
    progress.step("cargo");
    let target = job.work.parent().unwrap_or(job.work).join("cargo");
    let mut cargo = Command::new("cargo");
    cargo
        .args([
            "build",
            "--release",
            "--quiet",
            "--target",
            "wasm32-unknown-unknown",
            "--message-format",
            "json-render-diagnostics",
            "--target-dir",
        ])
        .arg(&target)
        .args(&toolchain.arguments)
        .envs(toolchain.environment)
        .current_dir(job.source)
        .stdin(Stdio::null());
    let output = cargo.output().context("cargo cannot be run: install Rust")?;
    if !output.status.success() {
        return Err(Failure::Author(String::from_utf8_lossy(&output.stderr).into_owned()));
    }
    let module = artifact(&output.stdout, job.source)
        .context("cargo built no .wasm: set `crate-type = [\"cdylib\"]` under [lib] in Cargo.toml")?;
    progress.step("component");
    let module = std::fs::read(module)?;
    Ok(wit_component::ComponentEncoder::default().validate(true).module(&module)?.encode()?)
}

/// The .wasm that cargo's messages name for the package in `source`.
fn artifact(messages: &[u8], source: &Path) -> Option<PathBuf> {
    let manifest = source.canonicalize().ok()?.join("Cargo.toml");
    let messages = String::from_utf8_lossy(messages);
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|message| message["manifest_path"].as_str().is_some_and(|path| Path::new(path) == manifest))
        .filter_map(|message| message["filenames"].as_array().cloned())
        .flatten()
        .filter_map(|file| file.as_str().map(PathBuf::from))
        .find(|file| file.extension() == Some(OsStr::new("wasm")))
}

/// What cargo needs to compile for wasm32-unknown-unknown.
#[derive(Default)]
struct Toolchain {
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
}

/// rustup's own target, added where it is missing.
fn wasm_toolchain() -> Result<Toolchain> {
    const TARGET: &str = "wasm32-unknown-unknown";
    let sysroot =
        Command::new("rustc").args(["--print", "sysroot"]).output().context("rustc cannot be run: install Rust")?;
    let sysroot = PathBuf::from(String::from_utf8_lossy(&sysroot.stdout).trim());
    if sysroot.join("lib/rustlib").join(TARGET).join("lib").is_dir() {
        return Ok(Toolchain::default());
    }
    crate::progress::once("adding the wasm target (rustup target add)");
    match setup::run(Command::new("rustup").args(["target", "add", TARGET]), "is the toolchain from rustup?") {
        Ok(()) => Ok(Toolchain::default()),
        Err(rustup) => debian_toolchain().with_context(|| format!("rustup: {rustup:#}; Debian's packages")),
    }
}

/// Where rustup cannot reach its server: Debian's compiler and library source, unpacked without root; the library is built with the filter.
fn debian_toolchain() -> Result<Toolchain> {
    const PACKAGES: [&str; 4] = ["rustc-web", "rust-web-src", "libstd-rust-web-dev", "libllvm22"];
    let folder = setup::home().join("rust-web");
    let root = folder.join("usr");
    if !root.join("bin/rustc").exists() {
        crate::progress::once("unpacking Debian's Rust for the wasm target (apt-get download)");
        std::fs::create_dir_all(&folder)?;
        let versioned =
            Command::new("apt-cache").args(["depends", "rustc-web"]).output().context("apt-cache cannot be run")?;
        let versioned = String::from_utf8_lossy(&versioned.stdout).into_owned();
        let library = versioned.split_whitespace().find(|word| word.starts_with("libstd-rust-web-1"));
        let packages = PACKAGES.iter().copied().chain(library);
        setup::run(
            Command::new("apt-get").arg("download").args(packages).current_dir(&folder),
            "run apt-get update first",
        )?;
        for entry in std::fs::read_dir(&folder)? {
            let path = entry?.path();
            if path.extension() == Some(OsStr::new("deb")) {
                setup::run(Command::new("dpkg").arg("-x").arg(&path).arg(&folder), "is the disk full?")?;
            }
        }
    }
    let sysroot = Command::new("rustc").args(["--print", "sysroot"]).output()?;
    let linker = format!(
        "{}/lib/rustlib/x86_64-unknown-linux-gnu/bin/rust-lld",
        String::from_utf8_lossy(&sysroot.stdout).trim()
    );
    let shown = |path: PathBuf| path.display().to_string();
    Ok(Toolchain {
        arguments: vec!["-Zbuild-std=std,panic_abort".into()],
        environment: vec![
            ("RUSTC".into(), shown(root.join("bin/rustc"))),
            ("RUSTC_BOOTSTRAP".into(), "1".into()),
            ("LD_LIBRARY_PATH".into(), shown(root.join("lib/x86_64-linux-gnu"))),
            ("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER".into(), linker),
        ],
    })
}
