//! `witgate inspect`: describes a .wasm file without compiling or running it.
//!
//! This module does not know: caches, sources.

use std::path::{Path, PathBuf};

use super::output::print;
use crate::control::config_source::ConfigSource;
use crate::process::regular_file::read_regular;
use crate::releases::candidate::check_denied;
use witgate_runtime::component::{BodyMode, ComponentInfo, FILE_BYTES_MAX, Phase, describe};

pub(super) fn inspect(file: &Path, config: Option<PathBuf>, json: bool) -> Result<(), String> {
    let shown = file.display();
    let bytes = read_regular(file, FILE_BYTES_MAX).map_err(|error| format!("{shown}: {error}"))?;
    let description = describe(&bytes).map_err(|error| format!("{shown}: {error}"))?;
    if json {
        let text = serde_json::to_string_pretty(&description).map_err(|error| error.to_string())?;
        return text.lines().try_for_each(|line| print(escape_json(line)));
    }
    describe_lines(&description).iter().try_for_each(print)?;
    let Some(config) = config else { return Ok(()) };
    let source = ConfigSource::file(config);
    let denied = source.parse(&source.read()?)?.denied;
    match check_denied(&denied, &description) {
        Ok(()) => print("denied    no"),
        Err(error) => print(format_args!("denied    {}", error.message)),
    }
}

/// JSON allows control characters above 0x7e in strings, but a terminal may obey them.
fn escape_json(line: &str) -> String {
    line.chars().fold(String::with_capacity(line.len()), |mut escaped, c| {
        if c.is_control() {
            escaped.push_str(&format!("\\u{:04x}", u32::from(c)));
        } else {
            escaped.push(c);
        }
        escaped
    })
}

fn describe_lines(description: &ComponentInfo) -> Vec<String> {
    let mut lines = vec![];
    let world = match (description.request_phase, description.response_phase) {
        (true, true) => "gateway-filter",
        (true, false) => "request-filter",
        _ => "response-filter",
    };
    lines.push(format!("world     {world}"));
    lines.push(format!("size      {} bytes, {} core modules", description.size, description.core_modules));
    lines.push(format!("functions {}, the largest {} bytes", description.functions, description.largest_function));
    lines.push(format!("sha256    {}", description.digest));
    match &description.manifest {
        None => lines.push("manifest  none: no body is buffered, no services".into()),
        Some(manifest) => {
            lines.push(format!("manifest  {} {}", manifest.name, manifest.version));
            if !manifest.description.is_empty() {
                lines.push(format!("          {}", manifest.description));
            }
            lines.extend(phase_line("request ", manifest.request.as_ref()));
            lines.extend(phase_line("response", manifest.response.as_ref()));
            if !manifest.services.is_empty() {
                lines.push(format!("services  {}", manifest.services.join(", ")));
            }
            for (key, schema) in &manifest.config {
                lines.push(format!("config    {key}: {schema}"));
            }
        }
    }
    for import in &description.imports {
        lines.push(format!("imports   {import}"));
    }
    let grants = grants(&description.imports);
    lines.push(format!("grants    {}", if grants.is_empty() { "none needed".into() } else { grants.join(", ") }));
    for export in &description.exports {
        lines.push(format!("exports   {export}"));
    }
    if description.packages.is_empty() {
        lines.push("packages  no SBOM".into());
    }
    for package in &description.packages {
        lines.push(format!("package   {} {}", package.name, package.version));
    }
    lines
}

/// The entries of `capabilities` that the imports need.
fn grants(imports: &[String]) -> Vec<&'static str> {
    let known = [("keyvalue", "witgate:gateway/keyvalue@"), ("limiter", "witgate:gateway/limiter@"), ("wasi", "wasi:")];
    let is_needed = |prefix: &str| imports.iter().any(|import| import.starts_with(prefix));
    known.into_iter().filter(|(_, prefix)| is_needed(prefix)).map(|(grant, _)| grant).collect()
}

fn phase_line(name: &str, phase: Option<&Phase>) -> Option<String> {
    Some(match phase? {
        Phase { body: BodyMode::None, .. } => format!("{name}  the body is not buffered"),
        phase => format!("{name}  body of at most {} bytes", phase.body_bytes_max),
    })
}
