//! What a .wasm file declares: its world, imports, phases and manifest, read without compiling or
//! running it.
//!
//! A file of the wrong kind is refused within milliseconds and with a message, before a compiler
//! sees it. This module does not know: where the file came from, what the configuration grants
//! (`settings.rs`).

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use wasmparser::{BinaryReaderError, Chunk, Encoding, Parser, Payload};
pub use witgate_manifest::{BodyMode, Manifest, Phase};
use witgate_manifest::{EXAMPLES_SECTION, Example, examples_from_section};

use crate::chunks::for_each_chunk;
use crate::load_error::{LoadError, LoadErrorReason};
use crate::sbom;
pub use crate::sbom::Package;

/// The largest file that the gateway reads, in bytes.
pub const FILE_BYTES_MAX: u64 = 128 << 20;
/// Function bodies after which the parser yields to other threads.
const BODIES_PER_YIELD: usize = 500;
/// The largest number of imports of a component, and of exports.
const NAMES_MAX: usize = 1000;
/// Bytes of the names of all imports, and of all exports. They are kept as long as the component.
const NAME_BYTES_MAX: usize = 64 << 10;
/// The WIT package of the gateway.
pub(crate) const PACKAGE: &str = "witgate:gateway/";
/// The versions of the package that this gateway speaks. Patch releases of one minor version are
/// compatible.
pub(crate) const VERSION: &str = "0.1.";

/// The interface of a component that answers requests itself, in any release of WASI 0.2.
const HTTP_HANDLER: &str = "wasi:http/incoming-handler@0.2.";

/// What a component's file declares.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ComponentInfo {
    /// The SHA-256 of the file, hexadecimal.
    pub digest: String,
    /// The size of the file in bytes.
    pub size: usize,
    /// The manifest. `None` if the file was built without `componentize`.
    pub manifest: Option<Manifest>,
    /// Whether it exports `request-handler`.
    pub request_phase: bool,
    /// Whether it exports `response-handler`.
    pub response_phase: bool,
    /// Whether it exports `wasi:http/incoming-handler`: then it can be an upstream.
    pub handles_http: bool,
    /// The imported interfaces as written: `witgate:gateway/request@0.1.0`.
    pub imports: Vec<String>,
    /// The names of the exports.
    pub exports: Vec<String>,
    /// The number of core modules: 1 to 3 in an optimized guest, dozens in one that links at run
    /// time.
    pub core_modules: usize,
    /// The number of functions of all core modules.
    pub functions: usize,
    /// The largest function body in bytes.
    pub largest_function: usize,
    /// Whether instantiation runs code of the file.
    #[serde(rename = "starts_code")]
    pub runs_code_at_instantiation: bool,
    /// The packages in the embedded SBOM. Empty without one.
    pub packages: Vec<Package>,
}

/// Limits for the compiler's input. Within them, compiling takes seconds and not minutes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SizeLimits {
    /// The number of functions of all core modules.
    pub functions: usize,
    /// The size of one function's body in bytes.
    pub function_bytes: usize,
}

/// Reads what a file declares. Does not check that its code is valid: the compiler does.
///
/// # Errors
///
/// The file is not a component, is damaged, has too many imports or exports, or exports no handler.
pub fn describe(bytes: &[u8]) -> Result<ComponentInfo, LoadError> {
    check_kind(bytes)?;
    let mut info = ComponentInfo {
        digest: digest(bytes),
        size: bytes.len(),
        manifest: None,
        request_phase: false,
        response_phase: false,
        handles_http: false,
        imports: vec![],
        exports: vec![],
        core_modules: 0,
        functions: 0,
        largest_function: 0,
        runs_code_at_instantiation: false,
        packages: vec![],
    };
    let (mut depth, mut bodies) = (0_usize, 0_usize);
    for payload in Parser::new(0).parse_all(bytes) {
        match payload.map_err(malformed)? {
            Payload::ModuleSection { .. } => {
                info.core_modules += 1;
                depth += 1;
            }
            Payload::ComponentSection { .. } => depth += 1,
            Payload::CodeSectionStart { count, .. } => info.functions += count as usize,
            Payload::CodeSectionEntry(body) => {
                info.largest_function = info.largest_function.max(body.range().len());
                bodies += 1;
                if bodies % BODIES_PER_YIELD == 0 {
                    std::thread::yield_now();
                }
            }
            Payload::StartSection { .. } | Payload::ComponentStartSection { .. } => {
                info.runs_code_at_instantiation = true;
            }
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ComponentImportSection(section) if depth == 0 => {
                check_names(info.imports.len(), section.count(), "imports")?;
                for import in section {
                    add_name(&mut info.imports, import.map_err(malformed)?.name.name, "imports")?;
                }
            }
            Payload::ComponentExportSection(section) if depth == 0 => {
                check_names(info.exports.len(), section.count(), "exports")?;
                for export in section {
                    add_name(&mut info.exports, export.map_err(malformed)?.name.name, "exports")?;
                }
            }
            Payload::CustomSection(section) if depth == 0 && section.name() == witgate_manifest::SECTION => {
                info.manifest = Some(manifest(section.data())?);
            }
            // Each core module can have one.
            Payload::CustomSection(section) if section.name() == sbom::SECTION => {
                info.packages.extend(sbom::packages(section.data(), sbom::PACKAGES_MAX - info.packages.len())?);
            }
            _ => {}
        }
    }
    info.request_phase = info.exports.iter().any(|name| is_interface(name, "request-handler"));
    info.response_phase = info.exports.iter().any(|name| is_interface(name, "response-handler"));
    info.handles_http = info.exports.iter().any(|name| name.starts_with(HTTP_HANDLER));
    check_world(&info)?;
    Ok(info)
}

/// The examples of a component; none if it was built without. The bytes are those of a file that
/// [`describe`] accepts.
///
/// # Errors
///
/// The section of the examples is damaged or above a limit.
pub fn examples(bytes: &[u8]) -> Result<Vec<Example>, LoadError> {
    let mut depth = 0_usize;
    for payload in Parser::new(0).parse_all(bytes) {
        match payload.map_err(malformed)? {
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::CustomSection(section) if depth == 0 && section.name() == EXAMPLES_SECTION => {
                return examples_from_section(section.data())
                    .map_err(|error| LoadError::new(LoadErrorReason::Malformed, error.to_string()).with_source(error));
            }
            _ => {}
        }
    }
    Ok(vec![])
}

impl ComponentInfo {
    /// Checks the size of the code.
    ///
    /// # Errors
    ///
    /// The code is above a limit, so that compiling could take too long.
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

/// Whether `name` is this interface of the package, in a version that the gateway speaks.
pub(crate) fn is_interface(name: &str, interface: &str) -> bool {
    name.strip_prefix(PACKAGE)
        .and_then(|rest| rest.strip_prefix(interface))
        .and_then(|rest| rest.strip_prefix('@'))
        .is_some_and(|version| version.starts_with(VERSION))
}

fn digest(bytes: &[u8]) -> String {
    let mut hasher = Sha256::new();
    for_each_chunk(bytes, |chunk| hasher.update(chunk));
    hex::encode(hasher.finalize())
}

fn check_kind(bytes: &[u8]) -> Result<(), LoadError> {
    let refuse = |reason, message: &str| Err(LoadError::new(reason, message));
    if bytes.is_empty() {
        return refuse(LoadErrorReason::NotWasm, "the file is empty: was it read while being written?");
    }
    if !bytes.starts_with(b"\0asm") {
        return refuse(
            LoadErrorReason::NotWasm,
            "the file is not WebAssembly (it does not begin with \\0asm): build the filter with `witgate build`",
        );
    }
    if Parser::is_core_wasm(bytes) {
        return refuse(
            LoadErrorReason::CoreModule,
            "the file is a core module, not a component: build it with `witgate build`, or wrap it with `wasm-tools component new`",
        );
    }
    match Parser::new(0).parse(bytes, true) {
        Ok(Chunk::Parsed { payload: Payload::Version { encoding: Encoding::Component, .. }, .. }) => Ok(()),
        Ok(_) => refuse(LoadErrorReason::NotWasm, "the file's header is not that of a component"),
        Err(error) => Err(malformed(error)),
    }
}

fn check_names(before: usize, more: u32, what: &str) -> Result<(), LoadError> {
    let count = before + more as usize;
    if count <= NAMES_MAX {
        return Ok(());
    }
    let message = format!("the component has {count} {what}, above the limit of {NAMES_MAX}");
    Err(LoadError::new(LoadErrorReason::Limits, message))
}

fn add_name(names: &mut Vec<String>, name: &str, what: &str) -> Result<(), LoadError> {
    let bytes = names.iter().map(String::len).sum::<usize>() + name.len();
    if bytes > NAME_BYTES_MAX {
        let message = format!("the names of the {what} have {bytes} bytes, above the limit of {NAME_BYTES_MAX}");
        return Err(LoadError::new(LoadErrorReason::Limits, message));
    }
    names.push(name.to_owned());
    Ok(())
}

fn check_world(info: &ComponentInfo) -> Result<(), LoadError> {
    if info.request_phase || info.response_phase || info.handles_http {
        return Ok(());
    }
    Err(no_filter(info))
}

/// The refusal of a component that exports no handler of filters.
pub(crate) fn no_filter(info: &ComponentInfo) -> LoadError {
    let expected = format!("{PACKAGE}request-handler@{VERSION}x or {PACKAGE}response-handler@{VERSION}x");
    let found = if info.exports.is_empty() { "nothing".to_owned() } else { info.exports.join(", ") };
    let message = format!(
        "the component exports {found}, but a filter exports {expected}: build it for the world gateway-filter"
    );
    LoadError::new(LoadErrorReason::WrongWorld, message)
}

fn manifest(bytes: &[u8]) -> Result<Manifest, LoadError> {
    Manifest::from_section(bytes)
        .map_err(|error| LoadError::new(LoadErrorReason::Malformed, error.to_string()).with_source(error))
}

fn malformed(error: BinaryReaderError) -> LoadError {
    LoadError::new(LoadErrorReason::Malformed, format!("the file is damaged or cut off: {error}; build it again"))
        .with_source(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(bytes: &[u8]) -> &'static str {
        describe(bytes).map_or_else(|error| error.reason.label(), |_| "accepted")
    }

    #[test]
    fn a_file_that_is_not_a_filter_is_refused_with_its_reason() {
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
    fn the_names_of_a_component_are_bounded_together() {
        let text = |names: usize| {
            let imports: String =
                (0..names).map(|n| format!("(import \"{}{n:04}\" (func))", "a".repeat(1000))).collect();
            wat::parse_str(format!("(component {imports})")).unwrap_or_default()
        };
        assert_eq!((reason(&text(60)), reason(&text(70))), ("wrong-world", "limits"));
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
            assert_ne!(reason(&bytes), "accepted");
        }
    }
}
