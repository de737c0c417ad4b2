//! A request is parsed the same however its bytes arrive, and an accepted request has one framing.
#![no_main]

use bytes::{Bytes, BytesMut};
use libfuzzer_sys::fuzz_target;
use witgate_http::h1::Framing;
use witgate_http::h1::chunked::{Decoder, Step};
use witgate_http::h1::head::{HeadScanner, Limits, RequestHead, parse_request};

const LIMITS: Limits = Limits { head_bytes: 2048, target_bytes: 1024, fields: 32 };

/// Parses the head and returns it with the bytes after it. None if it is incomplete; the error's
/// text if it is rejected.
fn head(pieces: &[&[u8]]) -> Result<Option<(RequestHead, Vec<u8>)>, String> {
    let (mut scan, mut buffer) = (HeadScanner::default(), BytesMut::new());
    let mut length = None;
    for piece in pieces {
        buffer.extend_from_slice(piece);
        if length.is_none() {
            length = scan.find(&mut buffer, &LIMITS).map_err(|error| error.to_string())?;
        }
    }
    let Some(length) = length else { return Ok(None) };
    let rest = buffer.split_off(length);
    let head = parse_request(buffer.freeze()).map_err(|error| error.to_string())?;
    Ok(Some((head, rest.to_vec())))
}

/// Decodes a chunked body: its data, whether it ended, and whether it was rejected.
fn body(pieces: &[&[u8]]) -> (Vec<u8>, bool, bool) {
    let (mut decoder, mut buffer, mut data) = (Decoder::new(), BytesMut::new(), vec![]);
    for piece in pieces {
        buffer.extend_from_slice(piece);
        loop {
            match decoder.step(&mut buffer) {
                Ok(Step::Data(bytes)) => data.extend_from_slice(&bytes),
                Ok(Step::End(_)) => return (data, true, false),
                Ok(Step::NeedsInput) => break,
                Err(_) => return (data, false, true),
            }
        }
    }
    (data, false, false)
}

fuzz_target!(|data: &[u8]| {
    let Some((cut, data)) = data.split_first() else { return };
    let (front, back) = data.split_at(usize::from(*cut).min(data.len()));
    let whole = head(&[data]);
    let pieces = head(&[front, back]);
    let comparable = |read: &Result<Option<(RequestHead, Vec<u8>)>, String>| match read {
        Ok(found) => Ok(found.as_ref().map(|(head, rest)| (format!("{head:?}"), rest.clone()))),
        Err(_) => Err(()),
    };
    assert_eq!(comparable(&whole), comparable(&pieces));
    let Ok(Some((head, rest))) = whole else { return };
    let fields = |name| head.headers.get_all(name).iter().count();
    let (lengths, codings) = (fields("content-length"), fields("transfer-encoding"));
    assert!(lengths + codings <= 1, "{head:?}");
    assert_eq!(matches!(head.framing, Framing::Chunked), codings == 1, "{head:?}");
    assert_ne!(head.framing, Framing::UntilClose, "only a response may end with its connection");
    for (name, value) in &head.headers {
        assert!(!name.as_str().bytes().any(|byte| byte <= b' ' || byte == b':'));
        assert!(!value.as_bytes().iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)));
    }
    if head.framing == Framing::Chunked {
        let rest = Bytes::from(rest);
        let (front, back) = rest.split_at(usize::from(*cut).min(rest.len()));
        assert_eq!(body(&[&rest]), body(&[front, back]));
    }
});
