//! Checks that a component agrees with its manifest.
//!
//! This runs before the component is put in place, so that the author sees a mistake at build time
//! and not at the gateway. Kind, imports and phases come first, because their errors can say what
//! to do. Then the whole component is validated and its types are compared with those of the world.
//! This module does not know: languages, files.

use anyhow::{Context as _, Result, bail};
use wasmparser::{Encoding, Parser, Payload};
use witgate_manifest::{Manifest, SERVICES};

use crate::wit;

/// Checks `component`. Exports beyond the handlers are allowed, because some tools add them.
///
/// # Errors
///
/// The text says what does not agree and what to do.
pub(crate) fn check(component: &[u8], manifest: &Manifest) -> Result<()> {
    let Names { imports, exports } = names(component)?;
    let (resolve, world) = wit::resolve(manifest)?;
    let granted: Vec<String> = resolve.worlds[world].imports.keys().map(|key| resolve.name_world_key(key)).collect();
    if let Some(import) = imports.iter().find(|import| !granted.contains(import)) {
        bail!("the component imports {import}, {}", advice(import, manifest));
    }
    for (phase, wanted) in [("request", manifest.request.is_some()), ("response", manifest.response.is_some())] {
        let exported = exports.contains(&wit::interface(&format!("{phase}-handler")));
        if exported != wanted {
            let (component, toml) = if wanted { ("lacks", "has") } else { ("has", "lacks") };
            bail!("the component {component} a {phase} handler, but filter.toml {toml} [{phase}]: make them agree");
        }
    }
    wit_component::targets(&resolve, world, component)
        .context("the component is not valid, or a type in it differs from wit/: was it built against another version?")
}

/// Why the import is refused, and what the author can do.
fn advice(import: &str, manifest: &Manifest) -> String {
    if import.starts_with("wasi:") {
        return "which the gateway does not provide: use the SDK's clock, random, log and keyvalue".into();
    }
    for (phase, wanted, interface) in
        [("request", manifest.request.is_some(), "request-edit"), ("response", manifest.response.is_some(), "response")]
    {
        if !wanted && import == wit::interface(interface) {
            return format!(
                "which is available only in the {phase} phase: add [{phase}] to filter.toml, or remove the call"
            );
        }
    }
    if let Some(service) = SERVICES.iter().find(|service| import == wit::interface(service)) {
        return format!("which filter.toml does not request: add `services = [\"{service}\"]`, or remove the call");
    }
    "which the gateway does not know: remove the code that needs it".into()
}

/// The names that the outermost component imports and exports.
struct Names {
    imports: Vec<String>,
    exports: Vec<String>,
}

fn names(component: &[u8]) -> Result<Names> {
    let (mut imports, mut exports, mut depth) = (vec![], vec![], 0_usize);
    for payload in Parser::new(0).parse_all(component) {
        match payload.context("the result is not WebAssembly, or it is truncated")? {
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
    Ok(Names { imports, exports })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter_toml;
    use wit_component::{ComponentEncoder, StringEncoding, dummy_module, embed_component_metadata};
    use wit_parser::{ManglingAndAbi, Resolve, WorldId};

    fn manifest(text: &str) -> Result<Manifest> {
        filter_toml::parse(&format!("name = \"a\"\nversion = \"1.0.0\"\n{text}"), "f").map_err(anyhow::Error::msg)
    }

    /// A component without code that imports and exports this world.
    fn component(resolve: &Resolve, world: WorldId) -> Result<Vec<u8>> {
        let mut module = dummy_module(resolve, world, ManglingAndAbi::Standard32);
        embed_component_metadata(&mut module, resolve, world, StringEncoding::UTF8)?;
        ComponentEncoder::default().module(&module)?.encode()
    }

    fn of_manifest(text: &str) -> Result<Vec<u8>> {
        let (resolve, world) = wit::resolve(&manifest(text)?)?;
        component(&resolve, world)
    }

    fn of_wit(text: &str) -> Result<Vec<u8>> {
        let mut resolve = Resolve::default();
        let package = resolve.push_str("test.wit", text)?;
        let world = resolve.select_world(&[package], None)?;
        component(&resolve, world)
    }

    fn refusal(component: &[u8], text: &str) -> Result<String> {
        let error = check(component, &manifest(text)?).err();
        Ok(error.map(|error| format!("{error:#}")).unwrap_or_else(|| "accepted".into()))
    }

    #[test]
    fn a_component_built_for_its_manifest_is_accepted() -> Result<()> {
        for text in ["[request]", "[response]", "services = [\"keyvalue\"]\n[request]\n[response]"] {
            assert_eq!(refusal(&of_manifest(text)?, text)?, "accepted", "{text}");
        }
        Ok(())
    }

    #[test]
    fn imports_and_phases_must_agree_with_the_manifest() -> Result<()> {
        let keyvalue = "services = [\"keyvalue\"]\n[request]";
        for (built, manifest, expected) in [
            (keyvalue, "[request]", "imports witgate:gateway/keyvalue@0.1.0, which filter.toml does not request"),
            (
                "[request]",
                "[response]",
                "request-edit@0.1.0, which is available only in the request phase: add [request]",
            ),
            (
                "[response]",
                "[request]",
                "response@0.1.0, which is available only in the response phase: add [response]",
            ),
            ("[request]", "[request]\n[response]", "lacks a response handler, but filter.toml has [response]"),
        ] {
            let refusal = refusal(&of_manifest(built)?, manifest)?;
            assert!(refusal.contains(expected), "{expected} not in {refusal}");
        }
        Ok(())
    }

    #[test]
    fn a_component_that_is_not_a_filter_is_refused() -> Result<()> {
        let wasi = of_wit(
            "package a:b; world w { import wasi:random/random@0.2.0; } package wasi:random@0.2.0 { interface random { r: func() -> u32; } }",
        )?;
        let other = of_wit("package a:b; interface i { f: func(); } world w { import i; }")?;
        let empty = of_wit("package a:b; world w { export run: func(); }")?;
        let whole = of_manifest("[request]")?;
        for (bytes, expected) in [
            (wasi.as_slice(), "imports wasi:random/random@0.2.0, which the gateway does not provide"),
            (&other, "imports a:b/i, which the gateway does not know"),
            (&empty, "lacks a request handler"),
            (&whole[..whole.len() / 2], "truncated"),
            (b"\0asm\x01\0\0\0", "a core module, not a component"),
            (b"hello", "not WebAssembly"),
        ] {
            let refusal = refusal(bytes, "[request]")?;
            assert!(refusal.contains(expected), "{expected} not in {refusal}");
        }
        Ok(())
    }

    #[test]
    fn the_types_must_be_those_of_the_package() -> Result<()> {
        let handler = "package witgate:gateway@0.1.0; interface request-handler { handle-request: func() -> string; } world w { export request-handler; }";
        let refusal = refusal(&of_wit(handler)?, "[request]")?;
        assert!(refusal.contains("a type in it differs from wit/"), "{refusal}");
        Ok(())
    }
}
