//! What the documentation names exists: commands with their options, recipes, files, keys of
//! gateway.yaml, metrics and error codes. And what exists is documented: commands, options, codes.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use clap::error::ErrorKind;
use clap::{CommandFactory as _, Parser as _};
use regex::Regex;
use serde_json::Value;

use super::Cli;

/// Lines that are meant to be changed before they are typed, or that show syntax.
const PLACEHOLDERS: [&str; 4] = ["…", "[", "<", " | "];

/// What is no mistake in a text: it may name a command without all that the command needs.
const UNCOMPLETED: [ErrorKind; 5] = [
    ErrorKind::DisplayHelp,
    ErrorKind::DisplayVersion,
    ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand,
    ErrorKind::MissingRequiredArgument,
    ErrorKind::MissingSubcommand,
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The pages for users, and the README of each template.
fn pages() -> Vec<(String, String)> {
    let root = root();
    let mut files = vec![root.join("README.md"), root.join("SECURITY.md"), root.join("CONTRIBUTING.md")];
    add_pages(&root.join("docs"), &mut files);
    add_pages(&root.join("componentize/templates"), &mut files);
    files.push(root.join("componentize/README.md"));
    let page = |file: PathBuf| (file.strip_prefix(&root).unwrap_or(&file).display().to_string(), read(&file));
    files.into_iter().map(page).collect()
}

fn add_pages(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())).flatten() {
        let path = entry.path();
        if path.is_dir() {
            add_pages(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "md") {
            files.push(path);
        }
    }
}

/// The lines of blocks for a shell, with lines that a backslash continues, and the commands between
/// backticks. Each with the number of its line.
fn command_lines(page: &str) -> Vec<(usize, String)> {
    let (mut found, mut is_shell, mut is_block, mut pending) = (vec![], false, false, String::new());
    for (index, line) in page.lines().enumerate() {
        let text = line.trim();
        if let Some(language) = text.strip_prefix("```") {
            (is_block, is_shell) = (!is_block, !is_block && ["sh", "console", "bash"].contains(&language));
        } else if is_block {
            let prompt = text.strip_prefix("$ ");
            if is_shell || prompt.is_some() {
                pending.push_str(prompt.unwrap_or(text));
                if pending.ends_with('\\') {
                    pending.pop();
                    continue;
                }
                found.push((index + 1, std::mem::take(&mut pending)));
            }
        } else {
            let spans = line.split('`').skip(1).step_by(2);
            found.extend(spans.filter(|span| span.starts_with("witgate ")).map(|span| (index + 1, span.to_owned())));
        }
    }
    found
}

/// The words of each simple command in a line, as a shell reads them.
fn simple_commands(line: &str) -> Vec<Vec<String>> {
    let (mut commands, mut words, mut word, mut quote, mut has_word) =
        (vec![], vec![], String::new(), None::<char>, false);
    for character in line.chars().chain([' ']) {
        match (quote, character) {
            (Some(open), close) if open == close => quote = None,
            (Some(_), other) => word.push(other),
            (None, '\'' | '"') => (quote, has_word) = (Some(character), true),
            (None, '#') if word.is_empty() => break,
            (None, ' ' | '|' | ';' | '&' | '(' | ')' | '>') => {
                if has_word || !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                    has_word = false;
                }
                if character != ' ' {
                    commands.push(std::mem::take(&mut words));
                }
            }
            (None, other) => word.push(other),
        }
    }
    commands.push(words);
    commands
}

#[test]
fn every_command_of_the_documentation_is_understood() {
    let (mut count, mut mistakes) = (0, vec![]);
    for (page, text) in pages() {
        for (line, command) in command_lines(&text) {
            for words in simple_commands(&command) {
                let Some(at) = words.iter().position(|word| !word.contains('=') && word != "sudo") else { continue };
                let program = words[at].rsplit('/').next().unwrap_or_default();
                if program != "witgate" || PLACEHOLDERS.iter().any(|part| command.contains(part)) {
                    continue;
                }
                count += 1;
                // The only placeholder whose value is from a list.
                let words = words[at..].iter().map(|word| if word == "SHELL" { "bash" } else { word.as_str() });
                if let Err(error) = Cli::try_parse_from(words)
                    && !UNCOMPLETED.contains(&error.kind())
                {
                    let reason = error.to_string();
                    mistakes.push(format!("{page}:{line}: {command}: {}", reason.lines().next().unwrap_or_default()));
                }
            }
        }
    }
    assert!(count > 60, "only {count} commands were found");
    assert!(mistakes.is_empty(), "{}", mistakes.join("\n"));
}

#[test]
fn every_recipe_and_file_of_the_documentation_exists() {
    let root = root();
    let recipes = read(&root.join("justfile"));
    let recipe = Regex::new(r"(?m)^([a-z][a-z0-9-]*)(?: [^:\n]*)?:(?:[^=]|$)").expect("an expression");
    let recipes: BTreeSet<&str> =
        recipe.captures_iter(&recipes).filter_map(|found| Some(found.get(1)?.as_str())).collect();
    let named = Regex::new(r"(?:^|[`$ ])just ([a-z][a-z0-9-]+)").expect("an expression");
    let folders = "host|componentize|guests|tests|docs|deploy|wit";
    let path = Regex::new(&format!(r"^(?:{folders})/[A-Za-z0-9_./@-]+$")).expect("an expression");
    let mut mistakes = vec![];
    for (page, text) in pages() {
        for (index, line) in text.lines().enumerate() {
            let code = line.split('`').skip(1).step_by(2);
            let is_command = line.trim_start().starts_with("just ");
            let commands =
                code.clone().filter(|span| span.starts_with("just ")).chain(is_command.then_some(line.trim()));
            for command in commands {
                let name = named.captures(command).and_then(|found| Some(found.get(1)?.as_str()));
                if let Some(name) = name.filter(|name| !recipes.contains(name)) {
                    mistakes.push(format!("{page}:{}: there is no recipe {name}", index + 1));
                }
            }
            // The pages of templates are read in a filter's own folder.
            let is_own = !page.starts_with("componentize/templates");
            for file in code.filter(|span| is_own && path.is_match(span)) {
                let made = ["guests/dist", "tests/fixtures/dist"].iter().any(|folder| file.starts_with(folder));
                if !made && !root.join(file).exists() {
                    mistakes.push(format!("{page}:{}: there is no {file}", index + 1));
                }
            }
        }
    }
    assert!(recipes.len() > 20 && mistakes.is_empty(), "{recipes:?}\n{}", mistakes.join("\n"));
}

/// Whether the schema has this path of keys. A segment in capitals is any name, and the elements of
/// a list are searched as if they were the list.
fn has_key(schema: &Value, node: &Value, path: &[&str]) -> bool {
    let Some((key, rest)) = path.split_first() else { return true };
    let key = key.trim_end_matches("[]");
    let goes_on = |node: &Value| has_key(schema, node, rest);
    if let Some(named) = node["$ref"].as_str().and_then(|name| name.strip_prefix("#/$defs/")) {
        return has_key(schema, &schema["$defs"][named], path);
    }
    let choices = ["anyOf", "oneOf"].iter().filter_map(|word| node[*word].as_array()).flatten();
    if choices.into_iter().any(|choice| has_key(schema, choice, path)) {
        return true;
    }
    let is_name = key.chars().all(|character| character.is_ascii_uppercase() || character == '_');
    node["properties"].get(key).is_some_and(goes_on)
        || node["additionalProperties"].is_object() && is_name && goes_on(&node["additionalProperties"])
        || node["items"].is_object() && has_key(schema, &node["items"], path)
}

#[test]
fn every_key_of_the_documentation_is_in_the_schema() {
    let schema = witgate_config::schema();
    let top: Vec<&String> = schema["properties"].as_object().expect("keys").keys().collect();
    let key = Regex::new(r"^[a-z_]+(\[\])?(\.[A-Za-z_]+(\[\])?)+$").expect("an expression");
    let (mut count, mut mistakes) = (0, vec![]);
    for (page, text) in pages() {
        for (index, line) in text.lines().enumerate() {
            for span in line.split('`').skip(1).step_by(2).filter(|span| key.is_match(span)) {
                let path: Vec<&str> = span.split('.').collect();
                let is_key = top.iter().any(|name| *name == path[0].trim_end_matches("[]"));
                // Such as filter.py and limits.rs.
                let is_file = ["rs", "toml", "py", "ts", "yaml", "json", "md", "d"].contains(&path[path.len() - 1]);
                if is_key && !is_file {
                    count += 1;
                    // The keys of a route may be named without it.
                    let is_known = has_key(&schema, &schema, &path)
                        || has_key(&schema, &schema["properties"]["routes"]["items"], &path);
                    if !is_known {
                        mistakes.push(format!("{page}:{}: there is no key {span}", index + 1));
                    }
                }
            }
        }
    }
    assert!(count > 100, "only {count} keys were found");
    assert!(mistakes.is_empty(), "{}", mistakes.join("\n"));
}

#[test]
fn every_metric_of_the_documentation_exists() {
    let source = read(&root().join("host/gateway/src/telemetry/metrics.rs"));
    let declared = Regex::new(r#"(?m)^\s+"([a-z_]+)"(?: (seconds))?"#).expect("an expression");
    let mut names: BTreeSet<String> = BTreeSet::from(["build_info".to_owned()]);
    for found in declared.captures_iter(&source) {
        names.insert(format!("{}{}", &found[1], found.get(2).map_or("", |_| "_seconds")));
    }
    let named = Regex::new(r"\bwitgate_([a-z_]+[a-z])\b").expect("an expression");
    let mut mistakes = vec![];
    let mut files = pages();
    for alerts in ["deploy/prometheus", "deploy/grafana", "deploy/kubernetes-monitoring"] {
        for entry in std::fs::read_dir(root().join(alerts)).expect("a folder").flatten().filter(|e| e.path().is_file())
        {
            files.push((entry.path().display().to_string(), read(&entry.path())));
        }
    }
    for (page, text) in files {
        for found in named.captures_iter(&text) {
            let name = &found[1];
            let base = ["_total", "_bucket", "_count", "_sum", "_created"]
                .iter()
                .fold(name, |name, end| name.strip_suffix(end).unwrap_or(name));
            // The crate of the Rust SDK, and names that are cut with …
            let is_other = name == "filter" || text[found.get(0).expect("a match").end()..].starts_with(['…', '*']);
            if !is_other && !names.contains(base) {
                mistakes.push(format!("{page}: there is no metric witgate_{name}"));
            }
        }
    }
    assert!(names.len() > 40 && mistakes.is_empty(), "{names:?}\n{}", mistakes.join("\n"));
}

#[test]
fn every_command_and_option_is_documented() {
    let page = read(&root().join("docs/reference/cli.md"));
    let mut missing = vec![];
    let mut queue = vec![("witgate".to_owned(), Cli::command())];
    while let Some((path, command)) = queue.pop() {
        for child in command.get_subcommands().filter(|child| !child.is_hide_set()) {
            queue.push((format!("{path} {}", child.get_name()), child.clone()));
            let name = child.get_name();
            let is_named = page.contains(&format!("`{path} {name}")) || page.contains(&format!("`{name}"));
            if !is_named {
                missing.push(format!("{path} {name}"));
            }
        }
        for option in command.get_opts().filter(|option| !option.is_hide_set()) {
            let long = option.get_long().unwrap_or_default();
            let short = option.get_short().map(|short| format!("`-{short}`"));
            if !page.contains(&format!("--{long}")) && !short.is_some_and(|short| page.contains(&short)) {
                missing.push(format!("{path} --{long}"));
            }
        }
    }
    assert!(missing.is_empty(), "docs/reference/cli.md does not name {}", missing.join(", "));
}

#[test]
fn completions_and_man_pages_have_every_command() {
    let folder = tempfile::tempdir().expect("a folder");
    super::completions(None, Some(folder.path())).expect("man pages are written");
    let mut script = vec![];
    clap_complete::generate(clap_complete::Shell::Bash, &mut Cli::command(), "witgate", &mut script);
    let script = String::from_utf8_lossy(&script).into_owned();
    for command in Cli::command().get_subcommands().filter(|command| !command.is_hide_set()) {
        let name = command.get_name();
        assert!(folder.path().join(format!("witgate-{name}.1")).exists(), "there is no man page of {name}");
        assert!(
            script.contains(&format!("witgate__subcmd__{name}")) || script.contains(&format!("witgate__{name}")),
            "{name} is not completed"
        );
        let help = command.get_about().map(ToString::to_string).unwrap_or_default();
        assert!(!help.is_empty(), "{name} has no help");
    }
}

/// Codes as the sources spell them: the label of each variant, by the text of `fn label`.
#[test]
fn every_code_in_the_sources_is_explained() {
    let rows = super::explain::codes();
    let label = Regex::new(r#"(?:Self::\w+(?: \| Self::\w+)*|_) => "([a-z][a-z-]*)","#).expect("an expression");
    let (mut count, mut missing) = (0, vec![]);
    for file in ["host/http/src/error.rs", "host/runtime/src/load_error.rs", "host/gateway/src/tls/pem.rs"] {
        let source = read(&root().join(file));
        let labels = source.split("fn label(self)").skip(1).flat_map(|part| {
            let body = part.split("\n    }").next().unwrap_or_default();
            label.captures_iter(body).map(|found| found[1].to_owned()).collect::<Vec<_>>()
        });
        for code in labels {
            count += 1;
            if !rows.contains(code.as_str()) {
                missing.push(code);
            }
        }
    }
    assert!(count > 50 && missing.is_empty(), "{count} codes; docs/reference/errors.md does not explain {missing:?}");
}
