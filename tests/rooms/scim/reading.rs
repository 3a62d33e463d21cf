//! Users and groups as they are read: alone, found by a filter, page by page, and only if they have changed.

use serde_json::{Value, json};

use super::{BASE, Bed, TOKEN, take_meta};

#[tokio::test]
async fn a_user_shows_what_it_was_created_with_its_groups_and_its_version() {
    let mut bed = Bed::start().await;
    let body = json!({
        "schemas": ["urn:ietf:params:scim:schemas:core:2.0:User"],
        "userName": "ada", "externalId": "x-1", "displayName": "Ada", "title": "Countess", "active": "True",
        "name": {"givenName": "Ada", "familyName": "Lovelace"},
        "emails": [{"value": "ada@example.com", "type": "work", "primary": true}],
    });
    bed.create("/Users", "ada", &body).await;
    bed.create("/Groups", "g", &json!({"displayName": "G", "members": [{"value": "{ada}"}]})).await;
    let said = bed.get("/Users/{ada}").await;
    let mut shown = said.json(200);
    let meta = take_meta(&mut shown, "User");
    let group = bed.named("{g}");
    let expected = json!({
        "schemas": ["urn:ietf:params:scim:schemas:core:2.0:User"],
        "id": bed.named("{ada}"), "userName": "ada", "externalId": "x-1", "displayName": "Ada", "active": true,
        "name": {"givenName": "Ada", "familyName": "Lovelace"},
        "emails": [{"value": "ada@example.com", "type": "work", "primary": true}],
        "groups": [{"value": group, "display": "G", "type": "direct", "$ref": format!("{BASE}/v2/Groups/{group}")}],
    });
    assert_eq!(shown, expected);
    assert_eq!(meta["version"], json!("W/\"2\""));
    assert_eq!(said.field("etag"), Some("W/\"2\""));
    assert_eq!(said.field("location"), None);
}

#[tokio::test]
async fn a_resource_that_is_created_has_a_location_and_a_version() {
    let bed = Bed::start().await;
    for (path, body, version) in [
        ("/Users", json!({"userName": "ada"}), "W/\"1\""),
        ("/Groups", json!({"displayName": "G"}), "W/\"2\""),
    ] {
        let said = bed.send(&format!("POST {path}"), &body.to_string()).await;
        let shown = said.json(201);
        let location = format!("{BASE}/v2{path}/{}", shown["id"].as_str().unwrap());
        assert_eq!((said.field("location"), said.field("etag")), (Some(&*location), Some(version)));
        assert_eq!(shown["meta"]["location"], json!(location));
    }
}

#[tokio::test]
async fn users_and_groups_are_found_by_filters() {
    let bed = Bed::populated().await;
    for (query, found) in [
        ("/Users", &["ada", "bob"][..]),
        ("/Users?filter=userName+eq+%22ADA%22", &["ada"]),
        ("/Users?filter=emails.value+eq+%22Bob@example.com%22", &["bob"]),
        ("/Users?filter=active+eq+true", &["ada", "bob"]),
        ("/Users?filter=userName+eq+%22eve%22", &[]),
        ("/Groups", &["g"]),
        ("/Groups?filter=displayName+eq+%22g%22", &["g"]),
        ("/Groups?filter=members+eq+%22{ada}%22", &["g"]),
        ("/Groups?filter=members+eq+%22{bob}%22", &[]),
    ] {
        let page = bed.get(query).await.json(200);
        let ids: Vec<_> = found.iter().map(|name| bed.ids[name].as_str()).collect();
        let listed: Vec<_> = page["Resources"].as_array().unwrap().iter().map(|one| &one["id"]).collect();
        assert_eq!(listed, ids, "{query}");
        assert_eq!(page["totalResults"], json!(ids.len()), "{query}");
        assert_eq!(page["schemas"], json!(["urn:ietf:params:scim:api:messages:2.0:ListResponse"]), "{query}");
    }
    let listed = bed.get("/Groups").await.json(200);
    assert_eq!(listed["Resources"], json!([bed.get("/Groups/{g}").await.json(200)]));
}

#[tokio::test]
async fn pages_have_one_order_and_show_the_attributes_that_are_asked_for() {
    let bed = Bed::start().await;
    for place in 0..5 {
        bed.send("POST /Users", &json!({"userName": format!("u{place}")}).to_string()).await.json(201);
    }
    for (query, names, start) in [
        ("", &["u0", "u1", "u2", "u3", "u4"][..], 1),
        ("?startIndex=2&count=2", &["u1", "u2"], 2),
        ("?startIndex=5&count=2", &["u4"], 5),
        ("?startIndex=6", &[], 6),
        ("?startIndex=0&count=1", &["u0"], 1),
        ("?count=0", &[], 1),
    ] {
        let page = bed.get(&format!("/Users{query}")).await.json(200);
        let listed: Vec<_> =
            page["Resources"].as_array().unwrap().iter().map(|one| &one["userName"]).collect();
        assert_eq!(listed, names, "{query}");
        let counts = (&page["totalResults"], &page["startIndex"], &page["itemsPerPage"]);
        assert_eq!(counts, (&json!(5), &json!(start), &json!(names.len())), "{query}");
    }
    let members = |shown: &Value| shown.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    let page = bed.get("/Users?count=1&attributes=userName").await.json(200);
    assert_eq!(members(&page["Resources"][0]), ["id", "schemas", "userName"]);
    let created =
        bed.send("POST /Users?excludedAttributes=meta,active", "{\"userName\": \"v\"}").await.json(201);
    assert_eq!(members(&created), ["id", "schemas", "userName"]);
}

#[tokio::test]
async fn what_the_client_has_already_is_not_sent_again() {
    let bed = Bed::populated().await;
    // The second user is of the second revision; the group and its member are of the third.
    for (path, tags, status) in [
        ("/Users/{bob}", &[][..], 200),
        ("/Users/{bob}", &["W/\"2\""], 304),
        ("/Users/{bob}", &["\"2\""], 304),
        ("/Users/{bob}", &["W/\"1\", W/\"2\""], 304),
        ("/Users/{bob}", &["W/\"1\"", "W/\"2\""], 304),
        ("/Users/{bob}", &["W/\"1\""], 200),
        ("/Users/{bob}", &[" , "], 200),
        ("/Users/{ada}", &["W/\"3\""], 304),
        ("/Groups/{g}", &["W/\"3\""], 304),
        ("/Groups/{g}", &["W/\"2\""], 200),
    ] {
        let tags = tags.iter().map(|tag| ("if-none-match", *tag));
        let fields: Vec<_> = tags.chain([("authorization", TOKEN)]).collect();
        let said = bed.send_with(&format!("GET {path}"), &fields, Some("")).await;
        if status == 304 { said.is_empty(304) } else { drop(said.json(200)) }
    }
}
