//! The WIT that a language's tools read: the gateway's package and a world for this filter.
//!
//! The world has exactly the phases and services of the manifest. The tools keep every import of a
//! world, used or not. With a world of its own, a filter imports nothing that it did not request,
//! and the gateway can refuse an import that was not granted. This module does not know: languages.

use std::fs;
use std::path::Path;

use anyhow::{Result, anyhow};
use wit_parser::{Resolve, SourceMap, WorldId};
use witgate_manifest::Manifest;

/// The name of the generated world.
pub(crate) const WORLD: &str = "filter";
/// The package and version that filters are written against.
const PACKAGE: &str = "witgate:gateway@0.1.0";

/// The files of the gateway's package: name and text.
pub(crate) const FILES: [(&str, &str); 6] = [
    ("types.wit", include_str!("../../wit/types.wit")),
    ("request.wit", include_str!("../../wit/request.wit")),
    ("response.wit", include_str!("../../wit/response.wit")),
    ("exchange.wit", include_str!("../../wit/exchange.wit")),
    ("services.wit", include_str!("../../wit/services.wit")),
    ("worlds.wit", include_str!("../../wit/worlds.wit")),
];

/// Writes the package and the filter's world into `folder`, which is created if it is missing.
///
/// A file is written only if its text differs, so that tools do not see a change without one.
pub(crate) fn write(manifest: &Manifest, folder: &Path) -> Result<()> {
    fs::create_dir_all(folder)?;
    let world = world_text(manifest);
    for (name, text) in files(&world) {
        let path = folder.join(name);
        if fs::read_to_string(&path).ok().as_deref() != Some(text) {
            fs::write(&path, text)?;
        }
    }
    Ok(())
}

/// The same package as a parsed world: a component is checked against it.
pub(crate) fn resolve(manifest: &Manifest) -> Result<(Resolve, WorldId)> {
    let mut sources = SourceMap::default();
    let world = world_text(manifest);
    for (name, text) in files(&world) {
        sources.push_str(name, text);
    }
    let group = sources.parse().map_err(|(sources, error)| anyhow!("{}", error.render(&sources)))?;
    let mut resolve = Resolve::default();
    let package = resolve.push_group(group).map_err(|error| anyhow!("{error}"))?;
    let world = resolve.select_world(&[package], Some(WORLD))?;
    Ok((resolve, world))
}

/// The name of an interface of the package, as a component imports or exports it.
pub(crate) fn interface(name: &str) -> String {
    PACKAGE.replace('@', &format!("/{name}@"))
}

fn files(world: &str) -> impl Iterator<Item = (&'static str, &str)> {
    FILES.into_iter().chain([("filter.wit", world)])
}

fn world_text(manifest: &Manifest) -> String {
    let base = match (&manifest.request, &manifest.response) {
        (Some(_), Some(_)) => "gateway-filter",
        (_, None) => "request-filter",
        (None, _) => "response-filter",
    };
    let services: String = manifest.services.iter().map(|service| format!("  import {service};\n")).collect();
    format!("package {PACKAGE};\n\nworld {WORLD} {{\n  include {base};\n{services}}}\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter_toml;

    fn manifest(text: &str) -> Result<Manifest> {
        filter_toml::parse(&format!("name = \"a\"\nversion = \"1.0.0\"\n{text}"), "f").map_err(anyhow::Error::msg)
    }

    #[test]
    fn the_world_has_the_phases_and_services_of_the_manifest() -> Result<()> {
        const BASE: &str = "clock config exchange log random request types";
        for (text, more, exports) in [
            ("[request]", "request-edit", "request-handler"),
            ("[response]", "response", "response-handler"),
            ("[request]\n[response]", "request-edit response", "request-handler response-handler"),
            ("services = [\"keyvalue\"]\n[response]", "keyvalue response", "response-handler"),
        ] {
            let (resolve, world) = resolve(&manifest(text)?)?;
            let world = &resolve.worlds[world];
            let names = |keys: Vec<String>| {
                let mut names: Vec<_> =
                    keys.iter().filter_map(|key| key.split(['/', '@']).nth(1)).map(str::to_owned).collect();
                names.sort();
                names
            };
            let mut imports: Vec<&str> = BASE.split(' ').chain(more.split(' ')).collect();
            imports.sort();
            assert_eq!(names(world.imports.keys().map(|key| resolve.name_world_key(key)).collect()), imports, "{text}");
            let found = names(world.exports.keys().map(|key| resolve.name_world_key(key)).collect());
            assert_eq!(found.join(" "), exports, "{text}");
        }
        Ok(())
    }

    #[test]
    fn the_folder_is_a_package_that_the_tools_can_read() -> Result<()> {
        let folder = tempfile::tempdir()?;
        write(&manifest("[request]")?, folder.path())?;
        let mut resolve = Resolve::default();
        let (package, _) = resolve.push_dir(folder.path())?;
        assert!(resolve.select_world(&[package], Some(WORLD)).is_ok());
        // Another manifest in the same folder replaces the world.
        write(&manifest("[response]")?, folder.path())?;
        assert!(fs::read_to_string(folder.path().join("filter.wit"))?.contains("include response-filter;\n}"));
        Ok(())
    }

    #[test]
    fn every_file_of_the_package_is_embedded() -> Result<()> {
        let mut names: Vec<_> = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../wit"))?
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|name| name.ends_with(".wit"))
            .collect();
        names.sort();
        let mut known = FILES.map(|(name, _)| name);
        known.sort_unstable();
        assert_eq!(names, known);
        Ok(())
    }
}
