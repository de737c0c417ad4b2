//! The WIT that a language's tools see: the gateway's package and a world `filter` with exactly what the manifest asks for.
//!
//! The tools keep every import of a world, used or not; so a world is made for each filter, and the gateway can refuse what was not granted. Must not know: languages.

use std::fs;
use std::path::Path;

use anyhow::Result;

use crate::manifest::Manifest;

/// The name of the generated world.
pub(crate) const WORLD: &str = "filter";

/// The gateway's package: file name and text.
pub(crate) const PACKAGE: [(&str, &str); 6] = [
    ("types.wit", include_str!("../../wit/types.wit")),
    ("request.wit", include_str!("../../wit/request.wit")),
    ("response.wit", include_str!("../../wit/response.wit")),
    ("exchange.wit", include_str!("../../wit/exchange.wit")),
    ("services.wit", include_str!("../../wit/services.wit")),
    ("worlds.wit", include_str!("../../wit/worlds.wit")),
];

/// Writes the package with the filter's world into `folder`, which is made; a file is only touched when its text differs.
pub(crate) fn write(manifest: &Manifest, folder: &Path) -> Result<()> {
    fs::create_dir_all(folder)?;
    let own = text(manifest);
    for (name, text) in PACKAGE.iter().copied().chain([("filter.wit", own.as_str())]) {
        let path = folder.join(name);
        if fs::read_to_string(&path).ok().as_deref() != Some(text) {
            fs::write(&path, text)?;
        }
    }
    Ok(())
}

fn text(manifest: &Manifest) -> String {
    let base = match (&manifest.request, &manifest.response) {
        (Some(_), Some(_)) => "gateway-filter",
        (_, None) => "request-filter",
        (None, _) => "response-filter",
    };
    let services: String = manifest.services.iter().map(|service| format!("  import {service};\n")).collect();
    format!("package witgate:gateway@0.1.0;\n\nworld {WORLD} {{\n  include {base};\n{services}}}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_world_has_the_phases_and_services_that_were_asked_for() -> Result<()> {
        for (text, imports, exports) in
            [("[request]", 8, 1), ("[response]", 8, 1), ("services = [\"keyvalue\"]\n[request]\n[response]", 10, 2)]
        {
            let manifest: Manifest = toml::from_str(&format!("name = \"a\"\nversion = \"1.0.0\"\n{text}"))?;
            let folder = tempfile::tempdir()?;
            write(&manifest, folder.path())?;
            let mut resolve = wit_parser::Resolve::default();
            let (package, _) = resolve.push_dir(folder.path())?;
            let world = &resolve.worlds[resolve.select_world(&[package], Some(WORLD))?];
            assert_eq!((world.imports.len(), world.exports.len()), (imports, exports), "{text}");
        }
        Ok(())
    }
}
