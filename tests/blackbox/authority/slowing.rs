//! Limits on guessing: 429 for wrong secrets, while correct ones succeed and other clients are not affected.

use serde_json::json;

use crate::authority::stage::{App, Stage};
use testkit::wire::Answer;

const FORM: &str = "application/x-www-form-urlencoded";

fn ask(stage: &Stage, app: &App, forwarded_for: &str) -> Answer {
    let request = stage.gate.request("POST", "/oauth/token").field("Content-Type", FORM);
    request.field("X-Forwarded-For", forwarded_for).body(app.form("")).send()
}

fn with_secret(app: &App, secret: &str) -> App {
    App { secret: secret.to_owned(), ..app.clone() }
}

fn nobody(name: &str) -> App {
    App { id: format!("app_{name}"), secret: "x".to_owned() }
}

#[track_caller]
fn is_slowed(answer: &Answer) -> u64 {
    assert_eq!(answer.status(), 429, "{}", answer.text());
    let seconds: u64 = answer.field("retry-after").unwrap().parse().unwrap();
    assert!((1..=60).contains(&seconds), "{seconds}");
    assert_eq!(answer.field("cache-control"), Some("no-store"));
    assert_eq!(answer.field("www-authenticate"), None);
    assert_eq!(answer.json()["error"], "temporarily_unavailable");
    assert!(answer.field("x-request-id").is_some());
    seconds
}

/// What a client can use to distinguish two responses.
fn shape(answer: &Answer) -> (u16, Option<String>, String) {
    (answer.status(), answer.field("www-authenticate").map(str::to_owned), answer.text())
}

/// Holds docs/configuration.md, Settings: authority.failures_per_client, .failures_per_address
#[test]
fn a_guessed_client_is_slowed_at_every_endpoint_and_its_right_secret_passes() {
    let stage = Stage::planned(|plan| plan.authority("failures_per_client = 2\nfailures_per_address = 1000"));
    let app = stage.robot();
    let other = stage.credential(&json!({"name": "Other", "owner": "ada", "scopes": ["read:deals"]}));
    let token = stage.token(&app);
    for path in ["/oauth/revoke", "/oauth/introspect"] {
        let form = format!("token=x&client_id={}&client_secret=wrong", app.id);
        assert_eq!(stage.post(path, &form).status(), 401, "a failure counts wherever it happens: {path}");
    }
    let known = stage.post("/oauth/token", &with_secret(&app, "wrong").form(""));
    is_slowed(&known);
    for path in ["/oauth/revoke", "/oauth/introspect"] {
        is_slowed(&stage.post(path, &format!("token=x&client_id={}&client_secret=wrong", app.id)));
        let right = format!("token=x&client_id={}&client_secret={}", app.id, app.secret);
        assert_eq!(stage.post(path, &right).status(), 200, "the right secret at {path}");
    }
    assert_eq!(stage.post("/oauth/token", &app.form("")).status(), 200, "the right secret");
    assert_eq!(stage.post("/oauth/token", &other.form("")).status(), 200, "the right secret of another");
    assert_eq!(stage.api("/deals/7", &token), 200, "its tokens are as good as before");

    // A client that does not exist is slowed like one that does, and the answers are the same.
    let answers: Vec<Answer> =
        (0..3).map(|_| stage.post("/oauth/token", &nobody("nobody").form(""))).collect();
    assert_eq!(answers.iter().map(Answer::status).collect::<Vec<_>>(), [401, 401, 429]);
    assert_eq!(shape(&answers[2]), shape(&known));
}

#[test]
fn a_right_secret_passes_while_others_guess_once_a_second_or_from_the_same_address() {
    for (limits, guess) in [
        ("failures_per_client = 1\nfailures_per_address = 1000", "the client itself"),
        ("failures_per_client = 1000\nfailures_per_address = 1", "invented clients"),
    ] {
        let stage = Stage::planned(|plan| plan.authority(limits));
        let app = stage.robot();
        let mut slowed = 0;
        for attempt in 0..120 {
            let guessed = match guess {
                "invented clients" => nobody(&attempt.to_string()),
                _ => with_secret(&app, "wrong"),
            };
            slowed += usize::from(stage.post("/oauth/token", &guessed.form("")).status() == 429);
            assert_eq!(stage.post("/oauth/token", &app.form("")).status(), 200, "{guess}: {attempt}");
        }
        assert!(slowed > 100, "{guess}: {slowed}");
    }
}

/// Holds docs/configuration.md, Settings: authority.failures_per_client, .failures_per_address
#[test]
fn an_address_is_slowed_whatever_clients_it_tries() {
    let stage = Stage::planned(|plan| plan.authority("failures_per_client = 1000\nfailures_per_address = 3"));
    let app = stage.robot();
    let token = stage.token(&app);
    for guess in 0..3 {
        // What a stranger says of its address is not believed.
        assert_eq!(ask(&stage, &nobody(&guess.to_string()), &format!("203.0.113.{guess}")).status(), 401);
    }
    is_slowed(&ask(&stage, &with_secret(&app, "wrong"), "203.0.113.9"));
    assert_eq!(ask(&stage, &app, "203.0.113.9").status(), 200, "the right secret from the same address");
    assert_eq!(stage.api("/deals/7", &token), 200, "the API is not the authority");
    assert_eq!(stage.gate.get("/.well-known/jwks.json").send().status(), 200);
}

#[test]
fn behind_a_trusted_proxy_the_address_is_that_of_the_client() {
    let stage = Stage::planned(|plan| {
        plan.server("trusted_proxies = [\"127.0.0.0/8\"]")
            .authority("failures_per_client = 1000\nfailures_per_address = 2")
    });
    let guess = with_secret(&stage.robot(), "wrong");
    for _ in 0..2 {
        assert_eq!(ask(&stage, &guess, "203.0.113.7").status(), 401);
    }
    is_slowed(&ask(&stage, &guess, "203.0.113.7"));
    // What the client itself wrote in front of what the proxy saw is not believed.
    is_slowed(&ask(&stage, &guess, "198.51.100.1, 203.0.113.7"));
    assert_eq!(ask(&stage, &guess, "203.0.113.8").status(), 401);
    assert_eq!(ask(&stage, &guess, "203.0.113.7, 203.0.113.8").status(), 401);
    // An IPv6 network counts as one.
    for host in ["2001:db8::1", "2001:db8::2"] {
        assert_eq!(ask(&stage, &guess, host).status(), 401);
    }
    is_slowed(&ask(&stage, &guess, "2001:db8::3"));
    assert_eq!(ask(&stage, &guess, "2001:db8:1::3").status(), 401);
}

#[test]
fn a_clock_that_steps_during_a_block_neither_lengthens_nor_ends_it() {
    let stage = Stage::planned(|plan| plan.authority("failures_per_client = 1"));
    let guess = with_secret(&stage.robot(), "wrong");
    let stage = stage.restart_with_clock("+0");
    assert_eq!(stage.post("/oauth/token", &guess.form("")).status(), 401);
    let mut before = is_slowed(&stage.post("/oauth/token", &guess.form("")));
    for offset in ["-1h", "+1h", "-10y", "+10y", "+0"] {
        stage.step_clock(offset);
        let wait = is_slowed(&stage.post("/oauth/token", &guess.form("")));
        assert!(wait <= before, "{offset}: {wait} s after {before} s");
        before = wait;
    }
}

#[test]
fn other_limits_take_effect_by_a_reload_and_forget_what_was() {
    let stage = Stage::planned(|plan| plan.authority("failures_per_client = 1"));
    let guess = with_secret(&stage.robot(), "wrong");
    assert_eq!(stage.post("/oauth/token", &guess.form("")).status(), 401);
    is_slowed(&stage.post("/oauth/token", &guess.form("")));
    let reloaded = stage.reload(&stage.plan.clone().authority("failures_per_client = 2").settings());
    assert_eq!(reloaded.status(), 200, "{}", reloaded.text());
    let statuses: Vec<u16> = (0..3).map(|_| stage.post("/oauth/token", &guess.form("")).status()).collect();
    assert_eq!(statuses, [401, 401, 429]);
}
