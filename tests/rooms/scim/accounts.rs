//! Users of the embedded authority whom a provider manages: each change arrives there.

use std::sync::Arc;

use arc_swap::ArcSwap;
use portcullis::authority::{self, Authority, User};
use portcullis::enforce::decide::InForce;
use portcullis::metrics::Metrics;
use portcullis::state::Store;
use portcullis::time::Now;
use serde_json::{Value, json};

use super::{Bed, ISSUER};
use crate::issuing;
use crate::signal_log::Published;

/// A provider of the users of an authority, and the authority.
async fn providing() -> (Bed, Arc<Authority>) {
    let (store, metrics) = (Store::in_memory(Now::read()).unwrap(), Metrics::new().unwrap());
    let published = Published::over(store.clone(), &metrics).await;
    let (revocations, sessions) = (Arc::clone(&published.revocations), Arc::clone(&published.sessions));
    let parts = authority::Parts {
        store: store.clone(),
        log: Arc::clone(&published.log),
        in_force: InForce { revocations, sessions, ..InForce::unlimited() },
        issuers: Arc::new(ArcSwap::default()),
        metrics: metrics.clone(),
    };
    let authority = issuing::open(ISSUER, parts).await;
    (Bed::with(store, metrics, published, Some(Arc::clone(&authority))), authority)
}

/// The users of an authority: id, name, roles, role version and whether they are active.
fn accounts(authority: &Authority) -> Vec<Value> {
    let shown =
        |user: Arc<User>| json!([&*user.id, user.name, user.roles, user.role_version, user.is_active]);
    ["ada", "bob"].into_iter().filter_map(|id| authority.user(id)).map(shown).collect()
}

#[tokio::test]
async fn each_change_of_a_provider_arrives_at_the_users_of_the_authority() {
    let (mut bed, authority) = providing().await;
    let shown = bed.create("/Users", "ada", &json!({"userName": "ada", "displayName": "Ada"})).await;
    assert_eq!(shown["id"], json!("ada"), "the user is known by its subject");
    assert_eq!(accounts(&authority), [json!(["ada", "Ada", [], 1, true])]);
    assert_eq!(bed.events().await, [""; 0], "it had no token");

    let admins = json!({"displayName": "Admins", "members": [{"value": "ada"}]});
    bed.create("/Groups", "admins", &admins).await;
    assert_eq!(accounts(&authority), [json!(["ada", "Ada", ["admin"], 2, true])]);
    assert_eq!(bed.events().await, ["role-changed ada"]);

    bed.patch("/Users/ada", &json!([{"op": "replace", "path": "active", "value": false}])).await.json(200);
    assert_eq!(accounts(&authority), [json!(["ada", "Ada", ["admin"], 3, false])]);
    assert_eq!(bed.events().await.len(), 2, "one event, by the authority");

    bed.create("/Users", "bob", &json!({"userName": "bob"})).await;
    bed.send("DELETE /Users/ada", "").await.is_empty(204);
    assert_eq!(accounts(&authority), [json!(["bob", "bob", [], 1, true])]);

    // Somebody else was quicker: what the provider wanted is so.
    authority.delete_user("bob").await.unwrap();
    bed.send("DELETE /Users/bob", "").await.is_empty(204);
    assert_eq!(accounts(&authority), [json!(null); 0]);
}

#[tokio::test]
async fn a_user_that_the_authority_refuses_changes_nothing_in_the_directory() {
    let (mut bed, authority) = providing().await;
    for (name, detail) in [
        ("a/b", "the subject contains a character that is not allowed in a user id"),
        ("..", "the authority's user: id: cannot be used in the path of a URL"),
    ] {
        let error = bed.send("POST /Users", &json!({"userName": name}).to_string()).await.json(400);
        assert_eq!(error["scimType"], json!("invalidValue"), "{error}");
        assert_eq!(error["detail"], json!(detail), "{name}");
        assert_eq!(bed.get("/Users").await.json(200)["totalResults"], json!(0), "{name:?}");
    }
    bed.create("/Users", "ada", &json!({"userName": "ada"})).await;
    assert_eq!(accounts(&authority).len(), 1);
}
