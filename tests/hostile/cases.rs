//! The hostile filters, and for each the status and the error kind that its call must end with.

use anyhow::Result;
use harness::wat::{filter, header_setter, module, responder};

const BYTES: &str = "(import \"witgate:gateway/random@0.1.0\" \"bytes\" (func $bytes (param i32 i32)))";
const HEADER: &str = "(import \"witgate:gateway/request@0.1.0\" \"header\" (func $header (param i32 i32 i32)))";
const NUMBER: &str = "(import \"witgate:gateway/random@0.1.0\" \"number\" (func $number (result i32)))";
const LOG: &str = "(import \"witgate:gateway/log@0.1.0\" \"write\" (func $log (param i32 i32 i32)))";
const EDIT: &str = "(import \"witgate:gateway/request-edit@0.1.0\" \"set-header\" (func $set (param i32 i32 i32 i32)))
               (import \"witgate:gateway/request-edit@0.1.0\" \"set-body\" (func $body (param i32 i32)))
               (import \"witgate:gateway/request-edit@0.1.0\" \"set-path\" (func $path (param i32 i32)))";
const RECURSION: &str =
    "(func $deep (param i64) (result i64) (i64.add (call $deep (i64.add (local.get 0) (i64.const 1))) (i64.const 1)))";

/// A hostile filter.
pub(super) struct Case {
    pub(super) name: &'static str,
    /// The component.
    pub(super) filter: Result<Vec<u8>>,
    /// The status that the client must get.
    pub(super) status: u16,
    /// The error kind that metrics and log must show.
    pub(super) kind: &'static str,
}

fn case(name: &'static str, filter: Result<Vec<u8>>, status: u16, kind: &'static str) -> Case {
    Case { name, filter, status, kind }
}

pub(super) fn cases() -> Vec<Case> {
    let groups = [endless_calls(), exceeded_limits(), traps_and_errors(), invalid_responses(), invalid_edits()];
    groups.into_iter().flatten().collect()
}

/// Calls that never return. They end at the deadline.
fn endless_calls() -> Vec<Case> {
    vec![
        case("loop", filter("(loop $l (br $l)) (unreachable)"), 504, "deadline"),
        case(
            "call loop",
            module(
                "(func $f (param i32) (result i32) (local.get 0))",
                "(loop $l (drop (call $f (i32.const 1))) (br $l)) (unreachable)",
            ),
            504,
            "deadline",
        ),
        case(
            "memory.fill loop",
            filter("(loop $l (memory.fill (i32.const 0) (i32.const 1) (i32.const 196608)) (br $l)) (unreachable)"),
            504,
            "deadline",
        ),
        case(
            "host call loop",
            module(NUMBER, "(loop $l (drop (call $number)) (br $l)) (unreachable)"),
            504,
            "deadline",
        ),
        case(
            "log flood",
            module(LOG, "(loop $l (call $log (i32.const 2) (i32.const 0) (i32.const 100)) (br $l)) (unreachable)"),
            504,
            "deadline",
        ),
    ]
}

/// Calls that exceed a limit of memory, tables or host functions.
fn exceeded_limits() -> Vec<Case> {
    vec![
        case(
            "memory grow loop",
            filter("(loop $l (drop (memory.grow (i32.const 1))) (br $l)) (unreachable)"),
            502,
            "memory",
        ),
        case("memory grow at once", filter("(drop (memory.grow (i32.const 60000))) (i32.const 0)"), 502, "memory"),
        case(
            "table grow",
            module(
                "(table $t 1 funcref)",
                "(loop $l (drop (table.grow $t (ref.null func) (i32.const 1000))) (br $l)) (unreachable)",
            ),
            502,
            "limit",
        ),
        case(
            "1 GiB of random",
            module(BYTES, "(call $bytes (i32.const 0x40000000) (i32.const 1024)) (i32.const 0)"),
            502,
            "limit",
        ),
        case(
            "1000 edits",
            module(
                &format!("{EDIT} (data (i32.const 3072) \"x-a\")"),
                "(loop $l (call $set (i32.const 3072) (i32.const 3) (i32.const 3072) (i32.const 3)) (br $l)) (unreachable)",
            ),
            502,
            "limit",
        ),
    ]
}

/// Traps, invalid results (canonical ABI) and errors that the filter returns.
fn traps_and_errors() -> Vec<Case> {
    vec![
        case("unreachable", filter("(unreachable)"), 502, "trap"),
        case("division by zero", filter("(i32.div_u (i32.const 1) (i32.const 0))"), 502, "trap"),
        case("out of bounds", filter("(i32.load (i32.const 0x7fffffff))"), 502, "trap"),
        case(
            "invalid indirect call",
            module("(type $t (func)) (table 1 funcref)", "(call_indirect (type $t) (i32.const 0)) (i32.const 0)"),
            502,
            "trap",
        ),
        case("deep recursion", module(RECURSION, "(drop (call $deep (i64.const 0))) (i32.const 0)"), 502, "trap"),
        case("result pointer out of bounds", filter("(i32.const -8)"), 502, "trap"),
        case("result pointer misaligned", filter("(i32.const 1)"), 502, "trap"),
        case("invalid discriminant", module("(data (i32.const 1024) \"\\09\")", "(i32.const 1024)"), 502, "trap"),
        case(
            "invalid UTF-8",
            module(
                "(data (i32.const 1024) \"\\01\\00\\00\\00\\00\\08\\00\\00\\02\\00\\00\\00\") (data (i32.const 2048) \"\\ff\\fe\")",
                "(i32.const 1024)",
            ),
            502,
            "trap",
        ),
        case(
            "2 GiB length",
            module("(data (i32.const 1024) \"\\01\\00\\00\\00\\00\\08\\00\\00\\ff\\ff\\ff\\7f\")", "(i32.const 1024)"),
            502,
            "trap",
        ),
        case(
            "allocator out of bounds",
            module(
                &format!("{HEADER} (global $x (mut i32) (i32.const 0))"),
                "(call $header (i32.const 0) (i32.const 0x7fffffff) (i32.const 0)) (i32.const 0)",
            ),
            502,
            "trap",
        ),
        case(
            "returns err",
            module(
                "(data (i32.const 1024) \"\\01\\00\\00\\00\\00\\08\\00\\00\\05\\00\\00\\00\") (data (i32.const 2048) \"oh no\")",
                "(i32.const 1024)",
            ),
            502,
            "error",
        ),
    ]
}

/// Responses that must not be sent.
fn invalid_responses() -> Vec<Case> {
    vec![
        case("status 0", responder(0, None, ""), 502, "invalid-output"),
        case("status 101", responder(101, None, ""), 502, "invalid-output"),
        case("status 199", responder(199, None, ""), 502, "invalid-output"),
        case("status 999", responder(999, None, ""), 502, "invalid-output"),
        case("204 with a body", responder(204, None, "x"), 502, "invalid-output"),
        case("reply with CRLF", responder(200, Some(("x-a", "1\r\n\r\nsmuggled")), ""), 502, "invalid-output"),
        case("reply with upgrade", responder(200, Some(("upgrade", "h2c")), ""), 502, "invalid-output"),
        case("reply with content-length", responder(200, Some(("content-length", "7")), "x"), 502, "invalid-output"),
    ]
}

/// Edits that would corrupt the request.
fn invalid_edits() -> Vec<Case> {
    vec![
        case("CRLF in a value", header_setter("x-a", "1\r\nx-b: 2", ""), 502, "invalid-output"),
        case("NUL in a value", header_setter("x-a", "1\0", ""), 502, "invalid-output"),
        case("a name with a space", header_setter("x a", "1", ""), 502, "invalid-output"),
        case("connection", header_setter("connection", "close", ""), 502, "invalid-output"),
        case("transfer-encoding", header_setter("transfer-encoding", "chunked", ""), 502, "invalid-output"),
        case("content-length", header_setter("content-length", "1", ""), 502, "invalid-output"),
        case("host", header_setter("host", "other", ""), 502, "invalid-output"),
        case(
            "a path with CRLF",
            module(
                &format!("{EDIT} (data (i32.const 3072) \"/a\\0d\\0a\")"),
                "(call $path (i32.const 3072) (i32.const 4)) (i32.const 0)",
            ),
            502,
            "invalid-output",
        ),
        case(
            "a path with a space",
            module(
                &format!("{EDIT} (data (i32.const 3072) \"/a b\")"),
                "(call $path (i32.const 3072) (i32.const 4)) (i32.const 0)",
            ),
            502,
            "invalid-output",
        ),
    ]
}
