//! `witgate inspect`: describes a .wasm file without compiling or running it.
//!
//! This module does not know: configurations, caches.

use std::path::Path;

use witgate_runtime::component::{BodyMode, ComponentInfo, FILE_BYTES_MAX, Phase, describe};

pub(super) fn inspect(file: &Path, json: bool) -> Result<(), String> {
    let shown = file.display();
    let length = std::fs::metadata(file).map_err(|error| format!("{shown}: {error}"))?.len();
    if length > FILE_BYTES_MAX {
        return Err(format!("{shown}: {length} bytes are above the limit of {FILE_BYTES_MAX}"));
    }
    let bytes = std::fs::read(file).map_err(|error| format!("{shown}: {error}"))?;
    let description = describe(&bytes).map_err(|error| format!("{shown}: {error}"))?;
    if json {
        let text = serde_json::to_string_pretty(&description).map_err(|error| error.to_string())?;
        println!("{text}");
    } else {
        print(&description);
    }
    Ok(())
}

fn print(description: &ComponentInfo) {
    let world = match (description.request_phase, description.response_phase) {
        (true, true) => "gateway-filter",
        (true, false) => "request-filter",
        _ => "response-filter",
    };
    println!("world     {world}");
    println!("size      {} bytes, {} core modules", description.size, description.core_modules);
    println!("functions {}, the largest {} bytes", description.functions, description.largest_function);
    println!("sha256    {}", description.digest);
    match &description.manifest {
        None => println!("manifest  none: no body is buffered, no services"),
        Some(manifest) => {
            println!("manifest  {} {}", manifest.name, manifest.version);
            if !manifest.description.is_empty() {
                println!("          {}", manifest.description);
            }
            print_phase("request ", manifest.request.as_ref());
            print_phase("response", manifest.response.as_ref());
            if !manifest.services.is_empty() {
                println!("services  {}", manifest.services.join(", "));
            }
            for (key, schema) in &manifest.config {
                println!("config    {key}: {schema}");
            }
        }
    }
    for import in &description.imports {
        println!("imports   {import}");
    }
    for export in &description.exports {
        println!("exports   {export}");
    }
}

fn print_phase(name: &str, phase: Option<&Phase>) {
    match phase {
        None => {}
        Some(Phase { body: BodyMode::None, .. }) => println!("{name}  the body is not buffered"),
        Some(phase) => println!("{name}  body of at most {} bytes", phase.body_bytes_max),
    }
}
