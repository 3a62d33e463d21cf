//! The tools that `tests/run` installs into `.cache/deployment`, and what they print as data.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use testkit::tools::{root, run};

/// The path of a tool.
pub(crate) fn tool(name: &str) -> PathBuf {
    let path = root().join(".cache/deployment/bin").join(name);
    assert!(path.is_file(), "{} is missing; tests/run installs it", path.display());
    path
}

/// A file or folder of the repository.
pub(crate) fn file(path: &str) -> PathBuf {
    root().join(path).canonicalize().unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The text of a file of the repository.
pub(crate) fn text(path: &str) -> String {
    std::fs::read_to_string(file(path)).unwrap()
}

/// What a tool prints that must succeed.
#[track_caller]
pub(crate) fn says<S: AsRef<OsStr>>(name: &str, arguments: &[S]) -> String {
    let (succeeded, printed) = attempt(name, arguments);
    assert!(succeeded, "{name}: {printed}");
    printed
}

/// Whether a tool succeeds, and what it prints: its output, or its complaint.
pub(crate) fn attempt<S: AsRef<OsStr>>(name: &str, arguments: &[S]) -> (bool, String) {
    let output = Command::new(tool(name)).args(arguments).stdin(Stdio::null()).output().unwrap();
    let printed =
        if output.status.success() { output.stdout } else { [output.stdout, output.stderr].concat() };
    (output.status.success(), String::from_utf8(printed).unwrap())
}

/// The documents of a YAML text.
pub(crate) fn yaml(text: &str) -> Vec<Value> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("documents.yaml");
    std::fs::write(&path, text).unwrap();
    let script = "import json, sys, yaml\nprint(json.dumps([it for it in yaml.safe_load_all(open(sys.argv[1])) if it]))";
    let printed = run(tool("python").to_str().unwrap(), &["-c", script, path.to_str().unwrap()]);
    serde_json::from_str(&printed).unwrap()
}

/// A value of a TOML text that stands on a line of its own; in a table only when no other table has the key.
pub(crate) fn setting(toml: &str, key: &str) -> Option<String> {
    let mut lines = toml.lines().filter_map(|line| line.split_once(" = "));
    let (_, value) = lines.find(|(name, _)| name.trim() == key)?;
    Some(value.split('#').next()?.trim().trim_matches('"').to_owned())
}

/// How long a gate with this configuration may take to end, in seconds.
pub(crate) fn longest_end(toml: &str) -> u64 {
    let seconds = |key: &str, default: u64| match setting(toml, key) {
        Some(value) => value.strip_suffix('s').unwrap().parse().unwrap(),
        None => default,
    };
    seconds("shutdown_delay", 0) + seconds("drain_timeout", 30)
}

/// Writes a file with its folders.
pub(crate) fn write(path: &Path, content: impl AsRef<[u8]>) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, content).unwrap();
}

/// Replaces texts, each of which must be there once.
#[track_caller]
pub(crate) fn replaced(text: &str, with: &[(&str, &str)]) -> String {
    let mut text = text.to_owned();
    for (printed, value) in with {
        assert_eq!(text.matches(printed).count(), 1, "{printed} in {text}");
        text = text.replace(printed, value);
    }
    text
}
