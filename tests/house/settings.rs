//! Compares the table of settings in docs/configuration.md, and the keys that documents name, with
//! `config/reference.toml`, whose keys and defaults `tests/rooms/config/reference.rs` compares with those of the product.

use std::collections::BTreeMap;

use testkit::documents::{document, quoted, table};

use crate::sources::files;

/// Keys with their default, as written; `None` if the line is an example.
type Reference = BTreeMap<String, Option<String>>;

#[test]
fn the_table_of_settings_has_keys_and_defaults_of_the_reference() {
    let reference = reference(&document("config/reference.toml"));
    let found = wrong_rows(&table(&document("docs/configuration.md"), "Settings"), &reference);
    assert!(found.is_empty(), "docs/configuration.md:\n{}", found.join("\n"));
}

#[test]
fn keys_that_documents_name_are_in_the_reference() {
    let reference = reference(&document("config/reference.toml"));
    let mut pages = files("docs", ".md");
    pages.push(("README.md".to_owned(), document("README.md")));
    let mut found = Vec::new();
    for (path, text) in &pages {
        found.extend(unknown_keys(text, &reference).into_iter().map(|key| format!("{path}: {key}")));
    }
    assert!(found.is_empty(), "no such keys in config/reference.toml:\n{}", found.join("\n"));
}

#[test]
fn keys_that_wait_for_a_restart_are_those_of_the_reference() {
    let found = wrong_restarts(&document("docs/reload.md"), &document("config/reference.toml"));
    assert!(found.is_empty(), "docs/reload.md:\n{}", found.join("\n"));
}

/// Differences between the keys in the table and those that the reference marks. Keys that locate the store are
/// marked there, but not listed individually in the table.
fn wrong_restarts(page: &str, reference: &str) -> Vec<String> {
    let rows = table(page, "What takes effect when");
    let named: Vec<String> =
        rows.iter().flat_map(|row| quoted(&row[0])).filter(|it| !it.starts_with('[')).collect();
    let marked = marked_for_restart(reference);
    let wrong = named.iter().filter(|key| !marked.contains(key)).map(|key| format!("{key} needs no restart"));
    let missing = marked.iter().filter(|key| !key.starts_with("state.") && !named.contains(key));
    wrong.chain(missing.map(|key| format!("{key} is missing"))).collect()
}

/// The keys whose line ends with `restart to change`.
fn marked_for_restart(text: &str) -> Vec<String> {
    let mut keys = Vec::new();
    let mut table = "";
    for line in text.lines() {
        if let Some(name) = line.strip_prefix('[') {
            table = name.split(']').next().unwrap_or_default().trim_start_matches('[');
        } else if let Some((key, _)) = line.split_once(" = ").filter(|_| line.ends_with("restart to change"))
        {
            keys.push(format!("{table}.{key}"));
        }
    }
    keys
}

fn reference(text: &str) -> Reference {
    let mut reference = Reference::new();
    let mut table = String::new();
    for line in text.lines() {
        let (code, meaning) = line.split_once(" #").unwrap_or((line, ""));
        if let Some(name) = code.trim().strip_prefix('[') {
            table = name.trim_matches(['[', ']']).to_owned();
        } else if let Some((key, value)) = code.split_once(" = ").filter(|_| !line.starts_with('#')) {
            let default = (!meaning.trim_start().starts_with("example")).then(|| value.trim().to_owned());
            reference.entry(format!("{table}.{key}")).or_insert(default);
        }
    }
    reference
}

/// Whether a key, or a table with this name, exists.
fn is_known(key: &str, reference: &Reference) -> bool {
    let below = format!("{key}.");
    reference.keys().any(|it| it == key || it.starts_with(&below))
}

/// The full keys in a cell: `` `routes[].path`, `.hosts` `` means `routes.path` and `routes.hosts`.
fn keys(cell: &str) -> Vec<String> {
    let mut keys: Vec<String> = Vec::new();
    for written in quoted(cell) {
        let key = written.replace(['[', ']'], "");
        let key = key.trim_end_matches(".*").to_owned();
        match (key.strip_prefix('.'), keys.last().and_then(|last| last.rsplit_once('.'))) {
            (Some(name), Some((table, _))) => keys.push(format!("{table}.{name}")),
            _ => keys.push(key),
        }
    }
    keys
}

/// Checks that every key of a row exists. Defaults are listed in the order of the keys; keys after the last
/// default have the same one or none.
fn wrong_rows(rows: &[Vec<String>], reference: &Reference) -> Vec<String> {
    let mut found = Vec::new();
    for row in rows {
        let (keys, defaults) = (keys(&row[0]), quoted(&row[1]));
        found.extend(
            keys.iter().filter(|key| !is_known(key, reference)).map(|key| format!("{key} is no key")),
        );
        for (index, key) in keys.iter().enumerate() {
            let Some(real) = reference.get(key) else { continue };
            let real = real.as_deref().unwrap_or_default().trim_matches('"');
            let is_none = ["", "[]", "false"].contains(&real);
            let is_right = match defaults.get(index) {
                Some(stated) => stated.trim_matches('"') == real,
                None => is_none || defaults.last().is_some_and(|last| last.trim_matches('"') == real),
            };
            if !is_right {
                found.push(format!("{key} is {real:?} by default, not {:?}", defaults.get(index)));
            }
        }
    }
    found
}

/// OpenTelemetry attributes that begin like a table of the configuration.
const ATTRIBUTES: [&str; 2] = ["server.address", "server.port"];

/// Texts that look like a key of the configuration (`` `state.on_empty = "trust"` ``) but are not.
fn unknown_keys(text: &str, reference: &Reference) -> Vec<String> {
    let tables: Vec<&str> = reference.keys().filter_map(|key| key.split('.').next()).collect();
    let is_name = |name: &str| !name.is_empty() && name.chars().all(|c| c.is_ascii_lowercase() || c == '_');
    let is_file =
        |key: &str| [".toml", ".rs", ".pem", ".key", ".db", ".json"].iter().any(|end| key.ends_with(end));
    let mut found = Vec::new();
    for written in text.lines().filter(|line| !line.starts_with("```")).flat_map(quoted) {
        let key = written.split(" = ").next().unwrap_or_default().replace("[]", "");
        let key = key.trim_end_matches(".*");
        let names: Vec<&str> = key.split('.').collect();
        let is_other = is_file(key) || ATTRIBUTES.contains(&written.as_ref());
        let is_key = names.len() > 1 && names.iter().all(|name| is_name(name)) && !is_other;
        if is_key && tables.contains(&names[0]) && !is_known(key, reference) {
            found.push(written);
        }
    }
    found
}

#[test]
fn the_comparison_of_settings_sees_what_it_looks_for() {
    let text = "[server]  # it\nlisten = [\"a\"]   # where\nworkers = 0 # n\n# gone = 1\n[[routes]] # example\npath = \"/\" # example: x\n\
                hosts = [] # any\nmode = \"enforce\" # or\n[identity.headers]\nx-auth = \"sub\" # s\n";
    let reference = reference(text);
    let page = "## Settings\n| key | default | |\n|---|---|---|\n| `server.listen` | `[\"a\"]` | |\n\
                | `routes[].path`, `.hosts` | | |\n| `routes[].mode` | `\"enforce\"` | |\n| `identity.headers` | `x`, … | |\n";
    assert_eq!(wrong_rows(&table(page, "Settings"), &reference), [""; 0]);
    let page = "## Settings\n| key | default | |\n|---|---|---|\n| `server.listen`, `.workers` | `[\"b\"]` | |\n\
                | `server.gone` | | |\n| `routes[].mode`, `.methods` | | |\n";
    assert_eq!(
        wrong_rows(&table(page, "Settings"), &reference),
        [
            "server.listen is \"[\\\"a\\\"]\" by default, not Some(\"[\\\"b\\\"]\")",
            "server.workers is \"0\" by default, not None",
            "server.gone is no key",
            "routes.methods is no key",
            "routes.mode is \"enforce\" by default, not None"
        ]
    );
    let page =
        "`server.listen`, `server.port = 1`, `routes[].modes`, `server.pem`, `other.key_of`, `server.*`\n";
    assert_eq!(unknown_keys(page, &reference), ["server.port = 1", "routes[].modes"]);
}

#[test]
fn the_comparison_of_restarts_sees_what_it_looks_for() {
    let marked = "[server]\nlisten = 1 # x; restart to change\nworkers = 2 # restart to change\nlimit = 1 # y\n\
                  [state]\npath = 1 # restart to change\n";
    let page = "## What takes effect when\n| keys | |\n|---|---|\n| `server.listen`, `server.limit` | |\n\
                | whether there is `[a]` | |\n";
    assert_eq!(wrong_restarts(page, marked), ["server.limit needs no restart", "server.workers is missing"]);
}
