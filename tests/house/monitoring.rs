//! The rules, the dashboard and docs/monitoring.md agree: every alert has its section and its tests, and what
//! a query names exists.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use testkit::documents::{document, promised_metrics};
use testkit::monitoring::{RULE_TESTS, Rule, all_rules, dashboard, dashboard_queries, rules, selectors};

/// Labels that Prometheus adds to each series, the bucket of a histogram, and labels that the rules group by.
const OF_TARGETS: [&str; 5] = ["cluster", "instance", "job", "le", "namespace"];

/// Series that Prometheus itself writes.
const OF_PROMETHEUS: [&str; 2] = ["ALERTS", "up"];

#[test]
fn every_alert_has_its_section_and_every_section_its_alert() {
    let found = section_problems(&all_rules(), &document("docs/monitoring.md"));
    assert!(found.is_empty(), "docs/monitoring.md:\n{}", found.join("\n"));
}

#[test]
fn every_alert_fires_in_one_test_and_stays_silent_in_another() {
    let found = untested(&all_rules(), &document(RULE_TESTS));
    assert!(found.is_empty(), "{RULE_TESTS}:\n{}", found.join("\n"));
}

#[test]
fn every_alert_has_a_severity_and_the_address_of_its_section() {
    let found = incomplete(&all_rules());
    assert!(found.is_empty(), "alerts:\n{}", found.join("\n"));
}

#[test]
fn queries_name_metrics_and_labels_that_exist() {
    let rules = all_rules();
    let of_rules = rules.iter().map(|rule| (rule.name.clone(), rule.expression.clone()));
    let queries: Vec<_> = of_rules.chain(dashboard_queries(&dashboard())).collect();
    let promised = promised_metrics().into_iter().map(|metric| (metric.name, metric.labels)).collect();
    let found = unknown(&queries, &rules, &promised);
    assert!(found.is_empty(), "queries:\n{}", found.join("\n"));
}

#[test]
fn the_dashboard_has_the_form_that_grafana_imports() {
    let found = misshapen(&dashboard());
    assert!(found.is_empty(), "the dashboard:\n{}", found.join("\n"));
}

fn section_problems(rules: &[Rule], page: &str) -> Vec<String> {
    let headings =
        page.lines().filter(|line| line.starts_with('#')).filter_map(|line| line.split(' ').nth(1));
    let sections: BTreeSet<&str> = headings.filter(|heading| heading.starts_with("Portcullis")).collect();
    let alerts: BTreeSet<&str> = rules.iter().filter(|rule| rule.is_alert).map(|rule| &*rule.name).collect();
    let missing = alerts.difference(&sections).map(|alert| format!("{alert} has no section"));
    missing.chain(sections.difference(&alerts).map(|section| format!("no alert is {section}"))).collect()
}

fn untested(rules: &[Rule], tests: &str) -> Vec<String> {
    let lines: Vec<&str> = tests.lines().map(str::trim).collect();
    let mut seen: BTreeMap<(&str, bool), usize> = BTreeMap::new();
    for (index, line) in lines.iter().enumerate() {
        if let Some(alert) = line.strip_prefix("- alertname: ") {
            let expected = lines[index..].iter().find(|line| line.starts_with("exp_alerts:"));
            *seen.entry((alert, expected.is_some_and(|line| !line.ends_with("[]")))).or_default() += 1;
        }
    }
    let mut found = Vec::new();
    for rule in rules.iter().filter(|rule| rule.is_alert) {
        for (fires, what) in [(true, "fires"), (false, "stays silent")] {
            if !seen.contains_key(&(&*rule.name, fires)) {
                found.push(format!("{} {what} in no test", rule.name));
            }
        }
    }
    found
}

fn incomplete(rules: &[Rule]) -> Vec<String> {
    let mut found = Vec::new();
    for rule in rules.iter().filter(|rule| rule.is_alert) {
        let has = |line: &str| rule.lines.iter().any(|it| it == line);
        if !["critical", "warning", "info"].iter().any(|word| has(&format!("severity: {word}"))) {
            found.push(format!("{} has no severity", rule.name));
        }
        if !has(&format!("runbook_url: docs/monitoring.md#{}", rule.name.to_lowercase())) {
            found.push(format!("{} has no runbook_url", rule.name));
        }
    }
    found
}

fn unknown(
    queries: &[(String, String)],
    rules: &[Rule],
    promised: &BTreeMap<String, BTreeSet<String>>,
) -> Vec<String> {
    let is_recorded = |name: &str| rules.iter().any(|rule| !rule.is_alert && rule.name == name);
    let mut found = Vec::new();
    for (title, query) in queries {
        for selector in selectors(query) {
            let name = &*selector.name;
            let family = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
            let labels = promised.get(name).or_else(|| promised.get(family?));
            if labels.is_none()
                && !is_recorded(name)
                && !OF_PROMETHEUS.contains(&name)
                && !name.starts_with("process_")
            {
                found.push(format!("{title}: {name} is in no table"));
            }
            let Some(labels) = labels else { continue };
            let is_strange =
                |label: &&String| !labels.contains(*label) && !OF_TARGETS.contains(&label.as_str());
            found.extend(
                selector
                    .labels
                    .iter()
                    .filter(is_strange)
                    .map(|label| format!("{title}: {name} has no {label}")),
            );
        }
    }
    found
}

fn misshapen(dashboard: &Value) -> Vec<String> {
    let mut found = Vec::new();
    let version = dashboard["schemaVersion"].as_i64().unwrap_or_default();
    if version < 39 {
        found.push(format!("schemaVersion is {version}"));
    }
    let variables = dashboard["templating"]["list"].as_array().cloned().unwrap_or_default();
    let names: Vec<&str> = variables.iter().filter_map(|variable| variable["name"].as_str()).collect();
    if names != ["datasource", "job", "instance", "route"] {
        found.push(format!("the variables are {names:?}"));
    }
    let mut ids = BTreeSet::new();
    let mut cells = BTreeMap::new();
    for panel in dashboard["panels"].as_array().into_iter().flatten() {
        let title = panel["title"].as_str().unwrap_or_default();
        if title.is_empty() || !ids.insert(panel["id"].as_i64()) {
            found.push(format!("{title:?} has no title, or the id of another panel"));
        }
        for cell in cells_of(&panel["gridPos"]) {
            if let Some(other) = cells.insert(cell, title).filter(|_| cell.0 < 24) {
                found.push(format!("{title} overlaps {other}"));
                break;
            }
            if cell.0 >= 24 {
                found.push(format!("{title} is wider than the page"));
                break;
            }
        }
        let targets = panel["targets"].as_array().cloned().unwrap_or_default();
        if panel["type"] != "row" && targets.is_empty() {
            found.push(format!("{title} asks for nothing"));
        }
        let of_variable = |it: &Value| it["datasource"]["uid"] == "${datasource}";
        if panel["type"] != "row" && !(of_variable(panel) && targets.iter().all(of_variable)) {
            found.push(format!("{title} does not use the variable datasource"));
        }
    }
    found
}

/// The grid cells that a panel covers: column and line.
fn cells_of(place: &Value) -> Vec<(i64, i64)> {
    let number = |name: &str| place[name].as_i64().unwrap_or_default();
    let (left, top) = (number("x"), number("y"));
    let lines = top..top + number("h");
    lines.flat_map(|line| (left..left + number("w")).map(move |column| (column, line))).collect()
}

const RULES: &str = "groups:\n  - name: g\n    rules:\n      - record: job:a:rate5m\n        expr: sum by (job) (rate(a_total{x=~\"1|}\"}[5m]))\n      - alert: PortcullisA\n        expr: |\n          b{y!=\"1\"} > 5 * offset_c\n            unless ignoring (y) up offset 10m\n        for: 5m\n        labels:\n          severity: info\n        annotations:\n          runbook_url: docs/monitoring.md#portcullisa\n";

#[test]
fn the_rules_of_monitoring_see_what_they_look_for() {
    let two = rules(RULES);
    assert_eq!(two[1].expression, "b{y!=\"1\"} > 5 * offset_c\nunless ignoring (y) up offset 10m\n");
    let texts = |expression: &str| -> Vec<String> {
        selectors(expression).into_iter().map(|selector| selector.text).collect()
    };
    assert_eq!(texts(&two[0].expression), ["a_total{x=~\"1|}\"}"]);
    assert_eq!(texts(&two[1].expression), ["b{y!=\"1\"}", "offset_c", "up"]);
    assert_eq!(incomplete(&two), [""; 0]);
    assert_eq!(incomplete(&rules(&RULES.replace("info", "bad"))), ["PortcullisA has no severity"]);
    assert_eq!(
        section_problems(&two, "### PortcullisB\n"),
        ["PortcullisA has no section", "no alert is PortcullisB"]
    );
    let tests = "- alertname: PortcullisA\n  exp_alerts:\n    - exp_labels:\n";
    assert_eq!(untested(&two, tests), ["PortcullisA stays silent in no test"]);
    let queries: Vec<_> = two.iter().map(|rule| (rule.name.clone(), rule.expression.clone())).collect();
    let promised =
        [("a_total".to_owned(), BTreeSet::new()), ("b".to_owned(), ["y".to_owned()].into())].into();
    assert_eq!(
        unknown(&queries, &two, &promised),
        ["job:a:rate5m: a_total has no x", "PortcullisA: offset_c is in no table"]
    );
}

#[test]
fn the_rule_of_dashboards_sees_what_it_looks_for() {
    let found = misshapen(&serde_json::json!({
        "schemaVersion": 38,
        "panels": [
            {"id": 1, "type": "stat", "title": "A", "gridPos": {"x": 0, "y": 0, "w": 2, "h": 2}, "targets": []},
            {"id": 1, "type": "row", "title": "B", "gridPos": {"x": 1, "y": 1, "w": 24, "h": 1}},
        ]
    }));
    assert_eq!(
        found,
        [
            "schemaVersion is 38",
            "the variables are []",
            "A asks for nothing",
            "A does not use the variable datasource",
            "\"B\" has no title, or the id of another panel",
            "B overlaps A",
        ]
    );
}
