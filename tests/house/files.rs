//! The rules for a file of the crate: how it begins, how long it is, and that only one reads the wall clock.

use syn::visit::{self, Visit};

use crate::sources::{Source, line, of_both, of_crate};

/// The most lines of a source file without its tests.
const LONGEST_FILE: usize = 400;

/// The calls that read the wall clock: the type and the function.
const WALL_CLOCKS: [(&str, &str); 4] = [
    ("SystemTime", "now"),
    ("OffsetDateTime", "now_utc"),
    ("OffsetDateTime", "now_local"),
    ("UtcDateTime", "now"),
];

#[test]
fn every_file_opens_with_what_it_does() {
    let found = of_both(without_header);
    assert!(found.is_empty(), "without a `//!` header: {found:?}");
}

#[test]
fn no_file_is_too_long() {
    let found = of_crate(too_long);
    assert!(found.is_empty(), "longer than {LONGEST_FILE} lines without their tests: {found:?}");
}

#[test]
fn only_time_rs_reads_the_wall_clock() {
    let found = of_crate(wall_clock_readers);
    assert!(found.is_empty(), "these read the wall clock themselves: {found:?}");
}

fn without_header(sources: &[Source]) -> Vec<String> {
    sources.iter().filter(|file| !file.text.starts_with("//! ")).map(|file| file.path.clone()).collect()
}

fn too_long(sources: &[Source]) -> Vec<String> {
    let long = sources.iter().filter(|file| file.product_lines > LONGEST_FILE);
    long.map(|file| format!("{}: {}", file.path, file.product_lines)).collect()
}

fn wall_clock_readers(sources: &[Source]) -> Vec<String> {
    struct Calls(Vec<usize>);
    impl<'ast> Visit<'ast> for Calls {
        fn visit_path(&mut self, path: &'ast syn::Path) {
            let names: Vec<String> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            if let [.., kind, function] = names.as_slice()
                && WALL_CLOCKS.contains(&(kind, function))
            {
                self.0.push(line(path));
            }
            visit::visit_path(self, path);
        }
    }
    let mut found = Vec::new();
    // Tests as well: a test that reads the clock itself cannot be moved to another moment.
    for file in sources.iter().filter(|file| file.path != "src/time.rs") {
        let mut calls = Calls(Vec::new());
        calls.visit_file(&file.syntax);
        found.extend(calls.0.into_iter().map(|line| format!("{}:{line}", file.path)));
    }
    found
}

#[test]
fn the_rules_of_files_see_what_they_look_for() {
    let good = Source::parsed("src/a.rs", "//! What it does.\nfn f() { std::time::Instant::now(); }\n");
    let bad = Source::parsed("src/b.rs", "// What it does.\nfn f() { g(std::time::SystemTime::now) }\n");
    let sources = [good, bad];
    assert_eq!(without_header(&sources), ["src/b.rs"]);
    assert_eq!(wall_clock_readers(&sources), ["src/b.rs:2"]);
    assert_eq!(wall_clock_readers(&[Source::parsed("src/time.rs", &sources[1].text)]), [""; 0]);
}

#[test]
fn the_rule_of_lengths_counts_what_stands_behind_tests() {
    let lines = |count: usize| "const A: u8 = 1;\n".repeat(count);
    let tests = format!("#[cfg(test)]\nmod tests {{\n{}}}\n", lines(50));
    let file =
        |before, after| Source::parsed("src/a.rs", &format!("{}{tests}{}", lines(before), lines(after)));
    assert_eq!(too_long(&[file(100, 300)]), [""; 0]);
    assert_eq!(too_long(&[file(100, 301)]), ["src/a.rs: 401"]);
}
