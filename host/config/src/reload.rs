//! `reload:`: how the gateway notices changed files.
//!
//! This module does not know: what a reload does.

use std::time::Duration;

use crate::values::HOUR;
use crate::yaml::Section;

/// How the gateway notices changed files. SIGHUP always reloads.
#[derive(Debug, Clone, PartialEq)]
pub struct Reload {
    /// Watch the folders of the files. Default true.
    pub watch: bool,
    /// Compare the files this often as well. Default 30 s; 100 ms to 1 h; `None` (`interval: off`)
    /// disables it.
    pub interval: Option<Duration>,
}

impl Reload {
    pub(crate) fn read(section: &Section) -> Self {
        let interval = section.duration_or_off("interval", Duration::from_millis(100), HOUR);
        Self {
            watch: section.bool("watch").unwrap_or(true),
            interval: interval.unwrap_or(Some(Duration::from_secs(30))),
        }
    }
}
