//! The directory in its store: what a restart keeps, what replicas see of each other, and a store that has lost it.

use portcullis::state::Store;
use portcullis::state::redis;
use portcullis::state::redis::endpoint::RedisEndpoint;
use portcullis::time::Now;
use serde_json::json;
use testkit::redis_server::RedisServer;

use super::Bed;
use crate::transfer::{TERMS, follow};

#[tokio::test]
async fn a_directory_survives_a_restart_and_goes_on() {
    let store = Store::in_memory(Now::read()).unwrap();
    let mut bed = Bed::over(store.clone()).await;
    bed.populate().await;
    bed.patch("/Users/{bob}", &json!([{"op": "replace", "path": "displayName", "value": "Bob"}]))
        .await
        .json(200);
    let (directory, ids) = (bed.everything().await, bed.ids.clone());
    let mut bed = Bed { ids, ..Bed::over(store.clone()).await };
    assert_eq!(bed.everything().await, directory);
    bed.send("POST /Users", "{\"userName\": \"Ada\"}").await.json(409);
    bed.send("DELETE /Users/{ada}", "").await.is_empty(204);
    bed.send("DELETE /Groups/{g}", "").await.is_empty(204);
    let shown = bed.create("/Users", "eve", &json!({"userName": "eve"})).await;
    assert_eq!(shown["meta"]["version"], json!("W/\"7\""));
    let names = |users: &serde_json::Value| {
        let users = users["Resources"].as_array().unwrap();
        users.iter().map(|user| user["userName"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let [users, groups] = Bed::over(store).await.everything().await;
    assert_eq!((names(&users), &groups["Resources"]), (vec!["bob".to_owned(), "eve".to_owned()], &json!([])));
}

#[tokio::test]
async fn replicas_see_each_others_changes_and_restore_a_store_that_has_lost_them() {
    let server = RedisServer::start();
    let settings = redis::Settings {
        endpoint: RedisEndpoint::parse(&server.url()).unwrap(),
        events: None,
        ca: None,
        key_prefix: "t".to_owned(),
    };
    // Never stale, so that the test may take as long as it needs.
    let terms = redis::RedisTerms { max_staleness: std::time::Duration::from_secs(3_600), ..TERMS };
    let mut one = Bed::over(follow(&settings, terms).await).await;
    let two = Bed::over(follow(&settings, terms).await).await;
    one.populate().await;
    assert_eq!(two.everything().await, one.everything().await);
    let two = Bed { ids: one.ids.clone(), ..two };
    two.send("DELETE /Users/{bob}", "").await.is_empty(204);
    assert_eq!(one.get("/Users/{bob}").await.status, 404);
    let directory = one.everything().await;

    let keys: Vec<String> = server.ask(&["KEYS", "*idp*"]);
    assert!(!keys.is_empty());
    for key in keys {
        server.ask::<u64>(&["DEL", &key]);
    }
    assert_eq!(one.everything().await, directory, "its copy is written back");
    assert_eq!(Bed::over(follow(&settings, terms).await).await.everything().await, directory);
    assert_eq!(two.everything().await, directory);
}
