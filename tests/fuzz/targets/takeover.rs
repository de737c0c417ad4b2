//! A message of a takeover is refused with a reason, or it survives writing and reading.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[allow(dead_code)]
#[path = "../../../host/gateway/src/control/takeover/message.rs"]
mod message;

use message::Message;

fuzz_target!(|bytes: &[u8]| {
    match Message::parse(bytes) {
        Ok(message) => {
            if let Ok(written) = message.to_bytes() {
                assert_eq!(Message::parse(&written), Ok(message));
            }
        }
        Err(why) => assert!(!why.is_empty()),
    }
});
