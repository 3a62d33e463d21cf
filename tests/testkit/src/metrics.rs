//! The metrics page, parsed.

use std::collections::BTreeMap;

/// One scrape.
#[derive(Debug, Clone)]
pub struct Scrape {
    /// Name, labels, value.
    pub samples: Vec<(String, BTreeMap<String, String>, f64)>,
    /// The type of each family.
    pub types: BTreeMap<String, String>,
}

impl Scrape {
    /// Parses the text exposition format.
    pub fn parse(page: &str) -> Self {
        let mut scrape = Self { samples: Vec::new(), types: BTreeMap::new() };
        for line in page.lines().filter(|line| !line.is_empty()) {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').expect("a type line");
                scrape.types.insert(name.to_owned(), kind.to_owned());
            } else if !line.starts_with('#') {
                scrape.samples.push(sample(line));
            }
        }
        scrape
    }

    /// The sum of the samples of this name that carry all these labels.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.samples
            .iter()
            .filter(|(n, l, _)| n == name && labels.iter().all(|(k, v)| l.get(*k).is_some_and(|is| is == v)))
            .map(|(_, _, value)| value)
            .sum()
    }

    /// The samples of this name.
    pub fn family(&self, name: &str) -> impl Iterator<Item = (&BTreeMap<String, String>, f64)> {
        self.samples.iter().filter(move |(n, _, _)| n == name).map(|(_, labels, value)| (labels, *value))
    }

    /// Counts by decision and reason: `deny/expired` → 3.
    pub fn decisions(&self) -> BTreeMap<String, f64> {
        let mut counts = BTreeMap::new();
        for (labels, value) in self.family("portcullis_decisions_total") {
            let reason = labels.get("reason").map_or("", String::as_str);
            *counts.entry(format!("{}/{reason}", labels["decision"])).or_default() += value;
        }
        counts
    }
}

fn sample(line: &str) -> (String, BTreeMap<String, String>, f64) {
    let (series, value) = line.rsplit_once(' ').expect("a sample");
    let value = match value {
        "+Inf" => f64::INFINITY,
        other => other.parse().expect("a number"),
    };
    let Some((name, rest)) = series.split_once('{') else {
        return (series.to_owned(), BTreeMap::new(), value);
    };
    let mut labels = BTreeMap::new();
    let mut rest = rest.strip_suffix('}').expect("closed labels");
    while let Some((key, after)) = rest.split_once("=\"") {
        let mut text = String::new();
        let mut chars = after.char_indices();
        let mut end = after.len();
        while let Some((at, c)) = chars.next() {
            match c {
                '"' => {
                    end = at + 1;
                    break;
                }
                '\\' => match chars.next().expect("an escape").1 {
                    'n' => text.push('\n'),
                    other => text.push(other),
                },
                other => text.push(other),
            }
        }
        labels.insert(key.to_owned(), text);
        rest = after[end..].trim_start_matches(',');
    }
    (name.to_owned(), labels, value)
}
