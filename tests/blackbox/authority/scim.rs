//! The authority's users as an identity provider's directory: changes by the provider affect credentials at once.

use serde_json::{Value, json};

use super::stage::{App, Stage};
use testkit::wire::Answer;

const TOKEN: &str = "scim-secret-of-the-tests-0123456789";

fn stage() -> Stage {
    Stage::planned(|plan| {
        let issuer = plan.issuer_name().to_owned();
        plan.toml(&format!(
            "[signals]\nrequests_per_sender = 100000\n[[scim]]\nname = \"idp\"\ntokens = [\"{TOKEN}\"]\nissuer = {issuer:?}\nsubject = \"userName\"\n\
             [scim.roles]\nReaders = \"case-reader\"\n"
        ))
    })
}

fn send(stage: &Stage, method: &str, path: &str, body: &Value) -> Answer {
    let request = stage.gate.request(method, &format!("/signals/scim/idp/v2{path}")).token(TOKEN);
    if body.is_null() {
        return request.send();
    }
    request.field("Content-Type", "application/scim+json").body(body.to_string()).send()
}

fn members(verb: &str, id: &str) -> Value {
    json!({"Operations": [{"op": verb, "path": "members", "value": [{"value": id}]}]})
}

fn active(active: bool) -> Value {
    json!({"Operations": [{"op": "replace", "value": {"active": active}}]})
}

fn user(stage: &Stage, id: &str) -> Value {
    stage.admin("GET", &format!("/v1/users/{id}"), &Value::Null).json()
}

/// A user with an application that the authority already had and the provider takes over. The provider's one
/// group is a role of the application; a second group, without members, is the other role.
fn taken_over(stage: &Stage) -> (App, String) {
    let roles = ["case-reader", "case-writer"];
    stage.user("ada", &roles);
    let app = stage.credential(&json!({"name": "Robot", "owner": "ada", "roles": roles, "scopes": []}));
    let made =
        send(stage, "POST", "/Users", &json!({"userName": "ada", "displayName": "Ada L.", "active": true}));
    assert_eq!((made.status(), &made.json()["id"]), (201, &json!("ada")), "{}", made.text());
    let refused = stage.post("/oauth/token", &app.form(""));
    assert_eq!(
        refused.json()["error"],
        json!("unauthorized_client"),
        "roles are those of groups, of which there are none"
    );
    let writers = json!({"displayName": "case-writer", "members": [{"value": "ada"}]});
    assert_eq!(send(stage, "POST", "/Groups", &writers).status(), 201);
    let group = send(stage, "POST", "/Groups", &json!({"displayName": "Readers"}));
    (app, group.json()["id"].as_str().unwrap().to_owned())
}

#[test]
fn a_group_that_is_taken_away_takes_the_role_from_the_next_token_and_ends_the_last() {
    let stage = stage();
    let (app, group) = taken_over(&stage);
    let seen = user(&stage, "ada");
    assert_eq!((&seen["name"], &seen["roles"]), (&json!("Ada L."), &json!(["case-writer"])));
    let without = stage.token(&app);
    assert_eq!((stage.api("/any/1", &without), stage.api("/cases/1", &without)), (200, 403));
    assert_eq!(send(&stage, "PATCH", &format!("/Groups/{group}"), &members("add", "ada")).status(), 204);
    assert_eq!(stage.api("/any/1", &without), 401);
    let with = stage.token(&app);
    assert_eq!(stage.api("/cases/1", &with), 200);
    assert_eq!(user(&stage, "ada")["roles"], json!(["case-reader", "case-writer"]));
    assert_eq!(send(&stage, "PATCH", &format!("/Groups/{group}"), &members("remove", "ada")).status(), 204);
    assert_eq!(stage.api("/cases/1", &with), 401);
    let after = stage.token(&app);
    assert_eq!((stage.api("/any/1", &after), stage.api("/cases/1", &after)), (200, 403));
    let line = stage.gate.log().wait_for("the signal that ended the token", |line| {
        line["message"] == "signal" && line["tokens_ended"] == 1 && line["types"] == "role-changed"
    });
    assert_eq!((&line["source"], &line["sender"]), (&json!("scim"), &json!("idp")), "{line}");
    let events = stage.admin("GET", "/v1/events", &Value::Null).json();
    let kinds: Vec<&Value> = events["items"].as_array().unwrap().iter().map(|event| &event["type"]).collect();
    assert_eq!(kinds, [&json!("role-changed"); 4], "one for taking it over, one for each change: {events}");
}

#[test]
fn a_user_that_is_not_active_gets_no_token_and_one_that_is_deleted_loses_its_credentials() {
    let stage = stage();
    let (app, _) = taken_over(&stage);
    let token = stage.token(&app);
    assert_eq!(stage.api("/any/1", &token), 200);
    let answer = send(&stage, "PATCH", "/Users/ada", &active(false));
    assert_eq!((answer.status(), &answer.json()["active"]), (200, &json!(false)), "{}", answer.text());
    assert_eq!(stage.api("/any/1", &token), 401);
    let refused = stage.post("/oauth/token", &app.form(""));
    assert_eq!((refused.status(), &refused.json()["error"]), (401, &json!("invalid_client")));
    assert_eq!(user(&stage, "ada")["active"], json!(false));
    let stage = stage.restart();
    assert_eq!(stage.post("/oauth/token", &app.form("")).status(), 401, "also after a restart");
    assert_eq!(stage.api("/any/1", &token), 401);
    assert_eq!(send(&stage, "PATCH", "/Users/ada", &active(true)).status(), 200);
    assert_eq!(user(&stage, "ada")["active"], Value::Null);
    let again = stage.token(&app);
    assert_eq!(stage.api("/any/1", &again), 200);
    assert_eq!(stage.api("/any/1", &token), 401, "what was ended stays so");
    assert_eq!(send(&stage, "DELETE", "/Users/ada", &Value::Null).status(), 204);
    assert_eq!(stage.api("/any/1", &again), 401);
    assert_eq!(stage.post("/oauth/token", &app.form("")).status(), 401);
    assert_eq!(stage.admin("GET", "/v1/users/ada", &Value::Null).status(), 404);
}

#[test]
fn users_keep_their_ids_and_none_gets_that_of_another() {
    let stage = stage();
    let (app, _) = taken_over(&stage);
    stage.user("bob", &["case-writer"]);
    let token = stage.token(&app);
    let renaming = |name: &str| json!({"Operations": [{"op": "replace", "path": "userName", "value": name}]});
    let refused = send(&stage, "PATCH", "/Users/ada", &renaming("bob"));
    assert_eq!(
        (refused.status(), &refused.json()["scimType"]),
        (409, &json!("uniqueness")),
        "{}",
        refused.text()
    );
    assert_eq!(user(&stage, "bob")["roles"], json!(["case-writer"]), "nobody touched it");
    let renamed = send(&stage, "PATCH", "/Users/ada", &renaming("ada.king"));
    assert_eq!((renamed.status(), &renamed.json()["id"]), (200, &json!("ada")), "{}", renamed.text());
    assert_eq!(stage.api("/any/1", &token), 200, "the subject of its tokens is the same");
    for name in ["ada", "app_x", "a/b", "..", "a%2fb"] {
        let answer = send(&stage, "POST", "/Users", &json!({"userName": name}));
        assert!([400, 409].contains(&answer.status()), "{name}: {}", answer.text());
    }
    let odd = send(&stage, "POST", "/Users", &json!({"userName": "eve@Example.com"}));
    assert_eq!(odd.status(), 201, "{}", odd.text());
    let location = odd.json()["meta"]["location"].as_str().unwrap().to_owned();
    assert_eq!(location, "/signals/scim/idp/v2/Users/eve%40Example.com");
    assert_eq!(stage.gate.get(&location).token(TOKEN).send().status(), 200);
}
