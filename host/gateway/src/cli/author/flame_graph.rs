//! A flame graph as an SVG file that needs nothing else: samples of calls, merged by their stacks.
//!
//! The outermost function is on top, and a bar is as wide as its share of the samples. Each bar
//! says its whole name when the pointer is over it. This module does not know: where samples come
//! from.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use witgate_runtime::profile::Sample;

const WIDTH: f64 = 1200.0;
const ROW: f64 = 18.0;
const HEAD: f64 = 46.0;
/// About the width of a character.
const CHARACTER: f64 = 6.7;
/// Narrower bars are left out.
const WIDTH_MIN: f64 = 0.3;
const NAME_CHARS_MAX: usize = 300;
/// The function in which CPython runs the author's code.
const PYTHON_LOOP: &str = "_PyEval_EvalFrameDefault";

/// What a bar stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// A line of the author's source.
    Line,
    /// A function of the component.
    Function,
    /// A function of the interpreter.
    Interpreter,
}

impl Kind {
    const fn color(self) -> &'static str {
        match self {
            Self::Line => "#f6a54b",
            Self::Function => "#f3d36b",
            Self::Interpreter => "#b7c9d9",
        }
    }

    const fn words(self) -> &'static str {
        match self {
            Self::Line => "a line of the filter's source",
            Self::Function => "a function of the component",
            Self::Interpreter => "a function of the interpreter",
        }
    }
}

/// The samples, merged.
#[derive(Default)]
pub(super) struct FlameGraph {
    samples: u64,
    interpreter: Option<&'static str>,
    children: BTreeMap<(Kind, String), Node>,
    /// How many samples were in each line or function of the author.
    totals: BTreeMap<String, u64>,
}

#[derive(Default)]
struct Node {
    samples: u64,
    children: BTreeMap<(Kind, String), Node>,
}

impl FlameGraph {
    /// Adds a sample.
    pub(super) fn add(&mut self, sample: &Sample) {
        self.samples += 1;
        self.interpreter = self.interpreter.or(sample.interpreter);
        let stack = stack(sample);
        let own = if sample.interpreter.is_some() { Kind::Line } else { Kind::Function };
        let mut names: Vec<&String> = stack.iter().filter(|(kind, _)| *kind == own).map(|(_, name)| name).collect();
        names.sort();
        names.dedup();
        for name in names {
            *self.totals.entry(name.clone()).or_default() += 1;
        }
        let mut children = &mut self.children;
        for frame in stack {
            let node = children.entry(frame).or_default();
            node.samples += 1;
            children = &mut node.children;
        }
    }

    pub(super) const fn samples(&self) -> u64 {
        self.samples
    }

    /// The lines or functions with the most samples, with their share.
    pub(super) fn top(&self, count: usize) -> Vec<(f64, &str)> {
        let mut all: Vec<(u64, &str)> = self.totals.iter().map(|(name, samples)| (*samples, name.as_str())).collect();
        all.sort_by_key(|(samples, _)| std::cmp::Reverse(*samples));
        let all = all.into_iter().take(count);
        all.map(|(samples, name)| (samples as f64 / self.samples as f64, name)).collect()
    }

    /// The SVG file.
    pub(super) fn svg(&self, title: &str) -> String {
        let height = HEAD + ROW * (depth(&self.children) as f64 + 1.0);
        let mut out = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" \
             viewBox=\"0 0 {WIDTH} {height}\">\n<style>text{{font:11px monospace;pointer-events:none}}\
             rect:hover{{stroke:#000}}</style>\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n\
             <text x=\"6\" y=\"16\">{} ({} samples)</text>\n",
            escaped(title),
            self.samples
        );
        let kinds = match self.interpreter {
            Some(name) => vec![(Kind::Line, "lines of the source".to_owned()), (Kind::Interpreter, name.to_owned())],
            None => vec![(Kind::Function, "functions of the component".to_owned())],
        };
        let mut x = 6.0;
        for (kind, words) in kinds {
            // Writing to a string does not fail.
            let _ = writeln!(
                out,
                "<rect x=\"{x}\" y=\"24\" width=\"12\" height=\"12\" fill=\"{}\"/><text x=\"{}\" y=\"34\">{words}</text>",
                kind.color(),
                x + 17.0
            );
            x += 40.0 + CHARACTER * words.len() as f64;
        }
        self.bars(&mut out, &self.children, 0.0, HEAD);
        out + "</svg>\n"
    }

    fn bars(&self, out: &mut String, nodes: &BTreeMap<(Kind, String), Node>, mut x: f64, y: f64) {
        for ((kind, name), node) in nodes {
            let share = node.samples as f64 / self.samples as f64;
            let width = WIDTH * share;
            if width >= WIDTH_MIN {
                let _ = write!(
                    out,
                    "<g><title>{}: {} samples, {:.1}% ({})</title><rect x=\"{x:.1}\" y=\"{y}\" width=\"{:.1}\" \
                     height=\"{}\" fill=\"{}\"/>",
                    escaped(name),
                    node.samples,
                    share * 100.0,
                    kind.words(),
                    (width - 0.5).max(WIDTH_MIN),
                    ROW - 1.0,
                    kind.color()
                );
                let characters = ((width - 6.0) / CHARACTER) as usize;
                if characters >= 3 {
                    let shown: String = name.chars().take(characters).collect();
                    let _ = write!(out, "<text x=\"{:.1}\" y=\"{}\">{}</text>", x + 3.0, y + 12.0, escaped(&shown));
                }
                out.push_str("</g>\n");
                self.bars(out, &node.children, x, y + ROW);
            }
            x += width;
        }
    }
}

/// The bars of a sample, the outermost first. The lines of the source come first, and then what the
/// interpreter did for the innermost one.
fn stack(sample: &Sample) -> Vec<(Kind, String)> {
    let functions = sample.functions.iter().map(|name| demangled(name));
    if sample.interpreter.is_none() {
        return functions.map(|name| (Kind::Function, name)).collect();
    }
    let last_loop = interpreter_loop(&sample.functions).filter(|_| !sample.lines.is_empty());
    let lines = sample.lines.iter().map(|line| (Kind::Line, bounded(line)));
    let functions = functions.skip(last_loop.unwrap_or(0)).map(|name| (Kind::Interpreter, name));
    lines.chain(functions).collect()
}

/// The innermost call of the function that runs the author's code. QuickJS has no names in a
/// filter, but that function calls itself for each call in the author's code, so it is the one that
/// the stack has most often.
fn interpreter_loop(functions: &[String]) -> Option<usize> {
    if let Some(named) = functions.iter().rposition(|name| name.contains(PYTHON_LOOP)) {
        return Some(named);
    }
    let count = |name: &String| functions.iter().filter(|other| *other == name).count();
    let most = functions.iter().max_by_key(|name| count(name)).filter(|name| count(name) > 1)?;
    functions.iter().rposition(|name| name == most)
}

/// The name as its source has it. A long name stays as it is: demangling it can take seconds.
fn demangled(name: &str) -> String {
    if name.len() > NAME_CHARS_MAX {
        return bounded(name);
    }
    format!("{:#}", rustc_demangle::demangle(name))
}

fn bounded(name: &str) -> String {
    name.chars().take(NAME_CHARS_MAX).collect()
}

fn depth(nodes: &BTreeMap<(Kind, String), Node>) -> usize {
    nodes.values().map(|node| 1 + depth(&node.children)).max().unwrap_or(0)
}

fn escaped(text: &str) -> String {
    let mut out = String::new();
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            control if control.is_control() => out.push('?'),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(functions: &[&str], lines: &[&str], interpreter: Option<&'static str>) -> Sample {
        let texts = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
        Sample { functions: texts(functions), lines: texts(lines), interpreter }
    }

    #[test]
    fn lines_of_the_source_stand_above_what_the_interpreter_does_for_them() {
        let mut graph = FlameGraph::default();
        let functions = ["main", "function 693", "function 693", "js_regexp_exec"];
        graph.add(&sample(&functions, &["src/filter.ts:3", "src/filter.ts:9"], Some("QuickJS")));
        graph.add(&sample(&["main", "gc"], &[], Some("QuickJS")));
        let svg = graph.svg("a <b>");
        for part in ["a &lt;b&gt; (2 samples)", "src/filter.ts:9: 1 samples, 50.0%", "js_regexp_exec: 1", ">gc</text>"]
        {
            assert!(svg.contains(part), "{part} is not in {svg}");
        }
        assert_eq!(svg.matches("function 693: 1 samples").count(), 1, "{svg}");
        assert_eq!(graph.top(1), [(0.5, "src/filter.ts:3")]);
    }

    #[test]
    fn names_of_rust_are_those_of_the_source() {
        assert_eq!(demangled("_ZN6filter4scan17h0123456789abcdefE"), "filter::scan");
        assert_eq!(demangled("handle-request"), "handle-request");
    }
}
