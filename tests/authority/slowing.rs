//! What guessing meets: 429 for a client and for an address, and nobody else notices.

use serde_json::json;

use crate::stage::{App, Stage};
use crate::support::wire::Answer;

const FORM: &str = "application/x-www-form-urlencoded";

fn ask(stage: &Stage, app: &App, forwarded_for: &str) -> Answer {
    let request = stage.gate.request("POST", "/oauth/token").field("Content-Type", FORM);
    request.field("X-Forwarded-For", forwarded_for).body(app.form("")).send()
}

fn with_secret(app: &App, secret: &str) -> App {
    App { secret: secret.to_owned(), ..app.clone() }
}

#[track_caller]
fn is_slowed(answer: &Answer) {
    assert_eq!(answer.status(), 429, "{}", answer.text());
    let seconds: u64 = answer.field("retry-after").unwrap().parse().unwrap();
    assert!((1..=60).contains(&seconds), "{seconds}");
    assert_eq!(answer.field("cache-control"), Some("no-store"));
    assert_eq!(answer.field("www-authenticate"), None);
    assert_eq!(answer.json()["error"], "temporarily_unavailable");
    assert!(answer.field("x-request-id").is_some());
}

#[test]
fn a_guessed_client_is_slowed_at_every_endpoint_and_other_clients_are_not() {
    let stage = Stage::planned(|plan| plan.authority("failures_per_client = 2\nfailures_per_address = 1000"));
    let app = stage.robot();
    let other = stage.credential(&json!({"name": "Other", "owner": "ada", "scopes": ["read:deals"]}));
    let token = stage.token(&app);
    for path in ["/oauth/revoke", "/oauth/introspect"] {
        let form = format!("token=x&client_id={}&client_secret=wrong", app.id);
        assert_eq!(stage.post(path, &form).status(), 401, "a failure counts wherever it happens: {path}");
    }
    is_slowed(&stage.post("/oauth/token", &with_secret(&app, "wrong").form("")));
    is_slowed(&stage.post("/oauth/token", &app.form("")));
    for path in ["/oauth/revoke", "/oauth/introspect"] {
        is_slowed(&stage.post(path, &format!("token=x&client_id={}&client_secret=wrong", app.id)));
    }
    assert_eq!(stage.post("/oauth/token", &other.form("")).status(), 200, "the right secret of another");
    assert_eq!(stage.api("/deals/7", &token), 200, "its tokens are as good as before");

    // A client that there is not is slowed like one that there is.
    let nobody = App { id: "app_nobody".to_owned(), secret: "x".to_owned() };
    let statuses: Vec<u16> = (0..3).map(|_| stage.post("/oauth/token", &nobody.form("")).status()).collect();
    assert_eq!(statuses, [401, 401, 429]);
}

#[test]
fn an_address_is_slowed_whatever_clients_it_tries() {
    let stage = Stage::planned(|plan| plan.authority("failures_per_client = 1000\nfailures_per_address = 3"));
    let app = stage.robot();
    let token = stage.token(&app);
    for guess in 0..3 {
        let nobody = App { id: format!("app_{guess}"), secret: "x".to_owned() };
        // What a stranger says of its address is not believed.
        assert_eq!(ask(&stage, &nobody, &format!("203.0.113.{guess}")).status(), 401);
    }
    is_slowed(&ask(&stage, &app, "203.0.113.9"));
    assert_eq!(stage.api("/deals/7", &token), 200, "the API is not the authority");
    assert_eq!(stage.gate.get("/.well-known/jwks.json").send().status(), 200);
}

#[test]
fn behind_a_trusted_proxy_the_address_is_that_of_the_client() {
    let stage = Stage::planned(|plan| {
        plan.server("trusted_proxies = [\"127.0.0.0/8\"]")
            .authority("failures_per_client = 1000\nfailures_per_address = 2")
    });
    let app = stage.robot();
    let guess = with_secret(&app, "wrong");
    for _ in 0..2 {
        assert_eq!(ask(&stage, &guess, "203.0.113.7").status(), 401);
    }
    is_slowed(&ask(&stage, &app, "203.0.113.7"));
    // What the client itself wrote in front of what the proxy saw is not believed.
    is_slowed(&ask(&stage, &app, "198.51.100.1, 203.0.113.7"));
    assert_eq!(ask(&stage, &app, "203.0.113.8").status(), 200);
    assert_eq!(ask(&stage, &app, "203.0.113.7, 203.0.113.8").status(), 200);
    // An IPv6 network counts as one.
    for host in ["2001:db8::1", "2001:db8::2"] {
        assert_eq!(ask(&stage, &guess, host).status(), 401);
    }
    is_slowed(&ask(&stage, &app, "2001:db8::3"));
    assert_eq!(ask(&stage, &app, "2001:db8:1::3").status(), 200);
}

#[test]
fn other_limits_take_effect_by_a_reload_and_forget_what_was() {
    let stage = Stage::planned(|plan| plan.authority("failures_per_client = 1"));
    let app = stage.robot();
    let guess = with_secret(&app, "wrong");
    assert_eq!(stage.post("/oauth/token", &guess.form("")).status(), 401);
    is_slowed(&stage.post("/oauth/token", &app.form("")));
    let reloaded = stage.reload(&stage.plan.clone().authority("failures_per_client = 2").settings());
    assert_eq!(reloaded.status(), 200, "{}", reloaded.text());
    let statuses: Vec<u16> = (0..3).map(|_| stage.post("/oauth/token", &guess.form("")).status()).collect();
    assert_eq!(statuses, [401, 401, 429]);
}
