//! `witgate check`: what `run` would refuse, without running: the configuration, then every certificate's and every filter's file (described, not
//! compiled).

use std::path::Path;

use crate::control::reload::Source;
use crate::releases::loader::check_file;
use crate::telemetry::Metrics;
use crate::tls::reload::Certificates;

pub(super) fn check(file: &Path) -> Result<(), String> {
    let source = Source::File(file.to_owned());
    let config = source.parse(&source.text()?)?;
    let mut refusals = vec![];
    match Certificates::open(&config, &Metrics::new()) {
        Ok(certificates) => certificates.describe().iter().for_each(|line| println!("{line}")),
        Err(found) => refusals.extend(found.lines().map(|why| format!("{}: {why}", file.display()))),
    }
    for (name, filter) in &config.filters {
        match check_file(name, filter, &config.compile) {
            Ok(description) => {
                println!(
                    "filter {name}: {} {}, {} KiB, sha256 {}",
                    filter.source.display(),
                    description.manifest.as_ref().map_or("without a manifest", |manifest| manifest.version.as_str()),
                    description.size >> 10,
                    &description.digest[..12]
                );
                if filter.reuse > 1 {
                    println!(
                        "filter {name}: not isolated from itself: an instance serves up to {} calls (reuse), and a call can read what earlier ones left",
                        filter.reuse
                    );
                }
            }
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
