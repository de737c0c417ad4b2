//! OpenMetrics as Prometheus text (version 0.0.4), for scrapers that do not ask for OpenMetrics.
//!
//! The metrics are written once, as OpenMetrics. The older format differs in four points: a counter
//! has its suffix in the metadata too, there is no unit, no exemplar and no end mark. This module
//! does not know: which metrics exist.

use std::collections::HashSet;

/// Converts a text of OpenMetrics.
pub fn from_openmetrics(text: &str) -> String {
    let counters: HashSet<&str> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter")).collect();
    let mut out = String::with_capacity(text.len());
    for line in text.lines() {
        match line.strip_prefix("# ").map(|rest| rest.splitn(3, ' ').collect::<Vec<_>>()).as_deref() {
            Some([kind @ ("HELP" | "TYPE"), name, rest]) => {
                let suffix = if counters.contains(name) { "_total" } else { "" };
                let rest = if (*kind, *rest) == ("TYPE", "unknown") { "untyped" } else { rest };
                // promtool wants no full stop, which the library adds.
                let rest = if *kind == "HELP" { rest.trim_end_matches('.') } else { rest };
                out.extend(["# ", kind, " ", name, suffix, " ", rest, "\n"]);
            }
            // The unit, and the end mark.
            Some(_) => {}
            None if line == "# EOF" => {}
            None => {
                let sample = line.split_once(" # {").map_or(line, |(sample, _)| sample);
                out.extend([sample, "\n"]);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_formats_differ_in_metadata() {
        let text = "# HELP a Requests.\n# TYPE a counter\n# UNIT a seconds\na_total{x=\"# y\"} 1 # {id=\"1\"} 2\n# HELP b B.\n# TYPE b gauge\nb 1\n# EOF\n";
        let expected =
            "# HELP a_total Requests\n# TYPE a_total counter\na_total{x=\"# y\"} 1\n# HELP b B\n# TYPE b gauge\nb 1\n";
        assert_eq!(from_openmetrics(text), expected);
    }
}
