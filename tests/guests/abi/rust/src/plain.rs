//! Through plain functions. Must not know: the other shapes.

wit_bindgen::generate!({ path: "../wit", world: "plain" });

use exports::witgate::abi::plain_handler::{Guest, Verdict};
use witgate::abi::{exchange, types::Response};

use super::Filter;

impl Guest for Filter {
    fn handle() -> Verdict {
        if exchange::header("x-api-key").as_deref() != Some("s3cret") {
            return Verdict::Respond(Response { status: 401, headers: vec![], body: vec![] });
        }
        exchange::set_header("x-user", "alice");
        exchange::remove_header("cookie");
        exchange::set_header("authorization", "Bearer internal");
        Verdict::Proceed
    }
}

export!(Filter);
