//! The WebAssembly proposals that filters may use, as an explicit list.
//!
//! wasmtime turns new proposals on by default, but each of them can need something of the pool of
//! instances: exceptions and garbage collection need a heap each, threads need memories that
//! instances share. A proposal is in [`ALLOWED`] only if the pool has what it needs:
//!
//! | proposal | what it needs of the pool |
//! |---|---|
//! | multi-memory | memories: four for each component |
//! | reference types, bulk memory | tables: ten for each component, two for each module |
//! | all others in the list | nothing beyond code |
//!
//! A component that uses another one is refused when it is loaded, with the proposal's name. This
//! module does not know: who loads a component.

use wasmparser::{Validator, WasmFeatures};

use crate::load_error::{LoadError, LoadErrorReason};

/// What components may use.
const ALLOWED: WasmFeatures = WasmFeatures::FLOATS
    .union(WasmFeatures::MUTABLE_GLOBAL)
    .union(WasmFeatures::SATURATING_FLOAT_TO_INT)
    .union(WasmFeatures::SIGN_EXTENSION)
    .union(WasmFeatures::MULTI_VALUE)
    .union(WasmFeatures::BULK_MEMORY)
    .union(WasmFeatures::REFERENCE_TYPES)
    .union(WasmFeatures::EXTENDED_CONST)
    .union(WasmFeatures::SIMD)
    .union(WasmFeatures::RELAXED_SIMD)
    .union(WasmFeatures::TAIL_CALL)
    .union(WasmFeatures::MULTI_MEMORY)
    .union(WasmFeatures::COMPONENT_MODEL);

/// The name of a proposal, what a component that uses it needs, and what its author can do.
type Refused = (&'static str, WasmFeatures, &'static str);

const NO_HEAP: &str = "instances have no garbage-collected heap";
const NO_SHARED: &str = "an instance runs on one thread";
const ONLY_32: &str = "the interfaces of filters have 32-bit addresses";
const NOT_FINAL: &str = "the proposal is not part of WebAssembly 3.0";
const PLAIN_ABI: &str = "the interfaces of filters are plain functions";

/// What components may not use. A proposal stands behind those that it builds upon, so that the
/// smallest one is named.
const REFUSED: [Refused; 16] = [
    ("extern references", WasmFeatures::GC_TYPES, NO_HEAP),
    ("function references", WasmFeatures::GC_TYPES.union(WasmFeatures::FUNCTION_REFERENCES), NO_HEAP),
    ("exception handling", WasmFeatures::GC_TYPES.union(WasmFeatures::EXCEPTIONS), NO_HEAP),
    (
        "legacy exception handling",
        WasmFeatures::GC_TYPES.union(WasmFeatures::EXCEPTIONS).union(WasmFeatures::LEGACY_EXCEPTIONS),
        NO_HEAP,
    ),
    (
        "garbage collection",
        WasmFeatures::GC_TYPES.union(WasmFeatures::FUNCTION_REFERENCES).union(WasmFeatures::GC),
        NO_HEAP,
    ),
    ("threads", WasmFeatures::THREADS, NO_SHARED),
    (
        "shared-everything threads",
        WasmFeatures::THREADS.union(WasmFeatures::GC_TYPES).union(WasmFeatures::SHARED_EVERYTHING_THREADS),
        NO_SHARED,
    ),
    ("memory64", WasmFeatures::MEMORY64, ONLY_32),
    ("custom page sizes", WasmFeatures::CUSTOM_PAGE_SIZES, NOT_FINAL),
    ("memory control", WasmFeatures::MEMORY_CONTROL, NOT_FINAL),
    ("wide arithmetic", WasmFeatures::WIDE_ARITHMETIC, NOT_FINAL),
    (
        "stack switching",
        WasmFeatures::GC_TYPES
            .union(WasmFeatures::FUNCTION_REFERENCES)
            .union(WasmFeatures::EXCEPTIONS)
            .union(WasmFeatures::STACK_SWITCHING),
        NOT_FINAL,
    ),
    ("compact imports", WasmFeatures::COMPACT_IMPORTS, NOT_FINAL),
    (
        "asynchronous components",
        WasmFeatures::CM_ASYNC
            .union(WasmFeatures::CM_ASYNC_STACKFUL)
            .union(WasmFeatures::CM_MORE_ASYNC_BUILTINS)
            .union(WasmFeatures::CM_THREADING)
            .union(WasmFeatures::CM_ERROR_CONTEXT),
        PLAIN_ABI,
    ),
    ("components with 64-bit addresses", WasmFeatures::MEMORY64.union(WasmFeatures::CM64), ONLY_32),
    ("new component types", WasmFeatures::all(), PLAIN_ABI),
];

/// Allows exactly the listed proposals in an engine.
pub(crate) fn apply(config: &mut wasmtime::Config) {
    config.wasm_features(ALLOWED.complement(), false);
    config.wasm_features(ALLOWED, true);
}

/// Checks that a component is valid and uses only allowed proposals.
///
/// # Errors
///
/// `Proposal` with the name of the proposal that it uses, or `Compile` if no proposal makes it
/// valid.
pub fn check(component: &[u8]) -> Result<(), LoadError> {
    let Some(error) = error(component, ALLOWED) else { return Ok(()) };
    let used = REFUSED.iter().find(|(_, needs, _)| self::error(component, ALLOWED.union(*needs)).is_none());
    Err(match used {
        Some((name, _, why)) => LoadError::new(
            LoadErrorReason::Proposal,
            format!(
                "the component uses the WebAssembly proposal {name}, which filters cannot use: {why}; build it without"
            ),
        ),
        None => LoadError::new(
            LoadErrorReason::Compile,
            format!("the component is not valid: {error}; build it again with `witgate build`"),
        ),
    })
}

fn error(component: &[u8], features: WasmFeatures) -> Option<String> {
    Validator::new_with_features(features).validate_all(component).err().map(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lists_are_disjoint() {
        for (name, needs, _) in REFUSED {
            assert!(!ALLOWED.contains(needs), "{name}");
        }
    }

    #[test]
    fn a_component_that_is_not_valid_is_no_question_of_proposals() {
        let refused = check(b"\0asm\x0d\0\x01\0\x07\xff");
        assert_eq!(refused.err().map(|error| error.reason), Some(LoadErrorReason::Compile));
    }
}
