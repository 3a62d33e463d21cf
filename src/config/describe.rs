//! What each key of the file may hold, in the keywords of JSON Schema 2020-12. The methods that read a key note it, so that
//! an editor accepts what the gate reads.
//!
//! Notes are taken only in a reading that is made for them. Knows notations, not what a key is for.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::section::Section;
use super::values::Zero;

/// A whole number and a unit, as `time::parse_duration` reads it.
const DURATION: &str = "[0-9]+(ms|s|m|h|d)";
/// The same, longer than zero.
const POSITIVE: &str = "0*[1-9][0-9]*(ms|s|m|h|d)";
/// IP address and port.
const ADDRESS: &str = r"(\[[0-9A-Fa-f:.]+(%[0-9]+)?\]|[0-9.]+):[0-9]{1,5}";

/// What stands behind a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum KeyShape {
    /// A value; its keywords say everything.
    Value,
    /// A table, `[key]`.
    Table,
    /// A list of tables, `[[key]]`.
    Tables,
}

/// What is known of a key. Keywords of tables are about the table.
#[derive(Debug)]
pub(super) struct KeyDescription {
    pub(super) shape: KeyShape,
    pub(super) keywords: Map<String, Value>,
    pub(super) is_required: bool,
}

/// The keys of each table, by its full name without places in lists: `issuers.claims`.
#[derive(Debug, Default)]
pub(super) struct KeyDescriptions(BTreeMap<String, BTreeMap<String, KeyDescription>>);

impl KeyDescriptions {
    /// The keys of a table.
    pub(super) fn of_table(&self, name: &str) -> impl Iterator<Item = (&str, &KeyDescription)> {
        self.0.get(name).into_iter().flatten().map(|(key, description)| (key.as_str(), description))
    }

    /// The description of a key, made when there is none: what is noted first counts, because the method for a special
    /// notation reads with the one for a general notation.
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
    /// Notes what a key may hold.
    pub(super) fn describe(&self, key: &str, keywords: impl FnOnce() -> Value) {
        self.reading.describe(|all| {
            all.entry(&generic(&self.name), key, KeyShape::Value, keywords);
        });
    }

    /// Notes that a key holds a table, or a list of tables.
    pub(super) fn describe_table(&self, key: &str, shape: KeyShape) {
        self.reading.describe(|all| {
            all.entry(&generic(&self.name), key, shape, || json!({}));
        });
    }

    /// Notes what a key may hold that the table needs.
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

    /// Notes more about a key that was described.
    pub(super) fn narrow(&self, key: &str, keywords: impl FnOnce() -> Value) {
        self.reading.describe(|all| {
            let described = all.entry(&generic(&self.name), key, KeyShape::Value, || json!({}));
            described.keywords.extend(members(keywords()));
        });
    }

    /// Notes more about this table.
    pub(super) fn narrow_table(&self, keywords: impl FnOnce() -> Value) {
        let name = generic(&self.name);
        let (table, key) = name.rsplit_once('.').unwrap_or(("", &name));
        self.reading.describe(|all| {
            all.entry(table, key, KeyShape::Table, || json!({})).keywords.extend(members(keywords()));
        });
    }
}

/// The name of a table without places in lists: of `issuers[0].claims` it is `issuers.claims`.
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

/// A duration.
pub(super) fn duration(default: &str, zero: Zero) -> Value {
    let pattern = if zero == Zero::Refused { POSITIVE } else { DURATION };
    json!({ "type": "string", "pattern": format!("^{pattern}$"), "default": default })
}

/// A duration, or `""` for none.
pub(super) fn optional_duration(zero: Zero) -> Value {
    let pattern = if zero == Zero::Refused { POSITIVE } else { DURATION };
    json!({ "type": "string", "pattern": format!("^({pattern})?$"), "default": "" })
}

/// A whole number between these.
pub(super) fn integer(least: i64, most: i64) -> Value {
    let mut keywords = json!({ "type": "integer", "minimum": least });
    if most < i64::MAX {
        keywords["maximum"] = most.into();
    }
    keywords
}

/// A size as a text with a unit, or as a whole number of bytes between these.
pub(super) fn size(default: &Value, least: i64, most: i64) -> Value {
    let text = json!({ "type": "string", "pattern": "^[0-9]+(B|KiB|MiB|GiB)$" });
    json!({ "anyOf": [text, integer(least, most)], "default": default })
}

/// An array of different strings, none of them empty.
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

/// One string, or an array of them.
pub(super) fn one_or_more(default: &str) -> Value {
    let mut several = members(strings(&[], 1));
    several.remove("default");
    json!({ "anyOf": [{ "type": "string", "minLength": 1 }, several], "default": default })
}

/// A string that is an address.
pub(super) fn address() -> Value {
    json!({ "type": "string", "pattern": format!("^{ADDRESS}$") })
}

/// The same, or `""` for none.
pub(super) fn optional_address() -> Value {
    json!({ "type": "string", "pattern": format!("^({ADDRESS})?$") })
}

/// What several keys hold, by the names under which their keywords refer to it.
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
            "description": "Claims, by name or JSON pointer, each with what it must be.",
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
                    "glob": { "type": "string", "minLength": 1, "description": "It matches this pattern; * stays between / and :." },
                    "exists": { "type": "boolean", "description": "It is present, or with false absent." },
                    "at_least": { "type": "number", "description": "It is no smaller number." },
                    "at_most": { "type": "number", "description": "It is no larger number." },
                },
                "minProperties": 1,
                "additionalProperties": false,
            }],
        },
    })
}

/// A table of secrets.
pub(super) fn secrets_by_name() -> Value {
    json!({ "type": "object", "additionalProperties": { "$ref": "#/$defs/secret" }, "default": {} })
}

/// A secret that must not be empty.
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
