//! Changes of users: what the response shows, which versions they are made to, and whose tokens they end.

use serde_json::{Value, json};

use super::{Bed, take_meta};

#[tokio::test]
async fn a_user_is_replaced_changed_and_deleted() {
    let bed = Bed::populated().await;
    let body = json!({"userName": "ada", "displayName": "Ada", "externalId": "x"}).to_string();
    let said = bed.send("PUT /Users/{ada}", &body).await;
    let mut shown = said.json(200);
    assert_eq!((said.field("etag"), said.field("location")), (Some("W/\"4\""), None));
    take_meta(&mut shown, "User");
    let groups = shown.as_object_mut().unwrap().remove("groups").unwrap();
    assert_eq!(groups[0]["value"], json!(bed.named("{g}")), "groups are not the provider's to replace");
    let user = json!({
        "schemas": ["urn:ietf:params:scim:schemas:core:2.0:User"], "id": bed.named("{ada}"),
        "userName": "ada", "displayName": "Ada", "externalId": "x", "active": true,
    });
    assert_eq!(shown, user);
    for (operation, place, expected) in [
        (
            json!({"op": "replace", "path": "displayName", "value": "Countess"}),
            "/displayName",
            json!("Countess"),
        ),
        (json!({"op": "remove", "path": "displayName"}), "/displayName", Value::Null),
        (json!({"op": "add", "path": "title", "value": "Dr"}), "/title", Value::Null),
        (json!({"op": "remove", "path": "title"}), "/title", Value::Null),
        (json!({"op": "add", "path": "ims[type eq \"x\"].value", "value": "1"}), "/ims", Value::Null),
        (
            json!({"op": "add", "name": "addMail", "path": "emails[type eq \"work\"].value", "value": "a@b"}),
            "/emails",
            json!([{"value": "a@b", "type": "work"}]),
        ),
        (json!({"op": "remove", "path": "emails"}), "/emails", Value::Null),
        (json!({"op": "replace", "path": "id", "value": "{ada}"}), "/displayName", Value::Null),
        (json!({"op": "replace", "value": {"name.givenName": "A"}}), "/name", json!({"givenName": "A"})),
        (json!({"op": "replace", "path": "active", "value": "true"}), "/active", json!(true)),
    ] {
        let shown = bed.patch("/Users/{ada}", &json!([operation])).await.json(200);
        assert_eq!(shown.pointer(place).cloned().unwrap_or_default(), expected, "{operation}");
        assert_eq!(bed.get("/Users/{ada}").await.json(200), shown, "{operation}");
    }
    bed.send("DELETE /Users/{ada}", "").await.is_empty(204);
    assert_eq!(bed.get("/Users/{ada}").await.status, 404);
    assert_eq!(bed.send("DELETE /Users/{ada}", "").await.status, 404);
    assert_eq!(bed.get("/Groups/{g}").await.json(200)["members"], json!([]));
    assert_eq!(bed.get("/Users").await.json(200)["totalResults"], json!(1));
}

#[tokio::test]
async fn a_change_is_made_only_to_a_version_that_is_expected() {
    let bed = Bed::populated().await;
    let body = |name: &str| {
        json!({"Operations": [{"op": "replace", "path": "displayName", "value": name}]}).to_string()
    };
    // Each change that is made raises the revision, which is 3 to begin with.
    for (tags, status, revision) in [
        ("W/\"0\"", 412, 2),
        ("W/\"0\", W/\"2\"", 200, 4),
        ("W/\"2\"", 412, 4),
        ("\"4\"", 200, 5),
        ("*", 200, 6),
        ("\"0\", *", 200, 7),
        (", ,", 200, 8),
    ] {
        let said =
            bed.send_if("PATCH /Users/{bob}", tags, &body(&format!("{tags}{revision}"))).await.json(status);
        if status == 412 {
            let detail = json!("the version of the resource does not match If-Match");
            assert_eq!(said["detail"], detail, "{tags}");
        }
        let now = bed.get("/Users/{bob}").await;
        assert_eq!(now.field("etag"), Some(&*format!("W/\"{revision}\"")), "{tags}");
    }
    for line in ["DELETE /Users/{bob}", "DELETE /Groups/{g}", "PATCH /Groups/{g}"] {
        bed.send_if(line, "W/\"1\"", &body("x")).await.json(412);
    }
    bed.send_if("PATCH /Groups/{g}", "W/\"3\"", &body("G")).await.is_empty(204);
    assert_eq!(bed.get("/Groups/{g}").await.field("etag"), Some("W/\"3\""), "nothing changed");
    bed.send_if("DELETE /Users/{bob}", "W/\"8\"", "").await.is_empty(204);
}

#[tokio::test]
async fn what_a_change_takes_away_ends_tokens() {
    let bed = Bed::populated().await;
    let mut events = vec!["role-changed ada".to_owned()];
    assert_eq!(bed.events().await, events, "it came into the group");
    let set = |path: &str, value: Value| json!([{"op": "replace", "path": path, "value": value}]);
    for (path, operations, ends) in [
        ("/Users/{ada}", set("displayName", json!("Ada")), None),
        ("/Users/{ada}", set("active", json!("False")), Some("subject-revoked ada")),
        ("/Users/{ada}", set("active", json!(false)), None),
        ("/Users/{ada}", set("active", json!("True")), None),
        ("/Users/{ada}", set("userName", json!("ada2")), Some("subject-revoked ada")),
        ("/Groups/{g}", set("displayName", json!("H")), Some("role-changed ada2")),
        ("/Groups/{g}", set("externalId", json!("x")), None),
        (
            "/Groups/{g}",
            json!([{"op": "add", "path": "members", "value": {"value": "{bob}"}}]),
            Some("role-changed bob"),
        ),
        (
            "/Groups/{g}",
            json!([{"op": "remove", "path": "members[value eq \"{bob}\"]"}]),
            Some("role-changed bob"),
        ),
        ("/Groups/{g}", json!([{"op": "remove", "path": "members[value eq \"{bob}\"]"}]), None),
    ] {
        bed.another_moment().await;
        let said = bed.patch(path, &operations).await;
        assert!([200, 204].contains(&said.status), "{operations}: {said:?}");
        events.extend(ends.map(str::to_owned));
        assert_eq!(bed.events().await, events, "{operations}");
    }
    bed.send("POST /Users", "{\"userName\": \"eve\", \"active\": false}").await.json(201);
    bed.send("DELETE /Users/{ada}", "").await.is_empty(204);
    events.extend(["subject-revoked eve", "subject-revoked ada2"].map(str::to_owned));
    assert_eq!(bed.events().await, events);
    let stored = bed.log.events(0, 1).await.unwrap().items.remove(0);
    assert_eq!((stored.source.as_str(), &*stored.event.issuer), ("scim", "https://idp.example.com/"));
}
