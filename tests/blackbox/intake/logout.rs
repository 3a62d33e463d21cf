//! Back-channel logout: what a valid logout token ends, and that repeating it ends nothing more.

use serde_json::{Value, json};

use testkit::now;

use super::{CLIENT, FORM, LOGOUT, Scene};

/// Holds docs/configuration.md, Settings: logout[]
#[test]
fn who_logs_out_is_denied_from_then_on_and_nobody_else() {
    for (sid, sub, denied, kind) in [
        (json!("s1"), Value::Null, [true, false, false], "session-revoked"),
        (Value::Null, json!("alice"), [true, true, false], "subject-revoked"),
        // The session alone, by whatever name its subject goes at the provider.
        (json!("s1"), json!("alice"), [true, false, false], "session-revoked"),
        (json!("s1"), json!("pairwise"), [true, false, false], "session-revoked"),
        (json!("unknown"), json!("alice"), [false, false, false], "session-revoked"),
    ] {
        let scene = Scene::start();
        let token = |subject: &str, session: &str| {
            scene.issuer.token().claim("sub", subject).claim("sid", session).build()
        };
        let tokens = [token("alice", "s1"), token("alice", "s2"), token("bob", "s3")];
        assert!(tokens.iter().all(|token| scene.passes(token)));
        let mut logout = scene.logout_token().without("sid");
        for (name, value) in [("sid", &sid), ("sub", &sub)] {
            if !value.is_null() {
                logout = logout.claim(name, value.clone());
            }
        }
        let logout = logout.build();
        for _ in 0..2 {
            let answer = scene.log_out(&logout);
            assert_eq!((answer.status(), answer.text().as_str()), (200, ""), "{sid} {sub}");
            assert_eq!(answer.field("cache-control"), Some("no-store"));
            assert_eq!(tokens.clone().map(|token| !scene.passes(&token)), denied, "{sid} {sub}");
            let events = scene.events();
            assert_eq!(events.len(), 1, "the same logout token is the same event: {events:?}");
            let event = &events[0];
            assert_eq!((&event["type"], &event["source"]), (&json!(kind), &json!("logout")));
            assert_eq!(event["session"], sid, "{event}");
            if kind == "subject-revoked" {
                assert_eq!(event["subject"], sub, "{event}");
            }
        }
        // A session that begins later is another one.
        let later = scene.issuer.token().claim("sid", "s9").claim("iat", now() + 5).build();
        assert!(scene.passes(&later), "{sid} {sub}");
    }
}

#[test]
fn logout_tokens_are_taken_in_as_providers_really_send_them() {
    let scene = Scene::start();
    let right = || scene.logout_token();
    let events = |value: Value| right().claim("events", value);
    for (what, token) in [
        ("a full type", right().head("typ", "application/logout+jwt")),
        ("a type in capitals", right().head("typ", "LOGOUT+JWT")),
        ("the type of any JWT", right().head("typ", "JWT")),
        ("no type", right().headless("typ")),
        ("several audiences", right().claim("aud", json!([CLIENT, "else"]))),
        ("the other configured audience", right().claim("aud", "other")),
        ("a clock that is ahead", right().claim("iat", now() + 290)),
        ("an event with members", events(json!({LOGOUT: {"reason": "idle"}}))),
        ("another event beside", events(json!({LOGOUT: {}, "https://example.com/else": {}}))),
        ("expired within the leeway", right().claim("iat", now() - 140).claim("exp", now() - 20)),
        ("a fraction of a second", right().claim("iat", now() as f64 - 0.5)),
        ("no kid", right().headless("kid")),
    ] {
        let answer = scene.log_out(&token.build());
        assert_eq!((answer.status(), answer.text().as_str()), (200, ""), "{what}");
    }
    let token = right().build();
    for (what, fields, body) in [
        (
            "parameters of the type",
            "Content-Type: application/x-www-form-urlencoded; charset=utf-8\r\n",
            format!("logout_token={token}"),
        ),
        ("other fields", FORM, format!("a=b&logout_token={token}&c=d")),
        ("escapes", FORM, format!("logout%5Ftoken={}", token.replace('.', "%2e"))),
    ] {
        assert_eq!(scene.post("/signals/logout/op", fields, body).status(), 200, "{what}");
    }
    let count = scene.events().len();
    assert!(count <= 13, "one a token at most: {count}");
}
