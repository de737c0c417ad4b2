//! Writes the folder of a new filter: source, manifest, unit test, examples, editor settings, CI.
//!
//! A filter is made of three parts of `templates/`: what all languages share for a template, what a
//! language needs for all templates, and the source and its test. In a name, a leading `_` stands
//! for a dot; in a text, `{{name}}` stands for the name of the filter.
//! This module does not know: what the files mean.

use std::fs;
use std::path::{Path, PathBuf};

use witgate_manifest::NAME_CHARS_MAX;

use crate::embedded_files::FILES;
use crate::toolchain::language::Language;

/// The templates, with what each is for.
pub const TEMPLATES: [(&str, &str); 4] = [
    ("blank", "reads and sets header fields"),
    ("auth", "lets a request pass only with a key"),
    ("rate-limit", "limits the requests of each client"),
    ("body", "changes a JSON body"),
];

/// Writes a new filter into the folder `folder`, which must not exist or be empty. The name of the
/// folder is that of the filter. Returns the files that were written, relative to it.
///
/// # Errors
///
/// The name is not valid, the folder is in use, or a file cannot be written.
pub fn new_filter(folder: &Path, language: Language, template: &str) -> Result<Vec<PathBuf>, String> {
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    let is_valid = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    // cargo accepts no digit at the beginning.
    let starts_well = name.starts_with(|c: char| c.is_ascii_lowercase());
    if !starts_well || name.len() > NAME_CHARS_MAX || !name.chars().all(is_valid) {
        let advice = similar_name(&name).map_or_else(String::new, |similar| format!("; take {similar:?}"));
        return Err(format!(
            "{name:?} cannot be the name of a filter: it begins with a-z, and has at most {NAME_CHARS_MAX} characters of a-z, 0-9 and -{advice}"
        ));
    }
    let shown = folder.display();
    if fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some()) || folder.is_file() {
        return Err(format!("{shown}: there is something already: take another name, or remove what is there"));
    }
    let mut written = vec![];
    for (path, content) in files(language, template) {
        let target = folder.join(&path);
        let text = content.replace("{{name}}", &name);
        let made = fs::create_dir_all(target.parent().unwrap_or(folder)).and_then(|()| fs::write(&target, text));
        made.map_err(|error| format!("{}: {error}", target.display()))?;
        written.push(path);
    }
    written.sort();
    Ok(written)
}

/// A valid name that looks like `name`, if there is one.
fn similar_name(name: &str) -> Option<String> {
    let lower = name.to_lowercase();
    let words = lower.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    let similar = words.collect::<Vec<_>>().join("-");
    let similar = similar.trim_start_matches(|c: char| !c.is_ascii_lowercase());
    (!similar.is_empty() && similar.len() <= NAME_CHARS_MAX).then(|| similar.to_owned())
}

/// The files of a template: the path in the filter's folder, and the text. A later part replaces
/// files of an earlier one.
fn files(language: Language, template: &str) -> impl Iterator<Item = (PathBuf, String)> {
    let language = language.name();
    let roots = [format!("shared/{template}"), format!("{language}/base"), format!("{language}/{template}")];
    roots.into_iter().flat_map(|root| {
        let root = format!("componentize/templates/{root}/");
        FILES.iter().filter_map(move |(name, content)| {
            let path = name.strip_prefix(&root)?;
            let parts = path.split('/').map(|part| match part.strip_prefix('_') {
                Some(rest) => format!(".{rest}"),
                None => part.to_owned(),
            });
            Some((parts.collect(), String::from_utf8_lossy(content).into_owned()))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::examples::read_examples;
    use crate::filter_toml;

    #[test]
    fn every_template_has_all_its_files_in_every_language() -> Result<(), String> {
        let root = tempfile::tempdir().map_err(|error| error.to_string())?;
        for (template, _) in TEMPLATES {
            for (language, source) in [
                (Language::TypeScript, "src/filter.ts"),
                (Language::Python, "filter.py"),
                (Language::Rust, "src/lib.rs"),
            ] {
                let folder = root.path().join(language.name()).join(template);
                let written = new_filter(&folder, language, template)?;
                for file in [source, "filter.toml", "README.md", ".gitignore", ".github/workflows/filter.yml"] {
                    assert!(written.contains(&PathBuf::from(file)), "{template} {language:?} {file}");
                }
                assert_eq!(Language::of(&folder), Some(language));
                assert_eq!(filter_toml::read(&folder.join("filter.toml"), || false)?.name, template);
                assert!(!read_examples(&folder)?.is_empty());
                let readme = fs::read_to_string(folder.join("README.md")).unwrap_or_default();
                assert!(readme.starts_with(&format!("# {template}\n")) && readme.lines().count() <= 12, "{readme}");
            }
        }
        Ok(())
    }

    #[test]
    fn a_filter_replaces_nothing_and_has_a_valid_name() -> Result<(), String> {
        let root = tempfile::tempdir().map_err(|error| error.to_string())?;
        let new = |name: &str| new_filter(&root.path().join(name), Language::Python, "blank");
        new("a")?;
        for (name, expected) in [
            ("a", "there is something already"),
            ("A", "begins with a-z"),
            ("1a", "begins with"),
            ("My filter_2", "; take \"my-filter-2\""),
            ("12", "0-9 and -"),
        ] {
            let error = new(name).err().unwrap_or_default();
            assert!(error.contains(expected), "{error}");
        }
        Ok(())
    }
}
