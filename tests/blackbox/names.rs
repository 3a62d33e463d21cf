//! The names by which events reach a token: its subject, address and aliases, and its login session; and the
//! claims that hold them.

use serde_json::{Value, json};
use testkit::app::{App, Speaks};
use testkit::gate::Gate;
use testkit::settings::Settings;
use testkit::tokens::Issuer;

const CLAIMS: &str = "[issuers.claims]\nemail = \"email\"\naliases = [\"oid\", \"/ext/upn\"]";

fn scene(claims: &str) -> (App, Issuer, Settings) {
    let (app, issuer) = (App::start(Speaks::Http1), Issuer::new());
    let settings = Settings::plaintext().upstream("api", &app.url(), "").issuer_with(&issuer, claims);
    let state = "[state]\npath = \"state.db\"\non_empty = \"trust\"";
    (app, issuer, settings.route("/{*rest}", "").admin().toml(state))
}

/// A token of ada with every possible name.
fn token(issuer: &Issuer, session: &str) -> String {
    let token = issuer.token().claim("sub", "ada").claim("email", "Ada@Example.com").claim("oid", "0-0-7");
    token.claim("ext", json!({"upn": "ada@corp"})).claim("sid", session).build()
}

/// Holds docs/concepts.md, Events: session-revoked
#[test]
fn an_event_ends_a_token_by_any_of_its_names_is_listed_with_it_and_can_be_undone() {
    let (_app, issuer, settings) = scene(CLAIMS);
    let mut gate = Gate::start(&settings);
    let token = token(&issuer, "s1");
    let passes = |gate: &Gate| gate.get("/anything").token(&token).send().status() == 200;
    assert!(passes(&gate));
    for (event, reason) in [
        (json!({"type": "session-revoked", "session": "s1"}), "session_revoked"),
        (json!({"type": "session-revoked", "session": "s1", "subject": "ada"}), "session_revoked"),
        (
            json!({"type": "session-revoked", "session": "s1", "subject": "0-0-7", "subject_kind": "alias"}),
            "session_revoked",
        ),
        (
            json!({"type": "subject-revoked", "subject": "Ada@EXAMPLE.com", "subject_kind": "email"}),
            "subject_revoked",
        ),
        (json!({"type": "subject-revoked", "subject": "0-0-7", "subject_kind": "alias"}), "subject_revoked"),
        (json!({"type": "role-changed", "subject": "ada@corp", "subject_kind": "alias"}), "role_changed"),
    ] {
        gate.publish(&event);
        assert_eq!(gate.reason(&token), reason, "{event}");
        let session = event["session"].as_str();
        let query = session.map_or_else(
            || format!("subject={}", event["subject"].as_str().unwrap_or_default()),
            |session| format!("session={session}"),
        );
        let listed = gate.operate("GET", &format!("/v1/revocations?{query}"), None).json();
        let log = gate.operate("GET", "/v1/events?limit=1000", None).json();
        let last = log["items"].as_array().and_then(|items| items.last()).unwrap();
        for item in [last, &listed_with(&listed, &event, last)] {
            let kind = event["subject"].as_str().map(|_| event["subject_kind"].as_str().unwrap_or("subject"));
            for (name, expected) in [
                ("type", &event["type"]),
                ("subject", &event["subject"]),
                ("session", &event["session"]),
                ("subject_kind", &json!(kind)),
            ] {
                assert_eq!(&item[name], expected, "{name} of {item} for {event}");
            }
        }
        // It survives a restart, and its undoing does.
        gate.stop();
        gate = Gate::start(&settings);
        assert_eq!(gate.reason(&token), reason, "after a restart: {event}");
        let undo = format!("/v1/revocations/{}", last["sequence"]);
        assert_eq!(gate.operate("DELETE", &undo, None).status(), 204, "{event}");
        assert!(passes(&gate), "undone: {event}");
    }
    gate.stop();
    assert!(passes(&Gate::start(&settings)), "all undone");
}

/// The entry in the list of revocations; a narrowed event is not found by its session, which names more tokens.
fn listed_with(listed: &Value, event: &Value, last: &Value) -> Value {
    let is_narrowed = !event["session"].is_null() && !event["subject"].is_null();
    if is_narrowed {
        return last.clone();
    }
    listed["items"].as_array().and_then(|items| items.last()).unwrap().clone()
}

#[test]
fn an_event_that_names_another_leaves_a_token_alone() {
    let (_app, issuer, settings) = scene(CLAIMS);
    let gate = Gate::start(&settings);
    let (first, second) = (token(&issuer, "s1"), token(&issuer, "s2"));
    for event in [
        json!({"type": "session-revoked", "session": "s1"}),
        json!({"type": "session-revoked", "session": "s2", "subject": "bob"}),
        json!({"type": "session-revoked", "session": "s2", "subject": "ada", "subject_kind": "alias"}),
        json!({"type": "session-revoked", "session": "ada"}),
        json!({"type": "subject-revoked", "subject": "Ada@example.com"}),
        json!({"type": "subject-revoked", "subject": "ada@Example.com", "subject_kind": "email"}),
        json!({"type": "subject-revoked", "subject": "ada", "subject_kind": "alias"}),
        json!({"type": "role-changed", "subject": "0-0-7", "subject_kind": "email"}),
    ] {
        gate.publish(&event);
        assert_eq!(gate.get("/anything").token(&second).send().status(), 200, "{event}");
    }
    assert_eq!(gate.reason(&first), "session_revoked");
    let in_use = gate.operate("GET", "/v1/sessions?subject=ada", None).json();
    assert_eq!(
        in_use["items"].as_array().map(Vec::len),
        Some(1),
        "the ended one is in use no more: {in_use}"
    );
}

#[test]
fn subject_token_id_and_audience_may_be_other_claims() {
    let claims = "required_claims = []\n[issuers.claims]\nsubject = \"oid\"\ntoken_id = \"uti\"\naudience = \"client_id\"";
    let (app, issuer, settings) = scene(claims);
    let gate = Gate::start(&settings);
    let audience = serde_json::from_str::<Value>(&issuer.token().claims_json()).unwrap()["aud"].clone();
    let of = |oid: &str, uti: &str| {
        let token = issuer.token().claim("oid", oid).claim("uti", uti).claim("client_id", audience.clone());
        token.without("aud").without("sub").without("jti")
    };
    let (ada, bob) = (of("ada", "1").build(), of("bob", "2").build());
    let sub = of("cleo", "3").claim("sub", "ada").claim("jti", "2").build();
    for good in [&ada, &bob, &sub] {
        assert_eq!(gate.get("/anything").token(good).send().status(), 200);
    }
    let told: Vec<String> =
        app.arrived().iter().filter_map(|head| head.field("x-auth-subject").map(str::to_owned)).collect();
    assert_eq!(told, ["ada", "bob", "cleo"], "what the upstream is told");
    assert_eq!(gate.reason(&of("ada", "4").claim("client_id", "another").build()), "wrong_audience");
    gate.publish(&json!({"type": "subject-revoked", "subject": "ada"}));
    gate.publish(&json!({"type": "token-revoked", "jti": "2"}));
    assert_eq!(gate.reason(&ada), "subject_revoked");
    assert_eq!(gate.reason(&bob), "token_revoked");
    assert_eq!(gate.get("/anything").token(&sub).send().status(), 200);
}

#[test]
fn a_name_that_cannot_be_compared_is_a_bad_claim() {
    let (_app, issuer, settings) = scene(CLAIMS);
    let gate = Gate::start(&settings);
    for (claim, value) in [
        ("sub", json!(7)),
        ("sid", json!(7)),
        ("sid", json!(["s1"])),
        ("email", json!({"address": "x"})),
        ("oid", json!(["0-0-7"])),
    ] {
        let token = issuer.token().claim(claim, value.clone()).build();
        assert_eq!(gate.reason(&token), "bad_claim", "{claim}: {value}");
    }
    let empty = issuer.token().claim("sid", "").claim("email", "").claim("oid", Value::Null).build();
    assert_eq!(gate.get("/anything").token(&empty).send().status(), 200, "no names, and no harm");
}
