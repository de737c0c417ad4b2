//! Filters from WAT text. A test writes the handler's instructions, and this module adds the rest
//! of the component, so a hostile filter fits in one line.
//!
//! A handler returns a pointer to a `result<request-action, string>` (canonical ABI, byte offsets):
//!
//! | offset | `ok` (byte 0 is 0) | `err` (byte 0 is 1) |
//! |---|---|---|
//! | 4, 8 | action: 0 proceed, 1 respond; status | pointer and length of the text |
//! | 12, 16 | pointer and count of the headers | |
//! | 20, 24 | pointer and length of the body | |
//!
//! Memory starts as zeros, so a pointer to untouched memory means `ok(proceed)`.
//!
//! This module does not know: the SDKs, the gateway.

use anyhow::{Context as _, Result};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

/// A request filter whose handler consists of `body`, instructions that leave an i32.
pub fn filter(body: &str) -> Result<Vec<u8>> {
    module("", body)
}

/// The same with more fields of the core module: imports first, then globals, functions and data.
pub fn module(fields: &str, body: &str) -> Result<Vec<u8>> {
    component(
        "include request-filter;",
        &format!(
            "(module {fields}
               (memory (export \"memory\") 3)
               (func (export \"cabi_realloc\") (param i32 i32 i32 i32) (result i32) (i32.const 131072))
               (func (export \"witgate:gateway/request-handler@0.1.0#handle-request\") (result i32) {body}))"
        ),
    )
}

/// A filter that responds with this status, header and body.
pub fn responder(status: u16, header: Option<(&str, &str)>, body: &str) -> Result<Vec<u8>> {
    module(&response_data(status, header, body), "(i32.const 1024)")
}

/// The address of a response's body in the filter's memory.
const BODY: usize = 4096;

/// A filter that reports state: it responds with 200 and one digit for each of `expressions`.
///
/// It evaluates them first and executes `after` next. `fields` are more fields of the core module.
pub fn state_reporter(fields: &str, expressions: &[&str], after: &str) -> Result<Vec<u8>> {
    let mut body = String::new();
    for (index, expression) in expressions.iter().enumerate() {
        let at = BODY + index;
        body.push_str(&format!("(i32.store8 (i32.const {at}) (i32.add (i32.const 48) {expression}))"));
    }
    let fields = format!("{fields} {}", response_data(200, None, &"-".repeat(expressions.len())));
    module(&fields, &format!("{body} {after} (i32.const 1024)"))
}

/// The data segments of a response, whose address is 1024.
fn response_data(status: u16, header: Option<(&str, &str)>, body: &str) -> String {
    let le = |n: usize| format!("\\{:02x}\\{:02x}\\00\\00", n & 255, n >> 8 & 255);
    let escape = |text: &str| text.bytes().map(|byte| format!("\\{byte:02x}")).collect::<String>();
    let (name, value) = header.unwrap_or_default();
    // 1024: the result. 2048: the header's two strings. 3072, 3584: their bytes. 4096: the body.
    format!(
        "(data (i32.const 1024) \"{}{}{}{}{}{}{}\")
         (data (i32.const 2048) \"{}{}{}{}\")
         (data (i32.const 3072) \"{}\") (data (i32.const 3584) \"{}\") (data (i32.const {BODY}) \"{}\")",
        le(0),
        le(1),
        le(status.into()),
        le(2048),
        le(usize::from(header.is_some())),
        le(BODY),
        le(body.len()),
        le(3072),
        le(name.len()),
        le(3584),
        le(value.len()),
        escape(name),
        escape(value),
        escape(body),
    )
}

/// A filter that sets one request header, executes `after` and proceeds.
pub fn header_setter(name: &str, value: &str, after: &str) -> Result<Vec<u8>> {
    let escape = |text: &str| text.bytes().map(|byte| format!("\\{byte:02x}")).collect::<String>();
    let fields = format!(
        "(import \"witgate:gateway/request-edit@0.1.0\" \"set-header\" (func $set (param i32 i32 i32 i32)))
         (data (i32.const 3072) \"{}\") (data (i32.const 3584) \"{}\")",
        escape(name),
        escape(value)
    );
    let body = format!(
        "(call $set (i32.const 3072) (i32.const {}) (i32.const 3584) (i32.const {})) {after} (i32.const 0)",
        name.len(),
        value.len()
    );
    module(&fields, &body)
}

/// A filter that appends `mark` to the field `x-order` of the request and of the response, which
/// shows the order of the chain. Its request handler then executes `after`.
pub fn order_marker(mark: &str, after: &str) -> Result<Vec<u8>> {
    let wat = format!(
        "(module
           (import \"witgate:gateway/request-edit@0.1.0\" \"append-header\" (func $request (param i32 i32 i32 i32)))
           (import \"witgate:gateway/response@0.1.0\" \"append-header\" (func $response (param i32 i32 i32 i32)))
           (memory (export \"memory\") 1)
           (data (i32.const 3072) \"x-order\") (data (i32.const 3584) \"{mark}\")
           (func (export \"cabi_realloc\") (param i32 i32 i32 i32) (result i32) (i32.const 8192))
           (func (export \"witgate:gateway/request-handler@0.1.0#handle-request\") (result i32)
             (call $request (i32.const 3072) (i32.const 7) (i32.const 3584) (i32.const {length})) {after} (i32.const 0))
           (func (export \"witgate:gateway/response-handler@0.1.0#handle-response\") (result i32)
             (call $response (i32.const 3072) (i32.const 7) (i32.const 3584) (i32.const {length})) (i32.const 0)))",
        length = mark.len()
    );
    component("include gateway-filter;", &wat)
}

/// A filter that proceeds and imports an interface of another package, such as
/// `wasi:nn/graph@0.2.0`, with one function.
pub fn importing(import: &str) -> Result<Vec<u8>> {
    let (name, version) = import.split_once('@').context("no version")?;
    let (package, interface) = name.split_once('/').context("no interface")?;
    let wat = format!(
        "(module
           (import \"{import}\" \"f\" (func (result i32)))
           (memory (export \"memory\") 1)
           (func (export \"cabi_realloc\") (param i32 i32 i32 i32) (result i32) (i32.const 8192))
           (func (export \"witgate:gateway/request-handler@0.1.0#handle-request\") (result i32) (i32.const 0)))"
    );
    // The package stands behind the world, whose last brace then closes it.
    let items = format!(
        "include request-filter; import {import}; }} \
         package {package}@{version} {{ interface {interface} {{ f: func() -> u32; }}"
    );
    component(&items, &wat)
}

/// A component made of a core module's text and the items of its WIT world.
pub fn component(world: &str, wat: &str) -> Result<Vec<u8>> {
    component_from(world, wat::parse_str(wat)?)
}

/// A request filter that proceeds, with one more function for each of `lengths`, whose body has
/// about that many bytes.
pub fn with_functions_of(lengths: impl IntoIterator<Item = usize>) -> Result<Vec<u8>> {
    use wasm_encoder::{
        CodeSection, ExportKind, ExportSection, Function, FunctionSection, MemorySection, MemoryType, Module,
        TypeSection, ValType,
    };
    const STEP_BYTES: usize = 10;
    let mut types = TypeSection::new();
    types.ty().function([ValType::I32; 4], [ValType::I32]);
    types.ty().function([], [ValType::I32]);
    let (mut functions, mut code) = (FunctionSection::new(), CodeSection::new());
    for (kind, value) in [(0, 8192), (1, 0)] {
        functions.function(kind);
        let mut function = Function::new([]);
        function.instructions().i32_const(value).end();
        code.function(&function);
    }
    for (at, length) in lengths.into_iter().enumerate() {
        functions.function(1);
        let mut function = Function::new([(1, ValType::I32)]);
        // Every function differs, and the compiler cannot fold the loads because it does not know
        // their addresses.
        function.instructions().i32_const(at as i32).local_set(0);
        for _ in 0..length / STEP_BYTES {
            function
                .instructions()
                .local_get(0)
                .i32_load8_u(wasm_encoder::MemArg { offset: 1, align: 0, memory_index: 0 })
                .i32_const(3)
                .i32_add()
                .local_set(0);
        }
        function.instructions().local_get(0).end();
        code.function(&function);
    }
    let mut memories = MemorySection::new();
    memories.memory(MemoryType { minimum: 1, maximum: None, memory64: false, shared: false, page_size_log2: None });
    let mut exports = ExportSection::new();
    exports.export("memory", ExportKind::Memory, 0);
    exports.export("cabi_realloc", ExportKind::Func, 0);
    exports.export("witgate:gateway/request-handler@0.1.0#handle-request", ExportKind::Func, 1);
    let mut module = Module::new();
    module.section(&types).section(&functions).section(&memories).section(&exports).section(&code);
    component_from("include request-filter;", module.finish())
}

fn component_from(world: &str, mut module: Vec<u8>) -> Result<Vec<u8>> {
    let mut resolve = Resolve::default();
    let folder = tempfile::tempdir()?;
    for entry in std::fs::read_dir(crate::repository().join("wit"))? {
        let entry = entry?;
        std::fs::copy(entry.path(), folder.path().join(entry.file_name()))?;
    }
    std::fs::write(
        folder.path().join("test.wit"),
        format!("package witgate:gateway@0.1.0;\nworld test {{ {world} }}\n"),
    )?;
    let (package, _) = resolve.push_dir(folder.path())?;
    let world = resolve.select_world(&[package], Some("test"))?;
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8)?;
    ComponentEncoder::default().module(&module)?.encode()
}

/// Embeds a manifest (JSON) in a component, as componentize does.
pub fn with_manifest(component: Vec<u8>, json: &str) -> Vec<u8> {
    with_section(component, "witgate:manifest", json.as_bytes())
}

/// Embeds examples (JSON) in a component, as componentize does.
pub fn with_examples(component: Vec<u8>, json: &str) -> Vec<u8> {
    with_section(component, "witgate:examples", json.as_bytes())
}

/// Appends a custom section to a component.
pub fn with_section(mut component: Vec<u8>, name: &str, data: &[u8]) -> Vec<u8> {
    use wasm_encoder::{ComponentSection as _, CustomSection};
    CustomSection { name: name.into(), data: data.into() }.append_to_component(&mut component);
    component
}
