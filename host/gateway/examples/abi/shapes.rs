//! A guest in one of three shapes, and one call of it. All shapes return the same [`Outcome`].
//!
//! Each shape has the cheapest possible host side. By value, nothing is copied before it is lowered
//! into the guest. JSON is written and read by typed code. Edits are only recorded, as in the
//! gateway, which applies them after the call.
//!
//! This module does not know: rounds, tables.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue};
use serde::{Deserialize, Serialize};
use wasmtime::Store;
use wasmtime::component::{Component, HasSelf, InstancePre, Linker};
use witgate_runtime::engine::Engine;

mod plain {
    wasmtime::component::bindgen!({
        path: "../../tests/fixtures/abi/wit",
        world: "plain",
        imports: { default: trappable },
        exports: { default: async },
    });
}
mod value {
    wasmtime::component::bindgen!({
        path: "../../tests/fixtures/abi/wit",
        world: "value",
        exports: { default: async },
        ownership: Borrowing { duplicate_if_necessary: false },
    });
}
mod json {
    wasmtime::component::bindgen!({ path: "../../tests/fixtures/abi/wit", world: "json", exports: { default: async } });
}

/// The names of the worlds.
pub const SHAPES: [&str; 3] = ["plain", "value", "json"];

pub fn title(shape: &str) -> &'static str {
    match shape {
        "plain" => "**plain functions**",
        "value" => "request by value",
        _ => "JSON bytes",
    }
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Edit {
    Set(String, String),
    Remove(String),
}

/// The decision of a filter. Guests of the JSON shape write its serialized form.
#[derive(Debug, PartialEq, Deserialize)]
pub enum Outcome {
    #[serde(rename = "modify")]
    Pass(Vec<Edit>),
    #[serde(rename = "respond")]
    Refuse(u16),
}

/// The request as JSON.
#[derive(Serialize)]
struct Head<'a> {
    method: &'a str,
    scheme: &'a str,
    authority: &'a str,
    path: &'a str,
    query: Option<&'a str>,
    client_ip: &'a str,
    headers: Vec<(&'a str, &'a str)>,
}

/// The data of a store.
pub struct Call {
    headers: Arc<HeaderMap>,
    edits: Vec<Edit>,
}

impl plain::witgate::abi::types::Host for Call {}
impl value::witgate::abi::types::Host for Call {}
impl plain::witgate::abi::exchange::Host for Call {
    fn header(&mut self, name: String) -> wasmtime::Result<Option<String>> {
        Ok(self.headers.get(&name).map(|value| text(value).to_owned()))
    }
    fn set_header(&mut self, name: String, value: String) -> wasmtime::Result<()> {
        self.edits.push(Edit::Set(name, value));
        Ok(())
    }
    fn remove_header(&mut self, name: String) -> wasmtime::Result<()> {
        self.edits.push(Edit::Remove(name));
        Ok(())
    }
}

pub enum Filter {
    Plain(plain::PlainPre<Call>),
    Value(value::ValuePre<Call>),
    Json(json::JsonPre<Call>),
}

impl Filter {
    pub fn new(engine: &Engine, language: &str, shape: &str) -> Self {
        let file = format!("{}/../../tests/fixtures/dist/abi/{language}-{shape}.wasm", env!("CARGO_MANIFEST_DIR"));
        let bytes = std::fs::read(&file).unwrap_or_else(|error| panic!("{file}: {error}; run `just bench-abi`"));
        let component = Component::new(engine.inner(), bytes).unwrap();
        let mut linker = Linker::new(engine.inner());
        match shape {
            "plain" => plain::Plain::add_to_linker::<_, HasSelf<_>>(&mut linker, |call| call).unwrap(),
            "value" => value::Value::add_to_linker::<_, HasSelf<_>>(&mut linker, |call| call).unwrap(),
            _ => {}
        }
        let pre: InstancePre<Call> = linker.instantiate_pre(&component).unwrap();
        match shape {
            "plain" => Self::Plain(plain::PlainPre::new(pre).unwrap()),
            "value" => Self::Value(value::ValuePre::new(pre).unwrap()),
            _ => Self::Json(json::JsonPre::new(pre).unwrap()),
        }
    }

    /// Calls the filter with one request, in a fresh instance.
    pub async fn call(&self, engine: &Engine, headers: &Arc<HeaderMap>) -> Outcome {
        let mut store = Store::new(engine.inner(), Call { headers: headers.clone(), edits: vec![] });
        store.set_epoch_deadline(1 << 40);
        match self {
            Self::Plain(pre) => {
                use plain::exports::witgate::abi::plain_handler::Verdict;
                let filter = pre.instantiate_async(&mut store).await.unwrap();
                match filter.witgate_abi_plain_handler().call_handle(&mut store).await.unwrap() {
                    Verdict::Proceed => Outcome::Pass(store.into_data().edits),
                    Verdict::Respond(response) => Outcome::Refuse(response.status),
                }
            }
            Self::Value(pre) => {
                use value::exports::witgate::abi::value_handler::{self as shape, Action, Header};
                let filter = pre.instantiate_async(&mut store).await.unwrap();
                let headers: Vec<_> =
                    headers.iter().map(|(name, value)| Header { name: name.as_str(), value: text(value) }).collect();
                let head = shape::Head {
                    method: "GET",
                    scheme: "https",
                    authority: "api.example.com",
                    path: "/v1/orders",
                    query: Some("id=42&expand=items"),
                    client_ip: "203.0.113.9",
                    headers: &headers,
                };
                match filter.witgate_abi_value_handler().call_handle(&mut store, head).await.unwrap() {
                    Action::Modify(edits) => Outcome::Pass(edits.into_iter().map(recorded).collect()),
                    Action::Respond(response) => Outcome::Refuse(response.status),
                }
            }
            Self::Json(pre) => {
                let filter = pre.instantiate_async(&mut store).await.unwrap();
                let head = as_json(headers);
                let answer = filter.witgate_abi_json_handler().call_handle(&mut store, &head).await.unwrap();
                serde_json::from_slice(&answer).unwrap()
            }
        }
    }
}

fn as_json(headers: &HeaderMap) -> Vec<u8> {
    let head = Head {
        method: "GET",
        scheme: "https",
        authority: "api.example.com",
        path: "/v1/orders",
        query: Some("id=42&expand=items"),
        client_ip: "203.0.113.9",
        headers: headers.iter().map(|(name, value)| (name.as_str(), text(value))).collect(),
    };
    serde_json::to_vec(&head).unwrap()
}

fn recorded(edit: value::exports::witgate::abi::value_handler::Edit) -> Edit {
    use value::exports::witgate::abi::value_handler::Edit as Raw;
    match edit {
        Raw::Set((name, value)) => Edit::Set(name, value),
        Raw::Remove(name) => Edit::Remove(name),
    }
}

fn text(value: &HeaderValue) -> &str {
    std::str::from_utf8(value.as_bytes()).unwrap()
}
