//! The import graph of a Rust crate, file by file, from its source.
//!
//! It parses each file and resolves every path that begins with `crate`, `self`, `super` or a child
//! module. Test code (`cfg(test)`) is left out. Macros are read as text. This module does not know:
//! which imports are allowed.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use syn::visit::Visit;

use super::graph::Graph;

/// Reads the crate whose root file is `root`.
pub(super) fn read_crate(root: &Path) -> Result<Graph> {
    let mut tree = Tree::default();
    let folder = root.parent().context("a file has a folder")?;
    tree.add_file(root, folder, vec![])?;
    let mut graph = Graph::default();
    for (module, file, items) in &tree.parsed {
        let mut paths = Paths { module: module.clone(), found: vec![] };
        paths.visit_file(items);
        let imports = graph.entry(file.clone()).or_default();
        for (module, path) in paths.found {
            if let Some(target) = tree.resolve(&module, &path).filter(|target| target != file) {
                imports.insert(target, path.join("::"));
            }
        }
    }
    for file in tree.test_files {
        graph.entry(file).or_default();
    }
    Ok(graph)
}

type ModulePath = Vec<String>;

#[derive(Default)]
struct Tree {
    /// The file of each module; an inline module belongs to its parent's file.
    files: BTreeMap<ModulePath, PathBuf>,
    parsed: Vec<(ModulePath, PathBuf, syn::File)>,
    test_files: Vec<PathBuf>,
}

impl Tree {
    /// Adds a file and the modules that it declares. `folder` is where its child modules are.
    fn add_file(&mut self, file: &Path, folder: &Path, module: ModulePath) -> Result<()> {
        let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        let parsed = syn::parse_file(&text).with_context(|| format!("{} does not parse", file.display()))?;
        self.files.insert(module.clone(), file.to_owned());
        self.add_modules(file, folder, &module, &parsed.items)?;
        self.parsed.push((module, file.to_owned(), parsed));
        Ok(())
    }

    fn add_modules(&mut self, file: &Path, folder: &Path, module: &[String], items: &[syn::Item]) -> Result<()> {
        for item in items {
            let syn::Item::Mod(item) = item else { continue };
            let name = item.ident.to_string();
            let child: ModulePath = module.iter().cloned().chain([name.clone()]).collect();
            let child_folder = folder.join(&name);
            if let Some((_, items)) = &item.content {
                if !is_test(&item.attrs) {
                    self.files.insert(child.clone(), file.to_owned());
                    self.add_modules(file, &child_folder, &child, items)?;
                }
                continue;
            }
            let candidates = match path_attribute(&item.attrs) {
                Some(path) => vec![file.with_file_name(path)],
                None => vec![folder.join(format!("{name}.rs")), child_folder.join("mod.rs")],
            };
            let found = candidates.into_iter().find(|candidate| candidate.exists());
            let found = found.with_context(|| format!("{}: no file for mod {name}", file.display()))?;
            if is_test(&item.attrs) {
                self.test_files.push(found);
            } else {
                self.add_file(&found, &child_folder, child)?;
            }
        }
        Ok(())
    }

    /// The file of the innermost module that `path` names, seen from `module`.
    fn resolve(&self, module: &[String], path: &[String]) -> Option<PathBuf> {
        let mut at = module.to_vec();
        let mut rest = path;
        match path.first()?.as_str() {
            "crate" => {
                at.clear();
                rest = &path[1..];
            }
            "self" => rest = &path[1..],
            "super" => {
                while rest.first().is_some_and(|segment| segment == "super") {
                    at.pop();
                    rest = &rest[1..];
                }
            }
            first => {
                at.push(first.to_owned());
                self.files.get(&at)?;
                rest = &path[1..];
            }
        }
        for segment in rest {
            at.push(segment.clone());
            if !self.files.contains_key(&at) {
                at.pop();
                break;
            }
        }
        self.files.get(&at).cloned()
    }
}

/// Collects paths, each with the module in which it occurs.
struct Paths {
    module: ModulePath,
    found: Vec<(ModulePath, Vec<String>)>,
}

impl Paths {
    fn add(&mut self, path: Vec<String>) {
        self.found.push((self.module.clone(), path));
    }

    fn add_use(&mut self, tree: &syn::UseTree, prefix: &[String]) {
        let with = |ident: &syn::Ident| prefix.iter().cloned().chain([ident.to_string()]).collect::<Vec<_>>();
        match tree {
            syn::UseTree::Path(path) => self.add_use(&path.tree, &with(&path.ident)),
            syn::UseTree::Name(name) if name.ident == "self" => self.add(prefix.to_vec()),
            syn::UseTree::Name(name) => self.add(with(&name.ident)),
            syn::UseTree::Rename(rename) => self.add(with(&rename.ident)),
            syn::UseTree::Glob(_) => self.add(prefix.to_vec()),
            syn::UseTree::Group(group) => group.items.iter().for_each(|tree| self.add_use(tree, prefix)),
        }
    }
}

impl<'a> Visit<'a> for Paths {
    fn visit_item_mod(&mut self, item: &'a syn::ItemMod) {
        if is_test(&item.attrs) {
            return;
        }
        self.module.push(item.ident.to_string());
        syn::visit::visit_item_mod(self, item);
        self.module.pop();
    }

    fn visit_item_use(&mut self, item: &'a syn::ItemUse) {
        if !is_test(&item.attrs) {
            self.add_use(&item.tree, &[]);
        }
    }

    fn visit_path(&mut self, path: &'a syn::Path) {
        if path.leading_colon.is_none() && path.segments.len() > 1 {
            self.add(path.segments.iter().map(|segment| segment.ident.to_string()).collect());
        }
        syn::visit::visit_path(self, path);
    }

    /// `pub(in crate::a)` is no import.
    fn visit_visibility(&mut self, _: &'a syn::Visibility) {}

    fn visit_macro(&mut self, item: &'a syn::Macro) {
        self.visit_path(&item.path);
        let text = item.tokens.to_string().replace(" :: ", "::");
        for word in text.split(|c: char| !c.is_alphanumeric() && c != '_' && c != ':') {
            if word.contains("::") && !word.starts_with("::") {
                self.add(word.split("::").filter(|segment| !segment.is_empty()).map(str::to_owned).collect());
            }
        }
    }
}

/// The value of `#[path = "…"]`.
fn path_attribute(attributes: &[syn::Attribute]) -> Option<String> {
    let attribute = attributes.iter().find(|attribute| attribute.path().is_ident("path"))?;
    let syn::Expr::Lit(literal) = &attribute.meta.require_name_value().ok()?.value else { return None };
    let syn::Lit::Str(path) = &literal.lit else { return None };
    Some(path.value())
}

fn is_test(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute.meta.require_list().is_ok_and(|list| list.tokens.to_string().contains("test"))
    })
}
