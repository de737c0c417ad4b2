//! The examples of a filter: the YAML and JSON files in its folder `examples/`.
//!
//! A file has one example or a list of them. An example without a name has that of its file.
//! This module does not know: how examples are run.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use witgate_config::yaml_to_json;
use witgate_manifest::{EXAMPLES_BYTES_MAX, Example};

/// The name of the folder in that of a filter.
pub(crate) const FOLDER: &str = "examples";

/// The examples of the filter in `source`, in the order of their files' names. None without the
/// folder.
///
/// # Errors
///
/// The text has a line for each file that is wrong: `FILE:LINE: message`.
pub fn read_examples(source: &Path) -> Result<Vec<Example>, String> {
    let Ok(entries) = fs::read_dir(source.join(FOLDER)) else { return Ok(vec![]) };
    let mut files: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.retain(|file| {
        file.extension().is_some_and(|extension| ["yaml", "yml", "json"].iter().any(|e| extension == *e))
    });
    files.sort();
    let (mut examples, mut mistakes) = (vec![], vec![]);
    for file in files {
        match read_example_file(&file) {
            Ok(read) => examples.extend(read),
            Err(mistake) => mistakes.push(mistake),
        }
    }
    if mistakes.is_empty() { Ok(examples) } else { Err(mistakes.join("\n")) }
}

/// The examples in one file.
///
/// # Errors
///
/// The file cannot be read or is wrong: `FILE:LINE: message`.
pub fn read_example_file(file: &Path) -> Result<Vec<Example>, String> {
    let shown = file.display();
    let length = fs::metadata(file).map(|metadata| metadata.len()).map_err(|error| format!("{shown}: {error}"))?;
    if length > EXAMPLES_BYTES_MAX as u64 {
        return Err(format!("{shown}: the file has {length} bytes, above the limit of {EXAMPLES_BYTES_MAX}"));
    }
    let text = fs::read_to_string(file).map_err(|error| format!("{shown}: {error}"))?;
    let value = yaml_to_json(&text).map_err(|error| format!("{shown}:{}: {}", error.line, error.message))?;
    let (values, is_list) = match value {
        Value::Array(values) => (values, true),
        value => (vec![value], false),
    };
    let stem = file.file_stem().unwrap_or_default().to_string_lossy();
    let mut examples = vec![];
    for (index, value) in values.into_iter().enumerate() {
        let mut example: Example = serde_json::from_value(value)
            .map_err(|error| format!("{shown}{}: {}", line_of(&text, &error.to_string()), plain(&error.to_string())))?;
        if example.name.is_empty() {
            example.name = if is_list { format!("{stem} {}", index + 1) } else { stem.to_string() };
        }
        if let Some(problem) = example.problems().into_iter().next() {
            return Err(format!("{shown}: example {:?}: {problem}", example.name));
        }
        examples.push(example);
    }
    Ok(examples)
}

/// A message of serde in words of YAML, JSON and TOML.
pub(crate) fn plain(message: &str) -> String {
    let words = [
        ("expected u16", "expected a whole number"),
        ("expected u32", "expected a whole number"),
        ("expected a sequence", "expected a list in [ ]"),
        ("expected a map", "expected keys with values"),
    ];
    words.iter().fold(message.to_owned(), |text, (word, plain)| text.replace(word, plain))
}

/// `:LINE` of the first line that has the word which a message quotes, if any: serde knows no
/// lines.
fn line_of(text: &str, message: &str) -> String {
    let quoted = |mark| message.split(mark).nth(1).filter(|word: &&str| !word.is_empty());
    let word = quoted('`').or_else(|| quoted('"'));
    let line = word.and_then(|word| text.lines().position(|line| line.contains(word)));
    line.map_or_else(String::new, |line| format!(":{}", line + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(files: &[(&str, &str)]) -> std::io::Result<Result<Vec<Example>, String>> {
        let source = tempfile::tempdir()?;
        fs::create_dir(source.path().join(FOLDER))?;
        for (name, text) in files {
            fs::write(source.path().join(FOLDER).join(name), text)?;
        }
        Ok(read_examples(source.path()))
    }

    #[test]
    fn a_value_of_the_wrong_type_is_named_with_its_line() -> std::io::Result<()> {
        let text = "expect:\n  action: respond\n  response:\n    status: forbidden\n";
        let error = read(&[("a.yaml", text)])?.err().unwrap_or_default();
        assert!(error.contains("a.yaml:4: invalid type: string \"forbidden\", expected a whole number"), "{error}");
        Ok(())
    }

    #[test]
    fn files_have_one_example_or_several() -> std::io::Result<()> {
        let expect = "expect: {action: proceed}";
        let list = format!("- {{{expect}}}\n- {{name: second, {expect}}}\n");
        let json = r#"{"expect": {"response": {"status": 401}}}"#;
        let examples = read(&[("b.yaml", expect), ("a.yml", &list), ("c.json", json), ("README.md", "x")])?;
        let names: Vec<String> = examples.unwrap_or_default().into_iter().map(|example| example.name).collect();
        assert_eq!(names, ["a 1", "second", "b", "c"]);
        Ok(())
    }

    #[test]
    fn a_mistake_is_reported_with_its_file_and_line() -> std::io::Result<()> {
        for (text, expected) in [
            ("expect:\n  action: pass\n", "a.yaml:2: unknown variant `pass`, expected one of `proceed`"),
            ("request:\n  hedaers: {}\n", "a.yaml:2: unknown field `hedaers`, expected one of"),
            ("a: [", "a.yaml:1: this is not YAML"),
            ("request: {}", "a.yaml: example \"a\": expect: name at least one thing"),
        ] {
            let error = read(&[("a.yaml", text)])?.err().unwrap_or_default();
            assert!(error.contains(expected), "{expected} not in {error}");
        }
        Ok(())
    }
}
