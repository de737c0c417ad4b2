//! The report: tables in Markdown, which are printed and put between two markers of
//! docs/performance.md, and the plot beside that page.
//!
//! Prose is wrapped as the project's Markdown is; tables are not.
//!
//! This module does not know: how anything was measured.

use std::fmt::Write as _;
use std::fs;

use anyhow::{Context as _, Result};

use crate::cases::{CASES, Sandbox};
use crate::peers::PEERS;
use crate::plot;
use crate::results::Results;
use crate::swap::Swap;
use crate::targets::targets;
use crate::transfers::{GATEWAYS, MEASURES};

const BEGIN: &str = "<!-- bench:begin -->";
const END: &str = "<!-- bench:end -->";
/// Longest line of prose in Markdown, in characters.
const LINE_MAX: usize = 120;

/// Returns the text between the markers.
pub(crate) fn markdown(results: &Results) -> String {
    [
        summary(results),
        targets_table(results),
        cpu_table(results),
        latency_table(results),
        transfers(results),
        swap_table(results),
        settings(results),
    ]
    .join("\n")
}

/// Writes the tables and the plot into docs/.
pub(crate) fn write(results: &Results) -> Result<()> {
    let docs = harness::repository().join("docs");
    let page = docs.join("performance.md");
    let text = fs::read_to_string(&page).with_context(|| format!("{}", page.display()))?;
    let text = replace_between(&text, &markdown(results))
        .with_context(|| format!("{} must contain {BEGIN}, and {END} after it", page.display()))?;
    fs::write(&page, text)?;
    Ok(fs::write(docs.join("performance.svg"), plot::svg(results))?)
}

/// Replaces the text between the markers, or returns `None` if a marker is missing.
fn replace_between(page: &str, new: &str) -> Option<String> {
    let (before, rest) = page.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n{}\n{END}{after}", new.trim()))
}

/// Formats a number with one decimal place below 100, without above; a dash for `None`.
fn number(value: Option<f64>) -> String {
    match value {
        None => "–".into(),
        Some(value) if value.abs() < 100.0 => format!("{value:.1}"),
        Some(value) => format!("{value:.0}"),
    }
}

fn with_unit(value: f64, unit: &str) -> String {
    match unit {
        "×" => format!("{value:.2} ×"),
        _ => format!("{} {unit}", number(Some(value))),
    }
}

fn summary(results: &Results) -> String {
    let run = &results.run;
    let late = crate::cases::median(&results.run.late);
    let versions = if results.versions.is_empty() { "nothing".to_owned() } else { results.versions.join(", ") };
    let run = wrap(&format!(
        "`{}`, {:.0} minutes, witgate {}, on {}. Noise: {}; the load's own error in the open loop was {} µs (P99).",
        run.command,
        run.seconds / 60.0,
        run.commit,
        run.machine,
        run.noise,
        number(late),
    ));
    let versions = wrap(&format!("Compared with {versions}."));
    format!("{run}\n\n{versions}\n\n![CPU per request](performance.svg)\n")
}

fn targets_table(results: &Results) -> String {
    let mut text = String::from(
        "### Targets\n\nCPU is a ratio of minima. A target is met if measured ÷ target is at most 1.\n\n| | measured | target | measured ÷ target | met |\n|---|---|---|---|---|\n",
    );
    for target in targets(results) {
        let sign = if target.at_least { "≥" } else { "≤" };
        let limit = with_unit(target.limit, target.unit);
        let _ = match (target.measured, target.ratio()) {
            (Some(measured), Some(ratio)) => {
                let met = if ratio <= 1.0 { "yes" } else { "**no**" };
                let measured = with_unit(measured, target.unit);
                writeln!(text, "| {} | {measured} | {sign} {limit} | {ratio:.2} | {met} |", target.what)
            }
            _ => writeln!(text, "| {} | – | {sign} {limit} | – | {} |", target.what, cell(&target.why)),
        };
    }
    text
}

/// Replaces characters that would break a table.
fn cell(text: &str) -> String {
    text.replace(['\n', '|'], " ")
}

fn cpu_table(results: &Results) -> String {
    let prose = wrap(&format!(
        "Closed loop, 64 keep-alive connections, {} rounds that alternate between the cases. \"Over plain\" is the cost of \
         the filter alone: the case's minimum minus the minimum of the same gateway without a filter.",
        results.run.rounds
    ));
    let mut text = format!(
        "### CPU per request\n\n{prose}\n\n\
         | case | filter's sandbox | median µs | minimum µs | over plain µs | requests/s (median) |\n|---|---|---|---|---|---|\n"
    );
    for case in &CASES {
        let sandbox = if case.sandbox == Sandbox::Plain { "" } else { case.sandbox.text() };
        let _ = match results.cpu(case.id) {
            Some(minimum) => writeln!(
                text,
                "| {} | {sandbox} | {} | {} | {} | {:.0} |",
                case.title,
                number(results.cpu_median(case.id)),
                number(Some(minimum)),
                results.over_plain(case).map_or_else(String::new, |over| number(Some(over))),
                results.rate(case.id).unwrap_or_default()
            ),
            None => writeln!(text, "| {} | {sandbox} | {} | | | |", case.title, cell(&results.why_missing(case.id))),
        };
    }
    text
}

fn latency_table(results: &Results) -> String {
    let prose = wrap(
        "Open loop, 1000 requests/s over 32 connections, measured from the time at which a request was due; medians of \
         the rounds in µs.",
    );
    let mut text = format!("### Latency\n\n{prose}\n\n| case | P50 | P99 |\n|---|---|---|\n");
    for case in CASES.iter().filter(|case| results.p50(case.id).is_some()) {
        let _ =
            writeln!(text, "| {} | {} | {} |", case.title, number(results.p50(case.id)), number(results.p99(case.id)));
    }
    text
}

/// Returns the table of bodies, HTTP/2 and idle connections.
pub(crate) fn transfers(results: &Results) -> String {
    let transfers = &results.transfers;
    let prose = wrap(&format!(
        "CPU time of the gateway, the minimum of the rounds. nginx is the upstream of every gateway, so requests cost \
         another time than in the closed loop above, whose upstream answers in batches. Memory is the growth of the \
         process, divided by {} connections that made one request each.",
        transfers.connections
    ));
    let mut text = format!("### Bodies, HTTP/2 and idle connections\n\n{prose}\n\n| |");
    GATEWAYS.iter().for_each(|(_, title)| text.push_str(&format!(" {title} |")));
    text.push_str("\n|---|");
    GATEWAYS.iter().for_each(|_| text.push_str("---|"));
    text.push('\n');
    for (measure, title) in MEASURES {
        text.push_str(&format!("| {title} |"));
        for (gateway, _) in GATEWAYS {
            text.push_str(&format!(" {} |", number(transfers.minimum(measure, gateway))));
        }
        text.push('\n');
    }
    let versions = format!("Load: curl, {}.", transfers.versions.join(", "));
    let _ = writeln!(text, "\n{}", wrap(&versions));
    for why in &transfers.missing {
        let _ = writeln!(text, "\n{}", wrap(&format!("Missing: {}.", cell(why))));
    }
    text
}

fn swap_table(results: &Results) -> String {
    let prose = wrap(
        "On an open connection, on a gateway that has loaded another filter of the language. P99 is that of 1000 \
         requests/s through another filter, with gateway and compiler on one core. The column beside it is the same \
         traffic while a process of the idle class only spins there: the part of P99 that is due to the machine.",
    );
    let mut text = format!(
        "### From a new file to its first response\n\n{prose}\n\n| language | cold, ms | from the cache, ms | P99 quiet, µs | P99 beside a spinning process, µs | P99 while it compiles, µs |\n|---|---|---|---|---|---|\n"
    );
    for swap in &results.swaps {
        let [quiet, crowded, busy] = [swap.quiet, swap.crowded, swap.busy].map(|p99| number(Some(p99)));
        let Swap { language, cold, cached, .. } = swap;
        let _ = writeln!(text, "| {language} | {cold:.0} | {cached:.0} | {quiet} | {crowded} | {busy} |");
    }
    let mut memory_text = String::new();
    if let Some(memory) = results.memory {
        let _ = write!(
            memory_text,
            "Memory (RSS, two workers, three filters): {:.0} MiB idle, {:.0} MiB under 500 connections through the TypeScript filter, {:.0} MiB half a minute after.",
            memory.idle, memory.loaded, memory.after
        );
    }
    if let Some(growth) = results.growth {
        let _ = write!(
            memory_text,
            " {} reloads of a TypeScript filter with {} requests after each: {:.1} MiB after the tenth, {:.1} MiB after the last.",
            growth.reloads, growth.requests, growth.early, growth.late
        );
    }
    let _ = writeln!(text, "\n{}", wrap(memory_text.trim()));
    text
}

fn settings(results: &Results) -> String {
    let prose = wrap(
        "One worker on a core of its own; load and upstream (responses of 1 KB) on another; 9 request fields and the key. \
         Every filter compares `x-api-key`, sets `x-user`, and replaces `authorization` and `cookie`. Every case is \
         checked before it is measured. The configurations are in `tests/bench/peers`.",
    );
    let mut text = format!(
        "### What each gateway is set to\n\n{prose}\n\n- witgate: `workers: 1`, `log.level: warn`; a fresh instance for each call\n"
    );
    for peer in PEERS {
        let ran = CASES.iter().any(|case| case.gateway == peer.name && results.readings.contains_key(case.id));
        if ran {
            let item = wrap_to(LINE_MAX - 2, &format!("{}: {}", peer.name, peer.settings));
            let _ = writeln!(text, "- {}", item.replace('\n', "\n  "));
        }
    }
    text
}

/// Wraps prose at `LINE_MAX` characters.
fn wrap(text: &str) -> String {
    wrap_to(LINE_MAX, text)
}

/// Wraps text at spaces, so that no line has more than `width` characters unless a word is longer.
fn wrap_to(width: usize, text: &str) -> String {
    let (mut lines, mut line) = (vec![], String::new());
    for word in text.split_whitespace() {
        if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > width {
            lines.push(std::mem::take(&mut line));
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    lines.push(line);
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_between_the_markers_is_replaced() {
        let page = format!("a\n{BEGIN}\nold\n{END}\nb");
        assert_eq!(replace_between(&page, "new\n"), Some(format!("a\n{BEGIN}\nnew\n{END}\nb")));
        assert_eq!(replace_between("no markers", "new"), None);
    }

    #[test]
    fn prose_is_wrapped_at_spaces() {
        assert_eq!(wrap_to(9, "µs is one microsecond"), "µs is one\nmicrosecond");
    }
}
