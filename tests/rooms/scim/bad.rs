//! Requests that are refused: the status and type of each error, what is counted, and that nothing changes.

use serde_json::{Value, json};
use testkit::tools::root;

use super::{Bed, TOKEN};

#[tokio::test]
async fn what_is_not_understood_is_refused_and_changes_nothing() {
    let bed = Bed::populated().await;
    let (directory, events) = (bed.everything().await, bed.events().await);
    let text = std::fs::read_to_string(root().join("tests/data/scim/bad.json")).unwrap();
    let table: Vec<(String, String, String, u16, Option<String>)> = serde_json::from_str(&text).unwrap();
    assert!(table.len() > 90);
    let mut refused = 0;
    for (method, path, body, status, kind) in &table {
        let said = bed.send(&format!("{method} {path}"), body).await;
        let what = format!("{method} {path} {body}: {}", said.text);
        let error = said.json(*status);
        assert_eq!(error["schemas"], json!(["urn:ietf:params:scim:api:messages:2.0:Error"]), "{what}");
        assert_eq!(error["status"], json!(status.to_string()), "{what}");
        assert_eq!(error["scimType"].as_str(), kind.as_deref(), "{what}");
        assert!(error["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{what}");
        assert_eq!(said.status == 405, said.field("allow").is_some(), "{what}");
        // Clients look for what they are about to create.
        refused += u64::from(method != "GET" || *status != 404);
        assert_eq!(bed.refused(), refused, "{what}");
    }
    assert_eq!(bed.everything().await, directory);
    assert_eq!(bed.events().await, events);
}

#[tokio::test]
async fn each_path_names_the_methods_that_it_takes() {
    let bed = Bed::populated().await;
    for (line, allow) in [
        ("DELETE /Users", "GET, POST"),
        ("PUT /Groups", "GET, POST"),
        ("POST /Users/{ada}", "GET, PUT, PATCH, DELETE"),
        ("POST /Groups/{g}", "GET, PUT, PATCH, DELETE"),
        ("POST /Schemas", "GET"),
        ("POST /ResourceTypes/User", "GET"),
        ("PUT /ServiceProviderConfig", "GET"),
    ] {
        let said = bed.send(line, "{}").await;
        assert_eq!(said.json(405)["detail"], json!("the endpoint does not support this method"), "{line}");
        assert_eq!(said.field("allow"), Some(allow), "{line}");
    }
    for (line, detail) in [
        ("POST /Bulk", "bulk is not supported"),
        ("GET /Me", "/Me is not supported"),
        ("POST /.search", "search with POST is not supported"),
        ("POST /Users/.search", "search with POST is not supported"),
        ("POST /Groups/.search", "search with POST is not supported"),
    ] {
        assert_eq!(bed.send(line, "{}").await.json(501)["detail"], json!(detail), "{line}");
    }
    for (line, detail) in [
        ("GET /Users/nobody", "there is no such user"),
        ("GET /Groups/{ada}", "there is no such group"),
        ("GET /Users/{g}", "there is no such user"),
        ("GET /Schemas/none", "there is no such schema"),
        ("GET /ResourceTypes/none", "there is no such resource type"),
        ("GET /Bulk/x", "there is no such endpoint"),
        ("GET /Persons", "there is no such endpoint"),
        ("GET /Users/%ff", "there is no such endpoint"),
        ("GET /Users/{ada}/groups", "there is no such endpoint"),
    ] {
        assert_eq!(bed.send(line, "").await.json(404)["detail"], json!(detail), "{line}");
    }
}

#[tokio::test]
async fn bodies_of_other_types_and_those_that_are_too_large_are_refused() {
    let bed = Bed::start().await;
    for (place, (kinds, status)) in [
        (&[][..], 201),
        (&["application/json"], 201),
        (&["Application/SCIM+JSON;charset=utf-8"], 201),
        (&["text/plain"], 415),
        (&["application/x-www-form-urlencoded"], 415),
        (&["application/json", "application/json"], 415),
    ]
    .into_iter()
    .enumerate()
    {
        let body = json!({"userName": format!("user-{place}")}).to_string();
        let kinds = kinds.iter().map(|kind| ("content-type", *kind));
        let fields: Vec<_> = kinds.chain([("authorization", TOKEN)]).collect();
        let shown = bed.send_with("POST /Users", &fields, Some(&body)).await.json(status);
        let wanted = json!("the body must be application/scim+json or application/json");
        assert_eq!(shown["detail"], if status == 415 { wanted } else { Value::Null }, "{fields:?}");
    }
    // A DELETE has no body, and so no type.
    let fields = [("authorization", TOKEN), ("content-type", "text/plain")];
    assert_eq!(bed.send_with("DELETE /Users/nobody", &fields, Some("")).await.status, 404);
    let said = bed.send_with("POST /Users", &fields, None).await.json(413);
    assert_eq!(said["detail"], json!("the body is larger than 1 MiB"));
    assert_eq!(bed.get("/Users").await.json(200)["totalResults"], json!(3));
}
