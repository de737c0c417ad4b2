//! A path's normal form is final, no longer, and has no segment that leads elsewhere.
#![no_main]

use std::borrow::Cow;

use libfuzzer_sys::fuzz_target;
use witgate_http::semantics::path::normalise;

fuzz_target!(|path: &str| {
    let Ok(normal) = normalise(path) else { return };
    assert_eq!(normalise(&normal), Ok(Cow::Borrowed(&*normal)), "a second time changes nothing");
    assert!(normal.len() <= path.len());
    assert!(normal == "*" || normal.starts_with('/'));
    assert!(!normal.contains("//") && !normal.contains('\\'));
    assert!(normal.bytes().all(|byte| byte.is_ascii_graphic()));
    // However a reader behind the gateway decodes slashes and cuts parameters off.
    let decoded = normal.to_ascii_uppercase().replace("%2F", "/").replace("%5C", "/").replace("%3B", ";");
    for segment in decoded.split('/') {
        let name = segment.split(';').next().unwrap_or_default();
        assert!(!matches!(name, "." | ".."), "{normal}");
    }
});
