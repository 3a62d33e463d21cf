//! Users and credentials: created, listed, changed, deleted, and what each change ends.

use std::time::Duration;

use portcullis::identity::ClientKey;
use portcullis::revocations::{Ended, TokenFacts};
use portcullis::time::{Now, Timestamp};
use serde_json::{Value, json};

use testkit::wire::Answer;

use crate::admin_api::{A, Gate, HOUR, Shown as _, facts};

impl Gate {
    /// Creates an object.
    pub(crate) async fn create(&self, endpoint: &str, document: &Value) -> Value {
        let answer = self.call(&format!("POST {endpoint}"), &document.to_string()).await;
        assert_eq!(answer.status(), 201, "{document}: {answer:?}");
        answer.json()
    }

    pub(crate) async fn user(&self, id: &str, roles: &[&str]) -> Value {
        self.create("/v1/users", &json!({"id": id, "name": format!("{id}'s name"), "roles": roles})).await
    }

    /// Creates a credential of a user; returns it and its client id.
    pub(crate) async fn credential(&self, owner: &str, roles: &[&str]) -> (Value, String) {
        let asked =
            json!({"name": "Invoice robot", "owner": owner, "roles": roles, "scopes": ["read:deals"]});
        let made = self.create("/v1/credentials", &asked).await;
        let client_id = made["client_id"].as_str().unwrap().to_owned();
        (made, client_id)
    }

    /// What has ended a token of this subject and client that was issued earlier.
    fn ended(&self, subject: &str, client: &str) -> Option<Ended> {
        let facts = facts(A, subject, Timestamp::now().minus(Duration::from_secs(2)));
        let facts = TokenFacts { client: Some(ClientKey::new(A, client)), ..facts };
        self.ledger.revocations.load().judge(&facts, Now::read())
    }
}

/// Removes an unpredictable member: a time not before `since`.
#[track_caller]
fn take_time(document: &mut Value, member: &str, since: Timestamp) {
    let time = document.as_object_mut().unwrap().remove(member).unwrap();
    assert!(time.as_str().unwrap() >= since.to_string().as_str(), "{member}: {time}");
}

#[track_caller]
fn take_text(document: &mut Value, member: &str) -> String {
    document.as_object_mut().unwrap().remove(member).unwrap().as_str().unwrap().to_owned()
}

#[track_caller]
fn is_gone(answer: &Answer) {
    assert_eq!((answer.status(), answer.text().as_str()), (204, ""), "{answer:?}");
}

#[tokio::test]
async fn a_user_is_created_shown_changed_and_deleted() {
    let (gate, before) = (Gate::issuing().await, Timestamp::now());
    let mut user = gate.user("alice", &["case-reader", "case-writer", "case-reader"]).await;
    assert_eq!(gate.call("GET /v1/users/alice", "").await.json(), user);
    take_time(&mut user, "created_at", before);
    let mut expected = json!({"id": "alice", "name": "alice's name", "roles": ["case-reader", "case-writer"], "role_version": 1,
        "has_password": false});
    assert_eq!(user, expected);
    assert_eq!(gate.ended("alice", "app"), None);

    let answer = gate.call("PUT /v1/users/alice/roles", r#"{"roles":["case-writer"]}"#).await;
    assert_eq!(answer.status(), 200, "{answer:?}");
    assert_eq!(answer.field("cache-control"), Some("no-store"), "{answer:?}");
    let mut user = answer.json();
    take_time(&mut user, "created_at", before);
    expected["roles"] = json!(["case-writer"]);
    expected["role_version"] = json!(2);
    assert_eq!(user, expected);
    assert_eq!(gate.ended("alice", "app"), Some(Ended::Roles));
    assert_eq!(gate.ended("bob", "app"), None);

    let none = gate.call("PUT /v1/users/alice/roles", r#"{"roles":[]}"#).await.json();
    assert_eq!((&none["roles"], &none["role_version"]), (&json!([]), &json!(3)));
    is_gone(&gate.call("DELETE /v1/users/alice", "").await);
    for line in ["GET /v1/users/alice", "DELETE /v1/users/alice"] {
        assert_eq!(gate.call(line, "").await.problem(404), "there is no such user", "{line}");
    }
    let roles = gate.call("PUT /v1/users/alice/roles", r#"{"roles":[]}"#).await;
    assert_eq!(roles.problem(404), "there is no such user");
    let plain = gate.create("/v1/users", &json!({"id": "alice"})).await;
    assert_eq!((&plain["name"], &plain["roles"]), (&json!("alice"), &json!([])));
    assert_eq!(plain["role_version"], 4, "tokens of the former one stay older");
}

#[tokio::test]
async fn a_password_is_set_and_taken_away_and_only_whether_there_is_one_is_shown() {
    let gate = Gate::issuing().await;
    let authority = gate.authority.clone().unwrap();
    gate.user("alice", &["case-reader"]).await;
    gate.user("bob", &[]).await;
    let signs_in = async |id: &str, text: &str| authority.sign_in(id, text.to_owned().into()).await.is_some();
    let shown = async || {
        let alice = gate.call("GET /v1/users/alice", "").await.json();
        assert_eq!(gate.call("GET /v1/users", "").await.items()[0], alice);
        assert_eq!(alice.as_object().unwrap().len(), 6, "{alice}");
        alice["has_password"].clone()
    };
    assert_eq!((shown().await, authority.has_password_users()), (json!(false), false));
    let before = gate.call("GET /v1/events", "").await.items();
    for text in ["correct horse", "\u{0} äöü 🔑", "correct horse"] {
        let body = json!({"password": text}).to_string();
        is_gone(&gate.call("PUT /v1/users/alice/password", &body).await);
        assert_eq!((shown().await, authority.has_password_users()), (json!(true), true));
        assert!(signs_in("alice", text).await && !signs_in("bob", text).await, "{text:?}");
        assert!(!signs_in("alice", &format!("{text} ")).await, "{text:?}");
    }
    let roles = gate.call("PUT /v1/users/alice/roles", r#"{"roles":["case-writer"]}"#).await.json();
    assert_eq!((&roles["has_password"], &roles["roles"]), (&json!(true), &json!(["case-writer"])));
    assert!(signs_in("alice", "correct horse").await);
    is_gone(&gate.call("DELETE /v1/users/alice/password", "").await);
    assert!(!signs_in("alice", "correct horse").await);
    assert_eq!((shown().await, authority.has_password_users()), (json!(false), false));
    is_gone(&gate.call("DELETE /v1/users/alice/password", "").await);
    let events = gate.call("GET /v1/events", "").await.items();
    assert_eq!(
        events.len(),
        before.len() + 1,
        "a password is no event, a change of roles is one: {events:?}"
    );
}

#[tokio::test]
async fn ids_of_any_kind_are_found_by_their_path() {
    let gate = Gate::issuing().await;
    for (id, path) in [
        ("ada@example.com", "ada@example.com"),
        ("a/b", "a%2Fb"),
        ("100%", "100%25"),
        ("Zoë Ångström", "Zo%C3%AB%20%C3%85ngstr%C3%B6m"),
        ("?x#y", "%3Fx%23y"),
        ("a+b", "a+b"),
    ] {
        gate.user(id, &[]).await;
        let shown = gate.call(&format!("GET /v1/users/{path}"), "").await;
        assert_eq!((shown.status(), &shown.json()["id"]), (200, &json!(id)));
        let (credential, _) = gate.credential(id, &[]).await;
        assert_eq!(credential["owner"], id);
        is_gone(&gate.call(&format!("DELETE /v1/users/{path}"), "").await);
    }
    assert!(gate.call("GET /v1/users", "").await.items().is_empty());
    assert!(gate.call("GET /v1/credentials", "").await.items().is_empty());
}

#[tokio::test]
async fn lists_are_in_order_and_in_pages() {
    let gate = Gate::issuing().await;
    let ids: Vec<String> = (0..25).map(|number| format!("user & {number:02}")).collect();
    let mut mine = Vec::new();
    for id in ids.iter().rev() {
        gate.user(id, &["r"]).await;
    }
    for place in 0..25 {
        let owner = if place % 5 == 0 { &ids[1] } else { &ids[0] };
        let (_, client_id) = gate.credential(owner, &["r"]).await;
        if *owner == ids[0] {
            mine.push(client_id);
        }
    }
    mine.sort_unstable();
    for (query, member, expected) in [
        ("/v1/users?limit=10", "id", ids.clone()),
        ("/v1/users?limit=25", "id", ids.clone()),
        ("/v1/credentials?limit=7&owner=user+%26%2000", "client_id", mine),
    ] {
        let (mut seen, mut after) = (Vec::new(), String::new());
        loop {
            let page = gate.call(&format!("GET {query}{after}"), "").await;
            seen.extend(page.items().iter().map(|item| item[member].as_str().unwrap().to_owned()));
            match page.json()["next"].as_str() {
                Some(next) => after = format!("&after={}", next.replace('&', "%26").replace(' ', "%20")),
                None => break,
            }
        }
        assert_eq!(seen, expected, "{query}");
    }
    assert_eq!(gate.call("GET /v1/credentials", "").await.items().len(), 25);
    assert!(gate.call("GET /v1/credentials?owner=nobody", "").await.items().is_empty());
}

#[tokio::test]
async fn a_credential_is_created_shown_changed_and_deleted() {
    let (gate, before) = (Gate::issuing().await, Timestamp::now());
    gate.user("alice", &["case-reader", "case-writer"]).await;
    let end = Timestamp::from_secs(before.as_secs()).plus(30 * 24 * HOUR);
    let asked = json!({
        "name": "Invoice robot", "owner": "alice", "roles": ["case-reader"],
        "scopes": ["read:users", "read:deals"], "tenant": "t-1", "expires_at": end.as_secs(),
    });
    let mut made = gate.create("/v1/credentials", &asked).await;
    let secret = take_text(&mut made, "client_secret");
    assert!(secret.len() >= 43 && secret.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{secret}");
    let path = format!("/v1/credentials/{}", made["client_id"].as_str().unwrap());
    let shown = gate.call(&format!("GET {path}"), "").await;
    assert_eq!(shown.field("cache-control"), Some("no-store"), "{shown:?}");
    assert_eq!(shown.json(), made);
    assert_eq!(gate.call("GET /v1/credentials", "").await.items(), [made.clone()]);
    let client_id = take_text(&mut made, "client_id");
    take_time(&mut made, "created_at", before);
    let mut expected = asked;
    expected["expires_at"] = end.to_string().into();
    assert_eq!(made, expected);

    let later = end.plus(HOUR).to_string();
    for (body, member, value) in [
        (json!({}), "name", json!("Invoice robot")),
        (json!({"name": "Zoë's robot"}), "name", json!("Zoë's robot")),
        (json!({"expires_at": later}), "expires_at", json!(later)),
        (json!({"expires_at": end.as_secs().to_string()}), "expires_at", json!(end.to_string())),
        (json!({"expires_at": null}), "expires_at", Value::Null),
        (json!({"name": "Both", "expires_at": end.as_secs()}), "expires_at", json!(end.to_string())),
    ] {
        let answer = gate.call(&format!("PATCH {path}"), &body.to_string()).await;
        let mut edited = answer.json();
        assert_eq!(answer.status(), 200, "{body}: {answer:?}");
        assert_eq!(gate.call(&format!("GET {path}"), "").await.json(), edited, "{body}");
        assert_eq!(edited[member], value, "{body}");
        take_time(&mut edited, "created_at", before);
        assert_eq!(take_text(&mut edited, "client_id"), client_id);
        for untouched in ["owner", "roles", "scopes", "tenant"] {
            assert_eq!(edited[untouched], expected[untouched], "{body}");
        }
    }
    assert_eq!(gate.ended("alice", &client_id), None);

    is_gone(&gate.call(&format!("DELETE {path}"), "").await);
    assert_eq!(gate.ended("alice", &client_id), Some(Ended::Client));
    for (method, body) in [("GET", ""), ("DELETE", ""), ("PATCH", "{}")] {
        let told = gate.call(&format!("{method} {path}"), body).await.problem(404);
        assert_eq!(told, "there is no such credential", "{method}");
    }
    let told = gate.call(&format!("POST {path}/secret"), "").await.problem(404);
    assert_eq!(told, "there is no such credential");
    assert!(gate.call("GET /v1/credentials", "").await.items().is_empty());
}

#[tokio::test]
async fn an_end_that_comes_sooner_ends_tokens_that_would_outlive_it() {
    let gate = Gate::issuing().await;
    gate.user("alice", &[]).await;
    let (_, client_id) = gate.credential("alice", &[]).await;
    let path = format!("/v1/credentials/{client_id}");
    for (after, ended) in [(24 * HOUR, None), (HOUR / 2, Some(Ended::Client))] {
        let body = json!({"expires_at": Timestamp::now().plus(after).to_string()});
        assert_eq!(gate.call(&format!("PATCH {path}"), &body.to_string()).await.status(), 200);
        assert_eq!(gate.ended("alice", &client_id), ended);
    }
}

#[tokio::test]
async fn a_new_secret_takes_the_place_of_the_one_before() {
    let gate = Gate::issuing().await;
    gate.user("alice", &["r"]).await;
    let (made, client_id) = gate.credential("alice", &["r"]).await;
    let mut secrets = vec![made["client_secret"].clone()];
    let path = format!("/v1/credentials/{client_id}");
    for (body, overlap, ended) in [
        ("", None, None),
        ("{}", None, None),
        (r#"{"overlap":"0s","end_tokens":false}"#, None, None),
        (r#"{"overlap":"1h"}"#, Some(HOUR), None),
        (r#"{"overlap":"0ms"}"#, None, None),
        (r#"{"overlap":"2h","end_tokens":true}"#, Some(2 * HOUR), Some(Ended::Client)),
    ] {
        let before = Timestamp::now();
        let answer = gate.call(&format!("POST {path}/secret"), body).await;
        assert_eq!(answer.status(), 201, "{body}: {answer:?}");
        let mut renewed = answer.json();
        let secret = renewed.as_object_mut().unwrap().remove("client_secret").unwrap();
        assert!(!secrets.contains(&secret), "{body}");
        secrets.push(secret);
        assert_eq!(gate.call(&format!("GET {path}"), "").await.json(), renewed, "{body}");
        match overlap {
            Some(overlap) => take_time(&mut renewed, "old_secret_expires_at", before.plus(overlap)),
            None => assert_eq!(renewed.get("old_secret_expires_at"), None, "{body}"),
        }
        assert_eq!(gate.ended("alice", &client_id), ended, "{body}");
        for member in ["name", "owner", "roles", "scopes", "tenant", "created_at"] {
            assert_eq!(renewed[member], made[member], "{body}");
        }
    }
}

#[tokio::test]
async fn an_owner_sees_and_touches_nobody_elses_credentials() {
    let gate = Gate::issuing().await;
    gate.user("alice", &["r"]).await;
    gate.user("bob", &["r"]).await;
    let (hers, her_id) = gate.credential("alice", &["r"]).await;
    let (_, his_id) = gate.credential("bob", &["r"]).await;
    let listed = gate.call("GET /v1/credentials?owner=bob", "").await.items();
    assert_eq!(listed.iter().map(|item| item["client_id"].as_str().unwrap()).collect::<Vec<_>>(), [his_id]);
    let calls = [
        ("GET", "", "", 200),
        ("PATCH", "", r#"{"name":"x"}"#, 200),
        ("POST", "/secret", r#"{"end_tokens":true}"#, 201),
        ("DELETE", "", "", 204),
    ];
    for owner in ["bob", "nobody", "Alice", "alice%20"] {
        for (method, below, body, _) in calls {
            let line = format!("{method} /v1/credentials/{her_id}{below}?owner={owner}");
            assert_eq!(gate.call(&line, body).await.problem(404), "there is no such credential", "{line}");
        }
    }
    let mut kept = gate.call(&format!("GET /v1/credentials/{her_id}"), "").await.json();
    kept["client_secret"] = hers["client_secret"].clone();
    assert_eq!(kept, hers);
    assert_eq!(gate.ended("alice", &her_id), None);
    for (method, below, body, status) in calls {
        let line = format!("{method} /v1/credentials/{her_id}{below}?owner=alice");
        assert_eq!(gate.call(&line, body).await.status(), status, "{line}");
    }
    let own = gate.call("POST /v1/credentials?owner=bob", r#"{"name":"x","owner":"bob"}"#).await;
    assert_eq!(own.status(), 201, "{own:?}");
}

#[tokio::test]
async fn deleting_a_user_ends_its_credentials_and_tokens() {
    let gate = Gate::issuing().await;
    gate.user("alice", &["r"]).await;
    gate.user("bob", &["r"]).await;
    for owner in ["alice", "alice", "bob"] {
        gate.credential(owner, &["r"]).await;
    }
    is_gone(&gate.call("DELETE /v1/users/alice", "").await);
    let left = gate.call("GET /v1/credentials", "").await.items();
    assert_eq!((left.len(), &left[0]["owner"]), (1, &json!("bob")));
    assert_eq!(gate.ended("alice", "app"), Some(Ended::Subject));
    assert_eq!(gate.ended("bob", "app"), None);
}
