//! Parses PATCH requests (RFC 7644 §3.5.2) as sent by Okta, Entra and Salesforce into a list of
//! operations with one path each.

use serde_json::Value;

use super::error::ScimError;
use super::filter::{self, Comparison};
use super::members::ScimMembers;

const SCHEMA: &str = "urn:ietf:params:scim:api:messages:2.0:PatchOp";

/// The most operations in one request.
const MOST: usize = 1_000;
/// The longest path, in bytes.
const LONGEST: usize = 1_024;

/// What an operation does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PatchVerb {
    Add,
    Replace,
    Remove,
}

/// One operation on one attribute.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct PatchOperation {
    pub(super) verb: PatchVerb,
    pub(super) path: PatchPath,
    /// The value; null if none was given.
    pub(super) value: Value,
}

/// The target of an operation.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct PatchPath {
    /// The attribute in lower case, without the URN of a core schema.
    pub(super) attribute: String,
    /// Which of its values are selected; empty for all of them.
    pub(super) within: Vec<Comparison>,
    /// The sub-attribute in lower case.
    pub(super) sub: Option<String>,
}

/// Parses the operations of a request, in order.
pub(super) fn parse(body: &[u8]) -> Result<Vec<PatchOperation>, ScimError> {
    let mut members = ScimMembers::parse(body)?;
    members.expect_schema(SCHEMA)?;
    let Some(Value::Array(wanted)) = members.take("operations") else {
        return Err(ScimError::syntax("Operations must be a list"));
    };
    if wanted.is_empty() || wanted.len() > MOST {
        return Err(ScimError::syntax(format!("there must be between 1 and {MOST} operations")));
    }
    let mut operations = Vec::with_capacity(wanted.len());
    for operation in wanted {
        add_operation(operation, &mut operations)?;
        if operations.len() > MOST {
            return Err(ScimError::syntax(format!("there must be between 1 and {MOST} operations")));
        }
    }
    Ok(operations)
}

/// Parses an operation. One without a path becomes one for each member of its value.
fn add_operation(operation: Value, to: &mut Vec<PatchOperation>) -> Result<(), ScimError> {
    let Value::Object(operation) = operation else {
        return Err(ScimError::syntax("an operation must be an object"));
    };
    let mut members = ScimMembers::new(operation)?;
    let verb = verb(members.take("op"))?;
    let value = members.take_any("value");
    if value.is_none() && verb != PatchVerb::Remove {
        return Err(ScimError::value("add and replace need a value"));
    }
    let value = value.unwrap_or(Value::Null);
    let path = members.take("path");
    // Entra's samples name operations. Any other member may be a misspelt `value`, without which
    // `remove` would remove more.
    if members.into_rest().any(|(name, _)| !name.eq_ignore_ascii_case("name")) {
        return Err(ScimError::syntax("an operation can have only the members op, path and value"));
    }
    match path {
        Some(Value::String(path)) if !path.trim().is_empty() => {
            to.push(PatchOperation { verb, path: PatchPath::parse(&path)?, value });
            Ok(())
        }
        None => {
            if verb == PatchVerb::Remove {
                return Err(ScimError::no_target("remove needs a path"));
            }
            let Value::Object(object) = value else {
                return Err(ScimError::value("without a path the value must be an object of attributes"));
            };
            for (name, value) in ScimMembers::new(object)?.into_rest() {
                to.push(PatchOperation { verb, path: PatchPath::parse(&name)?, value });
            }
            Ok(())
        }
        Some(_) => Err(ScimError::path("path must be a string that names an attribute")),
    }
}

fn verb(op: Option<Value>) -> Result<PatchVerb, ScimError> {
    const WORDS: [(&str, PatchVerb); 3] =
        [("add", PatchVerb::Add), ("replace", PatchVerb::Replace), ("remove", PatchVerb::Remove)];
    let op = op.as_ref().and_then(Value::as_str).unwrap_or_default();
    let known = WORDS.iter().find(|(word, _)| word.eq_ignore_ascii_case(op));
    known.map(|(_, verb)| *verb).ok_or_else(|| ScimError::syntax("op must be add, replace or remove"))
}

impl PatchPath {
    /// Parses `attribute`, `attribute.sub`, `attribute[filter]` or `attribute[filter].sub`, with or without a URN prefix.
    pub(super) fn parse(text: &str) -> Result<Self, ScimError> {
        let wrong = || ScimError::path("the path is not an attribute path");
        let text = text.trim();
        if text.len() > LONGEST {
            return Err(ScimError::path(format!("the path is longer than {LONGEST} bytes")));
        }
        let text = bare_path(text);
        if is_extension(text) {
            // Any attribute of an extension is accepted but not stored, so its name does not matter.
            return Ok(Self { attribute: text.to_ascii_lowercase(), within: Vec::new(), sub: None });
        }
        let is_name = |c: char| c.is_ascii_alphanumeric() || "_-$".contains(c);
        let end = text.find(|c| !is_name(c)).unwrap_or(text.len());
        let (attribute, mut rest) = text.split_at(end);
        let mut within = Vec::new();
        if let Some(inner) = rest.strip_prefix('[') {
            (within, rest) = filter::bracketed(inner).map_err(|_filter| wrong())?;
        }
        let sub = match rest.strip_prefix('.') {
            Some(sub) if !sub.is_empty() && sub.chars().all(is_name) => Some(sub.to_ascii_lowercase()),
            None if rest.is_empty() => None,
            _ => return Err(wrong()),
        };
        if !attribute.starts_with(|c: char| c.is_ascii_alphabetic()) {
            return Err(wrong());
        }
        Ok(Self { attribute: attribute.to_ascii_lowercase(), within, sub })
    }

    /// Whether it names only the attribute.
    pub(super) fn is_whole(&self) -> bool {
        self.within.is_empty() && self.sub.is_none()
    }
}

/// Whether a path is, or begins with, the URN of an extension.
pub(super) fn is_extension(path: &str) -> bool {
    path.get(..4).is_some_and(|scheme| scheme.eq_ignore_ascii_case("urn:"))
}

fn bare_path(text: &str) -> &str {
    const CORE: [&str; 2] =
        ["urn:ietf:params:scim:schemas:core:2.0:User:", "urn:ietf:params:scim:schemas:core:2.0:Group:"];
    let stripped = CORE.iter().find_map(|urn| {
        let (head, rest) = text.split_at_checked(urn.len())?;
        head.eq_ignore_ascii_case(urn).then_some(rest)
    });
    stripped.unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(path: &str) -> Result<String, &'static str> {
        let PatchPath { attribute, within, sub } = PatchPath::parse(path).map_err(|error| error.word())?;
        let within: Vec<String> =
            within.iter().map(|one| format!("[{}={}]", one.attribute, one.value)).collect();
        Ok(format!("{attribute}{}{}", within.concat(), sub.map(|sub| format!(".{sub}")).unwrap_or_default()))
    }

    #[test]
    fn paths_are_read_with_filters_parts_and_urns() {
        for (path, expected) in [
            ("active", "active"),
            (" userName ", "username"),
            ("name.givenName", "name.givenname"),
            ("members[value eq \"Ab\"]", "members[value=\"Ab\"]"),
            (
                "emails[type eq \"work\" and primary eq true].value",
                "emails[type=\"work\"][primary=true].value",
            ),
            ("urn:ietf:params:scim:schemas:core:2.0:User:name.givenName", "name.givenname"),
            ("URN:ietf:params:scim:schemas:core:2.0:group:members", "members"),
            (
                "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User:manager",
                "urn:ietf:params:scim:schemas:extension:enterprise:2.0:user:manager",
            ),
        ] {
            assert_eq!(shown(path), Ok(expected.to_owned()), "{path}");
        }
        let long = "a".repeat(LONGEST + 1);
        for path in [
            "",
            " ",
            ".",
            "a.",
            "a..b",
            "a.b.c",
            "a[",
            "a[]",
            "a[b]",
            "a[b eq \"c\"",
            "a[b eq \"c\"]d",
            "1a",
            "a b",
            "[b eq \"c\"]",
            &long,
        ] {
            assert_eq!(shown(path), Err("invalidPath"), "{path:.20}");
        }
        assert!(shown(&"a".repeat(LONGEST)).is_ok());
    }

    #[test]
    fn an_operation_without_a_path_is_one_for_each_attribute() {
        let body = br#"{"Operations": [{"op": "RePlace", "value": {"active": "False", "emails[type eq \"Work\"].value": "a"}}]}"#;
        let operations = parse(body).unwrap();
        let seen: Vec<(PatchVerb, String)> = operations
            .into_iter()
            .map(|one| (one.verb, format!("{} {}", one.path.attribute, one.value)))
            .collect();
        assert_eq!(
            seen,
            [
                (PatchVerb::Replace, "active \"False\"".to_owned()),
                (PatchVerb::Replace, "emails \"a\"".to_owned())
            ]
        );
    }

    #[test]
    fn a_thousand_operations_are_carried_out_and_no_more() {
        let body = |count: usize| {
            let one = r#"{"op": "add", "path": "displayName", "value": "x"}"#;
            format!(r#"{{"Operations": [{}]}}"#, vec![one; count].join(","))
        };
        assert_eq!(parse(body(MOST).as_bytes()).unwrap().len(), MOST);
        assert_eq!(parse(body(MOST + 1).as_bytes()).unwrap_err().word(), "invalidSyntax");
        let wide: Vec<String> = (0..=MOST).map(|i| format!(r#""a{i}": 1"#)).collect();
        let wide = format!(r#"{{"Operations": [{{"op": "add", "value": {{{}}}}}]}}"#, wide.join(","));
        assert_eq!(parse(wide.as_bytes()).unwrap_err().word(), "invalidSyntax");
    }

    #[test]
    fn a_request_has_the_schema_of_a_patch_and_between_one_and_the_most_operations() {
        let operation = || serde_json::json!({"op": "add", "path": "active", "value": true});
        let parsed = |body: Value| {
            parse(body.to_string().as_bytes()).map(|found| found.len()).map_err(|error| error.word())
        };
        let many = |count: usize| Value::Array((0..count).map(|_| operation()).collect());
        for (count, expected) in
            [(0, Err("invalidSyntax")), (1, Ok(1)), (MOST, Ok(MOST)), (MOST + 1, Err("invalidSyntax"))]
        {
            let body = serde_json::json!({"schemas": [SCHEMA], "Operations": many(count)});
            assert_eq!(parsed(body), expected, "{count}");
        }
        // An operation without a path counts once for each attribute.
        let members = |count: usize| (0..count).map(|n| (format!("a{n}"), Value::Bool(true))).collect();
        for (count, expected) in [(MOST, Ok(MOST)), (MOST + 1, Err("invalidSyntax"))] {
            let value = Value::Object(members(count));
            let body =
                serde_json::json!({"schemas": [SCHEMA], "Operations": [{"op": "add", "value": value}]});
            assert_eq!(parsed(body), expected, "{count}");
        }
        for (schemas, expected) in [
            (serde_json::json!([SCHEMA]), Ok(1)),
            (serde_json::json!(["urn:other", SCHEMA.to_ascii_uppercase()]), Ok(1)),
            (serde_json::json!(["urn:other"]), Err("invalidSyntax")),
            (serde_json::json!([SCHEMA, 7]), Err("invalidSyntax")),
            (serde_json::json!([]), Err("invalidSyntax")),
            (serde_json::json!(SCHEMA), Err("invalidSyntax")),
        ] {
            let body = serde_json::json!({"schemas": schemas, "Operations": [operation()]});
            assert_eq!(parsed(body), expected, "{schemas}");
        }
        assert_eq!(parsed(serde_json::json!({"Operations": [operation()]})), Ok(1), "it may be left out");
    }

    #[test]
    fn a_path_that_is_there_names_an_attribute() {
        for (path, expected) in [
            (Value::String("active".into()), Ok(1)),
            (Value::String(String::new()), Err("invalidPath")),
            (Value::String("  ".into()), Err("invalidPath")),
            (Value::from(7), Err("invalidPath")),
        ] {
            let operation = serde_json::json!({"op": "remove", "path": path});
            let body = serde_json::json!({"schemas": [SCHEMA], "Operations": [operation]}).to_string();
            let parsed = parse(body.as_bytes()).map(|found| found.len()).map_err(|error| error.word());
            assert_eq!(parsed, expected, "{path}");
        }
    }
}
