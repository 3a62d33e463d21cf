//! For each attack, docs/SECURITY.md names the tests that cover it: each row names some, and all of them exist.

use std::collections::BTreeSet;

use syn::visit::{self, Visit};
use testkit::documents::{document, quoted};

use crate::sources::{Source, of_both};

/// The heading of the tables of attacks.
const HEADING: &str = "## Attacks and answers";

#[test]
fn every_attack_of_the_security_model_names_tests_that_are_there() {
    let tests = of_both(names_of_tests);
    let found = wrong_rows(&document("docs/SECURITY.md"), &tests);
    assert!(found.is_empty(), "docs/SECURITY.md:\n{}", found.join("\n"));
}

/// The names of all tests.
fn names_of_tests(sources: &[Source]) -> Vec<String> {
    struct Names(Vec<String>);
    impl<'ast> Visit<'ast> for Names {
        fn visit_item_fn(&mut self, function: &'ast syn::ItemFn) {
            let is_test =
                |it: &syn::Attribute| it.path().segments.last().is_some_and(|last| last.ident == "test");
            if function.attrs.iter().any(is_test) {
                self.0.push(function.sig.ident.to_string());
            }
            visit::visit_item_fn(self, function);
        }
    }
    let mut names = Names(Vec::new());
    sources.iter().for_each(|file| names.visit_file(&file.syntax));
    names.0
}

/// The rows that name no test, or one that does not exist.
fn wrong_rows(page: &str, tests: &[String]) -> Vec<String> {
    let tests: BTreeSet<&str> = tests.iter().map(String::as_str).collect();
    let section = page.split_once(HEADING).map_or("", |(_, rest)| rest);
    let section = section.split("\n## ").next().unwrap_or_default();
    let is_row = |line: &&str| line.starts_with("| ") && !line.starts_with("| attack |");
    let mut found: Vec<String> = Vec::new();
    let mut rows = 0;
    for row in section.lines().filter(is_row) {
        rows += 1;
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        let named = quoted(cells.last().unwrap_or(&""));
        if named.is_empty() {
            found.push(format!("{} names no test", cells[0]));
        }
        let missing = named.iter().filter(|name| !tests.contains(name.as_str()));
        found.extend(missing.map(|name| format!("{}: there is no test {name}", cells[0])));
    }
    if rows == 0 {
        found.push(format!("no table of attacks below {HEADING}"));
    }
    found
}

#[test]
fn the_rule_of_attacks_sees_what_it_looks_for() {
    let page = "# S\n## Attacks and answers\n### A\n| attack | answer | test |\n|---|---|---|\n| x | `no` | `a_test_holds` |\n\
                | y | no | `another_test_holds`, `a_test_holds` |\n| z | no | |\n## Not\n| q | no | `gone` |\n";
    let code = "#[test]\nfn a_test_holds() {}\nfn another_test_holds() {}\n";
    let tests = names_of_tests(&[Source::of_tests("tests/a.rs", code)]);
    assert_eq!(wrong_rows(page, &tests), ["y: there is no test another_test_holds", "z names no test"]);
    assert_eq!(wrong_rows("# S\n", &tests), ["no table of attacks below ## Attacks and answers"]);
}
