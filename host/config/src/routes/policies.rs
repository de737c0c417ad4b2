//! `clients:`, `headers:` and `forward_auth:` of a route: policies that need no filter.
//!
//! This module does not know: how a policy is applied.

use http::header::{HeaderName, HeaderValue};
use ipnet::IpNet;
use witgate_http::semantics::fields::is_gateway_field;

use crate::values::{header_name, network, path};
use crate::yaml::{Section, Value};

/// Which clients may use a route.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClientNetworks {
    /// The networks that may; empty for all.
    pub allow: Vec<IpNet>,
    /// The networks that may not. They take precedence over `allow`.
    pub deny: Vec<IpNet>,
}

/// Changes of header fields.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HeaderPolicy {
    /// Changes of the request that the upstream receives.
    pub request: HeaderEdits,
    /// Changes of the response that the client receives.
    pub response: HeaderEdits,
}

/// Changes of the fields of one message, in this order: remove, set, add.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HeaderEdits {
    /// Fields that are removed.
    pub remove: Vec<HeaderName>,
    /// Fields whose lines are all replaced by one.
    pub set: Vec<(HeaderName, HeaderValue)>,
    /// Lines that are added.
    pub add: Vec<(HeaderName, HeaderValue)>,
}

/// An upstream that decides whether a request may pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForwardAuth {
    /// A name in `upstreams:`.
    pub upstream: String,
    /// The path of the question. Default `/`.
    pub path: String,
    /// Fields of a 2xx response that the request gets. A client cannot set them.
    pub copy: Vec<HeaderName>,
}

impl ClientNetworks {
    pub(crate) fn read(section: &Section) -> Self {
        Self { allow: section.list("allow", network), deny: section.list("deny", network) }
    }
}

impl HeaderPolicy {
    pub(crate) fn read(section: &Section) -> Self {
        Self {
            request: section.nested("request", HeaderEdits::read),
            response: section.nested("response", HeaderEdits::read),
        }
    }
}

impl HeaderEdits {
    fn read(section: &Section) -> Self {
        Self {
            remove: section.list("remove", removed_name),
            set: read_fields(section, "set"),
            add: read_fields(section, "add"),
        }
    }
}

impl ForwardAuth {
    pub(crate) fn read(section: &Section) -> Self {
        section.require("upstream", "name one of the upstreams");
        Self {
            upstream: section.string("upstream").unwrap_or_default(),
            path: section.scalar("path", path).unwrap_or_else(|| "/".into()),
            copy: section.list("copy", editable_name),
        }
    }
}

/// A mapping from names to values.
fn read_fields(section: &Section, key: &'static str) -> Vec<(HeaderName, HeaderValue)> {
    let fields = section.free_form(key);
    let mut read = vec![];
    for (name, node) in fields.entries() {
        match editable_name(&name.text) {
            Ok(field) => {
                if matches!(&node.value, Value::Scalar { text, .. } if has_variable(text)) {
                    let message = "the value is sent as it is, because variables have no meaning here: a filter can \
                                   set values of the request, and x-forwarded-for has the client's address";
                    fields.warn(node.line, &name.text, message);
                }
                read.extend(fields.value(&name.text, node, field_value).map(|value| (field, value)));
            }
            Err(why) => fields.error(name.line, &name.text, why),
        }
    }
    read
}

pub(crate) fn editable_name(text: &str) -> Result<HeaderName, String> {
    let name = header_name(text)?;
    if is_gateway_field(&name) {
        return Err("only the gateway writes this field: remove it (rewrite.host changes the host)".into());
    }
    Ok(name)
}

fn removed_name(text: &str) -> Result<HeaderName, String> {
    if text.contains('*') {
        return Err("a star has no meaning here: write the name of each field".into());
    }
    editable_name(text)
}

/// Whether a value has a variable as nginx (`$host`), Traefik (`{{ .Name }}`), Envoy (`%NAME%`) or
/// HAProxy (`%[src]`) writes it.
fn has_variable(value: &str) -> bool {
    let begins_name = |rest: &str| rest.starts_with(|c: char| c.is_ascii_lowercase() || c == '{');
    let is_envoy = |name: &str| name.len() >= 3 && name.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_');
    value.contains("{{")
        || value.contains("%[")
        || value.match_indices('$').any(|(at, _)| begins_name(&value[at + 1..]))
        || value.split('%').skip(1).step_by(2).any(|name| is_envoy(name.split('(').next().unwrap_or(name)))
}

fn field_value(text: &str) -> Result<HeaderValue, String> {
    HeaderValue::from_str(text).map_err(|_| "the value of a field is one line of visible text".into())
}
