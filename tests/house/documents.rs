//! Compares what the documentation and the manifest say with the repository.

use std::collections::{BTreeMap, BTreeSet};

use syn::visit::{self, Visit};

use crate::sources::{Source, files, of_crate, root};

/// Labels by metric name.
type Labels = BTreeMap<String, BTreeSet<String>>;

#[test]
fn the_table_of_metrics_lists_what_is_registered() {
    let page = std::fs::read_to_string(root().join("docs/monitoring.md")).unwrap();
    let (rows, registered) = (rows_of_metrics(&page), of_crate(registered_metrics));
    let problems = differences(&rows, &registered);
    assert!(problems.is_empty(), "docs/monitoring.md:\n{}", problems.join("\n"));
}

#[test]
fn links_between_documents_lead_somewhere() {
    let mut pages = files("docs", ".md");
    pages.push(("README.md".to_owned(), std::fs::read_to_string(root().join("README.md")).unwrap()));
    let mut found = Vec::new();
    for (path, text) in &pages {
        let folder = root().join(path).parent().unwrap().to_owned();
        found.extend(
            dead_links(&text.replace("\n", " "), |file| folder.join(file).exists(), text)
                .into_iter()
                .map(|link| format!("{path}: {link}")),
        );
    }
    assert!(found.is_empty(), "links that lead nowhere:\n{}", found.join("\n"));
}

#[test]
fn paths_that_documents_name_are_there() {
    let mut pages = files("docs", ".md");
    pages.push(("README.md".to_owned(), std::fs::read_to_string(root().join("README.md")).unwrap()));
    let mut found = Vec::new();
    for (path, text) in &pages {
        let dead = dead_paths(text, |file| root().join(file).exists());
        found.extend(dead.into_iter().map(|file| format!("{path}: {file}")));
    }
    assert!(found.is_empty(), "files that are not there:\n{}", found.join("\n"));
}

#[test]
fn the_readme_is_short() {
    let lines = std::fs::read_to_string(root().join("README.md")).unwrap().lines().count();
    assert!(lines <= 150, "README.md has {lines} lines; what it explains belongs in docs/");
}

#[test]
fn every_dependency_has_its_reason() {
    let manifest = std::fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let found = without_reason(&manifest);
    assert!(found.is_empty(), "dependencies without a reason: {found:?}");
}

#[test]
fn the_release_is_built_as_promised() {
    let manifest = std::fs::read_to_string(root().join("Cargo.toml")).unwrap();
    assert_eq!(release_problems(&manifest), [""; 0]);
}

#[test]
fn the_oldest_rust_is_the_same_everywhere() {
    let text = |path: &str| std::fs::read_to_string(root().join(path)).unwrap();
    let found = other_rusts(&text("Cargo.toml"), &text("tests/testkit/Cargo.toml"), &text("README.md"));
    assert!(found.is_empty(), "the oldest supported Rust: {found:?}");
}

/// Where a Rust version is missing or differs from the manifest's.
fn other_rusts(manifest: &str, testkit: &str, readme: &str) -> Vec<String> {
    let version = |text: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix("rust-version = "));
        line.unwrap_or_default().trim_matches('"').to_owned()
    };
    let wanted = version(manifest);
    let named = readme.split("Building needs Rust ").nth(1).unwrap_or_default();
    let named = named.split(' ').next().unwrap_or_default();
    let versions = [("tests/testkit", version(testkit)), ("README.md", named.to_owned())];
    let others = versions.into_iter().filter(|(_, it)| *it != wanted || it.is_empty());
    others.map(|(place, it)| format!("{place}: {it:?}")).collect()
}

/// The names in each row of the table, and the labels of each.
fn rows_of_metrics(text: &str) -> Vec<(BTreeSet<String>, BTreeSet<String>)> {
    let quoted = |cell: &str| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect();
    let rows = text.lines().filter(|line| line.starts_with("| `portcullis_"));
    rows.map(|row| row.split('|').map(str::trim).collect::<Vec<_>>())
        .map(|cells| (quoted(cells[1]), quoted(cells[2])))
        .collect()
}

fn registered_metrics(sources: &[Source]) -> Labels {
    struct Calls(Labels);
    impl<'ast> Visit<'ast> for Calls {
        fn visit_expr_method_call(&mut self, call: &'ast syn::ExprMethodCall) {
            self.call(call.args.iter());
            visit::visit_expr_method_call(self, call);
        }
        fn visit_expr_call(&mut self, call: &'ast syn::ExprCall) {
            self.call(call.args.iter());
            visit::visit_expr_call(self, call);
        }
    }
    impl Calls {
        fn call<'ast>(&mut self, arguments: impl Iterator<Item = &'ast syn::Expr>) {
            let mut name = None;
            for argument in arguments {
                match argument {
                    syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(text), .. }) if name.is_none() => {
                        let text = text.value();
                        if !text.starts_with("portcullis_") {
                            return;
                        }
                        self.0.entry(text.clone()).or_default();
                        name = Some(text);
                    }
                    syn::Expr::Reference(it) => {
                        if let (syn::Expr::Array(array), Some(name)) = (&*it.expr, &name) {
                            let labels = self.0.entry(name.clone()).or_default();
                            labels.extend(array.elems.iter().filter_map(|element| match element {
                                syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(text), .. }) => {
                                    Some(text.value())
                                }
                                _ => None,
                            }));
                        }
                    }
                    _ => {}
                }
            }
        }
    }
    let mut calls = Calls(Labels::new());
    sources
        .iter()
        .filter(|file| file.path.starts_with("src/metrics"))
        .for_each(|file| calls.visit_file(&file.product));
    calls.0
}

fn differences(rows: &[(BTreeSet<String>, BTreeSet<String>)], registered: &Labels) -> Vec<String> {
    let mut problems = Vec::new();
    for (names, labels) in rows {
        for name in names {
            match registered.get(name) {
                None => problems.push(format!("{name} is not registered")),
                Some(known) if known != labels => {
                    problems.push(format!("{name} has the labels {known:?}, not {labels:?}"));
                }
                Some(_) => {}
            }
        }
    }
    let missing = registered.keys().filter(|name| !rows.iter().any(|(names, _)| names.contains(*name)));
    problems.extend(missing.map(|name| format!("{name} is missing")));
    problems
}

/// The links of a page whose file does not exist, or whose heading is not on the page.
fn dead_links(text: &str, exists: impl Fn(&str) -> bool, page: &str) -> Vec<String> {
    let headings: BTreeSet<String> = page.lines().filter(|line| line.starts_with('#')).map(anchor).collect();
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    targets
        .filter(|target| !target.contains("://") && !target.contains(' '))
        .filter(|target| match target.split_once('#') {
            Some(("", heading)) => !headings.contains(heading),
            Some((file, _)) => !exists(file),
            None => !exists(target),
        })
        .map(str::to_owned)
        .collect()
}

/// The paths that a page names, below folders of the repository, that do not exist.
fn dead_paths(text: &str, exists: impl Fn(&str) -> bool) -> Vec<String> {
    let is_of_path = |c: char| c.is_ascii_alphanumeric() || "_-./".contains(c);
    let words = text.split(|c: char| !is_of_path(c)).map(|word| word.trim_end_matches(['.', '/']));
    let folders = ["benches/", "certs/", "config/", "docs/", "src/", "tests/"];
    let paths = words.filter(|word| folders.iter().any(|folder| word.starts_with(folder)));
    // The output of a run is named but does not exist.
    paths.filter(|path| !exists(path) && *path != "tests/fuzz/artifacts").map(str::to_owned).collect()
}

fn anchor(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    text.chars()
        .filter(|c| c.is_alphanumeric() || *c == ' ' || *c == '-')
        .map(|c| if c == ' ' { '-' } else { c })
        .collect()
}

fn without_reason(manifest: &str) -> Vec<String> {
    let mut is_list = false;
    let mut found = Vec::new();
    for line in manifest.lines() {
        if line.starts_with('[') {
            is_list = line.ends_with("dependencies]");
        } else if let (true, Some((name, rest))) = (is_list, line.split_once(" = "))
            && rest.split_once("# ").is_none_or(|(_, reason)| reason.len() < 3)
        {
            found.push(name.to_owned());
        }
    }
    found
}

/// The problems of the release profile: it needs symbols for lines, and panics that unwind, because one bad
/// request must not end the others; packaged builds also need fat LTO and one codegen unit.
fn release_problems(manifest: &str) -> Vec<String> {
    let profile = |name: &str| -> Vec<&str> {
        let lines = manifest.split_once(&format!("[profile.{name}]\n")).map_or("", |(_, rest)| rest);
        lines.lines().take_while(|line| !line.starts_with('[')).collect()
    };
    let (release, dist) = (profile("release"), profile("dist"));
    let missing = |profile: &[&str], wanted: &[&str]| -> Vec<String> {
        wanted.iter().filter(|line| !profile.contains(*line)).map(|line| format!("missing: {line}")).collect()
    };
    let mut problems = missing(&release, &["debug = 1"]);
    problems.extend(missing(&dist, &["inherits = \"release\"", "lto = \"fat\"", "codegen-units = 1"]));
    let aborts = release.iter().chain(&dist).filter(|line| line.starts_with("panic"));
    problems.extend(aborts.map(|line| format!("unwinding: {line}")));
    problems
}

#[test]
fn the_comparison_of_metrics_sees_what_it_looks_for() {
    let code = "fn f() { page.counters(\"portcullis_a_total\", \"A\", &[\"route\"])?; page.counter(\"portcullis_b\", \"B\")?; g(\"other\", &[\"c\"]) }";
    let registered = registered_metrics(&[Source::parsed("src/metrics.rs", code)]);
    let table = "| `portcullis_a_total` | `route` | a |\n| `portcullis_b` | | b |\n";
    assert_eq!(differences(&rows_of_metrics(table), &registered), [""; 0]);
    let table = "| `portcullis_a_total` | `path` | a |\n| `portcullis_c` | | c |\n";
    assert_eq!(
        differences(&rows_of_metrics(table), &registered),
        [
            "portcullis_a_total has the labels {\"route\"}, not {\"path\"}",
            "portcullis_c is not registered",
            "portcullis_b is missing"
        ]
    );
}

#[test]
fn the_rules_of_documents_see_what_they_look_for() {
    let page = "# One `Two`\n[a](#one-two) [b](#three) [c](x.md) [d](y.md#z) [e](https://a.b)\n";
    assert_eq!(dead_links(page, |file| file == "x.md", page), ["#three", "y.md#z"]);
    let page =
        "`tests/run`, tests/data/x/*.txt and src/gone.rs. Not https://a.b/src/x or mysrc/y, `src/gate/<x>`";
    let there = ["tests/run", "tests/data/x", "src/gate"];
    assert_eq!(dead_paths(page, |file| there.contains(&file)), ["src/gone.rs"]);
    let manifest = "[package]\nname = \"a\"\n[dev-dependencies]\na = \"1\" # why it is here\nb = \"1\"\n[profile.release]\npanic = \"abort\"\n[profile.dist]\ninherits = \"release\"\nlto = \"fat\"\n[lints]\n";
    assert_eq!(without_reason(manifest), ["b"]);
    let (older, newer) = ("rust-version = \"1.90\"\n", "rust-version = \"1.95\"\n");
    assert_eq!(other_rusts(newer, newer, "Building needs Rust 1.95 and more"), [""; 0]);
    assert_eq!(
        other_rusts(newer, older, "Building needs a compiler"),
        ["tests/testkit: \"1.90\"", "README.md: \"\""]
    );
    assert_eq!(
        release_problems(manifest),
        ["missing: debug = 1", "missing: codegen-units = 1", "unwinding: panic = \"abort\""]
    );
}
