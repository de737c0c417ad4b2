//! Builds many filters: the languages in parallel, the filters of one language in sequence.
//!
//! A filter that fails does not stop the others. This module does not know: the steps of a build.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use witgate_manifest::Manifest;

use crate::build::{self, BuildOptions, Outcome};
use crate::progress::{self, Progress};
use crate::project::{OutDir, Project};
use crate::toolchain::language::{BuildError, Language};

/// The result of a build of several filters.
#[derive(Debug, Default)]
pub struct Built {
    /// The components of the filters that were built or were unchanged.
    pub components: Vec<BuiltComponent>,
    /// The number of new components.
    pub changed: usize,
    /// Why each other filter was not built.
    pub failures: Vec<String>,
}

/// A component that is current.
#[derive(Debug, Clone)]
pub struct BuiltComponent {
    /// The folder of the filter.
    pub source: PathBuf,
    /// The file.
    pub file: PathBuf,
    /// The language of the filter.
    pub language: Language,
    /// What it is.
    pub manifest: Manifest,
}

/// Builds the filters in the folders `sources` and reports each on standard error.
pub fn build_all(sources: &[PathBuf], out_dir: OutDir<'_>, options: BuildOptions<'_>) -> Built {
    let started = Instant::now();
    let mut built = Built::default();
    let projects = read_projects(sources, out_dir, &mut built);
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
            let failures = vec!["a thread of the build panicked".to_owned()];
            built.join(thread.join().unwrap_or(Built { failures, ..Built::default() }));
        }
    });
    if sources.len() > 1 && options.progress {
        let unchanged = built.components.len() - built.changed;
        progress::summary(built.changed, unchanged, built.failures.len(), started.elapsed());
    }
    built
}

/// Reads the manifests. Two filters must not have the same output file: the second would overwrite
/// the first.
fn read_projects(sources: &[PathBuf], out_dir: OutDir<'_>, built: &mut Built) -> Vec<Project> {
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
            Err(error) => built.fail(Progress::new(&folder_title(source), true), &error),
        }
    }
    projects
}

fn build_in_order(projects: &[Project], options: BuildOptions<'_>) -> Built {
    let mut built = Built::default();
    for project in projects {
        let mut progress = Progress::new(&project.title(), options.progress);
        match build::build(project, options, &mut progress) {
            Ok(outcome) => {
                match outcome {
                    Outcome::Unchanged => progress.unchanged(),
                    Outcome::Built { bytes } => {
                        built.changed += 1;
                        progress.done(bytes);
                    }
                }
                built.components.push(BuiltComponent {
                    source: project.source.clone(),
                    file: project.output(),
                    language: project.language,
                    manifest: project.manifest.clone(),
                });
            }
            Err(error) => built.fail(progress, &error),
        }
    }
    built
}

/// The title of a filter whose manifest cannot be read.
fn folder_title(source: &Path) -> String {
    let folder = source.file_name().unwrap_or_default().to_string_lossy();
    Language::of(source).map_or_else(|| folder.to_string(), |language| format!("{}/{folder}", language.name()))
}

impl Built {
    fn fail(&mut self, progress: Progress, error: &BuildError) {
        progress.failed(&error.to_string());
        self.failures.push(error.to_string());
    }

    fn join(&mut self, other: Self) {
        self.components.extend(other.components);
        self.changed += other.changed;
        self.failures.extend(other.failures);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Result;

    #[test]
    fn two_filters_of_one_name_do_not_overwrite_each_other() -> Result<()> {
        let root = tempfile::tempdir()?;
        let sources = ["python/a", "python/b"].map(|path| root.path().join(path));
        for source in &sources {
            std::fs::create_dir_all(source)?;
            std::fs::write(source.join("filter.py"), "")?;
            std::fs::write(source.join("filter.toml"), "name = \"x\"\nversion = \"1.0.0\"\n[request]\n")?;
        }
        let mut built = Built::default();
        let projects = read_projects(&sources, OutDir::BesideLanguage, &mut built);
        assert_eq!((projects.len(), built.failures.len()), (1, 1));
        Ok(())
    }
}
