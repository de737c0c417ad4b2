//! Builds many filters: the languages in parallel, the filters of one language in sequence.
//!
//! A filter that fails does not stop the others. This module does not know: the steps of a build.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Result;

use crate::build::{self, BuildOptions, Outcome};
use crate::progress::{self, Progress};
use crate::project::Project;
use crate::toolchain::language::{BuildError, Language};

/// Builds the filters in the folders `sources` and reports each on standard error.
///
/// Returns false if a filter failed. `out_dir` replaces the default `dist/LANGUAGE` beside the
/// language's folder.
pub fn build_all(sources: &[PathBuf], out_dir: Option<&Path>, options: BuildOptions<'_>) -> bool {
    let started = Instant::now();
    let mut count = Count::default();
    let projects = read_projects(sources, out_dir, &mut count);
    // Two languages share no tools, so they build in parallel. Two builds of one language would
    // write the same generated types and caches.
    let mut by_language: BTreeMap<Language, Vec<Project>> = BTreeMap::new();
    for project in projects {
        by_language.entry(project.language).or_default().push(project);
    }
    std::thread::scope(|scope| {
        let threads: Vec<_> =
            by_language.into_values().map(|projects| scope.spawn(move || build_in_order(&projects, options))).collect();
        for thread in threads {
            // A thread panics only because of a bug. The panic has already been printed.
            count.join(thread.join().unwrap_or(Count { failed: 1, ..Count::default() }));
        }
    });
    if sources.len() > 1 {
        progress::summary(count.built, count.unchanged, count.failed, started.elapsed());
    }
    count.failed == 0
}

/// Reads the manifests. Two filters must not have the same output file: the second would overwrite
/// the first.
fn read_projects(sources: &[PathBuf], out_dir: Option<&Path>, count: &mut Count) -> Vec<Project> {
    let mut projects: Vec<Project> = vec![];
    for source in sources {
        let read = Project::read(source, out_dir).and_then(|project| {
            match projects.iter().find(|other| other.output() == project.output()) {
                Some(other) => Err(BuildError::Author(format!(
                    "{}: name: {:?} is also the name of {}: both would be written to {}; rename one",
                    project.source.join("filter.toml").display(),
                    project.manifest.name,
                    other.source.display(),
                    project.output().display()
                ))),
                None => Ok(project),
            }
        });
        match read {
            Ok(project) => projects.push(project),
            Err(error) => count.add(Progress::new(&folder_title(source)), Err(error)),
        }
    }
    projects
}

fn build_in_order(projects: &[Project], options: BuildOptions<'_>) -> Count {
    let mut count = Count::default();
    for project in projects {
        let mut progress = Progress::new(&project.title());
        let outcome = build::build(project, options, &mut progress);
        count.add(progress, outcome);
    }
    count
}

/// The title of a filter whose manifest cannot be read.
fn folder_title(source: &Path) -> String {
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
    fn add(&mut self, progress: Progress, outcome: Result<Outcome, BuildError>) {
        match outcome {
            Ok(Outcome::Built { bytes }) => {
                self.built += 1;
                progress.done(bytes);
            }
            Ok(Outcome::Unchanged) => {
                self.unchanged += 1;
                progress.unchanged();
            }
            Err(error) => {
                self.failed += 1;
                progress.failed(&error.to_string());
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

    #[test]
    fn two_filters_of_one_name_do_not_overwrite_each_other() -> Result<()> {
        let root = tempfile::tempdir()?;
        let sources = ["python/a", "python/b"].map(|path| root.path().join(path));
        for source in &sources {
            std::fs::create_dir_all(source)?;
            std::fs::write(source.join("filter.py"), "")?;
            std::fs::write(source.join("filter.toml"), "name = \"x\"\nversion = \"1.0.0\"\n[request]\n")?;
        }
        let mut count = Count::default();
        let projects = read_projects(&sources, None, &mut count);
        assert_eq!((projects.len(), count.failed), (1, 1));
        Ok(())
    }
}
