//! Each row of the tables in which the documentation promises something has a test that names it, and so has each block
//! that a reader may paste.
//!
//! A test names what it holds in its doc comment, one thing a line: `/// Holds docs/operations.md, Failure modes: the disk is full`
//! (the document, the heading, the first cell of the row without its backticks), or `/// Runs README.md: portcullis check`
//! (the document, and text that only this block has), or for all blocks under a heading
//! `/// Runs docs/quickstart.md, 2. In front of your API`. A block that no test runs says why in the line above it:
//! `<!-- not run: needs a browser -->`.

use std::collections::BTreeSet;

use syn::visit::{self, Visit};
use testkit::documents::{self, Block, document};

use crate::sources::{Source, files, of_both, of_tests};

/// The tables with promises, by document and heading.
const TABLES: [(&str, &str); 5] = [
    ("docs/concepts.md", "What a request meets"),
    ("docs/concepts.md", "Events"),
    ("docs/configuration.md", "Settings"),
    ("docs/operations.md", "Failure modes"),
    ("docs/reasons.md", "Other answers"),
];

const HOLDS: &str = "Holds ";
const RUNS: &str = "Runs ";

#[test]
fn every_row_of_a_promise_is_held_by_a_test() {
    let rows = TABLES.iter().flat_map(|(path, heading)| rows(path, heading, &document(path))).collect();
    let found = not_matched(&rows, &of_both(marks_of_rows));
    assert!(found.is_empty(), "rows and the tests that name them:\n{}", found.join("\n"));
}

#[test]
fn every_metric_is_looked_at_by_a_test() {
    let looked_at = of_tests(metrics_in_tests);
    let promised = documents::promised_metrics().into_iter().map(|metric| metric.name);
    let found: Vec<String> = promised.filter(|name| !is_looked_at(name, &looked_at)).collect();
    assert!(found.is_empty(), "no test looks at these metrics: {found:?}");
}

/// With `--nocapture`, it lists the documents and how many of their blocks are run.
#[test]
#[allow(clippy::print_stdout, reason = "the list is for people")]
fn every_block_is_run_by_a_test_or_says_why_not() {
    let marks = of_both(marks_of_blocks);
    let mut pages = files("docs", ".md");
    pages.push(("README.md".to_owned(), document("README.md")));
    let blocks: Vec<(String, Block)> = pages
        .iter()
        .flat_map(|(path, text)| documents::blocks(text).into_iter().map(|block| (path.clone(), block)))
        .collect();
    for (path, _) in &pages {
        let own: Vec<&Block> = blocks.iter().filter(|(of, _)| of == path).map(|(_, block)| block).collect();
        let run = own.iter().filter(|block| block.not_run.is_none()).count();
        println!("{path}: {run} of {} blocks are run", own.len());
    }
    let found = not_run(&blocks, &marks);
    assert!(found.is_empty(), "blocks and the tests that run them:\n{}", found.join("\n"));
}

/// The rows of a table in the form that tests name them.
fn rows(path: &str, heading: &str, text: &str) -> Vec<String> {
    let named = |row: &Vec<String>| format!("{path}, {heading}: {}", row[0].replace('`', ""));
    documents::table(text, heading).iter().map(named).collect()
}

fn marks_of_rows(sources: &[Source]) -> Vec<String> {
    marks(sources, HOLDS)
}

fn marks_of_blocks(sources: &[Source]) -> Vec<String> {
    marks(sources, RUNS)
}

/// What follows a word in lines of the doc comments of tests; functions that are not tests hold nothing.
fn marks(sources: &[Source], word: &str) -> Vec<String> {
    struct Marks<'w>(&'w str, Vec<String>);
    impl<'ast> Visit<'ast> for Marks<'_> {
        fn visit_item_fn(&mut self, function: &'ast syn::ItemFn) {
            let of_test =
                |it: &syn::Attribute| it.path().segments.last().is_some_and(|last| last.ident == "test");
            if function.attrs.iter().any(of_test) {
                let lines = function.attrs.iter().filter_map(comment);
                let marks = lines.filter_map(|line| line.trim().strip_prefix(self.0).map(str::to_owned));
                self.1.extend(marks.filter(|mark| mark.contains(".md")));
            }
            visit::visit_item_fn(self, function);
        }
    }
    let mut marks = Marks(word, Vec::new());
    sources.iter().for_each(|file| marks.visit_file(&file.syntax));
    marks.1
}

/// The text of one line of a doc comment.
fn comment(attribute: &syn::Attribute) -> Option<String> {
    match &attribute.meta {
        syn::Meta::NameValue(pair) if pair.path.is_ident("doc") => match &pair.value {
            syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(text), .. }) => Some(text.value()),
            _ => None,
        },
        _ => None,
    }
}

fn not_matched(rows: &BTreeSet<String>, marks: &[String]) -> Vec<String> {
    let named: BTreeSet<&String> = marks.iter().collect();
    let without = rows.iter().filter(|row| !named.contains(row)).map(|row| format!("no test holds {row}"));
    let unknown = named.iter().filter(|mark| !rows.contains(**mark)).map(|mark| format!("no row is {mark}"));
    without.chain(unknown).collect()
}

fn not_run(blocks: &[(String, Block)], marks: &[String]) -> Vec<String> {
    let is_of = |mark: &str, path: &str, block: &Block| {
        mark.strip_prefix(path).is_some_and(|rest| {
            let key = rest.strip_prefix(": ").is_some_and(|key| block.text.contains(key));
            key || rest.strip_prefix(", ").is_some_and(|heading| block.heading == heading)
        })
    };
    let mut found = Vec::new();
    for (path, block) in blocks {
        match (marks.iter().any(|mark| is_of(mark, path, block)), &block.not_run) {
            (false, None) => found.push(format!("no test runs {path}:{}", block.line)),
            (true, Some(reason)) => found.push(format!("{path}:{} is run and says: {reason}", block.line)),
            _ => {}
        }
    }
    for mark in marks {
        let count = blocks.iter().filter(|(path, block)| is_of(mark, path, block)).count();
        let is_of_section = !mark.contains(": ") && count > 0;
        if count != 1 && !is_of_section {
            found.push(format!("{count} blocks are {mark}"));
        }
    }
    found
}

/// Names of metrics in the string literals of tests.
fn metrics_in_tests(sources: &[Source]) -> BTreeSet<String> {
    struct Names(BTreeSet<String>);
    impl Names {
        fn text(&mut self, text: &str) {
            let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            let is_metric = |word: &&str| word.starts_with("portcullis_") || word.starts_with("process_");
            self.0.extend(words.filter(is_metric).map(str::to_owned));
        }

        fn tokens(&mut self, tokens: proc_macro2::TokenStream) {
            for token in tokens {
                match token {
                    proc_macro2::TokenTree::Group(group) => self.tokens(group.stream()),
                    proc_macro2::TokenTree::Literal(literal) => self.text(&literal.to_string()),
                    _ => {}
                }
            }
        }
    }
    impl<'ast> Visit<'ast> for Names {
        fn visit_lit_str(&mut self, text: &'ast syn::LitStr) {
            self.text(&text.value());
        }

        fn visit_macro(&mut self, it: &'ast syn::Macro) {
            self.tokens(it.tokens.clone());
        }

        fn visit_attribute(&mut self, _: &'ast syn::Attribute) {}
    }
    let mut names = Names(BTreeSet::new());
    let of_house = |file: &&Source| !file.path.starts_with("tests/house/");
    sources.iter().filter(of_house).for_each(|file| names.visit_file(&file.syntax));
    names.0
}

/// Whether a test looks at a metric, by its name or a sample of a histogram.
fn is_looked_at(name: &str, looked_at: &BTreeSet<String>) -> bool {
    let is_it = |seen: &String| match name.strip_suffix('*') {
        Some(beginning) => seen.starts_with(beginning),
        None => seen.strip_suffix("_count").unwrap_or(seen) == name,
    };
    looked_at.iter().any(is_it)
}

#[test]
fn the_rule_of_rows_sees_what_it_looks_for() {
    let page = "# A\n\n## Failure modes\n\ntext\n\n| what | then |\n|---|---|\n| the `disk` is full | 503 |\n| fire | water |\n\n| x | y |\n|---|---|\n| z | |\n";
    let rows: BTreeSet<String> = rows("README.md", "Failure modes", page).into_iter().collect();
    let code = "/// Holds README.md, Failure modes: the disk is full\n#[test]\nfn a() {}\n\
                /// Holds README.md, Failure modes: fire\nfn no_test() {}\n\
                mod inner {\n/// Why.\n///\n/// Holds README.md, Failure modes: flood\n#[tokio::test]\nasync fn b() {}\n}\n";
    let marks = marks_of_rows(&[Source::of_tests("tests/a.rs", code)]);
    assert_eq!(
        not_matched(&rows, &marks),
        ["no test holds README.md, Failure modes: fire", "no row is README.md, Failure modes: flood"]
    );
    let held = code.replace("fn no_test", "#[test]\nfn is_test").replace("flood", "fire");
    assert_eq!(not_matched(&rows, &marks_of_rows(&[Source::of_tests("tests/a.rs", &held)])), [""; 0]);
}

#[test]
fn the_rule_of_blocks_sees_what_it_looks_for() {
    let page = "# B\n```sh\ncd\n```\n```sh\ncd\n```\n# A\n```toml\na = 1\n```\n<!-- not run: because -->\n```sh\nls\n```\n```sh\nrm\n```\n<!-- not run: no -->\n```json\n{}\n```\n";
    let blocks: Vec<(String, Block)> =
        documents::blocks(page).into_iter().map(|block| ("docs/a.md".to_owned(), block)).collect();
    let code = "/// Runs docs/a.md: a = 1\n/// Runs docs/a.md: {}\n/// Runs docs/a.md: cp\n/// Runs docs/a.md, B\n/// Runs docs/a.md, C\n#[test]\nfn a() {}\n";
    let marks = marks_of_blocks(&[Source::of_tests("tests/a.rs", code)]);
    assert_eq!(
        not_run(&blocks, &marks),
        [
            "no test runs docs/a.md:16",
            "docs/a.md:20 is run and says: no",
            "0 blocks are docs/a.md: cp",
            "0 blocks are docs/a.md, C"
        ]
    );
}

#[test]
fn the_rule_of_metrics_sees_what_it_looks_for() {
    let code = "/// portcullis_c_total\n#[test]\nfn a() { page.sum(\"portcullis_a_total\", &[]); assert!(x, \"portcullis_b_seconds_count{}\") }\n";
    let looked_at = metrics_in_tests(&[Source::of_tests("tests/a.rs", code)]);
    let missed =
        ["portcullis_a_total", "portcullis_b_seconds", "portcullis_b", "portcullis_c_total", "process_*"];
    let missed: Vec<&str> = missed.into_iter().filter(|name| !is_looked_at(name, &looked_at)).collect();
    assert_eq!(missed, ["portcullis_b", "portcullis_c_total", "process_*"]);
    assert_eq!(metrics_in_tests(&[Source::of_tests("tests/house/a.rs", code)]).len(), 0);
}
