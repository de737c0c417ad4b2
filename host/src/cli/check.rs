//! `witgate check`: what `run` would refuse, without running: the configuration, then every filter's file (described, not compiled).

use std::path::Path;
use std::sync::Arc;

use crate::control::artifacts::check_file;
use crate::control::reload::Source;

pub(super) fn check(file: &Path) -> Result<(), String> {
    let source = Source::File(file.to_owned());
    let config = source.parse(&source.text()?)?;
    let mut refusals = vec![];
    for (name, filter) in &config.filters {
        match check_file(name, filter, &Arc::default()) {
            Ok(description) => println!(
                "filter {name}: {} {}, {} KiB, sha256 {}",
                filter.source.display(),
                description.manifest.as_ref().map_or("without a manifest", |manifest| manifest.version.as_str()),
                description.size >> 10,
                &description.digest[..12]
            ),
            Err(error) => refusals.push(format!("{}: filters.{name}: {error}", file.display())),
        }
    }
    if refusals.is_empty() {
        println!("{}: ok ({} routes, {} filters)", file.display(), config.routes.len(), config.filters.len());
        Ok(())
    } else {
        Err(refusals.join("\n"))
    }
}
