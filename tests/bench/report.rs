//! The page: tables in Markdown, printed and put between two marks of docs/performance.md, and the plot beside it.
//!
//! Must not know: how anything was measured.

use std::fmt::Write as _;
use std::fs;

use anyhow::{Context as _, Result};

use crate::cases::{CASES, Sandbox};
use crate::peers::PEERS;
use crate::plot;
use crate::results::Results;
use crate::swap::Swap;
use crate::targets::targets;

const BEGIN: &str = "<!-- bench:begin -->";
const END: &str = "<!-- bench:end -->";

/// All tables.
pub(crate) fn markdown(results: &Results) -> String {
    [
        how(results),
        targets_table(results),
        cpu_table(results),
        latency_table(results),
        swap_table(results),
        settings(results),
    ]
    .join("\n")
}

/// Puts the tables and the plot into docs/.
pub(crate) fn write(results: &Results) -> Result<()> {
    let docs = harness::repository().join("docs");
    let page = docs.join("performance.md");
    let text = fs::read_to_string(&page).with_context(|| format!("{}", page.display()))?;
    let text = between(&text, &markdown(results))
        .with_context(|| format!("{}: it must have {BEGIN} and after it {END}", page.display()))?;
    fs::write(&page, text)?;
    Ok(fs::write(docs.join("performance.svg"), plot::svg(results))?)
}

fn between(page: &str, new: &str) -> Option<String> {
    let (before, rest) = page.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n{}\n{END}{after}", new.trim()))
}

/// One digit where it says something, none where it does not; a dash for nothing.
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

fn how(results: &Results) -> String {
    let run = &results.run;
    let late = crate::cases::median(&run.late);
    let versions = if results.versions.is_empty() { "nothing".to_owned() } else { results.versions.join(", ") };
    format!(
        "`{}`, {:.0} minutes, witgate {}, on {}. Noise: {}; the load's own error in open loop was {} µs (P99).\n\n\
         Compared with {versions}.\n\n![CPU per request](performance.svg)\n",
        run.command,
        run.seconds / 60.0,
        run.commit,
        run.machine,
        run.noise,
        number(late),
    )
}

fn targets_table(results: &Results) -> String {
    let mut text = String::from(
        "### Targets\n\nCPU: ratio of minima. Measured ÷ target is at most 1 where the target is met.\n\n| | measured | target | measured ÷ target | met |\n|---|---|---|---|---|\n",
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

/// Text that cannot break a table.
fn cell(text: &str) -> String {
    text.replace(['\n', '|'], " ")
}

fn cpu_table(results: &Results) -> String {
    let mut text = format!(
        "### CPU per request\n\nClosed loop, 64 keep-alive connections, {} rounds that alternate between the cases; over plain is that gateway's own filter alone (of minima).\n\n\
         | case | filter's sandbox | median µs | minimum µs | over plain µs | requests/s (median) |\n|---|---|---|---|---|---|\n",
        results.run.rounds
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
    let mut text = String::from(
        "### Latency\n\nOpen loop, 1000 requests/s over 32 connections, from the time at which a request was due; medians of the rounds, µs.\n\n| case | P50 | P99 |\n|---|---|---|\n",
    );
    for case in CASES.iter().filter(|case| results.p50(case.id).is_some()) {
        let _ =
            writeln!(text, "| {} | {} | {} |", case.title, number(results.p50(case.id)), number(results.p99(case.id)));
    }
    text
}

fn swap_table(results: &Results) -> String {
    let mut text = String::from(
        "### From a new file to the first new answer\n\nOn a connection that was there before, on a gateway that has loaded another filter of the language. P99 is that of 1000 requests/s through another filter, gateway and compiler on one core; beside it that of the same traffic while a process of the idle class only spins there, which is the machine's part of it.\n\n| language | cold, ms | from the cache, ms | P99 quiet, µs | P99 beside a spinning process, µs | P99 while it compiles, µs |\n|---|---|---|---|---|---|\n",
    );
    for swap in &results.swaps {
        let [quiet, crowded, busy] = [swap.quiet, swap.crowded, swap.busy].map(|p99| number(Some(p99)));
        let Swap { language, cold, cached, .. } = swap;
        let _ = writeln!(text, "| {language} | {cold:.0} | {cached:.0} | {quiet} | {crowded} | {busy} |");
    }
    if let Some(memory) = results.memory {
        let _ = write!(
            text,
            "\nMemory (RSS, two workers, three filters): {:.0} MiB idle, {:.0} MiB under 500 connections through the TypeScript filter, {:.0} MiB half a minute after.",
            memory.idle, memory.loaded, memory.after
        );
    }
    if let Some(growth) = results.growth {
        let _ = write!(
            text,
            " {} reloads of a TypeScript filter with {} requests after each: {:.1} MiB after the tenth, {:.1} MiB after the last.",
            growth.reloads, growth.requests, growth.early, growth.late
        );
    }
    text.push('\n');
    text
}

fn settings(results: &Results) -> String {
    let mut text = String::from(
        "### What each gateway is set to\n\nOne worker on a core of its own; load and upstream (1 KB answers) on another; 9 request fields and the key; every filter compares `x-api-key`, sets `x-user`, replaces `authorization` and `cookie`; every case is checked before it is measured. Configurations: `tests/bench/peers`.\n\n- witgate: `workers: 1`, `log.level: warn`; a fresh instance for each call\n",
    );
    for peer in PEERS {
        let ran = CASES.iter().any(|case| case.gateway == peer.name && results.readings.contains_key(case.id));
        if ran {
            let _ = writeln!(text, "- {}: {}", peer.name, peer.settings);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_between_the_marks_is_replaced() {
        let page = format!("a\n{BEGIN}\nold\n{END}\nb");
        assert_eq!(between(&page, "new\n"), Some(format!("a\n{BEGIN}\nnew\n{END}\nb")));
        assert_eq!(between("no marks", "new"), None);
    }
}
