//! Tables of hostile input with the exact outcome of each row, as text in `tests/data/`: a change of behaviour
//! shows as a difference in that file.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// The actual rows of one table.
pub struct Pinned {
    table: &'static str,
    lines: Vec<String>,
}

impl Pinned {
    /// The rows of `tests/data/<table>.txt`.
    pub fn new(table: &'static str) -> Self {
        Self { table, lines: Vec::new() }
    }

    /// The rows of `tests/data/<table>.txt` that are inputs themselves, written as `prefix` and the quoted
    /// text: outcome and input.
    pub fn inputs(table: &str, prefix: &str) -> Vec<(String, String)> {
        let text = std::fs::read_to_string(path(table)).unwrap();
        let rows = text.lines().filter_map(|line| line.split_once("| "));
        let quoted = rows.filter_map(|(outcome, name)| {
            let text = name.strip_prefix(prefix)?.strip_prefix('"')?.strip_suffix('"')?;
            Some((outcome.trim_end().to_owned(), unescaped(text)))
        });
        let inputs: Vec<_> = quoted.collect();
        assert!(!inputs.is_empty(), "{table}: {prefix}");
        inputs
    }

    /// Adds a row: its name and its outcome.
    pub fn row(&mut self, name: &str, outcome: &str) {
        let (name, outcome) = (readable(name), readable(outcome));
        self.lines.push(format!("{outcome:<28}| {name}"));
    }

    /// Fails with every row that differs from the file, as it would have to be there.
    pub fn check(self) {
        let path = path(self.table);
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let pinned: Vec<&str> =
            text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
        let mut wrong = String::new();
        for (index, line) in self.lines.iter().enumerate() {
            if pinned.get(index) != Some(&line.as_str()) {
                writeln!(wrong, "{line}").unwrap();
            }
        }
        let counts = (pinned.len(), self.lines.len());
        assert!(
            wrong.is_empty() && counts.0 == counts.1,
            "{counts:?} rows pinned and seen; these would have to read so in {}:\n{wrong}",
            path.display()
        );
    }
}

fn path(table: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/data/{table}.txt"))
}

/// Decodes a text that Rust's `{:?}` has written.
fn unescaped(text: &str) -> String {
    let (mut plain, mut rest) = (String::new(), text);
    while let Some((before, after)) = rest.split_once('\\') {
        plain.push_str(before);
        let kind = after.chars().next().expect("an escape");
        rest = &after[1..];
        plain.push(match kind {
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            '0' => '\0',
            'u' => {
                let (digits, after) = rest[1..].split_once('}').expect("a closed escape");
                rest = after;
                char::from_u32(u32::from_str_radix(digits, 16).unwrap()).unwrap()
            }
            other => other,
        });
    }
    plain + rest
}

/// Shortens a text to about one line.
fn readable(text: &str) -> String {
    let escape = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    let shown: String = text.chars().take(120).map(escape).collect();
    match text.chars().count() {
        0..=120 => shown,
        count => format!("{shown}… {count} characters"),
    }
}

#[test]
fn an_input_is_read_as_it_was_written() {
    for text in ["/a\\b\"", "\u{1}\t\r\n\0\u{7f}é", "", "x"] {
        let written = format!("{text:?}");
        assert_eq!(unescaped(&written[1..written.len() - 1]), text);
    }
}
