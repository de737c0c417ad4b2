//! A PROXY header is parsed as a whole or not at all, within its bounds, whatever bytes follow it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use witgate_http::semantics::proxy_protocol::parse;

fuzz_target!(|data: &[u8]| {
    match parse(data) {
        Ok(None) => assert!(data.len() < 4096, "more bytes are requested beyond the bound"),
        Ok(Some((length, _))) => {
            assert!(length <= data.len() && length <= 4096);
            assert_eq!(parse(&data[..length]), parse(data), "later bytes do not matter");
            for end in 0..length {
                assert_eq!(parse(&data[..end]), Ok(None), "{end} of {length} bytes");
            }
        }
        Err(_) => assert!(parse(&[data, b"\r\n"].concat()).is_err(), "more bytes do not repair it"),
    }
});
