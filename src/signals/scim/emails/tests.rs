//! What PATCH operations do to the addresses of a user, operation by operation.

use serde_json::json;

use super::super::patch;
use super::*;

/// The addresses after some operations, or the word of the error.
fn patched(before: &Value, operations: &Value) -> Result<Value, &'static str> {
    let mut addresses = parse(before.clone()).map_err(|error| error.word())?;
    let body = json!({ "Operations": operations }).to_string();
    for operation in patch::parse(body.as_bytes()).map_err(|error| error.word())? {
        apply(&mut addresses, operation.verb, &operation.path, operation.value)
            .map_err(|error| error.word())?;
    }
    Ok(addresses.iter().map(EmailAddress::to_json).collect())
}

fn work() -> Value {
    json!({ "value": "a@x", "type": "work", "display": "A", "primary": true })
}

fn home() -> Value {
    json!({ "value": "b@x", "type": "home" })
}

/// Some fields of the work address changed; null removes one.
fn work_but(changes: &Value) -> Value {
    let mut address = work();
    for (name, value) in changes.as_object().unwrap() {
        let fields = address.as_object_mut().unwrap();
        if value.is_null() {
            fields.remove(name)
        } else {
            fields.insert(name.clone(), value.clone())
        };
    }
    address
}

#[test]
fn a_removal_takes_what_its_path_or_value_names() {
    for (operation, expected) in [
        (json!({ "path": "emails" }), json!([])),
        (json!({ "path": "emails", "value": [{ "value": "a@x" }] }), json!([home()])),
        (json!({ "path": "emails", "value": "b@x" }), json!([work()])),
        (json!({ "path": "emails[type eq \"WORK\"]" }), json!([home()])),
        (json!({ "path": "emails[value eq \"B@X\"]" }), json!([work()])),
        (json!({ "path": "emails[display eq \"a\"]" }), json!([home()])),
        (json!({ "path": "emails[primary eq true]" }), json!([home()])),
        (json!({ "path": "emails[primary eq false]" }), json!([work()])),
        (json!({ "path": "emails[type eq \"work\" and primary eq false]" }), json!([work(), home()])),
        (json!({ "path": "emails[type eq \"other\"]" }), json!([work(), home()])),
        (json!({ "path": "emails[type eq \"work\"].value" }), json!([home()])),
        (
            json!({ "path": "emails[type eq \"work\"].display" }),
            json!([work_but(&json!({ "display": null })), home()]),
        ),
        (
            json!({ "path": "emails[type eq \"work\"].type" }),
            json!([work_but(&json!({ "type": null })), home()]),
        ),
        (
            json!({ "path": "emails[type eq \"work\"].primary" }),
            json!([work_but(&json!({ "primary": null })), home()]),
        ),
    ] {
        let mut operation = operation;
        operation["op"] = "remove".into();
        assert_eq!(patched(&json!([work(), home()]), &json!([operation])), Ok(expected), "{operation}");
    }
}

#[test]
fn a_replacement_changes_what_is_there() {
    for (path, value, expected) in [
        ("emails", json!("c@x"), Ok(json!([{ "value": "c@x" }]))),
        ("emails", json!(null), Ok(json!([]))),
        (
            "emails",
            json!([{ "value": "c@x", "primary": "True" }]),
            Ok(json!([{ "value": "c@x", "primary": true }])),
        ),
        (
            "emails",
            json!([{ "value": "c@x", "primary": true }, { "value": "d@x", "primary": true }]),
            Err("invalidValue"),
        ),
        ("emails", json!([{ "type": "work" }]), Err("invalidValue")),
        ("emails", json!([{ "value": " c@x" }]), Err("invalidValue")),
        ("emails", json!([7]), Err("invalidValue")),
        (
            "emails[type eq \"work\"].value",
            json!("c@x"),
            Ok(json!([work_but(&json!({ "value": "c@x" })), home()])),
        ),
        (
            "emails[type eq \"work\"]",
            json!({ "value": "c@x", "display": "C" }),
            Ok(json!([work_but(&json!({ "value": "c@x", "display": "C" })), home()])),
        ),
        ("emails[type eq \"home\"].primary", json!(true), Err("invalidValue")),
        (
            "emails[type eq \"home\"].primary",
            json!(false),
            Ok(json!([work(), { "value": "b@x", "type": "home", "primary": false }])),
        ),
        ("emails[type eq \"other\"].value", json!("c@x"), Err("noTarget")),
        ("emails[type eq \"work\"].colour", json!("red"), Err("invalidPath")),
        ("emails[colour eq \"red\"].value", json!("c@x"), Err("invalidPath")),
        ("emails[type eq true].value", json!("c@x"), Err("invalidFilter")),
    ] {
        let operation = json!([{ "op": "replace", "path": path, "value": value }]);
        assert_eq!(patched(&json!([work(), home()]), &operation), expected, "{operation}");
    }
}

#[test]
fn an_addition_keeps_the_others_and_one_primary_address() {
    let was_primary = || work_but(&json!({ "primary": false }));
    for (path, value, expected) in [
        ("emails", json!({ "value": "c@x" }), Ok(json!([work(), home(), { "value": "c@x" }]))),
        (
            "emails",
            json!({ "value": "c@x", "primary": true }),
            Ok(json!([was_primary(), home(), { "value": "c@x", "primary": true }])),
        ),
        (
            "emails",
            json!([{ "value": "a@x", "type": "other" }]),
            Ok(json!([{ "value": "a@x", "type": "other" }, home()])),
        ),
        (
            "emails[type eq \"other\"].value",
            json!("c@x"),
            Ok(json!([work(), home(), { "value": "c@x", "type": "other" }])),
        ),
        (
            "emails[type eq \"other\"]",
            json!({ "value": "c@x" }),
            Ok(json!([work(), home(), { "value": "c@x", "type": "other" }])),
        ),
        ("emails[type eq \"other\"].display", json!("C"), Err("noTarget")),
    ] {
        let operation = json!([{ "op": "add", "path": path, "value": value }]);
        assert_eq!(patched(&json!([work(), home()]), &operation), expected, "{operation}");
    }
}

#[test]
fn a_user_has_a_hundred_addresses_and_no_more() {
    let many = |count: usize| (0..count).map(|number| json!(format!("{number}@x"))).collect::<Value>();
    let count = |all: Value| all.as_array().unwrap().len();
    let add = json!([{ "op": "add", "path": "emails", "value": "one@more" }]);
    assert_eq!(patched(&many(MOST - 1), &add).map(count), Ok(MOST));
    assert_eq!(patched(&many(MOST), &add).map(count), Err("invalidValue"));
}
