//! Functions that stand in for the operating system.
//!
//! An interpreter imports WASI, which no filter has. Its tools stub these imports by traps, and a
//! trap ends the call past every `except` of the author. A function of this module returns what a
//! system without files, sockets and processes returns, so that the interpreter raises its own
//! exception. Clocks and randomness come from the gateway.
//!
//! The table has the functions of WASI 0.2 that wasi-libc imports. A function that is not in it
//! still traps, and so do those that must not return. This module does not know: interpreters.

use wasm_encoder::{Function, MemArg};

/// What a function returns. A value that does not fit into one core value is written to the
/// address in the last parameter.
#[derive(Clone, Copy)]
enum Answer {
    /// No value.
    Nothing,
    /// A core value: a handle, a number or a boolean.
    Value(i64),
    /// An empty list, or an option without a value.
    Empty,
    /// The error `code` of a `result`, whose payload begins at byte `at`.
    Error {
        at: u64,
        code: i32,
    },
    /// The success of a `result` without a payload.
    Done,
    /// The success of a `result` whose payload is this `u64`.
    Count(i64),
    /// The end of the entries of a folder.
    NoMore,
    /// The error of `open-at`: the file is absent, or cannot be written.
    Open,
    WallClock,
    Resolution,
    Ticks,
    RandomBytes,
}

// Cases of `error-code` in wasi:filesystem/types and wasi:sockets/network.
const BAD_DESCRIPTOR: i32 = 3;
const NO_ENTRY: i32 = 20;
const READ_ONLY: i32 = 33;
const ACCESS_DENIED: i32 = 1;
/// The case `closed` of `stream-error`.
const CLOSED: i32 = 1;
/// The flag `create` of `open-flags`, and `write` of `descriptor-flags`.
const OPEN_CREATE: i32 = 1;
const DESCRIPTOR_WRITE: i32 = 2;

/// The indices of the functions of the gateway, if the guest imports them.
#[derive(Default)]
pub(super) struct Services {
    /// `witgate:gateway/clock#now`.
    pub(super) now: Option<u32>,
    /// `witgate:gateway/clock#ticks`.
    pub(super) ticks: Option<u32>,
    /// `witgate:gateway/random#bytes`.
    pub(super) random: Option<u32>,
}

impl Services {
    /// Records a function of the host, with its index in the merged module.
    pub(super) fn add(&mut self, module: &str, field: &str, index: u32) {
        match (module.split('@').next().unwrap_or_default(), field) {
            ("witgate:gateway/clock", "now") => self.now = Some(index),
            ("witgate:gateway/clock", "ticks") => self.ticks = Some(index),
            ("witgate:gateway/random", "bytes") => self.random = Some(index),
            _ => {}
        }
    }
}

/// The body of the function that a core module imports as `field` of `module`. `None` if the
/// function is unknown or must not return.
pub(super) fn body(module: &str, field: &str, parameters: u32, services: &Services) -> Option<Function> {
    let answer = answer(module, field)?;
    let (mut body, last) = (Function::new([]), parameters.checked_sub(1));
    let at = |offset: u64, align: u32| MemArg { offset, align, memory_index: 0 };
    let mut code = body.instructions();
    match (answer, last) {
        (Answer::Nothing, _) => {}
        (Answer::Value(value), _) => {
            // The two numbers of WASI that are not handles are durations of 64 bits.
            if field == "now" || field == "resolution" {
                code.i64_const(value);
            } else {
                code.i32_const(value as i32);
            }
        }
        (Answer::Ticks, _) => {
            match services.ticks {
                Some(ticks) => code.call(ticks).i64_extend_i32_u().i64_const(1000).i64_mul(),
                None => code.i64_const(0),
            };
        }
        (_, None) => return None,
        (Answer::Empty, Some(out)) => {
            // A list is an address and a length, an option a tag and a handle.
            code.local_get(out).i32_const(0).i32_store(at(0, 0));
            code.local_get(out).i32_const(0).i32_store(at(4, 0));
        }
        (Answer::Error { at: payload, code: error }, Some(out)) => {
            code.local_get(out).i32_const(1).i32_store8(at(0, 0));
            code.local_get(out).i32_const(error).i32_store8(at(payload, 0));
        }
        (Answer::Done, Some(out)) => {
            code.local_get(out).i32_const(0).i32_store8(at(0, 0));
        }
        (Answer::Count(count), Some(out)) => {
            code.local_get(out).i32_const(0).i32_store8(at(0, 0));
            code.local_get(out).i64_const(count).i64_store(at(8, 0));
        }
        (Answer::NoMore, Some(out)) => {
            code.local_get(out).i32_const(0).i32_store8(at(0, 0));
            code.local_get(out).i32_const(0).i32_store8(at(4, 0));
        }
        (Answer::Open, Some(out)) => {
            // The parameters: descriptor, path flags, path, its length, open flags, flags, result.
            code.local_get(out).i32_const(1).i32_store8(at(0, 0));
            code.local_get(out).i32_const(READ_ONLY).i32_const(NO_ENTRY);
            code.local_get(4).i32_const(OPEN_CREATE).i32_and();
            code.local_get(5).i32_const(DESCRIPTOR_WRITE).i32_and();
            code.i32_or().select().i32_store8(at(4, 0));
        }
        (Answer::WallClock, Some(out)) => {
            // The gateway's record has two u32, that of WASI a u64 and a u32.
            match services.now {
                Some(now) => code.local_get(out).call(now),
                None => code.local_get(out).i64_const(0).i64_store(at(0, 0)),
            };
            code.local_get(out).local_get(out).i32_load(at(4, 0)).i32_store(at(8, 0));
            code.local_get(out).i32_const(0).i32_store(at(4, 0));
        }
        (Answer::Resolution, Some(out)) => {
            code.local_get(out).i64_const(0).i64_store(at(0, 0));
            code.local_get(out).i32_const(1000).i32_store(at(8, 0));
        }
        (Answer::RandomBytes, Some(out)) => {
            code.local_get(0).i32_wrap_i64().local_get(out).call(services.random?);
        }
    }
    code.end();
    Some(body)
}

/// The answer of a function, by the interface without its version.
fn answer(module: &str, field: &str) -> Option<Answer> {
    if field.starts_with("[resource-drop]") {
        return Some(Answer::Nothing);
    }
    let interface = module.split('@').next().unwrap_or_default();
    let function = field.rsplit(']').next().unwrap_or_default();
    let error = |at: u64, code: i32| Some(Answer::Error { at, code });
    match interface {
        "wasi_snapshot_preview1" => (field == "reset_adapter_state").then_some(Answer::Nothing),
        "wasi:cli/environment" => Some(Answer::Empty),
        "wasi:cli/stdin" | "wasi:cli/stdout" | "wasi:cli/stderr" => Some(Answer::Value(1)),
        "wasi:cli/terminal-stdin" | "wasi:cli/terminal-stdout" | "wasi:cli/terminal-stderr" => Some(Answer::Empty),
        "wasi:clocks/wall-clock" => Some(if function == "now" { Answer::WallClock } else { Answer::Resolution }),
        "wasi:clocks/monotonic-clock" => Some(match function {
            "now" => Answer::Ticks,
            "resolution" => Answer::Value(1000),
            // A pollable.
            _ => Answer::Value(1),
        }),
        "wasi:random/random" => (function == "get-random-bytes").then_some(Answer::RandomBytes),
        "wasi:io/poll" => Some(match function {
            "pollable.block" => Answer::Nothing,
            "pollable.ready" => Answer::Value(1),
            _ => Answer::Empty,
        }),
        // There is nothing to read, and what is written is dropped.
        "wasi:io/streams" => match function.split('.').nth(1)? {
            "read" | "blocking-read" => error(4, CLOSED),
            "subscribe" => Some(Answer::Value(1)),
            "check-write" => Some(Answer::Count(1 << 16)),
            "write" | "flush" | "blocking-flush" | "blocking-write-and-flush" => Some(Answer::Done),
            _ => None,
        },
        "wasi:filesystem/preopens" => Some(Answer::Empty),
        "wasi:filesystem/types" => file_answer(function),
        "wasi:sockets/instance-network" => Some(Answer::Value(1)),
        "wasi:sockets/ip-name-lookup" => match function {
            "resolve-address-stream.resolve-next-address" => error(2, ACCESS_DENIED),
            "resolve-address-stream.subscribe" => Some(Answer::Value(1)),
            _ => error(4, ACCESS_DENIED),
        },
        "wasi:sockets/tcp-create-socket" | "wasi:sockets/udp-create-socket" => error(4, ACCESS_DENIED),
        "wasi:sockets/tcp" | "wasi:sockets/udp" => socket_answer(function.split('.').nth(1)?),
        _ => None,
    }
}

fn file_answer(function: &str) -> Option<Answer> {
    let error = |at: u64, code: i32| Some(Answer::Error { at, code });
    match function.split('.').nth(1)? {
        "open-at" => Some(Answer::Open),
        "readlink-at" => error(4, NO_ENTRY),
        "stat-at" | "metadata-hash-at" => error(8, NO_ENTRY),
        "create-directory-at"
        | "link-at"
        | "remove-directory-at"
        | "rename-at"
        | "symlink-at"
        | "unlink-file-at"
        | "set-times-at"
        | "set-times"
        | "set-size" => error(1, READ_ONLY),
        "write" => error(8, READ_ONLY),
        "write-via-stream" | "append-via-stream" => error(4, READ_ONLY),
        "advise" | "sync" | "sync-data" | "get-flags" | "get-type" => error(1, BAD_DESCRIPTOR),
        "stat" | "metadata-hash" => error(8, BAD_DESCRIPTOR),
        "read" | "read-via-stream" | "read-directory" => error(4, BAD_DESCRIPTOR),
        "read-directory-entry" => Some(Answer::NoMore),
        "is-same-object" => Some(Answer::Value(0)),
        _ => None,
    }
}

/// No socket can be created, so these functions are called only with the handle of another thing.
fn socket_answer(method: &str) -> Option<Answer> {
    let error = |at: u64| Some(Answer::Error { at, code: ACCESS_DENIED });
    match method {
        "is-listening" | "address-family" => Some(Answer::Value(0)),
        "subscribe" => Some(Answer::Value(1)),
        "keep-alive-idle-time"
        | "keep-alive-interval"
        | "receive-buffer-size"
        | "send-buffer-size"
        | "check-send"
        | "send" => error(8),
        "keep-alive-count" | "local-address" | "remote-address" | "accept" | "finish-connect" | "stream"
        | "receive" => error(4),
        _ => error(1),
    }
}

#[cfg(test)]
mod tests {
    use wasm_encoder::ValType;

    use super::*;

    /// A module with this one stub; it must be valid.
    fn is_valid(module: &str, field: &str, parameters: &[ValType], result: Option<ValType>) -> bool {
        use wasm_encoder::{CodeSection, FunctionSection, MemorySection, MemoryType, TypeSection};
        let services = Services { now: Some(1), ticks: Some(2), random: Some(3) };
        let Some(body) = body(module, field, parameters.len() as u32, &services) else { return false };
        let (mut types, mut functions, mut code) = (TypeSection::new(), FunctionSection::new(), CodeSection::new());
        types.ty().function(parameters.iter().copied(), result);
        types.ty().function([ValType::I32], []);
        types.ty().function([], [ValType::I32]);
        types.ty().function([ValType::I32, ValType::I32], []);
        for index in 0..4 {
            functions.function(index);
            if index > 0 {
                code.function(&crate::optimize::encode::trap_body());
            } else {
                code.function(&body);
            }
        }
        let mut memories = MemorySection::new();
        memories.memory(MemoryType { minimum: 1, maximum: None, memory64: false, shared: false, page_size_log2: None });
        let mut out = wasm_encoder::Module::new();
        out.section(&types).section(&functions).section(&memories).section(&code);
        wasmparser::Validator::new().validate_all(&out.finish()).is_ok()
    }

    #[test]
    fn an_answer_has_the_type_of_its_function() {
        use ValType::{I32, I64};
        for (module, field, parameters, result) in [
            ("wasi:cli/environment@0.2.0", "get-environment", &[I32][..], None),
            ("wasi:cli/stderr@0.2.0", "get-stderr", &[], Some(I32)),
            ("wasi:cli/terminal-stdin@0.2.0", "get-terminal-stdin", &[I32], None),
            ("wasi:clocks/monotonic-clock@0.2.0", "now", &[], Some(I64)),
            ("wasi:clocks/monotonic-clock@0.2.0", "resolution", &[], Some(I64)),
            ("wasi:clocks/monotonic-clock@0.2.0", "subscribe-instant", &[I64], Some(I32)),
            ("wasi:clocks/wall-clock@0.2.6", "now", &[I32], None),
            ("wasi:clocks/wall-clock@0.2.6", "resolution", &[I32], None),
            ("wasi:filesystem/types@0.2.0", "[method]descriptor.open-at", &[I32; 7], None),
            ("wasi:filesystem/types@0.2.0", "[method]descriptor.stat-at", &[I32; 5], None),
            ("wasi:filesystem/types@0.2.0", "[method]directory-entry-stream.read-directory-entry", &[I32, I32], None),
            ("wasi:filesystem/types@0.2.0", "[resource-drop]descriptor", &[I32], None),
            ("wasi:io/poll@0.2.0", "poll", &[I32, I32, I32], None),
            ("wasi:io/streams@0.2.0", "[method]output-stream.check-write", &[I32, I32], None),
            ("wasi:random/random@0.2.0", "get-random-bytes", &[I64, I32], None),
            ("wasi:sockets/tcp-create-socket@0.2.0", "create-tcp-socket", &[I32, I32], None),
            ("wasi:sockets/tcp@0.2.0", "[method]tcp-socket.is-listening", &[I32], Some(I32)),
            ("wasi:sockets/udp@0.2.0", "[method]udp-socket.subscribe", &[I32], Some(I32)),
            ("wasi_snapshot_preview1", "reset_adapter_state", &[], None),
        ] {
            assert!(is_valid(module, field, parameters, result), "{module} {field}");
        }
    }

    #[test]
    fn a_function_that_is_unknown_or_must_not_return_has_no_answer() {
        let body = |module, field| body(module, field, 1, &Services::default());
        assert!(body("wasi:cli/exit@0.2.0", "exit").is_none());
        assert!(body("other:package/interface", "f").is_none());
        assert!(body("wasi:random/random@0.2.0", "get-random-bytes").is_none(), "there is no gateway");
    }
}
