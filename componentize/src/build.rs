//! One filter from source to `NAME.wasm`: manifest → is it unchanged? → WIT → the language's tools → check → flatten → manifest section → in place.
//!
//! A filter that fails leaves the .wasm of the last success where it is. Must not know: how a language is compiled.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::check::check;
use crate::digest::digest;
use crate::flatten::flatten;
use crate::language::{Failure, Job, Language};
use crate::manifest::Manifest;
use crate::progress::Progress;
use crate::world;

/// How filters are built.
#[derive(Debug, Clone, Copy)]
pub(crate) struct How<'a> {
    /// Even what has not changed.
    pub(crate) force: bool,
    /// With the core modules merged into one.
    pub(crate) flatten: bool,
    /// A gateway's state directory: it then finds the component compiled.
    pub(crate) precompile: Option<&'a Path>,
}

/// A filter whose manifest has been read.
pub(crate) struct Filter {
    pub(crate) source: PathBuf,
    pub(crate) language: Language,
    pub(crate) manifest: Manifest,
    out_dir: PathBuf,
}

/// What a build did.
pub(crate) enum Outcome {
    /// A new component of this size.
    Built { bytes: usize },
    /// Nothing: the present one is made of the same sources, tools and WIT.
    Unchanged,
}

impl Filter {
    /// Reads the manifest in `source`. The component goes to `out_dir`, else to `dist/LANGUAGE` beside the language's folder:
    /// `guests/rust/api-key` → `guests/dist/rust`.
    pub(crate) fn read(source: &Path, out_dir: Option<&Path>) -> Result<Self, Failure> {
        let source = source.canonicalize().with_context(|| format!("{}", source.display()))?;
        let manifest = Manifest::read(&source.join("filter.toml")).map_err(Failure::Author)?;
        let language = Language::of(&source).ok_or_else(|| {
            Failure::Author(format!(
                "{}: no source: a filter has src/filter.ts, filter.py, or Cargo.toml with src/lib.rs",
                source.display()
            ))
        })?;
        let guests = source.ancestors().nth(2).unwrap_or(&source);
        let out_dir = out_dir.map_or_else(|| guests.join("dist").join(language.name()), Path::to_owned);
        // The tools run in folders of their own.
        let out_dir = std::path::absolute(out_dir)?;
        Ok(Self { source, language, manifest, out_dir })
    }

    /// `rust/api-key`.
    pub(crate) fn title(&self) -> String {
        format!("{}/{}", self.language.name(), self.manifest.name)
    }

    /// Where the component goes.
    pub(crate) fn out(&self) -> PathBuf {
        self.out_dir.join(format!("{}.wasm", self.manifest.name))
    }

    /// Builds it, unless nothing changed since the last success.
    pub(crate) fn build(&self, how: How<'_>, progress: &mut Progress) -> Result<Outcome, Failure> {
        let work = self.out_dir.join(".work").join(&self.manifest.name);
        fs::create_dir_all(&work).with_context(|| format!("{}", work.display()))?;
        // Two builds of one filter would write into the same folder: the second waits, and then finds it unchanged.
        let lock = File::create(work.join("lock"))?;
        lock.lock()?;
        // Before the tools read the source: what is edited meanwhile is built the next time.
        let inputs = format!("{} {}", digest(&self.source, self.language)?, how.flatten);
        let stamp = work.join("stamp");
        if !how.force && self.is_current(&stamp, &inputs) {
            return Ok(Outcome::Unchanged);
        }
        let wit = work.join("wit");
        world::write(&self.manifest, &wit)?;
        let job = Job { source: &self.source, manifest: &self.manifest, wit: &wit, work: &work };
        let component = self.language.build(&job, progress)?;
        progress.step("check");
        check(&component, &self.manifest)
            .map_err(|error| Failure::Author(format!("{}: {error:#}", self.source.display())))?;
        let component = if how.flatten { self.flat(component, &wit, progress) } else { component };
        let component = self.manifest.embed(component)?;
        self.put(&component, how.precompile, progress)?;
        fs::write(stamp, stamp_of(&inputs, &component))?;
        Ok(Outcome::Built { bytes: component.len() })
    }

    /// The component with one core module, checked again: what goes live is what was checked. As it was, with a word about why, where that
    /// cannot be done.
    fn flat(&self, component: Vec<u8>, wit: &Path, progress: &mut Progress) -> Vec<u8> {
        progress.step("flatten");
        let flat = flatten(&component, wit, world::WORLD);
        match flat.and_then(|flat| check(&flat.component, &self.manifest).map(|()| flat)) {
            Ok(flat) => {
                if let Err(why) = flat.pinned {
                    progress.note(&format!("objects of the image are counted, so a call costs more: {why:#}"));
                }
                flat.component
            }
            Err(why) => {
                progress.note(&format!("not flattened, so slower to instantiate: {why:#}"));
                component
            }
        }
    }

    /// Whether the component in place was made of `inputs`, and is still what was made.
    fn is_current(&self, stamp: &Path, inputs: &str) -> bool {
        let (Ok(component), Ok(stamp)) = (fs::read(self.out()), fs::read_to_string(stamp)) else { return false };
        stamp == stamp_of(inputs, &component)
    }

    /// By temporary file and rename: a gateway that watches the folder never sees half a file, and by then has it in its cache.
    fn put(&self, component: &[u8], precompile: Option<&Path>, progress: &mut Progress) -> Result<()> {
        let mut file = tempfile::Builder::new().prefix(".").suffix(".tmp").tempfile_in(&self.out_dir)?;
        file.write_all(component)?;
        file.as_file().set_permissions(fs::Permissions::from_mode(0o644))?;
        if let Some(state) = precompile.filter(|state| state.is_dir()) {
            progress.step("precompile");
            if let Err(why) = compile_ahead(file.path(), state) {
                progress.note(&format!("not compiled ahead, so the gateway does it: {why:#}"));
            }
        }
        file.persist(self.out()).with_context(|| format!("{}", self.out().display()))?;
        Ok(())
    }
}

/// By the gateway's binary, which is built beside this one.
fn compile_ahead(component: &Path, state: &Path) -> Result<()> {
    let gateway = std::env::current_exe()?.with_file_name("witgate");
    let mut command = Command::new(&gateway);
    let output = command.arg("precompile").arg("--state").arg(state).arg(component).output();
    let output = output.with_context(|| format!("{}", gateway.display()))?;
    anyhow::ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}

fn stamp_of(inputs: &str, component: &[u8]) -> String {
    format!("{inputs} {}\n", blake3::hash(component).to_hex())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_current_until_its_inputs_or_its_component_change() -> Result<()> {
        let root = tempfile::tempdir()?;
        let source = root.path().join("python/a");
        fs::create_dir_all(&source)?;
        fs::write(source.join("filter.py"), "")?;
        fs::write(source.join("filter.toml"), "name = \"b\"\nversion = \"1.0.0\"\n[request]\n")?;
        let filter = Filter::read(&source, None).map_err(|failure| anyhow::anyhow!("{failure}"))?;
        assert_eq!(
            (filter.title().as_str(), filter.out().strip_prefix(root.path().canonicalize()?)?),
            ("python/b", Path::new("dist/python/b.wasm"))
        );
        fs::create_dir_all(&filter.out_dir)?;
        let stamp = root.path().join("stamp");
        assert!(!filter.is_current(&stamp, "inputs"));
        filter.put(b"component", None, &mut Progress::new("a"))?;
        fs::write(&stamp, stamp_of("inputs", b"component"))?;
        assert!(filter.is_current(&stamp, "inputs"));
        assert!(!filter.is_current(&stamp, "others"));
        filter.put(b"another", None, &mut Progress::new("a"))?;
        assert!(!filter.is_current(&stamp, "inputs"));
        assert_eq!(fs::read_dir(&filter.out_dir)?.count(), 1, "no temporary file stays");
        Ok(())
    }
}
