//! What a .wasm file claims to be, read without compiling or running it: world, imports, phases, manifest.
//!
//! Cheap refusals first: a file of the wrong kind is turned away in milliseconds and with a sentence, before a compiler
//! sees it. Must not know: where the file came from, what the configuration grants (that is `pool.rs`).

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use wasmparser::{Encoding, Parser, Payload};
pub use witgate_manifest::{BodyMode, Manifest, Phase};

use crate::chunks::for_each_chunk;
use crate::load_error::{LoadError, LoadErrorReason};

/// The largest file that is looked at, in bytes.
pub const FILE_BYTES_MAX: u64 = 128 << 20;
/// Function bodies that are passed over before others may have the core.
const BODIES_BETWEEN_TURNS: usize = 500;
/// Imports, and exports, of a component.
const NAMES_MAX: usize = 1000;
/// The package whose interfaces are the contract.
pub(super) const PACKAGE: &str = "witgate:gateway/";
/// The versions of it that this gateway speaks: patch releases of one minor version are compatible.
const VERSION: &str = "0.1.";

/// A file's claims.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ComponentInfo {
    /// SHA-256 of the file, hexadecimal.
    pub digest: String,
    /// Bytes of the file.
    pub size: usize,
    /// What the author wrote about it; none where it was built without `componentize`.
    pub manifest: Option<Manifest>,
    /// It exports `request-handler`.
    pub request_phase: bool,
    /// It exports `response-handler`.
    pub response_phase: bool,
    /// Interfaces that it imports, as written: `witgate:gateway/request@0.1.0`.
    pub imports: Vec<String>,
    /// What it exports.
    pub exports: Vec<String>,
    /// Core modules inside: 1 to 3 for a flat guest, dozens for one that links at run time.
    pub core_modules: usize,
    /// Functions of all core modules.
    pub functions: usize,
    /// The largest function body in bytes.
    pub largest_function: usize,
    /// Making an instance runs code of the file.
    pub starts_code: bool,
}

/// Reads a file's claims. Does not check that the code is valid: compiling does.
pub fn describe(bytes: &[u8]) -> Result<ComponentInfo, LoadError> {
    check_kind(bytes)?;
    let mut description = ComponentInfo {
        digest: digest(bytes),
        size: bytes.len(),
        manifest: None,
        request_phase: false,
        response_phase: false,
        imports: vec![],
        exports: vec![],
        core_modules: 0,
        functions: 0,
        largest_function: 0,
        starts_code: false,
    };
    let (mut depth, mut bodies) = (0_usize, 0_usize);
    for payload in Parser::new(0).parse_all(bytes) {
        match payload.map_err(malformed)? {
            Payload::ModuleSection { .. } => {
                description.core_modules += 1;
                depth += 1;
            }
            Payload::ComponentSection { .. } => depth += 1,
            Payload::CodeSectionStart { count, .. } => description.functions += count as usize,
            Payload::CodeSectionEntry(body) => {
                description.largest_function = description.largest_function.max(body.range().len());
                bodies += 1;
                if bodies % BODIES_BETWEEN_TURNS == 0 {
                    std::thread::yield_now();
                }
            }
            Payload::StartSection { .. } | Payload::ComponentStartSection { .. } => description.starts_code = true,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ComponentImportSection(section) if depth == 0 => {
                check_names(description.imports.len(), section.count(), "imports")?;
                for import in section {
                    description.imports.push(import.map_err(malformed)?.name.name.to_owned());
                }
            }
            Payload::ComponentExportSection(section) if depth == 0 => {
                check_names(description.exports.len(), section.count(), "exports")?;
                for export in section {
                    description.exports.push(export.map_err(malformed)?.name.name.to_owned());
                }
            }
            Payload::CustomSection(section) if depth == 0 && section.name() == witgate_manifest::SECTION => {
                description.manifest = Some(manifest(section.data())?);
            }
            _ => {}
        }
    }
    description.request_phase = description.exports.iter().any(|name| is_interface(name, "request-handler"));
    description.response_phase = description.exports.iter().any(|name| is_interface(name, "response-handler"));
    check_world(&description)?;
    Ok(description)
}

fn digest(bytes: &[u8]) -> String {
    let mut hasher = Sha256::new();
    for_each_chunk(bytes, |piece| hasher.update(piece));
    hex::encode(hasher.finalize())
}

/// What a compiler is given at most: with it, compiling takes seconds and not minutes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SizeLimits {
    /// Functions of all core modules.
    pub functions: usize,
    /// Bytes of one function's body.
    pub function_bytes: usize,
}

impl ComponentInfo {
    /// Refuses what would keep a compiler busy for too long.
    pub fn check_size(&self, limits: &SizeLimits) -> Result<(), LoadError> {
        let above = |what: String, limit: usize, key: &str| {
            Err(LoadError::new(LoadErrorReason::Limits, format!("{what}, above the limit of {limit} ({key})")))
        };
        if self.functions > limits.functions {
            let what = format!("the component has {} functions", self.functions);
            return above(what, limits.functions, "compile.functions");
        }
        if self.largest_function > limits.function_bytes {
            let what = format!("the component has a function of {} bytes", self.largest_function);
            return above(what, limits.function_bytes, "compile.function_bytes");
        }
        Ok(())
    }
}

fn check_names(before: usize, more: u32, what: &str) -> Result<(), LoadError> {
    if before + more as usize <= NAMES_MAX {
        return Ok(());
    }
    Err(LoadError::new(
        LoadErrorReason::Limits,
        format!("the component has {} {what}, above the limit of {NAMES_MAX}", before + more as usize),
    ))
}

/// Whether `name` is this interface of the package, in a version that the gateway speaks.
pub(super) fn is_interface(name: &str, interface: &str) -> bool {
    name.strip_prefix(PACKAGE)
        .and_then(|rest| rest.strip_prefix(interface))
        .and_then(|rest| rest.strip_prefix('@'))
        .is_some_and(|version| version.starts_with(VERSION))
}

fn check_kind(bytes: &[u8]) -> Result<(), LoadError> {
    if bytes.is_empty() {
        return Err(LoadError::new(LoadErrorReason::NotWasm, "the file is empty: was it read while being written?"));
    }
    if !bytes.starts_with(b"\0asm") {
        return Err(LoadError::new(
            LoadErrorReason::NotWasm,
            "the file is not WebAssembly (it does not begin with \\0asm): build the filter with `componentize build`",
        ));
    }
    if Parser::is_core_wasm(bytes) {
        return Err(LoadError::new(
            LoadErrorReason::CoreModule,
            "the file is a core module, not a component: build it with `componentize build`, or wrap it with `wasm-tools component new`",
        ));
    }
    match Parser::new(0).parse(bytes, true) {
        Ok(wasmparser::Chunk::Parsed { payload: Payload::Version { encoding: Encoding::Component, .. }, .. }) => Ok(()),
        Ok(_) => Err(LoadError::new(LoadErrorReason::NotWasm, "the file's header is not that of a component")),
        Err(error) => Err(malformed(error)),
    }
}

fn check_world(description: &ComponentInfo) -> Result<(), LoadError> {
    if description.request_phase || description.response_phase {
        return Ok(());
    }
    let wanted = format!("{PACKAGE}request-handler@{VERSION}x or {PACKAGE}response-handler@{VERSION}x");
    let found = if description.exports.is_empty() { "nothing".to_owned() } else { description.exports.join(", ") };
    Err(LoadError::new(
        LoadErrorReason::WrongWorld,
        format!("the component exports {found}, but a filter exports {wanted}: build it for the world gateway-filter"),
    ))
}

fn manifest(bytes: &[u8]) -> Result<Manifest, LoadError> {
    Manifest::from_section(bytes).map_err(|error| LoadError::new(LoadErrorReason::Malformed, error.to_string()))
}

fn malformed(error: wasmparser::BinaryReaderError) -> LoadError {
    LoadError::new(LoadErrorReason::Malformed, format!("the file is damaged or cut off: {error}; build it anew"))
        .with_source(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(bytes: &[u8]) -> &'static str {
        describe(bytes).map_or_else(|error| error.reason.label(), |_| "taken")
    }

    #[test]
    fn what_is_no_filter_is_refused_by_kind() {
        assert_eq!(reason(b""), "not-wasm");
        assert_eq!(reason(b"hello"), "not-wasm");
        assert_eq!(reason(b"\0asm\x01\0\0\0"), "core-module");
        assert_eq!(reason(b"\0asm\x0d\0\x01\0"), "wrong-world");
        assert_eq!(reason(b"\0asm\x0d\0\x01\0\x07\xff"), "malformed");
        assert_eq!(reason(b"\0asm\x63\0\x01\0"), "malformed");
    }

    #[test]
    fn interfaces_match_by_name_and_minor_version() {
        assert!(is_interface("witgate:gateway/request-handler@0.1.0", "request-handler"));
        assert!(is_interface("witgate:gateway/request-handler@0.1.7", "request-handler"));
        assert!(!is_interface("witgate:gateway/request-handler@0.2.0", "request-handler"));
        assert!(!is_interface("witgate:gateway/request-handler", "request-handler"));
        assert!(!is_interface("other:gateway/request-handler@0.1.0", "request-handler"));
    }

    #[test]
    fn a_manifest_that_breaks_a_rule_is_malformed() {
        for (name, expected) in [("a", "wrong-world"), ("A", "malformed")] {
            let json = format!(r#"{{"name":"{name}","version":"1.0.0","request":{{}}}}"#);
            let section = [b"\x10witgate:manifest", json.as_bytes()].concat();
            let header = [b"\0asm\x0d\0\x01\0".as_slice(), &[0, section.len() as u8]].concat();
            assert_eq!(reason(&[header, section].concat()), expected, "{json}");
        }
    }

    #[test]
    fn any_bytes_are_refused_without_a_panic() {
        let mut bytes = b"\0asm\x0d\0\x01\0".to_vec();
        for seed in 0_u32..5000 {
            bytes.truncate(8);
            let mut state = seed.wrapping_mul(2_654_435_761) | 1;
            for _ in 0..seed % 40 {
                state ^= state << 13;
                state ^= state >> 17;
                state ^= state << 5;
                bytes.push(state as u8);
            }
            assert_ne!(reason(&bytes), "taken");
        }
    }
}
