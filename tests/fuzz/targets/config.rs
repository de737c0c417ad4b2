//! Any text is a configuration or a list of mistakes, each with its line; what is accepted keeps the documented promises.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use witgate_config::Config;

fuzz_target!(|text: &str| {
    match Config::parse(text, "gateway.yaml", Path::new("/etc/witgate")) {
        Ok(config) => {
            assert!(!config.routes.is_empty() && !config.listeners.is_empty());
            for route in &config.routes {
                for one in route.upstreams() {
                    assert!(config.upstreams.contains_key(&one.upstream), "{route:?}");
                }
            }
        }
        Err(errors) => {
            assert!(!errors.errors.is_empty());
            // A CR alone ends a line too (YAML 1.2, section 5.4).
            let lines = text.bytes().filter(|byte| matches!(byte, b'\r' | b'\n')).count() + 2;
            assert!(errors.errors.iter().all(|error| (1..=lines).contains(&error.line)), "{errors}");
        }
    }
});
