//! Any text is either a valid configuration or a list of errors, each with an existing line. A
//! valid configuration has routes and listeners, and its routes name existing upstreams.
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
            // A single CR ends a line too (YAML 1.2, section 5.4).
            let lines = text.bytes().filter(|byte| matches!(byte, b'\r' | b'\n')).count() + 2;
            assert!(errors.errors.iter().all(|error| (1..=lines).contains(&error.line)), "{errors}");
        }
    }
});
