//! Whether a filter refuses clients: its source answers with status 401 or 403, or one of its
//! examples expects that.
//!
//! Such a filter decides who may pass, so its manifest gets `auth` unless filter.toml says
//! otherwise. The source is searched as text, because a warning is all that depends on it. This
//! module does not know: languages, manifests.

use std::fs;
use std::path::Path;

use witgate_manifest::{Action, Example};

use crate::examples::read_examples;

/// Endings of source files.
const SOURCES: [&str; 6] = ["rs", "py", "ts", "tsx", "js", "mjs"];
/// Folders whose code does not serve.
const OTHER_FOLDERS: [&str; 6] = ["test", "tests", "node_modules", "target", "dist", "__pycache__"];
/// How a status is written before its number, without spaces.
const BEFORE: [&str; 7] = ["reply(", "reply_json(", "Reply(", "status:", "status=", "set_status(", "HTTPStatus."];
const REFUSALS: [&str; 4] = ["401", "403", "UNAUTHORIZED", "FORBIDDEN"];

/// Whether the filter in this folder refuses clients. Examples with mistakes, which the build
/// reports, count as none.
pub(crate) fn refuses_clients(source: &Path) -> bool {
    let expects_refusal = |example: &Example| {
        let status = example.expect.response.as_ref().and_then(|response| response.status);
        example.expect.action != Some(Action::Proceed) && matches!(status, Some(401 | 403))
    };
    has_refusals(source) || read_examples(source).is_ok_and(|examples| examples.iter().any(expects_refusal))
}

/// Whether a file in or below `folder` answers with 401 or 403. A folder that cannot be read has
/// none.
fn has_refusals(folder: &Path) -> bool {
    fs::read_dir(folder).into_iter().flatten().flatten().any(|entry| {
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            return !name.starts_with('.') && !OTHER_FOLDERS.contains(&name.as_str()) && has_refusals(&path);
        }
        let is_source = path.extension().is_some_and(|end| SOURCES.iter().any(|source| end == *source));
        is_source && fs::read_to_string(&path).is_ok_and(|text| has_refusal(&text))
    })
}

fn has_refusal(text: &str) -> bool {
    let dense: String = text.chars().filter(|character| !character.is_whitespace()).collect();
    BEFORE.iter().any(|before| {
        dense.match_indices(before).any(|(at, _)| {
            let after = &dense[at + before.len()..];
            REFUSALS.iter().any(|status| after.starts_with(status))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_with_401_and_403_are_found() {
        for text in [
            "return reply(401, \"no key\")",
            "reply(\n    403,\n)",
            "Reply(HTTPStatus.FORBIDDEN)",
            "response.status = 403",
            "return { status: 401 }",
        ] {
            assert!(has_refusal(text), "{text}");
        }
        for text in ["return reply(404)", "if response.status == 401:", "# a 403 in a comment", "reply(200, 401)"] {
            assert!(!has_refusal(text), "{text}");
        }
    }

    #[test]
    fn tests_and_packages_do_not_count() -> std::io::Result<()> {
        let folder = tempfile::tempdir()?;
        for path in ["tests/test_a.py", "node_modules/a/index.js", "README.md"] {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap_or(folder.path()))?;
            fs::write(path, "reply(401)")?;
        }
        assert!(!refuses_clients(folder.path()));
        fs::create_dir_all(folder.path().join("examples"))?;
        let example = "- {name: no key, expect: {response: {status: 401}}}";
        fs::write(folder.path().join("examples/a.yaml"), example)?;
        assert!(refuses_clients(folder.path()));
        fs::remove_file(folder.path().join("examples/a.yaml"))?;
        fs::create_dir_all(folder.path().join("src"))?;
        fs::write(folder.path().join("src/filter.ts"), "reply(401)")?;
        assert!(refuses_clients(folder.path()));
        Ok(())
    }
}
