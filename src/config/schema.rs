//! The JSON Schema of the configuration file, for editors and for checks before a rollout.
//!
//! There is no second description of the file: the reference file is read like any other, the methods that read
//! its keys record what each may contain (`describe`), and the comments in the reference say what each is for.
//! A library that derives a schema would need a set of types for that alone, which the parser does not use.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value, json};
use toml::de::DeTable;

use super::compile;
use super::describe::{self, KeyDescription, KeyDescriptions, KeyShape};
use super::locate::{ReadFor, Reading};
use super::section::Section;
use super::watch::WatchedFiles;

/// Every key, with its default and its meaning.
const REFERENCE: &str = include_str!("../../config/reference.toml");

/// Returns the JSON Schema (2020-12) of the configuration; it describes the data in the TOML file.
#[must_use]
pub fn schema() -> Value {
    let reading = Reading::new(Path::new(""), REFERENCE, WatchedFiles::default(), ReadFor::Description);
    let (table, _) = DeTable::parse_recoverable(REFERENCE);
    Section::root(&reading, table.get_ref(), compile::settings);
    let parts = SchemaParts { keys: reading.into_descriptions(), meanings: meanings(REFERENCE) };
    let mut schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Portcullis configuration",
        "description": "Relative paths start at the folder of the file. \"\" and [] mean none.",
        "$defs": describe::shared(),
    });
    if let (Value::Object(schema), Value::Object(root)) = (&mut schema, parts.table("", &Map::new())) {
        schema.extend(root);
    }
    schema
}

/// The inputs of the schema.
struct SchemaParts<'a> {
    keys: KeyDescriptions,
    meanings: BTreeMap<String, &'a str>,
}

impl SchemaParts<'_> {
    /// The schema of a table, with additional keywords.
    fn table(&self, name: &str, keywords: &Map<String, Value>) -> Value {
        let (mut properties, mut required) = (Map::new(), Vec::new());
        for (key, description) in self.keys.of_table(name) {
            let full = if name.is_empty() { key.to_owned() } else { format!("{name}.{key}") };
            properties.insert(key.to_owned(), self.key(&full, description));
            if description.is_required {
                required.push(key);
            }
        }
        let mut schema = json!({ "type": "object", "properties": properties, "additionalProperties": false });
        if !required.is_empty() {
            schema["required"] = json!(required);
        }
        if let Value::Object(schema) = &mut schema {
            schema.extend(keywords.clone());
        }
        schema
    }

    fn key(&self, name: &str, description: &KeyDescription) -> Value {
        let mut schema = match description.shape {
            KeyShape::Value => Value::Object(description.keywords.clone()),
            KeyShape::Table => self.table(name, &description.keywords),
            KeyShape::Tables => {
                json!({ "type": "array", "items": self.table(name, &description.keywords), "default": [] })
            }
        };
        // The sets in `allow` have the same keys as their route, whose comments describe them.
        let meaning = self.meanings.get(name).or_else(|| self.meanings.get(&name.replace(".allow.", ".")));
        if let Some(meaning) = meaning {
            schema["description"] = json!(meaning);
        }
        schema
    }
}

/// The comments of the reference by the full names of keys and tables.
fn meanings(reference: &str) -> BTreeMap<String, &str> {
    let (mut meanings, mut table) = (BTreeMap::new(), "");
    for line in reference.lines().filter(|line| !line.starts_with('#')) {
        let Some((code, comment)) = line.split_once(" # ") else {
            // A table may have no comment.
            table = header(line).unwrap_or(table);
            continue;
        };
        let name = match (header(code), code.split_once(" = ")) {
            (Some(name), _) => {
                table = name;
                name.to_owned()
            }
            (None, Some((key, _))) => format!("{table}.{key}"),
            (None, None) => continue,
        };
        let meaning = comment.strip_prefix("example").unwrap_or(comment).trim_start_matches([':', ';', ' ']);
        meanings.entry(name).or_insert(meaning);
    }
    meanings.retain(|_, meaning| !meaning.is_empty());
    meanings
}

/// Returns the name of the table that begins on this line.
fn header(line: &str) -> Option<&str> {
    let name = line.trim().strip_prefix('[')?.trim_start_matches('[');
    Some(name.split(']').next().unwrap_or(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_say_what_keys_and_tables_are_for() {
        let text = "#:schema x\n# head = 1\n[server]        # the listener\nlisten = [\"a # b\"] # where\n\
                    [server.limits]\nheaders = 1 # example: how many\n\n[[routes]] # example\nx = \"\" # example; restart\n\
                    [[routes]] # more of them\nx = \"\" # other\n";
        let found = meanings(text);
        let expected =
            [("routes.x", "restart"), ("server", "the listener"), ("server.limits.headers", "how many")];
        let found: Vec<(&str, &str)> =
            found.iter().map(|(name, meaning)| (name.as_str(), *meaning)).collect();
        assert_eq!(
            found.iter().filter(|(name, _)| *name != "server.listen").copied().collect::<Vec<_>>(),
            expected
        );
    }

    #[test]
    fn every_key_of_the_reference_has_its_meaning() {
        fn missing(name: &str, schema: &Value, found: &mut Vec<String>) {
            let table = if schema["type"] == "array" { &schema["items"] } else { schema };
            for (key, schema) in table["properties"].as_object().into_iter().flatten() {
                let name = format!("{name}.{key}");
                let is_table = schema["properties"].is_object() || schema["items"]["properties"].is_object();
                if !is_table && schema["description"].as_str().is_none_or(str::is_empty) {
                    found.push(name.clone());
                }
                missing(&name, schema, found);
            }
        }
        let mut found = Vec::new();
        missing("", &schema(), &mut found);
        // Keys whose names need no explanation.
        let plain =
            [".name", ".audience", ".issuer", ".discovery", ".private_key", ".certificate", ".client_ca"];
        found.retain(|name| !plain.iter().any(|end| name.ends_with(end)));
        assert_eq!(found, [""; 0]);
    }
}
