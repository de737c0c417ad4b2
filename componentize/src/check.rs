//! Is the component what its manifest says? The last step before it is put in place, so that a mistake shows at the author's desk.
//!
//! Must not know: languages, files.

use anyhow::{Result, bail};
use wasmparser::{Encoding, Parser, Payload};

use crate::manifest::Manifest;

const BASE: [&str; 9] =
    ["types", "request", "request-edit", "response", "exchange", "log", "config", "clock", "random"];

/// Checks imports and exports. Exports beyond the handlers are fine: tools add some.
pub(crate) fn check(component: &[u8], manifest: &Manifest) -> Result<()> {
    let (imports, exports) = surface(component)?;
    for import in &imports {
        let known = |interface: &str| *import == format!("witgate:gateway/{interface}@0.1.0");
        if !BASE.iter().any(|interface| known(interface)) && !manifest.services.iter().any(|service| known(service)) {
            bail!(
                "the component imports {import}, which filter.toml does not ask for: add it to `services`, or do without"
            );
        }
    }
    for (phase, wanted) in [("request", manifest.request.is_some()), ("response", manifest.response.is_some())] {
        let name = format!("witgate:gateway/{phase}-handler@0.1.0");
        if exports.contains(&name) != wanted {
            let (has, says) = if wanted { ("lacks", "has") } else { ("has", "lacks") };
            bail!("the component {has} a {phase} handler, but filter.toml {says} [{phase}]: make them agree");
        }
    }
    Ok(())
}

/// The names that the outermost component imports and exports.
fn surface(component: &[u8]) -> Result<(Vec<String>, Vec<String>)> {
    let (mut imports, mut exports, mut depth) = (vec![], vec![], 0_usize);
    for payload in Parser::new(0).parse_all(component) {
        match payload? {
            Payload::Version { encoding: Encoding::Module, .. } if depth == 0 => {
                bail!("the result is a core module, not a component")
            }
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ComponentImportSection(section) if depth == 0 => {
                for import in section {
                    imports.push(import?.name.name.to_owned());
                }
            }
            Payload::ComponentExportSection(section) if depth == 0 => {
                for export in section {
                    exports.push(export?.name.name.to_owned());
                }
            }
            _ => {}
        }
    }
    Ok((imports, exports))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world;
    use wit_component::{ComponentEncoder, StringEncoding, dummy_module, embed_component_metadata};

    fn manifest(text: &str) -> Result<Manifest> {
        Ok(toml::from_str(&format!("name = \"a\"\nversion = \"1.0.0\"\n{text}"))?)
    }

    /// A component that does nothing but have the world of `manifest`.
    fn component(manifest: &Manifest) -> Result<Vec<u8>> {
        let folder = tempfile::tempdir()?;
        world::write(manifest, folder.path())?;
        let mut resolve = wit_parser::Resolve::default();
        let (package, _) = resolve.push_dir(folder.path())?;
        let world = resolve.select_world(&[package], Some(world::WORLD))?;
        let mut module = dummy_module(&resolve, world, wit_parser::ManglingAndAbi::Standard32);
        embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8)?;
        ComponentEncoder::default().module(&module)?.encode()
    }

    #[test]
    fn a_component_and_its_manifest_must_agree() -> Result<()> {
        let asked = manifest("services = [\"keyvalue\"]\n[request]")?;
        let built = component(&asked)?;
        assert!(check(&built, &asked).is_ok());
        for (text, expected) in [
            ("[request]", "imports witgate:gateway/keyvalue@0.1.0, which filter.toml does not ask for"),
            (
                "services = [\"keyvalue\"]\n[request]\n[response]",
                "lacks a response handler, but filter.toml has [response]",
            ),
            ("services = [\"keyvalue\"]\n[response]", "has a request handler, but filter.toml lacks [request]"),
        ] {
            let error = check(&built, &manifest(text)?).err().map(|error| error.to_string()).unwrap_or_default();
            assert!(error.contains(expected), "{expected} not in {error}");
        }
        assert!(check(b"\0asm\x01\0\0\0", &asked).is_err());
        Ok(())
    }
}
