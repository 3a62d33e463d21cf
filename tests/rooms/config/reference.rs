//! `config/reference.toml` contains every key, and every default in it is the real one.

use std::collections::BTreeSet;
use std::fs;

use serde_json::Value;
use toml::de::{DeTable, DeValue};

use super::Folder;

pub(crate) fn shipped(name: &str) -> String {
    // The variable that the reference takes a secret from is not set in a test; what is in its place does not matter.
    let text = fs::read_to_string(format!("{}/config/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap();
    text.replace(
        "{ env = \"PORTCULLIS_ADMIN_TOKEN\" }",
        "\"a secret-of-this-test\"".replace(' ', "-").as_str(),
    )
}

/// Whether a line shows a key that has no default, or begins a table.
fn has_no_default(line: &str) -> bool {
    line.starts_with('[') || line.contains("# example")
}

#[test]
fn every_default_is_the_real_one() {
    let (folder, reference) = (Folder::new(), shipped("reference.toml"));
    let written = folder.good(&reference);
    let bare: Vec<_> = reference.lines().filter(|line| has_no_default(line)).collect();
    let left_out = folder.good(&bare.join("\n"));
    assert_eq!(left_out.redacted, written.redacted);
    assert_eq!(left_out.settings, written.settings);
}

#[test]
fn what_is_called_an_example_has_no_default() {
    let (folder, reference) = (Folder::new(), shipped("reference.toml"));
    let written = folder.good(&reference).redacted;
    let examples: Vec<_> =
        reference.lines().filter(|line| line.contains("# example") && !line.starts_with('[')).collect();
    assert!(examples.len() > 10);
    for example in examples {
        let without: Vec<_> = reference.lines().filter(|line| *line != example).collect();
        let same = folder.load(&without.join("\n")).is_ok_and(|loaded| loaded.redacted == written);
        assert!(!same, "makes no difference, so it is a default: {example}");
    }
}

#[test]
fn every_key_is_there() {
    let reference = shipped("reference.toml");
    let effective = Folder::new().good(&reference).redacted;
    let table = DeTable::parse(&reference).unwrap();
    let (mut read, mut written) = (BTreeSet::new(), BTreeSet::new());
    keys_read(&effective, "", &mut read);
    keys_written(table.get_ref(), "", &mut written);
    assert_eq!(read, written);
}

pub(crate) fn keys_read(value: &Value, name: &str, keys: &mut BTreeSet<String>) {
    match value {
        Value::Object(members) if !members.is_empty() => {
            for (key, value) in members {
                keys_read(value, &format!("{name}.{key}"), keys);
            }
        }
        Value::Array(elements) if elements.iter().any(Value::is_object) => {
            elements.iter().for_each(|element| keys_read(element, name, keys));
        }
        _ => {
            keys.insert(name.trim_start_matches('.').to_owned());
        }
    }
}

fn keys_written(table: &DeTable<'_>, name: &str, keys: &mut BTreeSet<String>) {
    for (key, value) in table {
        let name = format!("{name}.{}", key.get_ref());
        match value.get_ref() {
            DeValue::Table(table) if !table.is_empty() => keys_written(table, &name, keys),
            DeValue::Array(elements) if elements.iter().any(|element| element.get_ref().is_table()) => {
                elements.iter().filter_map(|element| element.get_ref().as_table()).for_each(|table| {
                    keys_written(table, &name, keys);
                });
            }
            _ => {
                keys.insert(name.trim_start_matches('.').to_owned());
            }
        }
    }
}

#[test]
fn every_key_has_a_line_of_meaning() {
    let reference = shipped("reference.toml");
    let keys = reference
        .lines()
        .map(|line| line.trim_start_matches('#'))
        .filter(|line| line.split_once(" = ").is_some_and(|(key, _)| !key.is_empty() && !key.contains(' ')));
    for line in keys {
        let (_, meaning) = line.split_once(" # ").unwrap_or_else(|| panic!("no meaning: {line}"));
        assert!(meaning.len() >= 3, "{line}");
    }
}

#[test]
fn the_configuration_to_start_from_is_good() {
    let loaded = Folder::new().good(&shipped("portcullis.toml"));
    assert!(loaded.settings.gate.tls.is_some());
    assert_eq!(loaded.settings.enforce.routes.len(), 2);
}
