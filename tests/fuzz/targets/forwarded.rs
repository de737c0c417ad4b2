//! The forwarded fields are bounded, have only visible ASCII, and name the same client in both
//! formats.
#![no_main]

use std::net::IpAddr;

use libfuzzer_sys::fuzz_target;
use witgate_http::semantics::forwarded::{Incoming, Peer, forward};

fuzz_target!(|data: &[u8]| {
    let trusted = ["10.0.0.0/8", "fd00::/8"].map(|net| net.parse().expect("a network"));
    let mut fields: [Vec<&[u8]>; 4] = Default::default();
    for line in data.split(|byte| *byte == b'\n') {
        let Some((field, value)) = line.split_first() else { continue };
        fields[usize::from(*field) % 4].push(value);
    }
    let [x_for, x_proto, x_host, own] = &fields;
    let incoming = Incoming { x_for, x_proto, x_host, forwarded: own };
    let peer = Peer { ip: IpAddr::from([10, 0, 0, 1]), is_tls: true, host: "a.example:8443" };
    let out = forward(&peer, &trusted, &incoming);
    assert!(out.x_for.split(',').count() <= 32 && out.forwarded.split(',').count() <= 32, "{out:?}");
    assert!(out.x_for.len() < 32 * 68 && out.forwarded.len() < 32 * 400);
    for text in [&*out.x_for, &*out.x_host, &*out.forwarded] {
        assert!(text.bytes().all(|byte| (b' '..0x7f).contains(&byte)), "{text:?}");
    }
    let next = Peer { ip: IpAddr::from([10, 9, 9, 9]), is_tls: false, host: "" };
    let read = |incoming: &Incoming| forward(&next, &trusted, incoming).client;
    let by_x = read(&Incoming { x_for: &[out.x_for.as_bytes()], ..Incoming::default() });
    let by_own = read(&Incoming { forwarded: &[out.forwarded.as_bytes()], ..Incoming::default() });
    assert_eq!((by_x, by_own), (out.client, out.client), "{out:?}");
    // The fields of an untrusted peer have no effect.
    let stranger = Peer { ip: IpAddr::from([192, 0, 2, 7]), ..peer };
    assert_eq!(forward(&stranger, &trusted, &incoming), forward(&stranger, &trusted, &Incoming::default()));
});
