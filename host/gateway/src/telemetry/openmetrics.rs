//! Reads the text of `/metrics` back into families and samples.
//!
//! The export of metrics over OTLP and `witgate top` work on the same numbers as a scraper, so both
//! read the text that a scraper gets. It understands what this gateway writes, in both formats;
//! lines that it does not understand are left out. This module does not know: which metrics exist.

use std::borrow::Cow;

/// A metric with all its series.
#[derive(Debug, PartialEq)]
pub struct MetricFamily<'t> {
    /// As in the metadata: without the suffix of a sample.
    pub name: &'t str,
    /// `counter`, `gauge` or `histogram`; others are possible.
    pub kind: &'t str,
    /// What is measured.
    pub help: &'t str,
    /// `seconds` or `bytes`, or empty.
    pub unit: &'t str,
    /// In the order of the text.
    pub samples: Vec<Sample<'t>>,
}

/// One line with a value.
#[derive(Debug, PartialEq)]
pub struct Sample<'t> {
    /// The name with its suffix, such as `_total` or `_bucket`.
    pub name: &'t str,
    /// Names and values.
    pub labels: Labels<'t>,
    /// The value.
    pub value: f64,
    /// The labels, the value and the Unix time of an exemplar.
    pub exemplar: Option<(Labels<'t>, f64, f64)>,
}

/// Names and values of labels.
pub type Labels<'t> = Vec<(&'t str, Cow<'t, str>)>;

impl Sample<'_> {
    /// The value of a label, or an empty text.
    pub fn label(&self, name: &str) -> &str {
        self.labels.iter().find(|(own, _)| *own == name).map_or("", |(_, value)| value)
    }
}

/// Reads a text of OpenMetrics or of the older Prometheus format.
pub fn parse(text: &str) -> Vec<MetricFamily<'_>> {
    let mut families: Vec<MetricFamily<'_>> = vec![];
    for line in text.lines() {
        if let Some(metadata) = line.strip_prefix("# ") {
            let mut parts = metadata.splitn(3, ' ');
            let (Some(kind), Some(name), Some(rest)) = (parts.next(), parts.next(), parts.next()) else { continue };
            if families.last().is_none_or(|family| family.name != name) {
                families.push(MetricFamily { name, kind: "", help: "", unit: "", samples: vec![] });
            }
            let Some(family) = families.last_mut() else { continue };
            match kind {
                "HELP" => family.help = rest.trim_end_matches('.'),
                "TYPE" => family.kind = rest,
                "UNIT" => family.unit = rest,
                _ => {}
            }
        } else if let (Some(sample), Some(family)) = (parse_sample(line), families.last_mut())
            && sample.name.starts_with(family.name)
        {
            family.samples.push(sample);
        }
    }
    families
}

fn parse_sample(line: &str) -> Option<Sample<'_>> {
    let name_end = line.find(['{', ' '])?;
    let (name, rest) = line.split_at(name_end);
    let (labels, rest) = parse_labels(rest)?;
    let (value, exemplar) = match rest.trim_start().split_once(" # ") {
        Some((value, exemplar)) => (value, parse_exemplar(exemplar)),
        None => (rest.trim_start(), None),
    };
    Some(Sample { name, labels, value: value.split(' ').next()?.parse().ok()?, exemplar })
}

fn parse_exemplar(text: &str) -> Option<(Labels<'_>, f64, f64)> {
    let (labels, rest) = parse_labels(text)?;
    let mut numbers = rest.split_whitespace().filter_map(|number| number.parse().ok());
    Some((labels, numbers.next()?, numbers.next().unwrap_or(0.0)))
}

/// The labels in braces at the start, if there are any, and what follows them.
fn parse_labels(text: &str) -> Option<(Labels<'_>, &str)> {
    let Some(mut rest) = text.strip_prefix('{') else { return Some((vec![], text)) };
    let mut labels = vec![];
    loop {
        rest = rest.trim_start_matches(',');
        if let Some(after) = rest.strip_prefix('}') {
            return Some((labels, after));
        }
        let (name, after) = rest.split_once("=\"")?;
        let end = closing_quote(after)?;
        labels.push((name, unescaped(&after[..end])));
        rest = &after[end + 1..];
    }
}

fn closing_quote(text: &str) -> Option<usize> {
    let mut is_escaped = false;
    text.bytes().position(|byte| {
        let ends = byte == b'"' && !is_escaped;
        is_escaped = byte == b'\\' && !is_escaped;
        ends
    })
}

fn unescaped(text: &str) -> Cow<'_, str> {
    if !text.contains('\\') {
        return Cow::Borrowed(text);
    }
    let (mut out, mut characters) = (String::with_capacity(text.len()), text.chars());
    while let Some(character) = characters.next() {
        match character {
            '\\' => out.extend(characters.next().map(|escaped| if escaped == 'n' { '\n' } else { escaped })),
            character => out.push(character),
        }
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_have_their_samples() {
        let text = "# HELP a_seconds Time.\n# TYPE a_seconds histogram\n# UNIT a_seconds seconds\n\
                    a_seconds_sum{r=\"x\\\"y\\\\\"} 0.5\n\
                    a_seconds_bucket{le=\"+Inf\",r=\"x\"} 3 # {trace_id=\"0f\"} 0.25 17.5\n\
                    # HELP b B.\n# TYPE b counter\nb_total 7\nbroken{x=\"\nother 1\n# EOF\n";
        let families = parse(text);
        assert_eq!(families.len(), 2);
        let [a, b] = [&families[0], &families[1]];
        assert_eq!((a.name, a.kind, a.help, a.unit), ("a_seconds", "histogram", "Time", "seconds"));
        assert_eq!((a.samples[0].label("r"), a.samples[0].value), ("x\"y\\", 0.5));
        let exemplar = (vec![("trace_id", Cow::Borrowed("0f"))], 0.25, 17.5);
        assert_eq!((a.samples[1].label("le"), a.samples[1].exemplar.as_ref()), ("+Inf", Some(&exemplar)));
        assert_eq!((b.samples.len(), b.samples[0].name, b.samples[0].value), (1, "b_total", 7.0));
    }

    #[test]
    fn what_the_gateway_writes_is_read() {
        let metrics = super::super::Metrics::new();
        let series = metrics.route("a \"quoted\" route".into());
        let trace = super::super::TraceLabels { trace_id: super::super::TraceId(0xabc) };
        series.count("GET", 200, 0.003, Some(trace));
        let text = metrics.encode();
        let families = parse(&text);
        let find = |name: &str| families.iter().find(|family| family.name == name);
        let requests = find("witgate_requests").map(|family| &family.samples[0]);
        assert_eq!(requests.map(|sample| (sample.label("route"), sample.value)), Some(("a \"quoted\" route", 1.0)));
        let exemplars = find("witgate_request_duration_seconds").into_iter().flat_map(|family| &family.samples);
        let exemplars: Vec<_> = exemplars.filter_map(|sample| sample.exemplar.as_ref()).collect();
        assert_eq!(exemplars.len(), 1);
        assert_eq!((exemplars[0].0[0].1.as_ref(), exemplars[0].1), ("00000000000000000000000000000abc", 0.003));
        assert!(exemplars[0].2 > 1.7e9, "{exemplars:?}");
    }
}
