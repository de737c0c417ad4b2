//! Puts the merged module into the component that was encoded for its outline.
//!
//! The encoder refuses imports that the world does not have, and padding is such. So it sees an outline, and here the module takes that one's place; the instance that its padding comes
//! from gets the names for it. All else is copied as it is. Must not know: how the module was made.

use anyhow::{Context as _, Result};
use wasm_encoder::{ComponentSectionId, ExportKind, InstanceSection, ModuleArg, RawSection};
use wasmparser::{Instance, InstanceSectionReader, Parser, Payload};

use super::merge::Padding;

/// The component with `module` in the place of the one core module that has a memory of its own.
pub(super) fn swap(outlined: &[u8], module: &[u8], padding: Option<&Padding>) -> Result<Vec<u8>> {
    let padded = match padding {
        Some(padding) => Some((padding, instance(outlined, &padding.module)?)),
        None => None,
    };
    let mut component = wasm_encoder::Component::new();
    let (mut instances, mut depth) = (0, 0_i32);
    for payload in Parser::new(0).parse_all(outlined) {
        let payload = payload?;
        let is_inside = depth > 0;
        match &payload {
            Payload::Version { .. } => continue,
            Payload::End(_) => {
                depth -= 1;
                continue;
            }
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            _ => {}
        }
        let Some((id, range)) = payload.as_section().filter(|_| !is_inside) else { continue };
        match payload {
            Payload::InstanceSection(section) => {
                let written = instance_section(section, instances, padded.as_ref())?;
                instances += written.len();
                component.section(&written);
            }
            Payload::ModuleSection { .. } if has_memory(&outlined[range.clone()])? => {
                component.section(&RawSection { id: ComponentSectionId::CoreModule.into(), data: module });
            }
            _ => {
                component.section(&RawSection { id, data: &outlined[range] });
            }
        }
    }
    Ok(component.finish())
}

/// The index of the core instance that gives the module its imports of this name.
fn instance(outlined: &[u8], name: &str) -> Result<u32> {
    for payload in Parser::new(0).parse_all(outlined) {
        let Payload::InstanceSection(section) = payload? else { continue };
        for instance in section {
            let Instance::Instantiate { args, .. } = instance? else { continue };
            if let Some(argument) = args.iter().find(|argument| argument.name == name) {
                return Ok(argument.index);
            }
        }
    }
    anyhow::bail!("nothing gives the module {name}")
}

fn has_memory(module: &[u8]) -> Result<bool> {
    for payload in Parser::new(0).parse_all(module) {
        if matches!(payload?, Payload::MemorySection(_)) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The section as it is, with more names for one function in the instance of the padding. `first` is the index of the section's first instance.
fn instance_section(
    section: InstanceSectionReader<'_>,
    first: u32,
    padded: Option<&(&Padding, u32)>,
) -> Result<InstanceSection> {
    let mut written = InstanceSection::new();
    for (instance, index) in section.into_iter().zip(first..) {
        match instance? {
            Instance::Instantiate { module_index, args } => {
                let args = args.iter().map(|argument| (argument.name, ModuleArg::Instance(argument.index)));
                written.instantiate(module_index, args);
            }
            Instance::FromExports(exports) => {
                let mut items: Vec<(&str, ExportKind, u32)> =
                    exports.iter().map(|export| (export.name, export.kind.into(), export.index)).collect();
                if let Some((padding, _)) = padded.filter(|padded| padded.1 == index) {
                    let own = items.iter().find(|item| item.0 == padding.field);
                    let &(_, kind, function) = own.context("the function that pads is not there")?;
                    items.extend(padding.names.iter().map(|name| (name.as_str(), kind, function)));
                }
                written.export_items(items);
            }
        }
    }
    Ok(written)
}
