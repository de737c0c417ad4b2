//! Many filters at once: finds them, builds the languages side by side, says how it went.
//!
//! A filter that cannot be built does not keep the others from being built. Must not know: what a build does.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, Result, bail};

use crate::build::{Filter, How, Outcome};
use crate::language::{Failure, Language};
use crate::progress::{self, Progress};

/// How far below a named folder a filter.toml is looked for: `guests/` → `LANGUAGE/` → `NAME/`, and one more.
const DEPTH_MAX: usize = 3;

/// The folders with a filter.toml in or below `folders`, sorted. An error where one of them has none.
pub(crate) fn find(folders: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut found = vec![];
    for folder in folders {
        let before = found.len();
        search(folder, 0, &mut found).with_context(|| format!("{}", folder.display()))?;
        if found.len() == before {
            bail!("{}: no filter.toml in it or below: name a filter's folder", folder.display());
        }
    }
    found.sort();
    found.dedup();
    Ok(found)
}

fn search(folder: &Path, depth: usize, found: &mut Vec<PathBuf>) -> Result<()> {
    if folder.join("filter.toml").exists() {
        found.push(folder.canonicalize()?);
        return Ok(());
    }
    if depth == DEPTH_MAX {
        return Ok(());
    }
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() && !name.starts_with('.') && !["node_modules", "target", "dist"].contains(&name.as_str()) {
            search(&path, depth + 1, found)?;
        }
    }
    Ok(())
}

/// Builds the filters in `sources`; false where one failed.
pub(crate) fn build(sources: &[PathBuf], out_dir: Option<&Path>, how: How<'_>) -> Result<bool> {
    let began = Instant::now();
    let mut count = Count::default();
    let mut filters: Vec<Filter> = vec![];
    for source in sources {
        let read = Filter::read(source, out_dir).and_then(|filter| {
            match filters.iter().find(|other| other.out() == filter.out()) {
                Some(other) => Err(Failure::Author(format!(
                    "{}: name: {:?} is taken by {}: both would be written to {}",
                    filter.source.join("filter.toml").display(),
                    filter.manifest.name,
                    other.source.display(),
                    filter.out().display()
                ))),
                None => Ok(filter),
            }
        });
        match read {
            Ok(filter) => filters.push(filter),
            Err(failure) => count.add(Progress::new(&shown(source)), Err(failure)),
        }
    }
    // The tools of two languages share nothing; two builds of one language would write the same generated types and caches.
    let mut by_language: BTreeMap<Language, Vec<Filter>> = BTreeMap::new();
    for filter in filters {
        by_language.entry(filter.language).or_default().push(filter);
    }
    std::thread::scope(|scope| {
        let threads: Vec<_> =
            by_language.into_values().map(|filters| scope.spawn(move || build_in_order(&filters, how))).collect();
        for thread in threads {
            // Only a bug panics; the panic's own message has been printed.
            count.join(thread.join().unwrap_or(Count { failed: 1, ..Count::default() }));
        }
    });
    if sources.len() > 1 {
        progress::total(count.built, count.unchanged, count.failed, began.elapsed());
    }
    Ok(count.failed == 0)
}

fn build_in_order(filters: &[Filter], how: How<'_>) -> Count {
    let mut count = Count::default();
    for filter in filters {
        let mut progress = Progress::new(&filter.title());
        let outcome = filter.build(how, &mut progress);
        count.add(progress, outcome);
    }
    count
}

/// A filter's name before its manifest is read.
fn shown(source: &Path) -> String {
    let folder = source.file_name().unwrap_or_default().to_string_lossy();
    Language::of(source).map_or_else(|| folder.to_string(), |language| format!("{}/{folder}", language.name()))
}

#[derive(Default)]
struct Count {
    built: usize,
    unchanged: usize,
    failed: usize,
}

impl Count {
    fn add(&mut self, progress: Progress, outcome: Result<Outcome, Failure>) {
        match outcome {
            Ok(Outcome::Built { bytes }) => {
                self.built += 1;
                progress.done(bytes);
            }
            Ok(Outcome::Unchanged) => {
                self.unchanged += 1;
                progress.unchanged();
            }
            Err(failure) => {
                self.failed += 1;
                progress.failed(&failure.to_string());
            }
        }
    }

    fn join(&mut self, other: Self) {
        self.built += other.built;
        self.unchanged += other.unchanged;
        self.failed += other.failed;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(root: &Path, path: &str, name: &str) -> Result<()> {
        let folder = root.join(path);
        std::fs::create_dir_all(&folder)?;
        std::fs::write(folder.join("filter.py"), "")?;
        std::fs::write(folder.join("filter.toml"), format!("name = \"{name}\"\nversion = \"1.0.0\"\n[request]\n"))?;
        Ok(())
    }

    #[test]
    fn filters_are_found_below_a_folder_but_not_in_what_tools_made() -> Result<()> {
        let root = tempfile::tempdir()?;
        for path in ["python/a", "python/b", "dist/python/c", "python/node_modules/d", ".git/e"] {
            filter(root.path(), path, "x")?;
        }
        let found = find(&[root.path().to_owned(), root.path().join("python/b")])?;
        let names: Vec<_> = found.iter().filter_map(|path| path.file_name()?.to_str()).collect();
        assert_eq!(names, ["a", "b"]);
        let error = find(&[root.path().join(".git/nothing")]).err().map(|error| format!("{error:#}"));
        assert!(error.is_some_and(|error| error.contains("nothing")));
        Ok(())
    }

    #[test]
    fn two_filters_of_one_name_do_not_overwrite_each_other() -> Result<()> {
        let root = tempfile::tempdir()?;
        filter(root.path(), "python/a", "x")?;
        filter(root.path(), "python/b", "x")?;
        let (a, b) = (root.path().join("python/a"), root.path().join("python/b"));
        let (a, b) = (Filter::read(&a, None), Filter::read(&b, None));
        assert_eq!(a.ok().map(|filter| filter.out()), b.ok().map(|filter| filter.out()));
        Ok(())
    }
}
