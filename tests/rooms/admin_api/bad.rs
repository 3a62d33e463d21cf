//! Events that are rejected: every row leaves the log unchanged.

use crate::admin_api::{A, B, Gate, Shown as _};

/// A body, with `@` for the member that names the issuer; its status; a word of the error message.
const REFUSED: &[(&str, u16, &str)] = &[
    (" ", 400, "EOF"),
    ("{", 400, "EOF"),
    ("null", 400, "invalid type"),
    ("7", 400, "invalid type"),
    ("\"subject-revoked\"", 400, "invalid type"),
    ("{}", 400, "type"),
    ("[{}]", 400, "event 0"),
    ("[7]", 400, "event 0"),
    ("[[]]", 400, "event 0"),
    ("[", 400, "EOF"),
    ("[] []", 400, "trailing"),
    (r#"{"type":"issuer-revoked",@} {}"#, 400, "trailing"),
    (r#"{"type":"subject-revoked",@,"subject":"s","typ":"x"}"#, 400, "`typ`"),
    (r#"{"type":"subject-revoked",@,"subject":"s","type":"role-changed"}"#, 400, "duplicate field `type`"),
    (r#"{"type":"subject-revoked",@,"subject":"s","subject":"t"}"#, 400, "duplicate field `subject`"),
    (r#"{"type":"subject-revoked",@,"subject":"s","client":"c"}"#, 400, "`client`"),
    (r#"{"type":"subject-revoked",@,"subject":"s","jti":"j"}"#, 400, "`jti`"),
    (r#"{"type":"subject-revoked",@,"subject":"s","role_version":1}"#, 400, "`role_version`"),
    (r#"{"type":"subject-revoked",@,"subject":"s","at":true}"#, 400, "`at`"),
    (r#"{"type":"subject-revoked",@,"subject":"s","at":""}"#, 400, "`at`"),
    (r#"{"type":"subject-revoked",@,"subject":"s","at":"yesterday"}"#, 400, "`at`"),
    (r#"{"type":"subject-revoked",@,"subject":"s","at":"2026-02-30T00:00:00Z"}"#, 400, "`at`"),
    (r#"{"type":"subject-revoked",@,"subject":"s","at":"2026-01-01T00:00:00"}"#, 400, "`at`"),
    (r#"{"type":"subject-revoked",@,"subject":"s","at":-1}"#, 400, "`at`"),
    (r#"{"type":"subject-revoked",@,"subject":"s","at":1e30}"#, 400, "`at`"),
    (r#"{"type":"subject-revoked",@,"subject":"s","at":4000000000}"#, 400, "future"),
    (r#"{"type":"subject-revoked",@,"subject":"s","at":"2200-01-01T00:00:00Z"}"#, 400, "future"),
    (r#"{"type":"subject-revoked",@}"#, 400, "`subject`"),
    (r#"{"type":"subject-revoked",@,"subject":""}"#, 400, "`subject`"),
    (r#"{"type":"subject-revoked",@,"subject":null}"#, 400, "`subject`"),
    (r#"{"type":"subject-revoked",@,"subject":["s"]}"#, 400, "`subject`"),
    (r#"{"type":"subject-revoked",@,"subject":7}"#, 400, "`subject`"),
    (r#"{"type":"token-revoked",@}"#, 400, "`jti`"),
    (r#"{"type":"token-revoked",@,"jti":{}}"#, 400, "`jti`"),
    (r#"{"type":"client-revoked",@,"jti":"j"}"#, 400, "`jti`"),
    (r#"{"type":"issuer-revoked",@,"subject":"s"}"#, 400, "`subject`"),
    (r#"{"type":"role-changed",@,"subject":"s","role_version":-1}"#, 400, "`role_version`"),
    (r#"{"type":"role-changed",@,"subject":"s","role_version":"1"}"#, 400, "`role_version`"),
    (r#"{"type":"role-changed",@,"subject":"s","role_version":18446744073709551615}"#, 400, "`role_version`"),
    (r#"{"type":"Role-Changed",@,"subject":"s"}"#, 400, "Role-Changed"),
    (r#"{"type":7,@,"subject":"s"}"#, 400, "`type`"),
    (r#"{"type":"revocation-undone"}"#, 400, "revocation-undone"),
    (r#"{"type":"issuer-revoked"}"#, 400, "`issuer` is required"),
    (r#"{"type":"issuer-revoked","issuer":""}"#, 400, "not a configured issuer"),
    (r#"{"type":"issuer-revoked","issuer":"https://a.example.com"}"#, 400, "not a configured issuer"),
    (r#"{"type":"issuer-revoked","issuer":7}"#, 400, "`issuer`"),
];

#[tokio::test]
async fn nothing_but_events_is_accepted() {
    let gate = Gate::start(&[A, B]).await;
    let many = vec![r#"{"type":"issuer-revoked",@}"#; 10_001].join(",");
    let (many, large) = (format!("[{many}]"), " ".repeat((8 << 20) + 1));
    let computed = [("", 400, "no event"), (&many, 400, "10000"), (&large, 413, "bytes")];
    assert!(REFUSED.len() >= 40);
    for (body, status, complaint) in REFUSED.iter().chain(&computed) {
        let body = body.replace('@', &format!("\"issuer\":\"{A}\""));
        let told = gate.call("POST /v1/events", &body).await.problem(*status);
        assert!(told.contains(complaint), "{}: {told}", &body[..body.len().min(200)]);
    }
    assert!(gate.ledger.log.events(0, 10).await.unwrap().items.is_empty());
}

#[tokio::test]
async fn a_batch_with_one_bad_event_is_refused_as_a_whole() {
    let gate = Gate::start(&[A]).await;
    let good = r#"{"type":"subject-revoked","subject":"s"}"#;
    for place in [0, 1, 99] {
        let mut batch = vec![good; 100];
        batch[place] = r#"{"type":"subject-revoked","subject":7}"#;
        let refused = gate.call("POST /v1/events", &format!("[{}]", batch.join(","))).await;
        let told = refused.problem(400);
        assert!(told.contains(&format!("event {place}: `subject`")), "{told}");
        assert_eq!(refused.json()["index"], place);
    }
    assert!(gate.ledger.log.events(0, 10).await.unwrap().items.is_empty());
    assert_eq!(gate.ledger.revocations.load().generation(), 0);
}

#[tokio::test]
async fn questions_that_make_no_sense_are_refused() {
    let gate = Gate::start(&[A, B]).await;
    for (line, status, complaint) in [
        ("GET /v1/events?after=x", 400, "after"),
        ("GET /v1/events?after=-1", 400, "after"),
        ("GET /v1/events?limit=0", 400, "limit"),
        ("GET /v1/events?limit=1001", 400, "limit"),
        ("GET /v1/events?limit=1&limit=2", 400, "limit"),
        ("GET /v1/events?subject=s", 400, "subject"),
        ("GET /v1/revocations?subject=s&issuer=https://c/", 400, "not a configured issuer"),
        ("GET /v1/revocations?subject=s&client=c&issuer=https://a.example.com/", 400, "one of"),
        ("GET /v1/revocations?jti=j&client=c&issuer=https://a.example.com/", 400, "one of"),
        ("GET /v1/revocations?subject=&issuer=https://a.example.com/", 400, "`subject` is empty"),
        ("GET /v1/revocations?type=subject-revoked", 400, "type"),
        ("DELETE /v1/revocations/1", 404, "no such revocation"),
        ("DELETE /v1/revocations/x", 404, "no such revocation"),
        ("DELETE /v1/revocations/-1", 404, "no such revocation"),
        ("DELETE /v1/revocations/99999999999999999999", 404, "no such revocation"),
        ("DELETE /v1/revocations/%ff", 400, "UTF-8"),
        ("DELETE /v1/sessions/%ff", 400, "UTF-8"),
        ("GET /v1/revocations/1", 405, "method"),
        ("DELETE /v1/revocations", 405, "method"),
        ("DELETE /v1/events", 405, "method"),
        ("GET /v1/sessions?subject=&issuer=https://a.example.com/", 400, "`subject` is empty"),
        ("GET /v1/sessions?after=7", 400, "after"),
        ("GET /v1/sessions?limit=ten", 400, "limit"),
        ("DELETE /v1/sessions", 400, "`subject` is required"),
        ("DELETE /v1/sessions?issuer=https://a.example.com/", 400, "`subject` is required"),
        ("DELETE /v1/sessions?subject=s", 400, "`issuer` is required"),
        ("DELETE /v1/sessions?subject=s&issuer=https://a.example.com/&limit=1", 400, "limit"),
        ("DELETE /v1/sessions/0123456789abcdef0123456789abcdef", 404, "no such token"),
        ("DELETE /v1/sessions/%2B123456789abcdef0123456789abcdef", 404, "no such token"),
        ("DELETE /v1/sessions/0", 404, "no such token"),
        ("GET /v1/usage?client=", 400, "`client` is empty"),
        ("GET /v1/usage?after=!", 400, "after"),
        ("GET /v1/usage?route=/", 400, "route"),
        ("POST /v1/usage", 405, "method"),
    ] {
        let told = gate.call(line, "").await.problem(status);
        assert!(told.contains(complaint), "{line}: {told}");
    }
}

#[tokio::test]
async fn each_group_needs_its_permission() {
    let gate = Gate::start(&[A]).await;
    for (line, body, needed, answered) in [
        ("POST /v1/events", r#"{"type":"issuer-revoked","at":1}"#, "events", 202),
        ("GET /v1/events", "", "events", 200),
        ("GET /v1/revocations", "", "events", 200),
        ("DELETE /v1/revocations/1", "", "events", 204),
        ("GET /v1/sessions", "", "sessions", 200),
        ("DELETE /v1/sessions?subject=s", "", "sessions", 204),
        ("GET /v1/usage", "", "sessions", 200),
    ] {
        for token in ["events", "sessions", "config"] {
            let answer = gate.call_as(token, line, body).await;
            if token == needed {
                assert_eq!(answer.status(), answered, "{line} {token} {answer:?}");
            } else {
                assert!(answer.problem(403).contains(needed), "{line} {token} {answer:?}");
            }
        }
        assert_eq!(gate.call_as("nobody", line, body).await.status(), 401, "{line}");
    }
}
