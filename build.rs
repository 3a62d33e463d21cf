//! Finds the commit that is built, for `portcullis --version`: the environment variable PORTCULLIS_COMMIT, else what `.git`
//! says. Runs no git, and without either (a source archive) the version names none.

#![allow(clippy::print_stdout, reason = "cargo reads the standard output of build scripts")]

use std::path::{Path, PathBuf};
use std::{env, fs};

/// Digits of a commit that are shown.
const SHOWN: usize = 12;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=PORTCULLIS_COMMIT");
    let version = env::var("CARGO_PKG_VERSION").unwrap_or_default();
    let told = env::var("PORTCULLIS_COMMIT").ok().filter(|commit| !commit.is_empty());
    let commit = told.or_else(|| head(Path::new(&env::var("CARGO_MANIFEST_DIR").ok()?)));
    let is_commit =
        |commit: &String| commit.len() >= 7 && commit.bytes().all(|byte| byte.is_ascii_hexdigit());
    let shown = match commit.filter(is_commit) {
        Some(commit) => format!("{version} ({})", commit.get(..SHOWN).unwrap_or(&commit)),
        None => version,
    };
    println!("cargo::rustc-env=PORTCULLIS_VERSION={shown}");
}

/// The commit that is checked out in this folder.
fn head(root: &Path) -> Option<String> {
    let git = git_folder(root)?;
    let head = watched(&git.join("HEAD"))?;
    let Some(name) = head.strip_prefix("ref: ") else { return Some(head) };
    // Branches of a linked worktree are those of its repository.
    let common =
        fs::read_to_string(git.join("commondir")).map_or_else(|_| git.clone(), |path| git.join(path.trim()));
    // A branch has a file of its own from its next commit on, which git writes to the log of the checkout as well.
    drop(watched(&git.join("logs/HEAD")));
    let packed = || {
        let refs = watched(&common.join("packed-refs"))?;
        refs.lines().find_map(|line| line.strip_suffix(name)?.strip_suffix(' ').map(str::to_owned))
    };
    watched(&common.join(name)).or_else(packed)
}

/// `.git`, or the folder that a file of that name names: in a linked worktree.
fn git_folder(root: &Path) -> Option<PathBuf> {
    let git = root.join(".git");
    if git.is_dir() {
        return Some(git);
    }
    let file = fs::read_to_string(git).ok()?;
    Some(root.join(file.strip_prefix("gitdir:")?.trim()))
}

/// The text of a file, which is read again when it changes. A file that is missing is not watched: cargo would take it for
/// changed every time.
fn watched(path: &Path) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    println!("cargo::rerun-if-changed={}", path.display());
    Some(text.trim().to_owned())
}
