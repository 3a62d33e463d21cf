//! Token introspection: which client may learn what about which token.

use serde_json::json;

use crate::authority::stage::{App, Stage};
use testkit::wire::Answer;
use testkit::{eventually, now};

fn introspect(stage: &Stage, app: &App, token: &str) -> Answer {
    let answer = stage.post(
        "/oauth/introspect",
        &format!("token={token}&client_id={}&client_secret={}", app.id, app.secret),
    );
    assert_eq!(answer.status(), 200, "{}", answer.text());
    answer
}

/// Holds docs/configuration.md, Settings: authority.introspection_clients
#[test]
fn a_client_introspects_its_own_tokens_and_a_named_one_those_of_all() {
    let stage = Stage::start();
    let owner = stage.robot();
    let other = stage.credential(&json!({"name": "Other", "owner": "ada", "scopes": ["read:deals"]}));
    let api = stage.credential(&json!({"name": "API", "owner": "ada"}));
    let token = stage.token(&owner);
    let is_active = |app: &App| introspect(&stage, app, &token).json()["active"].clone();
    assert_eq!(introspect(&stage, &owner, &token).json()["client_id"], owner.id.as_str());
    let inactive = introspect(&stage, &owner, "nonsense").text();
    for app in [&other, &api] {
        assert_eq!(introspect(&stage, app, &token).text(), inactive, "as for a token that never was");
    }

    let named = format!("introspection_clients = [\"{}\"]", api.id);
    let reloaded = stage.reload(&stage.plan.clone().authority(&named).settings());
    assert_eq!(reloaded.status(), 200, "{}", reloaded.text());
    assert_eq!([&owner, &other, &api].map(is_active), [json!(true), json!(false), json!(true)]);
    assert_eq!(stage.reload(&stage.plan.settings()).status(), 200);
    assert_eq!([&owner, &other, &api].map(is_active), [json!(true), json!(false), json!(false)]);
}

#[test]
fn a_token_is_active_for_the_idle_timeout_of_its_issuer() {
    for (own, stays) in [("idle_timeout = \"0s\"", true), ("idle_timeout = \"1h\"", true), ("", false)] {
        let stage = Stage::planned(|plan| plan.issuer(own).toml("[sessions]\nidle_timeout = \"3s\"\n"));
        let app = stage.robot();
        let token = eventually("a token is asked about before it is idle", || {
            let token = stage.token(&app);
            (introspect(&stage, &app, &token).json()["active"] == json!(true)).then_some(token)
        });
        let issued_at = now();
        eventually("it has rested for longer than tokens of other issuers may", || {
            (now() > issued_at + 4).then_some(())
        });
        assert_eq!(introspect(&stage, &app, &token).json()["active"], json!(stays), "{own}");
    }
}
