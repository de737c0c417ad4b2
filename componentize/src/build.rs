//! Builds one filter, from its source to `NAME.wasm`.
//!
//! The steps: fingerprint → WIT → the language's tools → check → optimize → sections of manifest
//! and examples → rename into place. What the tools made is kept, so a change of the examples alone
//! needs no tools. A build that fails leaves the .wasm of the last success in place.
//! This module does not know: how a language is compiled.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use witgate_manifest::{EXAMPLES_SECTION, Example, Manifest, SECTION, examples_to_section};

use crate::check::check;
use crate::examples::read_examples;
use crate::fingerprint::{fingerprint, of_inputs};
use crate::optimize::optimize;
use crate::progress::Progress;
use crate::project::Project;
use crate::toolchain;
use crate::toolchain::language::{BuildError, Job, Language};
use crate::wit;

/// The link to the SDK in a filter's folder.
pub(crate) const SDK_LINK: &str = ".witgate";

/// How filters are built.
#[derive(Debug, Clone, Copy)]
pub struct BuildOptions<'a> {
    /// Build even a filter that is unchanged.
    pub force: bool,
    /// Merge the core modules into one and optimize it.
    pub optimize: bool,
    /// The state directory of a gateway. Its cache receives the compiled component.
    pub precompile: Option<&'a Path>,
    /// Report each step, and not only failures.
    pub progress: bool,
    /// Keep the process of the tools for the next build of the same filter.
    pub keep_tools: bool,
}

/// The result of a successful build.
pub(crate) enum Outcome {
    /// A new component of this size.
    Built { bytes: usize },
    /// The present component was made from the same sources, tools and WIT.
    Unchanged,
}

/// Builds `project` unless nothing changed since the last success.
pub(crate) fn build(
    project: &Project,
    options: BuildOptions<'_>,
    progress: &mut Progress,
) -> Result<Outcome, BuildError> {
    let manifest = &project.manifest;
    let work = project.out_dir.join(".work").join(&manifest.name);
    fs::create_dir_all(&work).with_context(|| format!("{}", work.display()))?;
    // Two builds of one filter write to the same folder. The second waits for the lock and then
    // finds the filter unchanged.
    let lock = File::create(work.join("lock"))?;
    lock.lock()?;
    link_sdk(project)?;
    let examples = read_examples(&project.source).map_err(BuildError::Author)?;
    // The fingerprint is taken before the tools read the source, so an edit during the build is
    // noticed by the next build.
    let inputs = format!("{} {}", fingerprint(&project.source, project.language)?, options.optimize);
    let with_packages = |inputs: &str| format!("{inputs} {}", of_inputs(&work));
    let kept = Kept { component: work.join("component.wasm"), stamp: work.join("stamp") };
    let component = match kept.read(&with_packages(&inputs)).filter(|_| !options.force) {
        Some(component) => component,
        None => {
            let component = run_tools(project, options, &work, progress)?;
            kept.write(&with_packages(&inputs), &component)?;
            component
        }
    };
    let component = embed(manifest, &examples, component).map_err(|error| {
        BuildError::Author(format!("{}: {error:#}", project.source.join(crate::examples::FOLDER).display()))
    })?;
    if !options.force && fs::read(project.output()).is_ok_and(|present| present == component) {
        return Ok(Outcome::Unchanged);
    }
    install(project, &component, options.precompile, progress)?;
    Ok(Outcome::Built { bytes: component.len() })
}

/// The checked and optimized component, without a manifest.
fn run_tools(
    project: &Project,
    options: BuildOptions<'_>,
    work: &Path,
    progress: &mut Progress,
) -> Result<Vec<u8>, BuildError> {
    let manifest = &project.manifest;
    let wit = work.join("wit");
    wit::write(manifest, &wit)?;
    let job = Job {
        source: &project.source,
        manifest,
        wit: &wit,
        work,
        optimize: options.optimize,
        keeps_tools: options.keep_tools && project.language == Language::TypeScript,
    };
    let component = toolchain::build(project.language, &job, progress)?;
    progress.step("check");
    check(&component, manifest)
        .map_err(|error| BuildError::Author(format!("{}: {error:#}", project.source.display())))?;
    Ok(if options.optimize { optimized(component, manifest, &wit, progress) } else { component })
}

/// Makes the SDK visible in the filter's folder as `.witgate`, for editors and for cargo. Within
/// this repository, filters name the SDK's folder themselves.
fn link_sdk(project: &Project) -> Result<()> {
    let Some(files) = toolchain::folders::unpacked() else { return Ok(()) };
    let link = project.source.join(SDK_LINK);
    if fs::read_link(&link).is_ok_and(|target| target == files) {
        return Ok(());
    }
    if fs::symlink_metadata(&link).is_ok_and(|metadata| !metadata.is_symlink()) {
        anyhow::bail!("{}: this name is used for a link to the SDK: rename what is there", link.display());
    }
    let _ = fs::remove_file(&link);
    // A source folder may be read-only. Then only Rust needs the link, and cargo says so.
    let _ = std::os::unix::fs::symlink(files, &link);
    Ok(())
}

/// The optimized component, or `component` with a note if it cannot be optimized.
///
/// The result is checked again, so that the checked bytes are the ones that go live.
fn optimized(component: Vec<u8>, manifest: &Manifest, wit: &Path, progress: &mut Progress) -> Vec<u8> {
    progress.step("optimize");
    let optimized = optimize(&component, wit, wit::WORLD);
    match optimized.and_then(|optimized| check(&optimized.component, manifest).map(|()| optimized)) {
        Ok(optimized) => {
            if let Err(error) = optimized.immortal_objects {
                progress.note(&format!("calls cost more, because objects stay reference-counted: {error:#}"));
            }
            optimized.component
        }
        Err(error) => {
            progress.note(&format!("not optimized, so it is slower to instantiate: {error:#}"));
            component
        }
    }
}

/// `component` with the manifest and the examples as custom sections at its end.
fn embed(manifest: &Manifest, examples: &[Example], mut component: Vec<u8>) -> Result<Vec<u8>> {
    use wasm_encoder::{ComponentSection as _, CustomSection};
    let json = manifest.to_section()?;
    CustomSection { name: SECTION.into(), data: json.into() }.append_to_component(&mut component);
    if !examples.is_empty() {
        let json = examples_to_section(examples)?;
        CustomSection { name: EXAMPLES_SECTION.into(), data: json.into() }.append_to_component(&mut component);
    }
    Ok(component)
}

/// What the tools made, and from which inputs.
struct Kept {
    component: PathBuf,
    stamp: PathBuf,
}

impl Kept {
    /// The component if it was made from `inputs` and has not been changed since.
    fn read(&self, inputs: &str) -> Option<Vec<u8>> {
        let (component, stamp) = (fs::read(&self.component).ok()?, fs::read_to_string(&self.stamp).ok()?);
        (stamp == stamp_text(inputs, &component)).then_some(component)
    }

    fn write(&self, inputs: &str, component: &[u8]) -> Result<()> {
        fs::write(&self.component, component).with_context(|| format!("{}", self.component.display()))?;
        fs::write(&self.stamp, stamp_text(inputs, component)).with_context(|| format!("{}", self.stamp.display()))
    }
}

/// Writes a temporary file and renames it, so that a gateway that watches the folder never reads a
/// partial file. Precompiling comes before the rename: the gateway then finds the component in its
/// cache.
fn install(project: &Project, component: &[u8], precompile: Option<&Path>, progress: &mut Progress) -> Result<()> {
    let mut file = tempfile::Builder::new().prefix(".").suffix(".tmp").tempfile_in(&project.out_dir)?;
    file.write_all(component)?;
    file.as_file().set_permissions(fs::Permissions::from_mode(0o644))?;
    if let Some(state) = precompile.filter(|state| state.is_dir()) {
        progress.step("precompile");
        if let Err(error) = precompile_component(file.path(), state) {
            progress.note(&format!("not precompiled, so the gateway will compile it: {error:#}"));
        }
    }
    let output = project.output();
    file.persist(&output).with_context(|| format!("{}", output.display()))?;
    Ok(())
}

/// Compiles the component with the gateway's binary, which is in the same folder as this program.
fn precompile_component(component: &Path, state: &Path) -> Result<()> {
    let gateway = std::env::current_exe()?.with_file_name("witgate");
    let mut command = Command::new(&gateway);
    let output = command.arg("precompile").arg("--state").arg(state).arg(component).output();
    let output = output.with_context(|| format!("{}", gateway.display()))?;
    anyhow::ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}

fn stamp_text(inputs: &str, component: &[u8]) -> String {
    format!("{inputs} {}\n", blake3::hash(component).to_hex())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter_toml;
    use crate::project::OutDir;

    #[test]
    fn what_the_tools_made_is_kept_until_its_inputs_or_the_file_change() -> Result<()> {
        let work = tempfile::tempdir()?;
        let kept = Kept { component: work.path().join("component.wasm"), stamp: work.path().join("stamp") };
        assert_eq!(kept.read("inputs"), None);
        kept.write("inputs", b"component")?;
        assert_eq!((kept.read("inputs"), kept.read("others")), (Some(b"component".to_vec()), None));
        fs::write(&kept.component, "another")?;
        assert_eq!(kept.read("inputs"), None);
        Ok(())
    }

    #[test]
    fn a_component_is_put_in_place_with_a_rename() -> Result<()> {
        let root = tempfile::tempdir()?;
        let source = root.path().join("python/a");
        fs::create_dir_all(&source)?;
        fs::write(source.join("filter.py"), "")?;
        fs::write(source.join("filter.toml"), "name = \"b\"\nversion = \"1.0.0\"\n[request]\n")?;
        let read = |out_dir| Project::read(&source, out_dir).map_err(|error| anyhow::anyhow!("{error}"));
        let inside = read(OutDir::InSource)?;
        assert_eq!(inside.output(), source.canonicalize()?.join("dist/b.wasm"));
        let project = read(OutDir::BesideLanguage)?;
        assert_eq!(
            (project.title().as_str(), project.output().strip_prefix(root.path().canonicalize()?)?),
            ("python/b", Path::new("dist/python/b.wasm"))
        );
        fs::create_dir_all(&project.out_dir)?;
        for content in [b"component".as_slice(), b"another"] {
            install(&project, content, None, &mut Progress::new("a", true))?;
            assert_eq!(fs::read(project.output())?, content);
        }
        assert_eq!(fs::read_dir(&project.out_dir)?.count(), 1, "no temporary file stays");
        Ok(())
    }

    #[test]
    fn the_manifest_is_the_content_of_the_section() -> Result<()> {
        let text = "name = \"a\"\nversion = \"1.0.0\"\n[request]\nbody = \"buffer\"\n\
            [config.limit]\ntype = \"integer\"\ndefault = 100\n";
        let manifest = filter_toml::parse(text, "f").map_err(anyhow::Error::msg)?;
        let component = embed(&manifest, &[], b"\0asm\x0d\0\x01\0".to_vec())?;
        let mut found = None;
        for payload in wasmparser::Parser::new(0).parse_all(&component) {
            if let wasmparser::Payload::CustomSection(section) = payload? {
                found = Some((section.name().to_owned(), serde_json::from_slice(section.data())?));
                assert_eq!(Manifest::from_section(section.data())?, manifest);
            }
        }
        let expected = serde_json::json!({
            "name": "a", "version": "1.0.0", "description": "", "services": [],
            "request": {"body": "buffer", "body_bytes_max": 1_048_576},
            "config": {"limit": {"type": "integer", "default": 100}},
        });
        assert_eq!(found, Some((SECTION.to_owned(), expected)));
        Ok(())
    }
}
