//! Whatever a configuration says, reading it ends without a panic, and every problem names a line that exists.

use std::path::Path;

use crate::config;

/// What must hold.
pub(super) fn check(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let lines = text.lines().count().max(1);
    match config::parse(Path::new("config/portcullis.toml"), text) {
        Ok(loaded) => assert!(loaded.redacted.is_object()),
        Err(problems) => {
            assert!(!problems.list().is_empty());
            for problem in problems.list() {
                let line = problem.line.unwrap_or(0);
                assert!((1..=lines).contains(&line), "{problem}, of {lines} lines: {text:?}");
                assert!(!problem.message.is_empty());
                assert!(!problem.to_string().contains(char::is_control), "{problem:?}");
            }
            assert!(problems.list().is_sorted_by_key(|problem| problem.line));
        }
    }
}
