//! With the request as JSON. Must not know: the other shapes.

wit_bindgen::generate!({ path: "../wit", world: "json" });

use exports::witgate::abi::json_handler::Guest;
use serde::{Deserialize, Serialize};

use super::Filter;

/// As an SDK would give it to a filter: whole, whatever this one looks at.
#[derive(Deserialize)]
#[allow(dead_code)]
struct Head {
    method: String,
    scheme: String,
    authority: String,
    path: String,
    query: Option<String>,
    client_ip: String,
    headers: Vec<(String, String)>,
}

#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
enum Action<'a> {
    Modify(&'a [Edit<'a>]),
    Respond(u16),
}

#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
enum Edit<'a> {
    Set(&'a str, &'a str),
    Remove(&'a str),
}

impl Guest for Filter {
    fn handle(head: Vec<u8>) -> Vec<u8> {
        let head: Head = serde_json::from_slice(&head).expect("the host writes what is read here");
        let key = head.headers.iter().find(|header| header.0 == "x-api-key");
        let edits =
            [Edit::Set("x-user", "alice"), Edit::Remove("cookie"), Edit::Set("authorization", "Bearer internal")];
        let action =
            if key.is_none_or(|header| header.1 != "s3cret") { Action::Respond(401) } else { Action::Modify(&edits) };
        serde_json::to_vec(&action).expect("strings and numbers can be written")
    }
}

export!(Filter);
