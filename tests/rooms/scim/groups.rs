//! Groups: their members as providers send them, their names and their roles.

use serde_json::{Value, json};

use super::{BASE, Bed, take_meta};

#[tokio::test]
async fn a_group_shows_its_name_and_its_members() {
    let mut bed = Bed::populated().await;
    let members = json!([{"value": "{ada}", "type": "User"}, {"value": "{bob}", "type": "user"}]);
    bed.create("/Groups", "h", &json!({"displayName": "H", "externalId": "x", "members": members})).await;
    let mut shown = bed.get("/Groups/{h}").await.json(200);
    take_meta(&mut shown, "Group");
    let member = |name: &str| {
        let id = &bed.ids[name];
        json!({"value": id, "type": "User", "$ref": format!("{BASE}/v2/Users/{id}")})
    };
    let expected = json!({
        "schemas": ["urn:ietf:params:scim:schemas:core:2.0:Group"],
        "id": bed.ids["h"], "displayName": "H", "externalId": "x", "members": [member("ada"), member("bob")],
    });
    assert_eq!(shown, expected);
    let without = bed.get("/Groups/{h}?excludedAttributes=members").await.json(200);
    assert_eq!((&without["members"], &without["displayName"]), (&Value::Null, &json!("H")));
    let body = json!({"displayName": "H2", "members": [{"value": "{bob}"}]}).to_string();
    let replaced = bed.send("PUT /Groups/{h}", &body).await.json(200);
    assert_eq!(replaced["displayName"], json!("H2"));
    assert_eq!((&replaced["externalId"], &replaced["members"]), (&Value::Null, &json!([member("bob")])));
    bed.send("DELETE /Groups/{h}", "").await.is_empty(204);
    assert_eq!(bed.get("/Groups/{h}").await.status, 404);
}

#[tokio::test]
async fn members_come_and_go_in_every_form_that_providers_send() {
    let bed = Bed::populated().await;
    for (operation, members) in [
        (
            json!({"op": "add", "path": "members", "value": [{"value": "{bob}", "type": "User"}]}),
            &["ada", "bob"][..],
        ),
        (json!({"op": "remove", "path": "members[value eq \"{bob}\"]"}), &["ada"]),
        (json!({"op": "ADD", "path": "members", "value": {"value": "{bob}"}}), &["ada", "bob"]),
        (json!({"op": "Remove", "path": "members", "value": [{"$ref": null, "value": "{ada}"}]}), &["bob"]),
        (
            json!({"op": "add", "path": "members", "value": {"Members": [{"value": "{ada}"}]}}),
            &["ada", "bob"],
        ),
        (json!({"op": "replace", "value": {"members": {"value": "{bob}"}}}), &["bob"]),
        (json!({"op": "add", "value": {"members": null}}), &["bob"]),
        (json!({"op": "remove", "path": "members"}), &[]),
    ] {
        bed.patch("/Groups/{g}", &json!([operation])).await.is_empty(204);
        let shown = bed.get("/Groups/{g}").await.json(200);
        let listed: Vec<_> = shown["members"].as_array().unwrap().iter().map(|one| &one["value"]).collect();
        let ids: Vec<_> = members.iter().map(|name| bed.ids[name].as_str()).collect();
        assert_eq!(listed, ids, "{operation}");
    }
    let operation = json!([{"op": "add", "path": "externalId", "value": "x"}]);
    bed.patch("/Groups/{g}", &operation).await.is_empty(204);
    assert_eq!(bed.get("/Groups/{g}").await.json(200)["externalId"], json!("x"));
}

#[tokio::test]
async fn another_group_of_the_same_role_changes_no_role() {
    let mut bed = Bed::populated().await;
    bed.create("/Groups", "admins", &json!({"displayName": "Admins", "members": [{"value": "{bob}"}]})).await;
    bed.create("/Groups", "admin", &json!({"displayName": "admin", "members": [{"value": "{bob}"}]})).await;
    bed.send("DELETE /Groups/{admins}", "").await.is_empty(204);
    assert_eq!(bed.events().await, ["role-changed ada", "role-changed bob"]);
    bed.another_moment().await;
    bed.send("DELETE /Groups/{admin}", "").await.is_empty(204);
    assert_eq!(bed.events().await, ["role-changed ada", "role-changed bob", "role-changed bob"]);
}
