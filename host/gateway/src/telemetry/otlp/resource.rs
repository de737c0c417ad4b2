//! What the telemetry of this process has in common.
//!
//! This module does not know: signals.

use std::sync::OnceLock;

use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;

use super::super::exchange_id::new_exchange_id;
use witgate_config::Telemetry;

/// Names the process, the same in all signals.
static INSTANCE: OnceLock<String> = OnceLock::new();

pub(super) fn resource(settings: &Telemetry) -> Resource {
    let instance = INSTANCE.get_or_init(|| format!("{:032x}", new_exchange_id()));
    let text = |key, value: &str| attribute(key, Value::StringValue(value.to_owned()));
    let attributes = vec![
        text("service.name", &settings.service_name),
        text("service.version", env!("CARGO_PKG_VERSION")),
        text("service.instance.id", instance),
        attribute("process.pid", Value::IntValue(std::process::id().into())),
    ];
    Resource { attributes, ..Resource::default() }
}

pub(super) fn scope() -> InstrumentationScope {
    let version = env!("CARGO_PKG_VERSION").into();
    InstrumentationScope { name: "witgate".into(), version, ..InstrumentationScope::default() }
}

pub(super) fn attribute(key: impl Into<String>, value: Value) -> KeyValue {
    KeyValue { key: key.into(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}
