//! The members of a JSON object with SCIM names: compared without case (RFC 7643 §2.1), each at most once.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::error::ScimError;
use crate::jose::json;

/// The longest accepted string, in bytes.
const LONGEST: usize = 1_024;

/// The members of an object by their names in lower case, each with its original name.
#[derive(Debug, Default)]
pub(super) struct ScimMembers(BTreeMap<String, (String, Value)>);

impl ScimMembers {
    /// Parses a body.
    pub(super) fn parse(body: &[u8]) -> Result<Self, ScimError> {
        let unreadable = |error| match error {
            json::JsonError::NoObject => ScimError::syntax("the body is not a JSON object"),
            json::JsonError::Ambiguous => {
                ScimError::syntax("the body has a repeated member or is nested too deeply")
            }
        };
        Self::new(json::object(body).map_err(unreadable)?)
    }

    /// Creates it from an object.
    pub(super) fn new(object: Map<String, Value>) -> Result<Self, ScimError> {
        let mut members = BTreeMap::new();
        for (name, value) in object {
            let lower = name.to_ascii_lowercase();
            if members.insert(lower, (name, value)).is_some() {
                return Err(ScimError::syntax("an object has two members that differ only in case"));
            }
        }
        Ok(Self(members))
    }

    /// Creates it from a value that must be an object.
    pub(super) fn of(value: Value, what: &str) -> Result<Self, ScimError> {
        match value {
            Value::Object(object) => Self::new(object),
            _ => Err(ScimError::value(format!("{what} must be an object"))),
        }
    }

    /// Removes and returns a member; null counts as missing (RFC 7643 §2.5).
    pub(super) fn take(&mut self, name: &str) -> Option<Value> {
        self.0.remove(name).map(|(_, value)| value).filter(|value| !value.is_null())
    }

    /// Removes and returns a member, even if it is null.
    pub(super) fn take_any(&mut self, name: &str) -> Option<Value> {
        self.0.remove(name).map(|(_, value)| value)
    }

    /// Returns all remaining members.
    pub(super) fn into_rest(self) -> impl Iterator<Item = (String, Value)> {
        self.0.into_values()
    }

    /// Checks that `schemas`, if present, contains this one.
    pub(super) fn expect_schema(&mut self, schema: &str) -> Result<(), ScimError> {
        let Some(value) = self.take("schemas") else { return Ok(()) };
        let is_named = |value: &Value| value.as_str().is_some_and(|text| text.eq_ignore_ascii_case(schema));
        match value {
            Value::Array(schemas) if schemas.iter().all(Value::is_string) && schemas.iter().any(is_named) => {
                Ok(())
            }
            _ => Err(ScimError::syntax(format!("schemas must list {schema}"))),
        }
    }
}

/// Checks that a string can be stored, shown and logged.
pub(super) fn text(what: &str, value: &Value) -> Result<Box<str>, ScimError> {
    let Value::String(text) = value else { return Err(ScimError::value(format!("{what} must be a string"))) };
    if text.len() > LONGEST {
        return Err(ScimError::value(format!("{what} is longer than {LONGEST} bytes")));
    }
    if text.chars().any(char::is_control) {
        return Err(ScimError::value(format!("{what} contains a control character")));
    }
    Ok(text.as_str().into())
}

/// Parses an optional string attribute: null and the empty string count as missing.
pub(super) fn optional_text(what: &str, value: &Value) -> Result<Option<Box<str>>, ScimError> {
    match value {
        Value::Null => Ok(None),
        Value::String(text) if text.is_empty() => Ok(None),
        value => text(what, value).map(Some),
    }
}

/// Parses a string that must not be empty, nor begin or end with a space.
pub(super) fn filled_text(what: &str, value: &Value) -> Result<Box<str>, ScimError> {
    let text = text(what, value)?;
    if text.is_empty() {
        return Err(ScimError::value(format!("{what} is empty")));
    }
    if text.trim() != &*text {
        return Err(ScimError::value(format!("{what} must not begin or end with a space")));
    }
    Ok(text)
}

/// Parses a boolean; Entra sends it as a string in any case.
pub(super) fn boolean(what: &str, value: &Value) -> Result<bool, ScimError> {
    match value {
        Value::Bool(value) => Ok(*value),
        Value::String(word) if word.eq_ignore_ascii_case("true") => Ok(true),
        Value::String(word) if word.eq_ignore_ascii_case("false") => Ok(false),
        _ => Err(ScimError::value(format!("{what} must be true or false"))),
    }
}

/// Returns the elements of a multi-valued attribute: null is the empty list, and a value that is not a
/// list its only element.
pub(super) fn elements(value: Value) -> Vec<Value> {
    match value {
        Value::Null => Vec::new(),
        Value::Array(elements) => elements,
        one => vec![one],
    }
}
