//! Tables of hostile input with the one outcome that each row has, as text in `tests/data/`: a change of behaviour is a
//! difference in that file.

use std::fmt::Write as _;
use std::path::Path;

/// The rows of one table as they came out.
pub struct Pinned {
    table: &'static str,
    lines: Vec<String>,
}

impl Pinned {
    /// The rows of `tests/data/<table>.txt`.
    pub fn new(table: &'static str) -> Self {
        Self { table, lines: Vec::new() }
    }

    /// A row: its name, and what came of it.
    pub fn row(&mut self, name: &str, outcome: &str) {
        let (name, outcome) = (readable(name), readable(outcome));
        self.lines.push(format!("{outcome:<28}| {name}"));
    }

    /// Fails with every row that reads another way than in the file, as it would have to read.
    pub fn check(self) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/data/{}.txt", self.table));
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

/// On one line, and not much longer than one.
fn readable(text: &str) -> String {
    let escape = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    let shown: String = text.chars().take(120).map(escape).collect();
    match text.chars().count() {
        0..=120 => shown,
        count => format!("{shown}… {count} characters"),
    }
}
