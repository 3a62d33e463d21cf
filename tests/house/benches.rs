//! The comparison with other proxies starts, its arithmetic is correct, and its table in the
//! documentation lists its workloads.

use std::process::Command;

use testkit::documents::{document, table};

use crate::sources::root;

/// The output of a Python script of the repository.
fn printed(script: &str, arguments: &[&str]) -> String {
    let script = root().join(script);
    let output = Command::new("python3").arg("-B").arg(script).args(arguments).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    said
}

/// The workloads: their names for `--only`, and in the table.
fn workloads() -> Vec<(String, String)> {
    let listed = printed("benches/compare", &["--list"]);
    let pairs = listed.lines().filter_map(|line| line.split_once(' '));
    pairs.map(|(name, title)| (name.to_owned(), title.trim().to_owned())).collect()
}

#[test]
fn what_the_benches_compute_is_judged_by_its_own_tests() {
    printed("tests/python/lab.py", &[]);
}

#[test]
fn the_benches_in_python_say_what_they_measure() {
    for script in ["compare", "during_events.py", "tokens.py"] {
        let help = printed(&format!("benches/{script}"), &["--help"]);
        assert!(help.contains(&format!("benches/{script}")) && help.contains("--gate"), "{script}:\n{help}");
    }
}

#[test]
fn the_table_of_peers_has_the_workloads_that_are_compared() {
    let wanted: Vec<String> = workloads().into_iter().map(|(_, title)| title).collect();
    let rows = table(&document("docs/performance.md"), "A request and a connection");
    let found: Vec<&str> = rows.iter().map(|row| row[0].as_str()).collect();
    assert_eq!(found, wanted, "docs/performance.md beside benches/compare --list");
}

#[test]
fn commands_in_documents_name_workloads_that_exist() {
    let names: Vec<String> = workloads().into_iter().map(|(name, _)| name).collect();
    for path in ["README.md", "docs/performance.md"] {
        let text = document(path);
        assert!(text.contains("benches/compare"), "{path} does not name benches/compare");
        for named in text.split("--only ").skip(1).filter_map(|rest| rest.split([' ', '`', '\n']).next()) {
            assert!(names.iter().any(|name| name == named), "{path}: --only {named}, of {names:?}");
        }
    }
}
