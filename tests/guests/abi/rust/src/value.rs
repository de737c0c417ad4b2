//! With the request by value. Must not know: the other shapes.

wit_bindgen::generate!({ path: "../wit", world: "value" });

use exports::witgate::abi::value_handler::{Action, Edit, Guest, Head};
use witgate::abi::types::Response;

use super::Filter;

impl Guest for Filter {
    fn handle(head: Head) -> Action {
        let key = head.headers.iter().find(|header| header.name == "x-api-key");
        if key.is_none_or(|header| header.value != "s3cret") {
            return Action::Respond(Response { status: 401, headers: vec![], body: vec![] });
        }
        let set = |name: &str, value: &str| Edit::Set((name.into(), value.into()));
        Action::Modify(vec![
            set("x-user", "alice"),
            Edit::Remove("cookie".into()),
            set("authorization", "Bearer internal"),
        ])
    }
}

export!(Filter);
