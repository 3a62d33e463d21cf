//! What `.editorconfig` says of every text file of the repository.

use testkit::tools::{root, run};

/// Bytes that are read as they are: pictures, and what tests and fuzzers read.
const AS_THEY_ARE: [&str; 4] = [".png", ".db", "tests/data/", "tests/fuzz/seeds/"];

#[test]
fn every_text_file_ends_its_lines_as_the_editor_configuration_says() {
    let listed = run("git", &["-C", root().to_str().unwrap(), "ls-files"]);
    let paths = listed.lines().filter(|path| AS_THEY_ARE.iter().all(|part| !path.contains(part)));
    let mut found = Vec::new();
    for path in paths {
        let Ok(bytes) = std::fs::read(root().join(path)) else { continue };
        let Ok(text) = String::from_utf8(bytes) else {
            found.push(format!("{path}: not UTF-8"));
            continue;
        };
        if !text.is_empty() && !text.ends_with('\n') {
            found.push(format!("{path}: no line feed at the end"));
        }
        let trailing = |(_, line): &(usize, &str)| line.ends_with([' ', '\t', '\r']);
        found.extend(
            text.split('\n').enumerate().filter(trailing).map(|(number, _)| format!("{path}:{}", number + 1)),
        );
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}
