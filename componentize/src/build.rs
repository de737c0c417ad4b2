//! One filter from source to `NAME.wasm`: manifest → is it unchanged? → WIT → the language's tools → check → manifest section → in place.
//!
//! A filter that fails leaves the .wasm of the last success where it is. Must not know: how a language is compiled.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::check::check;
use crate::language::{Failure, Job, Language};
use crate::manifest::Manifest;
use crate::progress::Progress;
use crate::{setup, world};

/// Folders that tools make inside a source.
const NOT_SOURCE: [&str; 8] =
    ["node_modules", "target", ".venv", "__pycache__", ".mypy_cache", ".pytest_cache", "dist", ".git"];

/// Builds one filter and says how it went; false where it failed.
pub(crate) fn build(source: &Path, out_dir: Option<&Path>, force: bool) -> bool {
    let shown = source.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    let Some(language) = Language::of(source) else {
        Progress::new(&shown).failed(&format!(
            "{}: no source: there is neither src/filter.ts nor filter.py nor Cargo.toml",
            source.display()
        ));
        return false;
    };
    let mut progress = Progress::new(&format!("{}/{shown}", language.name()));
    match steps(source, language, out_dir, force, &mut progress) {
        Ok(Some(size)) => progress.done(&format!("{} KiB", size >> 10)),
        Ok(None) => progress.unchanged(),
        Err(Failure::Author(said)) => {
            progress.failed(&said);
            return false;
        }
        Err(Failure::Tool(error)) => {
            progress.failed(&format!("{error:#}"));
            return false;
        }
    }
    true
}

/// The size of the new component; none where nothing had changed.
fn steps(
    source: &Path,
    language: Language,
    out_dir: Option<&Path>,
    force: bool,
    progress: &mut Progress,
) -> Result<Option<usize>, Failure> {
    let source = source.canonicalize().with_context(|| format!("{}", source.display()))?;
    let manifest = Manifest::read(&source.join("filter.toml")).map_err(Failure::Author)?;
    let out_dir = out_dir.map_or_else(|| default_out_dir(&source, language), Path::to_owned);
    fs::create_dir_all(&out_dir).with_context(|| format!("{}", out_dir.display()))?;
    let out = out_dir.join(format!("{}.wasm", manifest.name));
    let stamp = out_dir.join(format!(".{}.stamp", manifest.name));
    let digest = digest(&source, language)?;
    if !force && out.exists() && fs::read_to_string(&stamp).ok().as_deref() == Some(digest.as_str()) {
        return Ok(None);
    }
    let work = out_dir.join(".work").join(&manifest.name);
    let wit = work.join("wit");
    world::write(&manifest, &wit)?;
    let component = language.build(&Job { source: &source, manifest: &manifest, wit: &wit, work: &work }, progress)?;
    progress.step("check");
    check(&component, &manifest).map_err(|error| Failure::Author(format!("{}: {error}", source.display())))?;
    let component = manifest.embed(component)?;
    // The gateway may be watching: it must never see half a file.
    let mut file = tempfile::Builder::new().prefix(".").suffix(".tmp").tempfile_in(&out_dir)?;
    std::io::Write::write_all(&mut file, &component)?;
    let readable = <fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o644);
    file.as_file().set_permissions(readable)?;
    file.persist(&out)?;
    fs::write(stamp, digest)?;
    Ok(Some(component.len()))
}

/// `guests/typescript/NAME` → `guests/dist/typescript`.
fn default_out_dir(source: &Path, language: Language) -> PathBuf {
    let guests = source.parent().and_then(Path::parent).unwrap_or(source);
    guests.join("dist").join(language.name())
}

/// Names everything that the result depends on: sources, SDK, WIT, tools, this program.
fn digest(source: &Path, language: Language) -> Result<String> {
    let mut hasher = blake3::Hasher::new();
    hasher.update(env!("CARGO_PKG_VERSION").as_bytes());
    for (name, text) in world::PACKAGE {
        hasher.update(name.as_bytes());
        hasher.update(text.as_bytes());
    }
    let home = setup::home();
    feed(source, &mut hasher)?;
    feed(&home.join("../guests/sdk").join(language.name()), &mut hasher)?;
    if language == Language::Rust {
        // The workspace of the Rust guests has the profile and the lock file.
        for file in ["../Cargo.toml", "../Cargo.lock"] {
            hasher.update(&fs::read(source.join(file)).unwrap_or_default());
        }
    } else {
        feed(&home.join(language.name()), &mut hasher)?;
    }
    Ok(hasher.finalize().to_hex().to_string())
}

/// Adds a folder's files, in the order of their names.
fn feed(folder: &Path, hasher: &mut blake3::Hasher) -> Result<()> {
    let Ok(entries) = fs::read_dir(folder) else { return Ok(()) };
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?;
    paths.sort();
    for path in paths {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if NOT_SOURCE.contains(&name.as_str()) {
            continue;
        }
        hasher.update(name.as_bytes());
        if path.is_dir() {
            feed(&path, hasher)?;
        } else {
            let bytes = fs::read(&path).with_context(|| format!("{}", path.display()))?;
            hasher.update(&(bytes.len() as u64).to_le_bytes());
            hasher.update(&bytes);
        }
    }
    Ok(())
}
