//! A graph of imports between files, and its cycles.
//!
//! This module does not know: the language of the files.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// The imports of each file: the imported file, and the path that names it.
pub(super) type Graph = BTreeMap<PathBuf, BTreeMap<PathBuf, String>>;

/// Returns cycles of imports, each from its first file back to that file; none if there is no
/// cycle. Two cycles that share a part may be reported as one.
pub(super) fn cycles(graph: &Graph) -> Vec<Vec<PathBuf>> {
    let mut search = Search { graph, trail: vec![], done: BTreeSet::new(), found: vec![] };
    graph.keys().for_each(|file| search.visit(file));
    search.found
}

/// A depth-first search.
struct Search<'g> {
    graph: &'g Graph,
    /// From the start to the current file.
    trail: Vec<&'g Path>,
    done: BTreeSet<&'g Path>,
    found: Vec<Vec<PathBuf>>,
}

impl<'g> Search<'g> {
    fn visit(&mut self, file: &'g Path) {
        if let Some(start) = self.trail.iter().position(|earlier| *earlier == file) {
            self.found.push(self.trail[start..].iter().chain([&file]).map(|file| file.to_path_buf()).collect());
            return;
        }
        if !self.done.insert(file) {
            return;
        }
        self.trail.push(file);
        for next in self.graph.get(file).into_iter().flat_map(BTreeMap::keys) {
            self.visit(next);
        }
        self.trail.pop();
    }
}
