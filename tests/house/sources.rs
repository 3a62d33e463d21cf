//! The parsed sources of the crate and of its tests.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{LazyLock, Mutex};

use syn::spanned::Spanned;
use syn::visit_mut::{self, VisitMut};

/// One parsed source file.
pub(crate) struct Source {
    /// The path in the repository: `src/gate/accept.rs`.
    pub(crate) path: String,
    pub(crate) text: String,
    /// The whole file.
    pub(crate) syntax: syn::File,
    /// The part that is compiled into the product: without everything under `#[cfg(test)]`; empty for a file of tests.
    pub(crate) product: syn::File,
    /// How many of its lines belong to the product.
    pub(crate) product_lines: usize,
}

impl Source {
    /// Parses a file of the product; everything except `#[cfg(test)]` belongs to it.
    pub(crate) fn parsed(path: &str, text: &str) -> Self {
        let syntax = syn::parse_file(text).unwrap_or_else(|error| panic!("{path}: {error}"));
        let mut product = syntax.clone();
        let mut prune = Prune::default();
        prune.visit_file_mut(&mut product);
        let product_lines = text.lines().count() - prune.lines.len();
        Self { path: path.to_owned(), text: text.to_owned(), syntax, product, product_lines }
    }

    /// Parses a file of tests; nothing in it belongs to the product.
    pub(crate) fn of_tests(path: &str, text: &str) -> Self {
        let syntax = syn::parse_file(text).unwrap_or_else(|error| panic!("{path}: {error}"));
        let product = syn::parse_file("").expect("an empty file");
        Self { path: path.to_owned(), text: text.to_owned(), syntax, product, product_lines: 0 }
    }

    fn clear_product(&mut self) {
        self.product.items.clear();
        self.product.attrs.clear();
        self.product_lines = 0;
    }

    /// The module path in the crate: `["gate", "accept"]`; empty for `lib.rs` and `main.rs`.
    pub(crate) fn module(&self) -> Vec<String> {
        let path = self.path.trim_start_matches("src/").trim_end_matches(".rs");
        let mut names: Vec<String> = path.split('/').map(str::to_owned).collect();
        if names.last().is_some_and(|name| ["mod", "lib", "main"].contains(&name.as_str())) {
            names.pop();
        }
        names
    }

    /// The files of the modules that this one declares only for tests.
    fn test_modules(&self) -> Vec<String> {
        let folder = self.module().join("/");
        let declared = self.syntax.items.iter().filter_map(|item| match item {
            syn::Item::Mod(module) if module.content.is_none() && is_test_only(&module.attrs) => {
                Some(format!("src/{folder}/{}", module.ident).replace("//", "/"))
            }
            _ => None,
        });
        declared.collect()
    }
}

/// Removes everything that is compiled only for tests, and records its lines (counted from 1).
#[derive(Default)]
struct Prune {
    lines: BTreeSet<usize>,
}

impl Prune {
    fn keeps(&mut self, attributes: &[syn::Attribute], node: &impl Spanned) -> bool {
        let is_kept = !is_test_only(attributes);
        if !is_kept {
            let first = attributes.first().map_or(node.span(), Spanned::span).start().line;
            self.lines.extend(first..=node.span().end().line);
        }
        is_kept
    }
}

impl VisitMut for Prune {
    fn visit_file_mut(&mut self, file: &mut syn::File) {
        file.items.retain(|item| self.keeps(item_attributes(item), item));
        visit_mut::visit_file_mut(self, file);
    }

    fn visit_item_mod_mut(&mut self, module: &mut syn::ItemMod) {
        if let Some((_, items)) = &mut module.content {
            items.retain(|item| self.keeps(item_attributes(item), item));
        }
        visit_mut::visit_item_mod_mut(self, module);
    }

    fn visit_item_impl_mut(&mut self, block: &mut syn::ItemImpl) {
        block.items.retain(|item| match item {
            syn::ImplItem::Const(it) => self.keeps(&it.attrs, it),
            syn::ImplItem::Fn(it) => self.keeps(&it.attrs, it),
            syn::ImplItem::Type(it) => self.keeps(&it.attrs, it),
            _ => true,
        });
        visit_mut::visit_item_impl_mut(self, block);
    }

    fn visit_block_mut(&mut self, block: &mut syn::Block) {
        block.stmts.retain(|statement| match statement {
            syn::Stmt::Local(it) => self.keeps(&it.attrs, it),
            syn::Stmt::Item(it) => self.keeps(item_attributes(it), it),
            syn::Stmt::Macro(it) => self.keeps(&it.attrs, it),
            syn::Stmt::Expr(..) => true,
        });
        visit_mut::visit_block_mut(self, block);
    }
}

/// Whether something is compiled only for tests: `#[cfg(test)]` or a `test` inside `all(…)`, but not inside `not(…)`.
pub(crate) fn is_test_only(attributes: &[syn::Attribute]) -> bool {
    fn needs_test(meta: &syn::Meta) -> bool {
        match meta {
            syn::Meta::Path(path) => path.is_ident("test"),
            syn::Meta::List(list) if list.path.is_ident("all") => list
                .parse_args_with(syn::punctuated::Punctuated::<syn::Meta, syn::Token![,]>::parse_terminated)
                .is_ok_and(|parts| parts.iter().any(needs_test)),
            _ => false,
        }
    }
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("test")
            || attribute.path().is_ident("cfg")
                && attribute.parse_args::<syn::Meta>().is_ok_and(|meta| needs_test(&meta))
    })
}

pub(crate) fn item_attributes(item: &syn::Item) -> &[syn::Attribute] {
    match item {
        syn::Item::Const(it) => &it.attrs,
        syn::Item::Enum(it) => &it.attrs,
        syn::Item::Fn(it) => &it.attrs,
        syn::Item::Impl(it) => &it.attrs,
        syn::Item::Macro(it) => &it.attrs,
        syn::Item::Mod(it) => &it.attrs,
        syn::Item::Static(it) => &it.attrs,
        syn::Item::Struct(it) => &it.attrs,
        syn::Item::Trait(it) => &it.attrs,
        syn::Item::Type(it) => &it.attrs,
        syn::Item::Union(it) => &it.attrs,
        syn::Item::Use(it) => &it.attrs,
        _ => &[],
    }
}

/// The root folder of the repository.
pub(crate) fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The files with this extension below a folder of the repository, by their path in it.
pub(crate) fn files(folder: &str, ending: &str) -> Vec<(String, String)> {
    fn collect(folder: &Path, ending: &str, found: &mut Vec<(String, String)>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                if path.file_name().is_some_and(|name| name != "target" && name != "node_modules") {
                    collect(&path, ending, found);
                }
            } else if path.to_string_lossy().ends_with(ending) {
                let name = path.strip_prefix(root()).unwrap().display().to_string();
                found.push((name, std::fs::read_to_string(&path).unwrap()));
            }
        }
    }
    let mut found = Vec::new();
    collect(&root().join(folder), ending, &mut found);
    found.sort();
    found
}

/// Evaluates `ask` on every source file of the crate.
pub(crate) fn of_crate<T: Send + 'static>(ask: impl FnOnce(&[Source]) -> T + Send + 'static) -> T {
    static CRATE: LazyLock<Shelf> = LazyLock::new(|| Shelf::filled(crate_sources));
    CRATE.ask(ask)
}

/// Evaluates `ask` on every source file of the tests.
pub(crate) fn of_tests<T: Send + 'static>(ask: impl FnOnce(&[Source]) -> T + Send + 'static) -> T {
    static TESTS: LazyLock<Shelf> = LazyLock::new(|| Shelf::filled(test_sources));
    TESTS.ask(ask)
}

/// The findings of a rule in the crate, then those in its tests.
pub(crate) fn of_both(rule: fn(&[Source]) -> Vec<String>) -> Vec<String> {
    [of_crate(rule), of_tests(rule)].concat()
}

/// Sources that are parsed once, by the thread that owns them: syntax trees cannot move between threads, but
/// questions and answers can.
struct Shelf(Mutex<SyncSender<Question>>);

type Question = Box<dyn FnOnce(&[Source]) + Send>;

impl Shelf {
    fn filled(parse: fn() -> Vec<Source>) -> Self {
        let (sender, questions) = sync_channel::<Question>(1);
        std::thread::spawn(move || {
            let sources = parse();
            questions.into_iter().for_each(|question| question(&sources));
        });
        Self(Mutex::new(sender))
    }

    fn ask<T: Send + 'static>(&self, ask: impl FnOnce(&[Source]) -> T + Send + 'static) -> T {
        let (sender, answer) = sync_channel(1);
        let question = Box::new(move |sources: &[Source]| drop(sender.send(ask(sources))));
        self.0.lock().unwrap().send(question).unwrap();
        answer.recv().expect("the rule has not panicked and every file was parsed")
    }
}

fn crate_sources() -> Vec<Source> {
    let mut sources: Vec<Source> =
        files("src", ".rs").iter().map(|(path, text)| Source::parsed(path, text)).collect();
    assert!(sources.len() > 10, "the source files are found");
    let of_tests: Vec<String> = sources.iter().flat_map(Source::test_modules).collect();
    for source in &mut sources {
        let is_of_tests = |module: &String| {
            source.path == format!("{module}.rs") || source.path.starts_with(&format!("{module}/"))
        };
        if of_tests.iter().any(is_of_tests) {
            source.clear_product();
        }
    }
    sources
}

fn test_sources() -> Vec<Source> {
    let parsed = files("tests", ".rs").into_iter().map(|(path, text)| Source::of_tests(&path, &text));
    let sources: Vec<Source> = parsed.collect();
    assert!(sources.len() > 10, "the test files are found");
    sources
}

/// The line of a node, counted from 1.
pub(crate) fn line(node: &impl Spanned) -> usize {
    node.span().start().line
}

#[test]
fn code_behind_a_test_module_belongs_to_the_product() {
    let text = "//! A file.\n#[cfg(test)]\nfn early() {\n}\nfn product() {\n    #[cfg(test)]\n    let seen = 1;\n}\n\
                #[cfg(all(test, unix))]\nmod more {\n    fn inner() {}\n}\n#[cfg(not(test))]\nfn last() {}\n";
    let source = Source::parsed("src/a.rs", text);
    let names: Vec<String> = source
        .product
        .items
        .iter()
        .filter_map(|item| if let syn::Item::Fn(it) = item { Some(it.sig.ident.to_string()) } else { None })
        .collect();
    assert_eq!(names, ["product", "last"]);
    assert_eq!(source.product_lines, 14 - 3 - 2 - 4);
}

#[test]
fn modules_declared_for_tests_are_files_of_tests() {
    let source = Source::parsed("src/gate/mod.rs", "#[cfg(test)]\nmod tests;\nmod wire;\n");
    assert_eq!(source.test_modules(), ["src/gate/tests"]);
    assert_eq!(Source::parsed("src/lib.rs", "#[cfg(test)]\nmod model;\n").test_modules(), ["src/model"]);
    assert_eq!(Source::parsed("src/gate/a.rs", "").module(), ["gate", "a"]);
}
