//! The WIT that a language's tools see: the gateway's package and a world `filter` with exactly what the manifest asks for.
//!
//! The tools keep every import of a world, used or not; so a world is made for each filter, and the gateway can refuse what was not granted.
//! Must not know: languages.

use std::fs;
use std::path::Path;

use anyhow::{Result, anyhow};
use wit_parser::{Resolve, SourceMap, WorldId};

use crate::manifest::Manifest;

/// The name of the generated world.
pub(crate) const WORLD: &str = "filter";
/// The package and version that a filter is written against.
const NAME: &str = "witgate:gateway@0.1.0";

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
    for (name, text) in files(&own) {
        let path = folder.join(name);
        if fs::read_to_string(&path).ok().as_deref() != Some(text) {
            fs::write(&path, text)?;
        }
    }
    Ok(())
}

/// The same package, read: what a component is checked against.
pub(crate) fn resolve(manifest: &Manifest) -> Result<(Resolve, WorldId)> {
    let mut sources = SourceMap::default();
    let own = text(manifest);
    for (name, text) in files(&own) {
        sources.push_str(name, text);
    }
    let group = sources.parse().map_err(|(sources, error)| anyhow!("{}", error.render(&sources)))?;
    let mut resolve = Resolve::default();
    let package = resolve.push_group(group).map_err(|error| anyhow!("{error}"))?;
    let world = resolve.select_world(&[package], Some(WORLD))?;
    Ok((resolve, world))
}

/// The name of an interface of the package, as a component has it.
pub(crate) fn interface(name: &str) -> String {
    NAME.replace('@', &format!("/{name}@"))
}

fn files(own: &str) -> impl Iterator<Item = (&'static str, &str)> {
    PACKAGE.into_iter().chain([("filter.wit", own)])
}

fn text(manifest: &Manifest) -> String {
    let base = match (&manifest.request, &manifest.response) {
        (Some(_), Some(_)) => "gateway-filter",
        (_, None) => "request-filter",
        (None, _) => "response-filter",
    };
    let services: String = manifest.services.iter().map(|service| format!("  import {service};\n")).collect();
    format!("package {NAME};\n\nworld {WORLD} {{\n  include {base};\n{services}}}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(text: &str) -> Result<Manifest> {
        Manifest::parse(&format!("name = \"a\"\nversion = \"1.0.0\"\n{text}"), "f").map_err(anyhow::Error::msg)
    }

    #[test]
    fn the_world_has_the_phases_and_services_that_were_asked_for() -> Result<()> {
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
        // Other services, the same folder: nothing of the old world stays.
        write(&manifest("[response]")?, folder.path())?;
        assert!(fs::read_to_string(folder.path().join("filter.wit"))?.contains("include response-filter;\n}"));
        Ok(())
    }

    #[test]
    fn the_whole_package_is_built_in() -> Result<()> {
        let mut names: Vec<_> = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../wit"))?
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|name| name.ends_with(".wit"))
            .collect();
        names.sort();
        let mut known = PACKAGE.map(|(name, _)| name);
        known.sort_unstable();
        assert_eq!(names, known);
        Ok(())
    }
}
