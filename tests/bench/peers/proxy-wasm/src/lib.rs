//! The `api-key` filter for Envoy, the same as guests/*/api-key. All requests of a worker share one
//! VM.

use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Action, ContextType, LogLevel};

proxy_wasm::main! {{
    proxy_wasm::set_log_level(LogLevel::Warn);
    proxy_wasm::set_root_context(|_| Box::new(Root { key: String::new() }));
}}

struct Root {
    key: String,
}

impl Context for Root {}

impl RootContext for Root {
    fn on_configure(&mut self, _: usize) -> bool {
        let bytes = self.get_plugin_configuration().unwrap_or_default();
        self.key = String::from_utf8(bytes).unwrap_or_default();
        true
    }

    fn create_http_context(&self, _: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(ApiKey { key: self.key.clone() }))
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}

struct ApiKey {
    key: String,
}

impl Context for ApiKey {}

impl HttpContext for ApiKey {
    fn on_http_request_headers(&mut self, _: usize, _: bool) -> Action {
        if self.get_http_request_header("x-api-key").as_deref() != Some(&self.key) {
            let body = br#"{"error":"missing or wrong api key"}"#;
            self.send_http_response(401, vec![("content-type", "application/json")], Some(body));
            return Action::Pause;
        }
        self.set_http_request_header("x-user", Some("alice"));
        for name in ["authorization", "cookie"] {
            if self.get_http_request_header(name).is_some() {
                self.set_http_request_header(name, Some("REDACTED"));
            }
        }
        Action::Continue
    }
}
