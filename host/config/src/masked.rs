//! The configuration as it is written, for an operator: a JSON value without secrets.
//!
//! A reference stays a reference. Values of keys that hold secrets are masked, and so are all
//! values of a filter's `config`, because a filter may get a secret there. This module does not
//! know: what the other keys mean.

use serde_json::{Map, Value};

use crate::references::Reference;
use crate::yaml::{Key, Node, Value as Yaml};

/// Keys whose value is a secret, wherever they stand. Among them are names of header fields.
const SECRET_KEYS: [&str; 14] = [
    "access_key",
    "secret_key",
    "token",
    "read_token",
    "debug_token",
    "password",
    "users",
    "secret",
    "authorization",
    "proxy-authorization",
    "cookie",
    "set-cookie",
    "x-api-key",
    "api-key",
];
/// Keys below which every single value is masked.
const SECRET_SECTIONS: [&str; 6] = ["config", "otlp", "crypto", "env", "set", "add"];
/// Keys of those sections that are not secret.
const OPEN_KEYS: [&str; 3] = ["endpoint", "protocol", "timeout"];
const MASK: &str = "(secret)";

/// The tree without secrets.
pub(crate) fn masked(node: &Node) -> Value {
    mask(node, false)
}

fn mask(node: &Node, is_secret: bool) -> Value {
    match &node.value {
        _ if node.is_null() => Value::Null,
        Yaml::Scalar { .. } if is_secret => MASK.into(),
        Yaml::Scalar { .. } => node.to_json(&|_: &Reference<'_>| Err(String::new())).unwrap_or_default(),
        Yaml::List(items) => items.iter().map(|item| mask(item, is_secret)).collect(),
        // A single variable `env: {file: x}` of a component looks like a reference.
        Yaml::Map(entries) if node.reference().is_some() && !is_secret => {
            entries.iter().map(|(key, value)| (key.text.clone(), mask(value, false))).collect::<Map<_, _>>().into()
        }
        Yaml::Map(entries) => {
            let entry = |(key, value): &(Key, Node)| {
                let name = key.text.to_ascii_lowercase();
                let is_below = is_secret && !OPEN_KEYS.contains(&name.as_str());
                let is_secret = is_below || SECRET_KEYS.contains(&&*name) || SECRET_SECTIONS.contains(&&*name);
                let mut shown = mask(value, is_secret);
                if let (true, Value::String(location)) = (name == "source", &mut shown) {
                    // A signed URL has its signature in the query.
                    location.truncate(location.find('?').unwrap_or(location.len()));
                }
                (key.text.clone(), shown)
            };
            entries.iter().map(entry).collect::<Map<_, _>>().into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_masked_and_references_stay() {
        let text = "admin: {address: 127.0.0.1:1, token: abc}\n\
                    stores: {s: {redis: {password: {file: p}, url: redis://h}}}\n\
                    filters: {f: {source: 'https://h/f.wasm?sig=s3cret', crypto: {keys: {k: s3cret}}, config: {key: s3cret, list: [s3cret], nested: {a: s3cret}, ref: {env: K}}}}\n\
                    routes: [{headers: {request: {set: {Authorization: s3cret, x-a: s3cret}}}, weight: 5, off: null}]\n\
                    telemetry: {otlp: {endpoint: http://h, headers: {x-key: s3cret}}}";
        let shown = crate::yaml::parse(text).map(|node| masked(&node).to_string()).unwrap_or_default();
        assert!(!shown.contains("s3cret") && !shown.contains("abc"), "{shown}");
        for kept in ["\"address\":\"127.0.0.1:1\"", "\"weight\":5", "\"endpoint\":\"http://h\"", "redis://h"] {
            assert!(shown.contains(kept), "{kept}: {shown}");
        }
    }
}
