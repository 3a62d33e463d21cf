//! `lib.rs` is the map: it lists every module, and each imports only from those listed below it.

use std::collections::BTreeMap;

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};

use crate::sources::{Source, line, of_crate};

/// Each module of the map with its position: higher numbers are lower.
type Order = BTreeMap<String, usize>;

#[test]
fn no_module_imports_from_one_listed_above_it() {
    let found = of_crate(imports_that_point_up);
    assert!(found.is_empty(), "imports that point up the map in lib.rs:\n{}", found.join("\n"));
}

#[test]
fn every_module_is_on_the_map() {
    let missing = of_crate(modules_off_the_map);
    assert!(missing.is_empty(), "not listed in lib.rs: {missing:?}");
}

fn imports_that_point_up(sources: &[Source]) -> Vec<String> {
    let order = map(sources);
    let mut found = Vec::new();
    for file in sources {
        let Some((module, rank)) = file.module().first().and_then(|name| order.get_key_value(name)) else {
            continue;
        };
        for (line, name) in imports(file) {
            match order.get(&name) {
                Some(imported) if imported < rank => {
                    found.push(format!("{}:{line}: {module} imports crate::{name}", file.path));
                }
                Some(_) => {}
                None => found.push(format!("{}:{line}: crate::{name} is no module of the map", file.path)),
            }
        }
    }
    found
}

fn modules_off_the_map(sources: &[Source]) -> Vec<String> {
    let order = map(sources);
    let modules = sources.iter().filter_map(|file| Some((file, file.module().first()?.clone())));
    modules.filter(|(_, module)| !order.contains_key(module)).map(|(file, _)| file.path.clone()).collect()
}

fn map(sources: &[Source]) -> Order {
    let lib = sources.iter().find(|file| file.path == "src/lib.rs").unwrap();
    let names = lib.product.items.iter().filter_map(|item| match item {
        syn::Item::Mod(module) => Some(module.ident.to_string()),
        _ => None,
    });
    names.enumerate().map(|(place, name)| (name, place)).collect()
}

/// Line and name of every top-level module that the product's code names: in `use`, in paths, in macros,
/// through `crate` or enough `super`s.
fn imports(file: &Source) -> Vec<(usize, String)> {
    let mut imports = Imports { depth: file.module().len(), found: Vec::new() };
    imports.visit_file(&file.product);
    imports.found
}

struct Imports {
    /// How many `super`s lead to the root of the crate.
    depth: usize,
    found: Vec<(usize, String)>,
}

impl Imports {
    /// Resolves names from the start of a path; returns what follows `crate` or enough `super`s.
    fn behind_root<'n>(&self, names: &'n [String]) -> Option<&'n [String]> {
        let supers = names.iter().take_while(|name| *name == "super").count();
        match names.first()?.as_str() {
            "crate" => names.get(1..),
            "super" if supers >= self.depth => names.get(supers..),
            _ => None,
        }
    }

    fn tree(&mut self, tree: &syn::UseTree, before: &[String]) {
        let mut names = before.to_vec();
        match tree {
            syn::UseTree::Path(path) => {
                names.push(path.ident.to_string());
                self.tree(&path.tree, &names);
            }
            syn::UseTree::Group(group) => group.items.iter().for_each(|item| self.tree(item, &names)),
            syn::UseTree::Name(name) => self.leaf(tree, names, name.ident.to_string()),
            syn::UseTree::Rename(name) => self.leaf(tree, names, name.ident.to_string()),
            syn::UseTree::Glob(_) => self.leaf(tree, names, "*".to_owned()),
        }
    }

    fn leaf(&mut self, tree: &syn::UseTree, mut names: Vec<String>, last: String) {
        names.push(last);
        self.path(line(tree), &names);
    }

    fn path(&mut self, line: usize, names: &[String]) {
        if let Some(name) = self.behind_root(names).and_then(<[String]>::first)
            && name != "self"
        {
            self.found.push((line, name.clone()));
        }
    }

    fn tokens(&mut self, tokens: TokenStream) {
        let mut names: Vec<String> = Vec::new();
        let mut place = 0;
        for token in tokens {
            match token {
                TokenTree::Group(group) => {
                    self.tokens(group.stream());
                    self.path(place, &std::mem::take(&mut names));
                }
                TokenTree::Ident(ident) => {
                    if names.last().is_none_or(|name| name != "::") {
                        self.path(place, &std::mem::take(&mut names));
                        place = ident.span().start().line;
                    }
                    names.retain(|name| name != "::");
                    names.push(ident.to_string());
                }
                TokenTree::Punct(punct) if punct.as_char() == ':' => {
                    names.retain(|name| name != "::");
                    names.push("::".to_owned());
                }
                _ => {
                    names.retain(|name| name != "::");
                    self.path(place, &std::mem::take(&mut names));
                }
            }
        }
        names.retain(|name| name != "::");
        self.path(place, &names);
    }
}

impl<'ast> Visit<'ast> for Imports {
    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.tree(&item.tree, &[]);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let names: Vec<String> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        self.path(line(path), &names);
        visit::visit_path(self, path);
    }

    // `pub(in crate::a)` restricts visibility; it imports nothing.
    fn visit_visibility(&mut self, _: &'ast syn::Visibility) {}

    fn visit_macro(&mut self, it: &'ast syn::Macro) {
        self.path(line(it), &it.path.segments.iter().map(|s| s.ident.to_string()).collect::<Vec<_>>());
        self.tokens(it.tokens.clone());
    }

    fn visit_item_mod(&mut self, module: &'ast syn::ItemMod) {
        self.depth += 1;
        visit::visit_item_mod(self, module);
        self.depth -= 1;
    }
}

#[cfg(test)]
fn lib(text: &str) -> Source {
    Source::parsed("src/lib.rs", text)
}

#[test]
fn the_rule_of_imports_sees_what_it_looks_for() {
    let text = "use crate::keys::jwks;\nuse crate::{log, time::Timestamp};\n\
                fn f() { crate::metrics::g(); vec![crate::client::h()]; } // crate::app is only spoken of\n\
                #[cfg(test)]\nmod tests { use crate::gate; }\n\
                fn behind(_: super::super::cli::Args) {}\nmod inner { use super::super::super::usage; }\n\
                pub(in crate::hidden) fn seen() { let _ = super::sibling(); }\n";
    let names: Vec<String> =
        imports(&Source::parsed("src/forward/x.rs", text)).into_iter().map(|(_, name)| name).collect();
    assert_eq!(names, ["keys", "log", "time", "metrics", "client", "cli", "usage"]);
}

#[test]
fn the_rule_of_the_map_sees_what_it_looks_for() {
    let good = [
        lib("pub mod gate;\npub mod keys;\nmod time;\n"),
        Source::parsed("src/gate/a.rs", "use crate::keys::K;"),
        Source::parsed("src/keys.rs", "use crate::time::T;\n#[cfg(test)]\nmod tests { use crate::gate; }"),
        Source::parsed("src/time.rs", ""),
    ];
    assert_eq!(imports_that_point_up(&good), [""; 0]);
    assert_eq!(modules_off_the_map(&good), [""; 0]);
    let bad = [
        lib("pub mod gate;\npub mod keys;\n"),
        Source::parsed(
            "src/keys.rs",
            "#[cfg(test)]\nmod tests {}\nfn f() { crate::gate::g() }\nuse crate::jose::J;",
        ),
        Source::parsed("src/jose/a.rs", ""),
    ];
    assert_eq!(
        imports_that_point_up(&bad),
        ["src/keys.rs:3: keys imports crate::gate", "src/keys.rs:4: crate::jose is no module of the map"]
    );
    assert_eq!(modules_off_the_map(&bad), ["src/jose/a.rs"]);
}
