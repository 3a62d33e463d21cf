//! What PATCH operations do to a user.

use super::super::patch;
use super::*;

/// The user with the id `7` after an operation: what has changed of it, or the word of the error.
fn patched(operation: &Value) -> Result<Value, &'static str> {
    let before = json!({
        "userName": "ada", "externalId": "a", "displayName": "Ada",
        "name": { "formatted": "Ada L.", "givenName": "Ada", "familyName": "L." },
    });
    let mut fields = UserFields::parse(before.to_string().as_bytes()).map_err(|error| error.word())?;
    let body = json!({ "Operations": [operation] }).to_string();
    for operation in patch::parse(body.as_bytes()).map_err(|error| error.word())? {
        fields.apply("7", operation).map_err(|error| error.word())?;
    }
    let (created, modified) = (Timestamp::EPOCH, Timestamp::EPOCH);
    let user = ScimUser {
        id: "7".into(),
        order: 1,
        revision: 1,
        created,
        modified,
        fields,
        groups: BTreeSet::new(),
    };
    let mut shown = user.to_json("", std::iter::empty());
    ["schemas", "id", "meta"].iter().for_each(|name| drop(shown.remove(*name)));
    let mut changes: Map<String, Value> = Map::new();
    let mut active = before.clone();
    active["active"] = true.into();
    for (name, value) in active.as_object().into_iter().flatten() {
        match shown.remove(name) {
            Some(after) if after == *value => {}
            after => drop(changes.insert(name.clone(), after.into())),
        }
    }
    changes.extend(shown);
    Ok(changes.into())
}

#[test]
fn each_attribute_changes_as_providers_expect() {
    let names = json!({ "formatted": "Ada L.", "givenName": "Ada", "familyName": "L." });
    let named = |name: &str, value: Value| {
        let mut names = names.clone();
        let parts = names.as_object_mut().unwrap();
        if value.is_null() {
            parts.remove(name)
        } else {
            parts.insert(name.to_owned(), value)
        };
        Ok(json!({ "name": names }))
    };
    for (op, path, value, expected) in [
        ("replace", "userName", json!("bob"), Ok(json!({ "userName": "bob" }))),
        ("remove", "userName", json!(null), Err("mutability")),
        ("replace", "userName.first", json!("bob"), Err("invalidPath")),
        ("add", "externalId", json!("b"), Ok(json!({ "externalId": "b" }))),
        ("remove", "externalId", json!(null), Ok(json!({ "externalId": null }))),
        ("remove", "displayName", json!(null), Ok(json!({ "displayName": null }))),
        ("replace", "active", json!("False"), Ok(json!({ "active": false }))),
        ("remove", "active", json!(null), Ok(json!({ "active": null }))),
        ("replace", "name.givenName", json!("Bob"), named("givenName", json!("Bob"))),
        ("remove", "name.givenName", json!("Bob"), named("givenName", json!(null))),
        ("replace", "name.familyName", json!("M."), named("familyName", json!("M."))),
        ("replace", "name.formatted", json!("A."), named("formatted", json!("A."))),
        ("replace", "name.middleName", json!("M."), Ok(json!({}))),
        ("replace", "name.nickName", json!("A."), Err("invalidPath")),
        ("replace", "name[value eq \"a\"]", json!("A."), Err("invalidPath")),
        ("add", "name", json!({ "givenName": "Bob" }), named("givenName", json!("Bob"))),
        ("remove", "name", json!({ "givenName": "Bob" }), Ok(json!({ "name": null }))),
        ("replace", "name", json!(null), Ok(json!({ "name": null }))),
        ("add", "emails", json!("a@x"), Ok(json!({ "emails": [{ "value": "a@x" }] }))),
        ("replace", "id", json!("7"), Ok(json!({}))),
        ("replace", "id", json!("8"), Err("mutability")),
        ("remove", "id", json!("7"), Err("mutability")),
        ("replace", "id.first", json!("7"), Err("mutability")),
        ("replace", "groups", json!([]), Err("mutability")),
        ("replace", "meta.created", json!("now"), Err("mutability")),
        ("add", "roles", json!(["admin"]), Err("invalidPath")),
        ("add", "entitlements", json!(["all"]), Err("invalidPath")),
        ("replace", "password", json!("secret"), Err("invalidPath")),
        ("replace", "colour", json!("red"), Err("invalidPath")),
        ("replace", "nickName", json!("Ada"), Ok(json!({}))),
        (
            "replace",
            "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User:manager",
            json!(1),
            Ok(json!({})),
        ),
    ] {
        let operation = json!({ "op": op, "path": path, "value": value });
        assert_eq!(patched(&operation), expected, "{operation}");
    }
    // Why it is refused is told apart: these would change what a user may do.
    for (path, is_refused) in [("roles", true), ("entitlements", true), ("password", true), ("colour", false)]
    {
        assert_eq!(UserAttribute::of(path) == UserAttribute::Refused, is_refused, "{path}");
    }
}
