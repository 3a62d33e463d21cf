//! README and docs as data: the tables under their headings, and their fenced blocks.

use std::collections::BTreeSet;
use std::path::PathBuf;

use crate::metrics::Scrape;

/// A fenced block of a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// The line of the fence, counted from 1.
    pub line: usize,
    /// The heading above it.
    pub heading: String,
    /// The text after the opening fence, such as `toml`.
    pub language: String,
    /// The text between the fences.
    pub text: String,
    /// Why no test runs it, according to the comment `<!-- not run: … -->` above it.
    pub not_run: Option<String>,
}

/// A metric in the table of docs/monitoring.md; the name may end with `*`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PromisedMetric {
    /// The name.
    pub name: String,
    /// The labels that its row names; a row with several names lists the labels of each.
    pub labels: BTreeSet<String>,
}

/// The text of a file in the repository, such as `README.md`.
pub fn document(path: &str) -> String {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
    std::fs::read_to_string(root.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The cells of the first table under a heading, without its header row.
pub fn table(text: &str, heading: &str) -> Vec<Vec<String>> {
    let is_heading = |line: &&str| line.starts_with('#') && line.trim_start_matches('#').trim() == heading;
    let lines = text.lines().skip_while(|line| !is_heading(line)).skip(1);
    let section = lines.take_while(|line| !line.starts_with('#'));
    let rows = section.skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|'));
    let rows: Vec<Vec<String>> = rows.skip(2).map(cells).collect();
    assert!(!rows.is_empty(), "no table under {heading:?}");
    rows
}

fn cells(row: &str) -> Vec<String> {
    row.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()
}

/// The texts between backticks, in order.
pub fn quoted(cell: &str) -> Vec<String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// The fenced blocks of a document.
pub fn blocks(text: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut lines = text.lines().enumerate();
    let (mut before, mut heading) = ("", "");
    while let Some((index, line)) = lines.next() {
        if line.starts_with('#') {
            heading = line.trim_start_matches('#').trim();
        }
        if let Some(language) = line.trim_start().strip_prefix("```") {
            let inside = lines.by_ref().map(|(_, line)| line);
            let body: Vec<&str> = inside.take_while(|line| line.trim() != "```").collect();
            let reason = before.strip_prefix("<!-- not run: ").and_then(|rest| rest.strip_suffix(" -->"));
            blocks.push(Block {
                line: index + 1,
                heading: heading.to_owned(),
                language: language.to_owned(),
                text: body.join("\n") + "\n",
                not_run: reason.map(str::to_owned),
            });
        }
        before = line;
    }
    blocks
}

/// The text of the one block in a document that contains `key`.
pub fn block(path: &str, key: &str) -> String {
    let found: Vec<Block> =
        blocks(&document(path)).into_iter().filter(|block| block.text.contains(key)).collect();
    assert_eq!(found.len(), 1, "blocks of {path} with {key:?}");
    found.into_iter().map(|block| block.text).collect()
}

/// The blocks of a document under one heading, in order.
pub fn blocks_under(path: &str, heading: &str) -> Vec<Block> {
    let found = blocks(&document(path)).into_iter().filter(|block| block.heading == heading);
    let found: Vec<Block> = found.collect();
    assert!(!found.is_empty(), "no blocks under {heading:?} of {path}");
    found
}

/// The commands in a block of language `console`, without prompt and comment.
pub fn commands(text: &str) -> Vec<String> {
    let lines = text.lines().filter_map(|line| line.strip_prefix("$ "));
    lines.map(|line| line.split("  #").next().unwrap_or(line).trim().to_owned()).collect()
}

/// The table of metrics in docs/monitoring.md.
pub fn promised_metrics() -> Vec<PromisedMetric> {
    let mut promised = Vec::new();
    for row in table(&document("docs/monitoring.md"), "Metrics") {
        let labels: BTreeSet<String> = quoted(&row[1]).into_iter().collect();
        let names = quoted(&row[0]).into_iter();
        promised.extend(names.map(|name| PromisedMetric { name, labels: labels.clone() }));
    }
    promised
}

/// The samples of a scrape that docs/monitoring.md does not list, or lists with other labels.
pub fn unpromised(scrape: &Scrape) -> BTreeSet<String> {
    let promised = promised_metrics();
    let mut found = BTreeSet::new();
    for (sample, labels, _) in &scrape.samples {
        let name = family(scrape, sample);
        let is_of = |it: &&PromisedMetric| match it.name.strip_suffix('*') {
            Some(beginning) => name.starts_with(beginning),
            None => it.name == name,
        };
        let labels: BTreeSet<String> = labels.keys().filter(|label| *label != "le").cloned().collect();
        match promised.iter().find(is_of) {
            Some(it) if it.labels == labels => {}
            Some(it) => {
                found.insert(format!("{name} has the labels {labels:?}, not {:?}", it.labels));
            }
            None => {
                found.insert(format!("{name} is not in the table of docs/monitoring.md"));
            }
        }
    }
    found
}

/// The names in the table of docs/monitoring.md that have no sample in the scrape.
pub fn absent(scrape: &Scrape) -> BTreeSet<String> {
    let there: BTreeSet<&str> = scrape.samples.iter().map(|(sample, ..)| family(scrape, sample)).collect();
    let names = promised_metrics().into_iter().map(|metric| metric.name);
    names
        .filter(|name| match name.strip_suffix('*') {
            Some(beginning) => !there.iter().any(|it| it.starts_with(beginning)),
            None => !there.contains(name.as_str()),
        })
        .collect()
}

/// The metric that a sample belongs to: without the suffixes of a histogram's samples.
fn family<'a>(scrape: &Scrape, sample: &'a str) -> &'a str {
    let mut beginnings = ["_bucket", "_sum", "_count"].iter().filter_map(|end| sample.strip_suffix(end));
    let is_histogram = |name: &&str| scrape.types.get(*name).is_some_and(|kind| kind == "histogram");
    beginnings.find(is_histogram).unwrap_or(sample)
}
