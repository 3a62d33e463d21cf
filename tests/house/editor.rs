//! Checks what `.editorconfig` requires of every text file in the repository.

use std::process::Command;

use crate::sources::root;

/// Files with arbitrary bytes: pictures, and inputs of tests and fuzzers.
const AS_THEY_ARE: [&str; 4] = [".png", ".db", "tests/data/", "tests/fuzz/seeds/"];

#[test]
fn every_text_file_ends_its_lines_as_the_editor_configuration_says() {
    let listed = Command::new("git").arg("-C").arg(root()).arg("ls-files").output().expect("git");
    let listed = String::from_utf8(listed.stdout).unwrap();
    let mut found = Vec::new();
    for path in listed.lines().filter(|path| AS_THEY_ARE.iter().all(|part| !path.contains(part))) {
        // A deleted file whose deletion is not committed yet is still listed.
        let Ok(bytes) = std::fs::read(root().join(path)) else { continue };
        found.extend(faults(path, &bytes));
    }
    assert!(found.is_empty(), "not as .editorconfig says:\n{}", found.join("\n"));
}

fn faults(path: &str, bytes: &[u8]) -> Vec<String> {
    let Ok(text) = std::str::from_utf8(bytes) else { return vec![format!("{path}: not UTF-8")] };
    let mut found = Vec::new();
    if !text.is_empty() && !text.ends_with('\n') {
        found.push(format!("{path}: no line feed at the end"));
    }
    let trailing = text.split('\n').enumerate().filter(|(_, line)| line.ends_with([' ', '\t', '\r']));
    found.extend(trailing.map(|(index, _)| format!("{path}:{}: white space at the end", index + 1)));
    found
}

#[test]
fn the_rule_about_ends_of_lines_finds_what_it_is_for() {
    assert_eq!(faults("a", b"one\n\ntwo\n"), [""; 0]);
    assert_eq!(faults("a", b""), [""; 0]);
    assert_eq!(faults("a", b"one"), ["a: no line feed at the end"]);
    assert_eq!(
        faults("a", b"one \r\ntwo\t\n"),
        ["a:1: white space at the end", "a:2: white space at the end"]
    );
    assert_eq!(faults("a", b"\xff\n"), ["a: not UTF-8"]);
}
