//! The section of a manifest is refused with a bounded number of problems, or it is a manifest that
//! survives writing and reading. Its texts cannot control a terminal.
#![no_main]

use libfuzzer_sys::fuzz_target;
use witgate_manifest::Manifest;

fuzz_target!(|bytes: &[u8]| {
    match Manifest::from_section(bytes) {
        Ok(manifest) => {
            for text in [&manifest.name, &manifest.version] {
                assert!(text.chars().all(|character| !character.is_control()), "{text:?}");
            }
            let written = manifest.to_section();
            let again = written.ok().and_then(|written| Manifest::from_section(&written).ok());
            assert_eq!(format!("{again:?}"), format!("{:?}", Some(&manifest)));
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});
