//! Requests about users and credentials that are rejected: every row leaves everything unchanged.

use rusqlite::Connection;
use serde_json::{Value, json};

use crate::admin_api::{A, Gate, Shown as _};

impl Gate {
    async fn everything(&self) -> [Vec<Value>; 3] {
        let users = self.call("GET /v1/users", "").await.items();
        let credentials = self.call("GET /v1/credentials", "").await.items();
        [users, credentials, self.call("GET /v1/events", "").await.items()]
    }
}

/// A call, with `@` for the client id of a credential of alice; its status; a word of the error message.
const REFUSED: &[(&str, &str, u16, &str)] = &[
    ("POST /v1/users", "", 400, "`id`"),
    ("POST /v1/users", "{", 400, "EOF"),
    ("POST /v1/users", "[]", 400, "array"),
    ("POST /v1/users", r#"["carol","Carol",[]]"#, 400, "array"),
    ("POST /v1/users", "null", 400, "invalid type"),
    ("POST /v1/users", r#""carol""#, 400, "invalid type"),
    ("POST /v1/users", r#"{"id":"carol"} {}"#, 400, "trailing"),
    ("POST /v1/users", "{}", 400, "`id`"),
    ("POST /v1/users", r#"{"name":"Carol","roles":[]}"#, 400, "`id`"),
    ("POST /v1/users", r#"{"id":null}"#, 400, "`id`"),
    ("POST /v1/users", r#"{"id":7}"#, 400, "`id`"),
    ("POST /v1/users", r#"{"id":""}"#, 400, "`id`"),
    ("POST /v1/users", r#"{"id":" carol"}"#, 400, "`id`"),
    ("POST /v1/users", r#"{"id":"ca\nrol"}"#, 400, "`id`"),
    ("POST /v1/users", r#"{"id":"app_carol"}"#, 400, "`id`"),
    ("POST /v1/users", r#"{"id":"carol","id":"dave"}"#, 400, "`id`"),
    ("POST /v1/users", r#"{"id":"carol","name":7}"#, 400, "`name`"),
    ("POST /v1/users", r#"{"id":"carol","name":"a\u0000b"}"#, 400, "`name`"),
    ("POST /v1/users", r#"{"id":"carol","roles":"r"}"#, 400, "`roles`"),
    ("POST /v1/users", r#"{"id":"carol","roles":null}"#, 400, "`roles`"),
    ("POST /v1/users", r#"{"id":"carol","roles":["r",7]}"#, 400, "`roles[1]`"),
    ("POST /v1/users", r#"{"id":"carol","roles":[""]}"#, 400, "`roles`"),
    ("POST /v1/users", r#"{"id":"carol","role":["r"]}"#, 400, "`role`"),
    ("POST /v1/users", r#"{"id":"carol","role_version":7}"#, 400, "`role_version`"),
    ("POST /v1/users", r#"{"id":"alice"}"#, 409, "id"),
    ("POST /v1/users", r#"{"id":"alice","name":"Another","roles":["root"]}"#, 409, "id"),
    ("GET /v1/users?limit=0", "", 400, "limit"),
    ("GET /v1/users?limit=1001", "", 400, "limit"),
    ("GET /v1/users?after=", "", 400, "`after`"),
    ("GET /v1/users?id=alice", "", 400, "id"),
    ("GET /v1/users/carol", "", 404, "no such user"),
    ("GET /v1/users/Alice", "", 404, "no such user"),
    ("GET /v1/users/%ff", "", 400, "UTF-8"),
    ("GET /v1/users/", "", 404, "no such endpoint"),
    ("PUT /v1/users/alice", "{}", 405, "method"),
    ("DELETE /v1/users", "", 405, "method"),
    ("DELETE /v1/users/carol", "", 404, "no such user"),
    ("PUT /v1/users/carol/roles", r#"{"roles":[]}"#, 404, "no such user"),
    ("PUT /v1/users/alice/roles", "", 400, "`roles`"),
    ("PUT /v1/users/alice/roles", "{}", 400, "`roles`"),
    ("PUT /v1/users/alice/roles", r#"["root"]"#, 400, "array"),
    ("PUT /v1/users/alice/roles", r#"{"roles":"root"}"#, 400, "`roles`"),
    ("PUT /v1/users/alice/roles", r#"{"roles":[["root"]]}"#, 400, "`roles[0]`"),
    ("PUT /v1/users/alice/roles", r#"{"roles":["a\u0007"]}"#, 400, "`roles`"),
    ("PUT /v1/users/alice/roles", r#"{"roles":["root"],"name":"x"}"#, 400, "`name`"),
    ("GET /v1/users/alice/roles", "", 405, "method"),
    ("PUT /v1/users/carol/password", r#"{"password":"correct horse"}"#, 404, "no such user"),
    ("PUT /v1/users/alice/password", "", 400, "`password`"),
    ("PUT /v1/users/alice/password", "{}", 400, "`password`"),
    ("PUT /v1/users/alice/password", "[]", 400, "array"),
    ("PUT /v1/users/alice/password", r#""correct horse""#, 400, "a string"),
    ("PUT /v1/users/alice/password", " 12345678", 400, "a number"),
    ("PUT /v1/users/alice/password", "-12345678", 400, "a number"),
    ("PUT /v1/users/alice/password", r#"{"password":null}"#, 400, "`password`: must be a string"),
    ("PUT /v1/users/alice/password", r#"{"password":12345678}"#, 400, "`password`: must be a string"),
    (
        "PUT /v1/users/alice/password",
        r#"{"password":["correct horse"]}"#,
        400,
        "`password`: must be a string",
    ),
    ("PUT /v1/users/alice/password", r#"{"password":""}"#, 400, "`password`: is shorter than 8 bytes"),
    ("PUT /v1/users/alice/password", r#"{"password":"1234567"}"#, 400, "`password`: is shorter than 8 bytes"),
    ("PUT /v1/users/alice/password", r#"{"password":"12345678","id":"x"}"#, 400, "`id`"),
    ("PUT /v1/users/alice/password", r#"{"password":"12345678","password":"87654321"}"#, 400, "`password`"),
    ("POST /v1/users", r#"{"id":"carol","password":"correct horse"}"#, 400, "`password`"),
    ("PUT /v1/users/alice/roles", r#"{"roles":[],"has_password":true}"#, 400, "`has_password`"),
    ("GET /v1/users/alice/password", "", 405, "method"),
    ("POST /v1/users/alice/password", r#"{"password":"correct horse"}"#, 405, "method"),
    ("DELETE /v1/users/carol/password", "", 404, "no such user"),
    ("POST /v1/credentials", "", 400, "`name`"),
    ("POST /v1/credentials", r#"{"owner":"alice"}"#, 400, "`name`"),
    ("POST /v1/credentials", r#"{"name":"x"}"#, 400, "`owner`"),
    ("POST /v1/credentials", r#"{"name":"","owner":"alice"}"#, 400, "`name`"),
    ("POST /v1/credentials", r#"{"name":"x","owner":"carol"}"#, 400, "`owner`"),
    ("POST /v1/credentials", r#"{"name":"x","owner":""}"#, 400, "`owner`"),
    ("POST /v1/credentials", r#"{"name":"x","owner":["alice"]}"#, 400, "`owner`"),
    ("POST /v1/credentials", r#"{"name":"x","owner":"alice","roles":["root"]}"#, 400, "`roles`"),
    ("POST /v1/credentials", r#"{"name":"x","owner":"alice","roles":["case-reader","root"]}"#, 400, "root"),
    ("POST /v1/credentials", r#"{"name":"x","owner":"alice","roles":["Case-Reader"]}"#, 400, "`roles`"),
    ("POST /v1/credentials", r#"{"name":"x","owner":"alice","roles":{}}"#, 400, "`roles`"),
    ("POST /v1/credentials", r#"{"name":"x","owner":"alice","scopes":["read:all"]}"#, 400, "`scopes`"),
    ("POST /v1/credentials", r#"{"name":"x","owner":"alice","scopes":"read:deals"}"#, 400, "`scopes`"),
    (
        "POST /v1/credentials",
        r#"{"name":"x","owner":"alice","scopes":["read:deals read:users"]}"#,
        400,
        "`scopes`",
    ),
    ("POST /v1/credentials", r#"{"name":"x","owner":"alice","tenant":""}"#, 400, "`tenant`"),
    ("POST /v1/credentials", r#"{"name":"x","owner":"alice","tenant":7}"#, 400, "`tenant`"),
    (
        "POST /v1/credentials",
        r#"{"name":"x","owner":"alice","expires_at":"2020-01-01T00:00:00Z"}"#,
        400,
        "`expires_at`",
    ),
    ("POST /v1/credentials", r#"{"name":"x","owner":"alice","expires_at":0}"#, 400, "`expires_at`"),
    ("POST /v1/credentials", r#"{"name":"x","owner":"alice","expires_at":"30d"}"#, 400, "`expires_at`"),
    (
        "POST /v1/credentials",
        r#"{"name":"x","owner":"alice","expires_at":"2100-01-01"}"#,
        400,
        "`expires_at`",
    ),
    ("POST /v1/credentials", r#"{"name":"x","owner":"alice","expires_at":true}"#, 400, "`expires_at`"),
    ("POST /v1/credentials", r#"{"name":"x","owner":"alice","expires_at":1e300}"#, 400, "`expires_at`"),
    ("POST /v1/credentials", r#"{"name":"x","owner":"alice","client_id":"mine"}"#, 400, "`client_id`"),
    (
        "POST /v1/credentials",
        r#"{"name":"x","owner":"alice","client_secret":"mine"}"#,
        400,
        "`client_secret`",
    ),
    ("POST /v1/credentials?owner=bob", r#"{"name":"x","owner":"alice"}"#, 400, "`owner`"),
    ("POST /v1/credentials?owner=", r#"{"name":"x","owner":"alice"}"#, 400, "`owner`"),
    ("POST /v1/credentials?tenant=t", r#"{"name":"x","owner":"alice"}"#, 400, "tenant"),
    ("GET /v1/credentials?owner=", "", 400, "`owner`"),
    ("GET /v1/credentials?owner=alice&owner=bob", "", 400, "owner"),
    ("GET /v1/credentials?user=alice", "", 400, "user"),
    ("GET /v1/credentials?limit=x", "", 400, "limit"),
    ("GET /v1/credentials?after=", "", 400, "`after`"),
    ("GET /v1/credentials/app_nobody", "", 404, "no such credential"),
    ("GET /v1/credentials/%c3%28", "", 400, "UTF-8"),
    ("GET /v1/credentials/@?owner=", "", 400, "`owner`"),
    ("GET /v1/credentials/@?user=alice", "", 400, "user"),
    ("PUT /v1/credentials/@", "{}", 405, "method"),
    ("PATCH /v1/credentials/@", "[]", 400, "array"),
    ("PATCH /v1/credentials/@", r#"{"name":null}"#, 400, "`name`"),
    ("PATCH /v1/credentials/@", r#"{"name":""}"#, 400, "`name`"),
    ("PATCH /v1/credentials/@", r#"{"name":7}"#, 400, "`name`"),
    ("PATCH /v1/credentials/@", r#"{"expires_at":""}"#, 400, "`expires_at`"),
    ("PATCH /v1/credentials/@", r#"{"expires_at":1}"#, 400, "`expires_at`"),
    ("PATCH /v1/credentials/@", r#"{"name":"x","expires_at":"2020-01-01T00:00:00Z"}"#, 400, "`expires_at`"),
    ("PATCH /v1/credentials/@", r#"{"name":"x","name":"y"}"#, 400, "`name`"),
    ("PATCH /v1/credentials/@", r#"{"name":"x","roles":["case-writer"]}"#, 400, "`roles`"),
    ("PATCH /v1/credentials/@", r#"{"scopes":[]}"#, 400, "`scopes`"),
    ("PATCH /v1/credentials/@", r#"{"tenant":"x"}"#, 400, "`tenant`"),
    ("PATCH /v1/credentials/@", r#"{"owner":"bob"}"#, 400, "`owner`"),
    ("PATCH /v1/credentials/@", r#"{"client_secret":"x"}"#, 400, "`client_secret`"),
    ("PATCH /v1/credentials/app_nobody", r#"{"name":"x"}"#, 404, "no such credential"),
    ("DELETE /v1/credentials/app_nobody", "", 404, "no such credential"),
    ("DELETE /v1/credentials", "", 405, "method"),
    ("POST /v1/credentials/app_nobody/secret", "{}", 404, "no such credential"),
    ("POST /v1/credentials/@/secret", "7", 400, "invalid type"),
    ("POST /v1/credentials/@/secret", r#"{"overlap":"soon"}"#, 400, "`overlap`"),
    ("POST /v1/credentials/@/secret", r#"{"overlap":"-1s"}"#, 400, "`overlap`"),
    ("POST /v1/credentials/@/secret", r#"{"overlap":"30"}"#, 400, "`overlap`"),
    ("POST /v1/credentials/@/secret", r#"{"overlap":""}"#, 400, "`overlap`"),
    ("POST /v1/credentials/@/secret", r#"{"overlap":"99999999d"}"#, 400, "`overlap`"),
    ("POST /v1/credentials/@/secret", r#"{"overlap":3600}"#, 400, "`overlap`"),
    ("POST /v1/credentials/@/secret", r#"{"end_tokens":"yes"}"#, 400, "`end_tokens`"),
    ("POST /v1/credentials/@/secret", r#"{"end_tokens":null}"#, 400, "`end_tokens`"),
    ("POST /v1/credentials/@/secret", r#"{"secret":"mine"}"#, 400, "`secret`"),
    ("GET /v1/credentials/@/secret", "", 405, "method"),
];

#[tokio::test]
async fn what_makes_no_sense_changes_nothing() {
    let gate = Gate::issuing().await;
    gate.user("alice", &["case-reader", "case-writer"]).await;
    let (_, client_id) = gate.credential("alice", &["case-reader"]).await;
    let before = gate.everything().await;
    let roles: Vec<String> = (0..300).map(|place| format!("r{place}")).collect();
    let many = json!({"id": "carol", "roles": roles}).to_string();
    let long = format!(r#"{{"id":"{}"}}"#, "x".repeat(256));
    let large = " ".repeat((8 << 20) + 1);
    let longer = json!({"password": "x".repeat(1_025)}).to_string();
    let computed = [
        ("POST /v1/users", &*many, 400, "`roles`"),
        ("POST /v1/users", &long, 400, "`id`"),
        ("POST /v1/users", &large, 413, "bytes"),
        ("PUT /v1/users/alice/password", &longer, 400, "`password`: is longer than 1024 bytes"),
        ("PUT /v1/users/alice/password", &large, 413, "bytes"),
        ("PATCH /v1/credentials/@", &large, 413, "bytes"),
    ];
    for (line, body, status, complaint) in REFUSED.iter().chain(&computed) {
        let answer = gate.call(&line.replace('@', &client_id), body).await;
        let told = answer.problem(*status);
        assert!(told.contains(complaint), "{line} {}: {told}", &body[..body.len().min(200)]);
        assert_eq!(answer.field("cache-control"), Some("no-store"), "{line}");
    }
    assert_eq!(gate.everything().await, before);
}

/// Every call, in an order in which each finds what it needs, and its status.
fn calls(client_id: &str) -> Vec<(String, &'static str, u16)> {
    let credential = format!("/v1/credentials/{client_id}");
    vec![
        ("POST /v1/users".to_owned(), r#"{"id":"carol"}"#, 201),
        ("GET /v1/users".to_owned(), "", 200),
        ("GET /v1/users/alice".to_owned(), "", 200),
        ("PUT /v1/users/alice/roles".to_owned(), r#"{"roles":["x"]}"#, 200),
        ("PUT /v1/users/alice/password".to_owned(), r#"{"password":"correct horse"}"#, 204),
        ("DELETE /v1/users/alice/password".to_owned(), "", 204),
        ("POST /v1/credentials".to_owned(), r#"{"name":"x","owner":"alice"}"#, 201),
        ("GET /v1/credentials".to_owned(), "", 200),
        (format!("GET {credential}"), "", 200),
        (format!("PATCH {credential}"), r#"{"name":"y"}"#, 200),
        (format!("POST {credential}/secret"), "{}", 201),
        (format!("DELETE {credential}"), "", 204),
        ("DELETE /v1/users/alice".to_owned(), "", 204),
    ]
}

#[tokio::test]
async fn every_call_needs_the_permission() {
    let gate = Gate::issuing().await;
    gate.user("alice", &[]).await;
    let (_, client_id) = gate.credential("alice", &[]).await;
    for (line, body, status) in calls(&client_id) {
        for token in ["events", "sessions", "config"] {
            let told = gate.call_as(token, &line, body).await.problem(403);
            assert!(told.contains("`authority`"), "{line} {token}: {told}");
        }
        gate.call_as("nobody", &line, body).await.problem(401);
        assert_eq!(gate.call_as("authority", &line, body).await.status(), status, "{line}");
    }
}

#[tokio::test]
async fn a_gate_without_an_authority_says_so() {
    let gate = Gate::start(&[A]).await;
    for (line, body, _) in calls("app_x") {
        let told = gate.call(&line, body).await.problem(404);
        assert!(told.contains("[authority]"), "{line}: {told}");
    }
}

#[tokio::test]
async fn a_store_that_fails_is_said_so_and_nothing_has_changed() {
    let gate = Gate::issuing().await;
    gate.user("alice", &["case-reader"]).await;
    let (_, client_id) = gate.credential("alice", &[]).await;
    let before = gate.everything().await;
    let file = Connection::open(gate.folder.path().join("gate.db")).unwrap();
    for (table, verb) in [
        ("users", "INSERT"),
        ("users", "UPDATE"),
        ("users", "DELETE"),
        ("credentials", "INSERT"),
        ("credentials", "UPDATE"),
        ("credentials", "DELETE"),
    ] {
        let trigger = format!(
            "CREATE TRIGGER broken_{table}_{verb} BEFORE {verb} ON {table} BEGIN SELECT RAISE(ABORT, 'broken'); END"
        );
        file.execute_batch(&trigger).unwrap();
    }
    for (line, body, _) in calls(&client_id).iter().filter(|(line, ..)| !line.starts_with("GET")) {
        let answer = gate.call(line, body).await;
        answer.problem(503);
        assert!(answer.field("retry-after").is_some(), "{line}: {answer:?}");
    }
    let [users, credentials, _] = gate.everything().await;
    assert_eq!(json!([users, credentials]), json!(before[..2]));
}
