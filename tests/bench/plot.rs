//! The plot: CPU per request of every case as bars, in SVG.
//!
//! Bars begin at zero. A bar that is far longer than the others is cut, which a white slash marks.
//!
//! This module does not know: Markdown.

use std::fmt::Write as _;

use crate::cases::{CASES, Case, Sandbox};
use crate::results::Results;

const WIDTH: f64 = 860.0;
const LEFT: f64 = 268.0;
const RIGHT: f64 = 70.0;
const TOP: f64 = 92.0;
const ROW: f64 = 26.0;
const BAR: f64 = 16.0;
/// A bar is cut if it is this many times as long as the next shorter one.
const CUT: f64 = 2.5;
const FONT: &str = "font-family=\"system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif\"";

/// The color and the legend of each sandbox.
const COLORS: [(Sandbox, &str, &str); 4] = [
    (Sandbox::Plain, "#94a3b8", "plain proxy"),
    (Sandbox::None, "#f59e0b", "filter without a sandbox"),
    (Sandbox::Shared, "#8b5cf6", "one sandbox for all requests"),
    (Sandbox::Fresh, "#059669", "a fresh sandbox per request"),
];

/// Draws the cases, the cheapest first. Leaves out the guests that are not optimized.
pub(crate) fn svg(results: &Results) -> String {
    let mut bars: Vec<(&Case, f64)> = CASES
        .iter()
        .filter(|case| !case.id.ends_with("unoptimized"))
        .filter_map(|case| Some((case, results.cpu(case.id)?)))
        .collect();
    bars.sort_by(|a, b| a.1.total_cmp(&b.1));
    let end = end_of_axis(&bars.iter().map(|bar| bar.1).collect::<Vec<_>>());
    let height = TOP + ROW * bars.len() as f64 + 44.0;
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" {FONT} font-size=\"13\" role=\"img\">\n\
         <title>Gateway CPU per request, µs</title>\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" rx=\"8\" fill=\"#ffffff\"/>\n\
         <text x=\"24\" y=\"34\" font-size=\"17\" font-weight=\"600\" fill=\"#0f172a\">CPU per request with an api-key filter, µs (less is better)</text>\n"
    );
    legend(&mut text);
    grid(&mut text, end, height);
    for (index, (case, value)) in bars.iter().enumerate() {
        bar(&mut text, TOP + ROW * index as f64, case, *value, end);
    }
    let note = "minimum of the rounds, one worker, 64 keep-alive connections, 1 KB responses";
    let _ = writeln!(text, "<text x=\"24\" y=\"{}\" font-size=\"11\" fill=\"#64748b\">{note}</text>", height - 12.0);
    text.push_str("</svg>\n");
    text
}

fn x(value: f64, end: f64) -> f64 {
    LEFT + (WIDTH - LEFT - RIGHT) * value.min(end) / end
}

/// The end of the axis: the longest bar that is not cut, plus 5 %.
fn end_of_axis(sorted: &[f64]) -> f64 {
    let mut shown = sorted;
    while let [.., before, last] = shown
        && *last > before * CUT
        && shown.len() > 2
    {
        shown = &shown[..shown.len() - 1];
    }
    shown.last().copied().unwrap_or(1.0) * 1.05
}

fn legend(text: &mut String) {
    let mut left = 24.0;
    for (_, color, label) in COLORS {
        let _ = writeln!(
            text,
            "<rect x=\"{left}\" y=\"51\" width=\"11\" height=\"11\" rx=\"2\" fill=\"{color}\"/><text x=\"{}\" y=\"61\" font-size=\"12\" fill=\"#334155\">{label}</text>",
            left + 17.0
        );
        left += 40.0 + 6.6 * label.len() as f64;
    }
}

fn grid(text: &mut String, end: f64, height: f64) {
    let step = [5.0, 10.0, 20.0, 25.0, 50.0, 100.0, 200.0, 500.0, 1000.0]
        .into_iter()
        .find(|step| end / step <= 8.0)
        .unwrap_or(end / 4.0);
    let mut value = 0.0;
    while value <= end {
        let x = x(value, end);
        let bottom = height - 38.0;
        let _ = writeln!(
            text,
            "<line x1=\"{x:.1}\" y1=\"{}\" x2=\"{x:.1}\" y2=\"{bottom}\" stroke=\"#e2e8f0\"/><text x=\"{x:.1}\" y=\"{}\" font-size=\"11\" fill=\"#64748b\" text-anchor=\"middle\">{value:.0}</text>",
            TOP - 4.0,
            TOP - 9.0
        );
        value += step;
    }
}

fn bar(text: &mut String, top: f64, case: &Case, value: f64, end: f64) {
    let color = COLORS.iter().find(|color| color.0 == case.sandbox).map_or("#000000", |color| color.1);
    let ours = case.gateway == "witgate";
    let (weight, ink) = if ours { ("600", "#0f172a") } else { ("400", "#334155") };
    let (right, middle) = (x(value, end), top + BAR / 2.0 + 4.5);
    let title = case.title.replace('`', "");
    let _ = writeln!(
        text,
        "<text x=\"{}\" y=\"{middle}\" text-anchor=\"end\" font-weight=\"{weight}\" fill=\"{ink}\">{title}</text><rect x=\"{LEFT}\" y=\"{top}\" width=\"{:.1}\" height=\"{BAR}\" rx=\"2\" fill=\"{color}\"/><text x=\"{:.1}\" y=\"{middle}\" font-weight=\"{weight}\" fill=\"{ink}\">{value:.0}</text>",
        LEFT - 10.0,
        right - LEFT,
        right + 7.0
    );
    if value > end {
        // A white slash across the bar marks the cut.
        let cut = right - 26.0;
        let _ = writeln!(
            text,
            "<path d=\"M{:.1} {} l7 -{} h5 l-7 {} z\" fill=\"#ffffff\"/>",
            cut,
            top + BAR + 2.0,
            BAR + 4.0,
            BAR + 4.0
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_far_longer_than_the_others_is_cut() {
        assert_eq!(end_of_axis(&[10.0, 20.0, 30.0]), 31.5);
        assert_eq!(end_of_axis(&[10.0, 20.0, 30.0, 900.0]), 31.5);
        assert_eq!(end_of_axis(&[10.0, 90.0]), 94.5);
    }
}
