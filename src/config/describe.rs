//! Describes what each key of the file may contain, in the keywords of JSON Schema 2020-12. The methods that
//! read a key record it, so that an editor accepts what the gate reads.
//!
//! Descriptions are recorded only in a reading made for them. Knows value formats, but not the purpose of a key.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::section::Section;
use super::values::Zero;

/// An integer and a unit, as parsed by `time::parse_duration`.
const DURATION: &str = "[0-9]+(ms|s|m|h|d)";
/// Such a duration, longer than zero.
const POSITIVE: &str = "0*[1-9][0-9]*(ms|s|m|h|d)";
/// An IP address and port.
const ADDRESS: &str = r"(\[[0-9A-Fa-f:.]+(%[0-9]+)?\]|[0-9.]+):[0-9]{1,5}";

/// The kind of value that a key has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum KeyShape {
    /// A value; the keywords describe it completely.
    Value,
    /// A table, `[key]`.
    Table,
    /// A list of tables, `[[key]]`.
    Tables,
}

/// The description of a key. For tables, the keywords describe the table.
#[derive(Debug)]
pub(super) struct KeyDescription {
    pub(super) shape: KeyShape,
    pub(super) keywords: Map<String, Value>,
    pub(super) is_required: bool,
}

/// The keys of each table, by its full name without list indexes: `issuers.claims`.
#[derive(Debug, Default)]
pub(super) struct KeyDescriptions(BTreeMap<String, BTreeMap<String, KeyDescription>>);

impl KeyDescriptions {
    /// Returns the keys of a table.
    pub(super) fn of_table(&self, name: &str) -> impl Iterator<Item = (&str, &KeyDescription)> {
        self.0.get(name).into_iter().flatten().map(|(key, description)| (key.as_str(), description))
    }

    /// Returns the description of a key, creating it if it does not exist. The first description stays, because the
    /// method for a special format reads with the one for a general format.
    fn entry(
        &mut self,
        table: &str,
        key: &str,
        shape: KeyShape,
        keywords: impl FnOnce() -> Value,
    ) -> &mut KeyDescription {
        let keys = self.0.entry(table.to_owned()).or_default();
        keys.entry(key.to_owned()).or_insert_with(|| KeyDescription {
            shape,
            keywords: members(keywords()),
            is_required: false,
        })
    }
}

impl Section<'_> {
    /// Records what a key may contain.
    pub(super) fn describe(&self, key: &str, keywords: impl FnOnce() -> Value) {
        self.reading.describe(|all| {
            all.entry(&generic(&self.name), key, KeyShape::Value, keywords);
        });
    }

    /// Records that a key contains a table, or a list of tables.
    pub(super) fn describe_table(&self, key: &str, shape: KeyShape) {
        self.reading.describe(|all| {
            all.entry(&generic(&self.name), key, shape, || json!({}));
        });
    }

    /// Records what a required key may contain.
    pub(super) fn describe_required(&self, key: &str, keywords: impl FnOnce() -> Value) {
        self.reading.describe(|all| {
            let keys = all.0.entry(generic(&self.name)).or_default();
            keys.entry(key.to_owned()).or_insert_with(|| KeyDescription {
                shape: KeyShape::Value,
                keywords: members(keywords()),
                is_required: true,
            });
        });
    }

    /// Adds keywords to the description of a key.
    pub(super) fn narrow(&self, key: &str, keywords: impl FnOnce() -> Value) {
        self.reading.describe(|all| {
            let described = all.entry(&generic(&self.name), key, KeyShape::Value, || json!({}));
            described.keywords.extend(members(keywords()));
        });
    }

    /// Adds keywords to the description of this table.
    pub(super) fn narrow_table(&self, keywords: impl FnOnce() -> Value) {
        let name = generic(&self.name);
        let (table, key) = name.rsplit_once('.').unwrap_or(("", &name));
        self.reading.describe(|all| {
            all.entry(table, key, KeyShape::Table, || json!({})).keywords.extend(members(keywords()));
        });
    }
}

/// Removes the list indexes from a table's name: `issuers[0].claims` becomes `issuers.claims`.
fn generic(name: &str) -> String {
    let parts = name.split('[').enumerate();
    parts
        .map(
            |(place, part)| if place == 0 { part } else { part.split_once(']').map_or("", |(_, rest)| rest) },
        )
        .collect()
}

fn members(keywords: Value) -> Map<String, Value> {
    if let Value::Object(members) = keywords { members } else { Map::new() }
}

/// The schema of a duration.
pub(super) fn duration(default: &str, zero: Zero) -> Value {
    let pattern = if zero == Zero::Refused { POSITIVE } else { DURATION };
    json!({ "type": "string", "pattern": format!("^{pattern}$"), "default": default })
}

/// The schema of a duration, or `""` for none.
pub(super) fn optional_duration(zero: Zero) -> Value {
    let pattern = if zero == Zero::Refused { POSITIVE } else { DURATION };
    json!({ "type": "string", "pattern": format!("^({pattern})?$"), "default": "" })
}

/// The schema of an integer in this range.
pub(super) fn integer(least: i64, most: i64) -> Value {
    let mut keywords = json!({ "type": "integer", "minimum": least });
    if most < i64::MAX {
        keywords["maximum"] = most.into();
    }
    keywords
}

/// The schema of a size: a string with a unit, or an integer number of bytes in this range.
pub(super) fn size(default: &Value, least: i64, most: i64) -> Value {
    let text = json!({ "type": "string", "pattern": "^[0-9]+(B|KiB|MiB|GiB)$" });
    json!({ "anyOf": [text, integer(least, most)], "default": default })
}

/// The schema of an array of distinct, non-empty strings.
pub(super) fn strings(default: &[&str], least: usize) -> Value {
    let mut keywords = json!({
        "type": "array",
        "items": { "type": "string", "minLength": 1 },
        "uniqueItems": true,
    });
    if least > 0 {
        keywords["minItems"] = least.into();
    }
    if least == 0 || !default.is_empty() {
        keywords["default"] = json!(default);
    }
    keywords
}

/// The schema of one string, or an array of them.
pub(super) fn one_or_more(default: &str) -> Value {
    let mut several = members(strings(&[], 1));
    several.remove("default");
    json!({ "anyOf": [{ "type": "string", "minLength": 1 }, several], "default": default })
}

/// The schema of an address.
pub(super) fn address() -> Value {
    json!({ "type": "string", "pattern": format!("^{ADDRESS}$") })
}

/// The schema of an address, or `""` for none.
pub(super) fn optional_address() -> Value {
    json!({ "type": "string", "pattern": format!("^({ADDRESS})?$") })
}

/// The definitions that several keys share, by the names that their keywords refer to.
pub(super) fn shared() -> Value {
    let scalar = json!({ "type": ["string", "number", "boolean"] });
    let place = |member: &str, meaning: &str| {
        json!({
            "type": "object",
            "properties": { member: { "type": "string", "minLength": 1, "description": meaning } },
            "required": [member],
            "additionalProperties": false,
        })
    };
    json!({
        "secret": {
            "description": "A secret: the text itself, or where to find it.",
            "anyOf": [
                { "type": "string" },
                place("env", "The name of an environment variable."),
                place("file", "The path of a file; a final line end is not part of the secret."),
            ],
        },
        "conditions": {
            "description": "Claims, by name or JSON pointer, each with its condition.",
            "type": "object",
            "propertyNames": { "minLength": 1 },
            "additionalProperties": { "$ref": "#/$defs/condition" },
        },
        "condition": {
            "description": "The value that the claim must equal, or tests that it must pass.",
            "anyOf": [scalar, {
                "type": "object",
                "properties": {
                    "in": { "type": "array", "items": scalar, "minItems": 1, "description": "It is one of these values." },
                    "prefix": { "type": "string", "minLength": 1, "description": "It begins with this text." },
                    "glob": { "type": "string", "minLength": 1, "description": "It matches this pattern; * matches any characters except / and :." },
                    "exists": { "type": "boolean", "description": "It is present; if false, absent." },
                    "at_least": { "type": "number", "description": "It is at least this number." },
                    "at_most": { "type": "number", "description": "It is at most this number." },
                },
                "minProperties": 1,
                "additionalProperties": false,
            }],
        },
    })
}

/// The schema of a table of secrets.
pub(super) fn secrets_by_name() -> Value {
    json!({ "type": "object", "additionalProperties": { "$ref": "#/$defs/secret" }, "default": {} })
}

/// The schema of a secret that must not be empty.
pub(super) fn filled_secret() -> Value {
    json!({ "$ref": "#/$defs/secret", "minLength": 1 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_tables_lose_their_places() {
        for (name, expected) in [
            ("", ""),
            ("server.tls", "server.tls"),
            ("issuers[0].claims", "issuers.claims"),
            ("a[1].b[22]", "a.b"),
        ] {
            assert_eq!(generic(name), expected);
        }
    }
}
