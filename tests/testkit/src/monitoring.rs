//! `config/monitoring` as data: the rules and their tests as written there, and the queries of the dashboard.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::documents::document;

/// What a gate has beside a route for everything, so that most metrics have something to count: an authority, streams that are
/// judged often, and an upstream that nobody listens at.
pub const WATCHED: &str = r#"
[[issuers]]
issuer = "https://gate.test"
audiences = ["https://api.test"]
algorithms = ["ES256"]
authority = true

[authority]
issuer = "https://gate.test"
audience = "https://api.test"
path = "authority.db"

[streams]
check_interval = "100ms"

[[upstreams]]
name = "gone"
url = "http://127.0.0.1:9"
"#;

/// The files of rules.
pub const RULE_FILES: [&str; 2] =
    ["config/monitoring/portcullis-recording.yaml", "config/monitoring/portcullis-alerts.yaml"];
/// The tests of the alerts.
pub const RULE_TESTS: &str = "config/monitoring/tests.yaml";
/// The dashboard.
pub const DASHBOARD: &str = "config/monitoring/grafana-dashboard.json";

/// A rule of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// The alert, or the recorded series.
    pub name: String,
    /// Whether it is an alert.
    pub is_alert: bool,
    /// The expression that is evaluated.
    pub expression: String,
    /// The lines below it: labels and annotations.
    pub lines: Vec<String>,
}

/// A series that an expression selects.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Selector {
    /// Its name.
    pub name: String,
    /// The whole selector, without a range.
    pub text: String,
    /// The labels that it matches.
    pub labels: BTreeSet<String>,
}

/// Parses the rules of a file that is formatted like those in the repository.
pub fn rules(text: &str) -> Vec<Rule> {
    let mut rules: Vec<Rule> = Vec::new();
    let mut block_depth = None;
    for line in text.lines().filter(|line| !line.trim_start().starts_with('#')) {
        let (words, depth) = (line.trim(), line.len() - line.trim_start().len());
        if let Some((kind, name)) = words.strip_prefix("- ").and_then(|rest| rest.split_once(": "))
            && ["alert", "record"].contains(&kind)
        {
            let (name, is_alert) = (name.to_owned(), kind == "alert");
            rules.push(Rule { name, is_alert, expression: String::new(), lines: Vec::new() });
            continue;
        }
        let Some(rule) = rules.last_mut() else { continue };
        if block_depth.is_some_and(|start| depth > start) {
            rule.expression.push_str(words);
            rule.expression.push('\n');
            continue;
        }
        block_depth = None;
        match words.strip_prefix("expr: ") {
            Some("|") => block_depth = Some(depth),
            Some(expression) => rule.expression = expression.trim_matches('"').to_owned(),
            None => rule.lines.push(words.to_owned()),
        }
    }
    rules
}

/// The rules of both files.
pub fn all_rules() -> Vec<Rule> {
    RULE_FILES.iter().flat_map(|path| rules(&document(path))).collect()
}

/// The dashboard as JSON.
pub fn dashboard() -> Value {
    serde_json::from_str(&document(DASHBOARD)).expect("the dashboard is JSON")
}

/// Title and expression of each query in the dashboard.
pub fn dashboard_queries(dashboard: &Value) -> Vec<(String, String)> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut queries = Vec::new();
    for panel in list(&dashboard["panels"]) {
        let targets = list(&panel["targets"]);
        queries.extend(targets.iter().map(|target| (text(&panel["title"]), text(&target["expr"]))));
    }
    queries
}

/// The series that an expression selects.
pub fn selectors(expression: &str) -> BTreeSet<Selector> {
    let mut found = BTreeSet::new();
    let mut rest = expression;
    while let Some(start) = rest.find(|c: char| !c.is_whitespace()) {
        rest = &rest[start..];
        let is_of_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
        let word = &rest[..rest.find(|c| !is_of_name(c)).unwrap_or(rest.len())];
        if word.is_empty() {
            let length = match rest.as_bytes()[0] {
                b'[' => rest.find(']').unwrap() + 1,
                b'"' => rest[1..].find('"').unwrap() + 2,
                _ => rest.chars().next().map_or(1, char::len_utf8),
            };
            rest = &rest[length..];
            continue;
        }
        rest = &rest[word.len()..];
        let after = rest.trim_start();
        match word {
            "by" | "on" | "ignoring" | "without" | "group_left" | "group_right" => {
                rest = &after[after.find(')').unwrap() + 1..];
            }
            "and" | "or" | "unless" | "offset" | "bool" => {}
            _ if word.starts_with(|c: char| c.is_ascii_digit()) || after.starts_with('(') => {}
            "sum" | "count" | "max" | "min" | "topk" => {}
            name => {
                let matchers = if rest.starts_with('{') { &rest[..end_of_matchers(rest)] } else { "" };
                rest = &rest[matchers.len()..];
                let text = format!("{name}{matchers}");
                found.insert(Selector { name: name.to_owned(), text, labels: labels(matchers) });
            }
        }
    }
    found
}

/// The length of `{…}`, whose values may contain braces.
fn end_of_matchers(text: &str) -> usize {
    let mut is_quoted = false;
    let end = text.char_indices().find(|(_, c)| {
        is_quoted ^= *c == '"';
        *c == '}' && !is_quoted
    });
    end.expect("a closing brace").0 + 1
}

fn labels(matchers: &str) -> BTreeSet<String> {
    let outside = matchers.split('"').step_by(2).map(|part| part.trim_matches(['{', '}', ',', ' ']));
    let labels = outside.map(|part| part.trim_end_matches(['=', '~', '!']));
    labels.filter(|label| !label.is_empty()).map(str::to_owned).collect()
}
