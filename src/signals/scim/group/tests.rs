//! What PATCH operations do to a group, and what a name may be.

use super::super::members::text;
use super::super::patch;
use super::*;

fn edited(operation: &Value) -> Result<GroupEdit, &'static str> {
    let mut edit = GroupEdit {
        display_name: "crew".into(),
        external_id: Some("one".into()),
        is_cleared: false,
        members: BTreeMap::new(),
    };
    let body = json!({ "Operations": [operation] }).to_string();
    for operation in patch::parse(body.as_bytes()).map_err(|error| error.word())? {
        edit.apply("7", operation).map_err(|error| error.word())?;
    }
    Ok(edit)
}

/// Name, external id and members after an operation.
fn shown(operation: &Value) -> Result<String, &'static str> {
    let edit = edited(operation)?;
    let members: Vec<_> = edit.members.iter().map(|(id, is_member)| format!("{id}={is_member}")).collect();
    let cleared = if edit.is_cleared { " cleared" } else { "" };
    let external_id = edit.external_id.as_deref().unwrap_or("none");
    Ok(format!("{} {external_id}{cleared} {}", edit.display_name, members.join(" ")).trim_end().to_owned())
}

#[test]
fn each_attribute_changes_as_providers_expect() {
    for (op, path, value, expected) in [
        ("replace", "displayName", json!("team"), Ok("team one")),
        ("remove", "displayName", json!(null), Err("mutability")),
        ("replace", "displayName.first", json!("team"), Err("invalidPath")),
        ("replace", "externalId", json!("two"), Ok("crew two")),
        ("replace", "externalId", json!(""), Ok("crew none")),
        ("remove", "externalId", json!("two"), Ok("crew none")),
        ("replace", "externalId.first", json!("two"), Err("invalidPath")),
        ("replace", "id", json!("7"), Ok("crew one")),
        ("replace", "id", json!("8"), Err("mutability")),
        ("remove", "id", json!("7"), Err("mutability")),
        ("replace", "id.first", json!("7"), Err("invalidPath")),
        ("replace", "meta", json!("now"), Err("mutability")),
        ("replace", "meta.created", json!("now"), Err("invalidPath")),
        ("add", "schemas", json!(["urn:more"]), Ok("crew one")),
        ("add", "urn:ietf:params:scim:schemas:extension:more:2.0:Group:any", json!(1), Ok("crew one")),
        ("replace", "colour", json!("red"), Err("invalidPath")),
        ("add", "members", json!([{ "value": "a" }, { "value": "b" }]), Ok("crew one a=true b=true")),
        ("add", "members", json!({ "members": [{ "value": "a" }] }), Ok("crew one a=true")),
        ("add", "members", json!({ "members": [], "other": 1 }), Err("invalidValue")),
        ("add", "members", json!([{ "value": "a", "type": "group" }]), Err("invalidValue")),
        ("add", "members", json!([{ "type": "User" }]), Err("invalidValue")),
        ("add", "members.value", json!("a"), Err("invalidPath")),
        ("replace", "members", json!([{ "value": "a" }]), Ok("crew one cleared a=true")),
        ("remove", "members", json!(null), Ok("crew one cleared")),
        ("remove", "members", json!([{ "value": "a" }]), Ok("crew one a=false")),
        ("remove", "members[value eq \"a\"]", json!(null), Ok("crew one a=false")),
        ("remove", "members[type eq \"a\"]", json!(null), Err("invalidPath")),
        ("remove", "members[value eq \"a\" and value eq \"b\"]", json!(null), Err("invalidPath")),
        ("add", "members[value eq \"a\"]", json!({ "value": "a" }), Err("invalidPath")),
    ] {
        let operation = json!({ "op": op, "path": path, "value": value });
        assert_eq!(shown(&operation), expected.map(str::to_owned), "{operation}");
    }
}

#[test]
fn names_and_texts_have_a_longest_length() {
    for (length, is_accepted) in [(LONGEST_NAME - 1, true), (LONGEST_NAME, true), (LONGEST_NAME + 1, false)] {
        assert_eq!(group_name(&"a".repeat(length).into()).is_ok(), is_accepted, "a name of {length} bytes");
    }
    for (length, is_accepted) in [(1_023, true), (1_024, true), (1_025, false)] {
        assert_eq!(text("it", &"a".repeat(length).into()).is_ok(), is_accepted, "a text of {length} bytes");
    }
}
