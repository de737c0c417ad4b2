//! A path's normal form is stable, not longer than the path, and has no dot segment.
#![no_main]

use std::borrow::Cow;

use libfuzzer_sys::fuzz_target;
use witgate_http::semantics::path::normalize;

fuzz_target!(|path: &str| {
    let Ok(normal) = normalize(path) else { return };
    assert_eq!(normalize(&normal), Ok(Cow::Borrowed(&*normal)), "normalizing twice changes nothing");
    assert!(normal.len() <= path.len());
    assert!(normal == "*" || normal.starts_with('/'));
    assert!(!normal.contains("//") && !normal.contains('\\'));
    assert!(normal.bytes().all(|byte| byte.is_ascii_graphic()));
    // Also for a reader behind the gateway that decodes slashes and removes parameters.
    let decoded = normal.to_ascii_uppercase().replace("%2F", "/").replace("%5C", "/").replace("%3B", ";");
    for segment in decoded.split('/') {
        let name = segment.split(';').next().unwrap_or_default();
        assert!(!matches!(name, "." | ".."), "{normal}");
    }
});
