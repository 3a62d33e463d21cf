//! Events and what they end: durable, in force at once, listed, undone.

use std::time::Duration;

use portcullis::identity::TokenKey;
use portcullis::revocations::Ended;
use portcullis::time::Timestamp;
use rusqlite::Connection;
use serde_json::{Value, json};

use crate::admin_api::{A, B, Gate, Shown as _};

#[tokio::test]
async fn an_event_is_in_force_when_it_is_acknowledged_and_can_be_taken_back() {
    let gate = Gate::start(&[A, B]).await;
    let issued_at = Timestamp::now();
    for (event, ended) in [
        (json!({"type": "subject-revoked", "issuer": A, "subject": "s"}), Ended::Subject),
        (json!({"type": "role-changed", "issuer": A, "subject": "s"}), Ended::Roles),
        (json!({"type": "role-changed", "issuer": A, "subject": "s", "role_version": 3}), Ended::Roles),
        (json!({"type": "client-revoked", "issuer": A, "client": "app"}), Ended::Client),
        (json!({"type": "token-revoked", "issuer": A, "jti": "jti"}), Ended::Token),
        (json!({"type": "issuer-revoked", "issuer": A}), Ended::Issuer),
    ] {
        assert_eq!(gate.judge(A, "s", issued_at), None, "{event}");
        let answer = gate.call("POST /v1/events", &event.to_string()).await;
        assert_eq!((answer.status(), &answer.json()["accepted"]), (202, &json!(1)), "{answer:?}");
        assert_eq!(gate.judge(A, "s", issued_at), Some(ended), "{event}");
        assert_eq!(gate.judge(B, "s", issued_at), None, "another issuer's: {event}");
        let undo = format!("DELETE /v1/revocations/{}", answer.json()["sequence"]);
        for _ in 0..2 {
            let undone = gate.call(&undo, "").await;
            assert_eq!((undone.status(), undone.text().as_str()), (204, ""));
            assert_eq!(gate.judge(A, "s", issued_at), None, "{event}");
        }
    }
    assert!(gate.call("GET /v1/revocations", "").await.items().is_empty());
}

#[tokio::test]
async fn lists_say_what_was_told_and_when() {
    let gate = Gate::start(&[A]).await;
    let before = Timestamp::now();
    let at = before.minus(Duration::from_secs(60));
    let told = json!([
        {"type": "role-changed", "subject": "alice", "role_version": 7, "at": at.to_string()},
        {"type": "client-revoked", "client": "app", "at": at.as_secs()},
        {"type": "token-revoked", "jti": "j", "at": (at.as_millis() as f64) / 1000.0},
    ]);
    assert_eq!(gate.publish(&told.to_string()).await, 3);
    assert_eq!(gate.call("DELETE /v1/revocations/2", "").await.status(), 204);

    let listed = gate.call("GET /v1/events", "").await;
    assert_eq!(listed.json()["next"], Value::Null);
    let mut items = listed.items();
    for item in &mut items {
        let received_at = item.as_object_mut().unwrap().remove("received_at").unwrap();
        assert!(received_at.as_str().unwrap() >= before.to_string().as_str(), "{received_at}");
    }
    let undone_at = items[3].as_object_mut().unwrap().remove("at").unwrap();
    assert!(undone_at.as_str().unwrap() >= before.to_string().as_str());
    let whole = Timestamp::from_secs(at.as_secs()).to_string();
    assert_eq!(
        items,
        [
            json!({"sequence": 1, "type": "role-changed", "issuer": A, "subject": "alice", "subject_kind": "subject", "session": null, "client": null, "jti": null, "token": null,
                "at": at.to_string(), "role_version": 7, "source": "admin"}),
            json!({"sequence": 2, "type": "client-revoked", "issuer": A, "subject": null, "subject_kind": null, "session": null, "client": "app", "jti": null, "token": null,
                "at": whole, "role_version": null, "source": "admin"}),
            json!({"sequence": 3, "type": "token-revoked", "issuer": A, "subject": null, "subject_kind": null, "session": null, "client": null, "jti": "j", "token": TokenKey::new(A, "j").0.to_string(),
                "at": at.to_string(), "role_version": null, "source": "admin"}),
            json!({"sequence": 4, "type": "revocation-undone", "issuer": A, "subject": null, "subject_kind": null, "session": null, "client": "app",
                "jti": null, "token": null, "role_version": null, "source": "admin", "undoes": 2}),
        ]
    );
    let mut revocations = gate.call("GET /v1/revocations?subject=alice", "").await.items();
    let expires_at = revocations[0].as_object_mut().unwrap().remove("expires_at").unwrap();
    assert!(expires_at.as_str().unwrap() > before.plus(crate::admin_api::HOUR).to_string().as_str());
    let alice = json!({"id": 1, "type": "role-changed", "issuer": A, "subject": "alice", "subject_kind": "subject", "session": null, "client": null, "jti": null, "token": null,
        "at": at.to_string(), "source": "admin"});
    assert_eq!(revocations, [alice]);

    gate.shows(r#"portcullis_events_total{source="admin",type="client-revoked"} 1"#);
    gate.shows(r#"portcullis_events_total{source="admin",type="revocation-undone"} 1"#);
    let counts = gate.ledger.revocations.load().counts();
    assert_eq!((counts.subjects, counts.clients, counts.tokens, counts.issuers), (1, 0, 1, 0));
}

#[tokio::test]
async fn what_was_taken_back_stays_so_and_other_events_still_count() {
    let gate = Gate::start(&[A]).await;
    let at = Timestamp::now().as_secs();
    let event = |at: i64| json!({"type": "subject-revoked", "subject": "s", "at": at}).to_string();
    let (early, late) = (gate.publish(&event(at - 20)).await, gate.publish(&event(at - 10)).await);
    let issued = |at: i64| gate.judge(A, "s", Timestamp::from_secs(at));
    assert_eq!(issued(at - 15), Some(Ended::Subject));
    assert_eq!(gate.call(&format!("DELETE /v1/revocations/{late}"), "").await.status(), 204);
    assert_eq!((issued(at - 20), issued(at - 15)), (Some(Ended::Subject), None));
    assert_eq!(gate.publish(&event(at - 10)).await, late, "delivered again: accepted under its sequence");
    assert_eq!(issued(at - 15), None, "and without effect");
    let ids = async || {
        let items = gate.call("GET /v1/revocations?subject=s", "").await.items();
        items.iter().map(|item| item["id"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(ids().await, [early]);
    let other = gate.publish(&event(at - 12)).await;
    assert_eq!(issued(at - 15), Some(Ended::Subject), "another event counts");
    assert_eq!(ids().await, [early, other]);
    let undoing = gate.call("GET /v1/events?after=2", "").await.items();
    let undoing = undoing.iter().find(|item| item["type"] == "revocation-undone").unwrap();
    let undoing = format!("DELETE /v1/revocations/{}", undoing["sequence"]);
    assert_eq!(gate.call(&undoing, "").await.status(), 404, "an undo is not undone");
}

#[tokio::test]
async fn pages_lead_through_everything_once() {
    let gate = Gate::start(&[A, B]).await;
    let event = |i: i64| {
        let kind = if i % 3 == 0 { "role-changed" } else { "subject-revoked" };
        json!({"type": kind, "issuer": if i % 2 == 0 { A } else { B }, "subject": "s", "at": 1_700_000_000 + i})
    };
    // Of long ago as well: an event counts for as long as it is kept, because settings may grow.
    let recent = |i: i64| {
        let mut event = event(i);
        event["at"] = json!(Timestamp::now().as_secs() - 100 + i);
        event
    };
    let all: Vec<Value> = (0..25).map(event).chain((0..25).map(recent)).collect();
    assert_eq!(gate.publish(&json!(all).to_string()).await, 50);
    let walk = async |list: &str, name: &str| {
        let (mut seen, mut after) = (Vec::new(), json!(0));
        loop {
            let page = gate.call(&format!("GET {list}limit=4&after={after}"), "").await;
            seen.extend(page.items().iter().map(|item| item[name].as_u64().unwrap()));
            assert!(page.items().len() <= 4);
            after = page.json()["next"].clone();
            if after.is_null() {
                return seen;
            }
        }
    };
    assert_eq!(walk("/v1/events?", "sequence").await, (1..=50).collect::<Vec<_>>());
    assert_eq!(walk("/v1/revocations?", "id").await, (1..=50).collect::<Vec<_>>());
    // The first of either half.
    let of_a: Vec<u64> = (1..=25).step_by(2).chain((26..=50).step_by(2)).collect();
    assert_eq!(walk(&format!("/v1/revocations?issuer={A}&"), "id").await, of_a);
    assert_eq!(walk(&format!("/v1/revocations?subject=s&issuer={A}&"), "id").await, of_a);
    assert!(walk(&format!("/v1/revocations?subject=t&issuer={A}&"), "id").await.is_empty());
    assert!(walk(&format!("/v1/revocations?client=s&issuer={A}&"), "id").await.is_empty());
    assert_eq!(gate.call("GET /v1/events?after=18446744073709551615", "").await.items().len(), 0);
}

#[tokio::test]
async fn ten_thousand_events_fit_in_one_call() {
    let gate = Gate::start(&[A]).await;
    let event = |i: usize| {
        json!({"type": "subject-revoked", "issuer": A, "subject": format!("{i}{}", "x".repeat(200)),
            "at": "2026-01-01T00:00:00.000Z"})
    };
    let batch: Vec<Value> = (0..10_000).map(event).collect();
    let answer = gate.call("POST /v1/events", &json!(batch).to_string()).await;
    assert_eq!(answer.json(), json!({"accepted": 10_000, "sequence": 10_000}));
    gate.shows(r#"portcullis_events_total{source="admin",type="subject-revoked"} 10000"#);
    assert_eq!(gate.call("POST /v1/events", "[]").await.json(), json!({"accepted": 0, "sequence": 0}));
}

#[tokio::test]
async fn a_store_that_fails_is_said_so_and_nothing_is_in_force() {
    let gate = Gate::start(&[A]).await;
    let file = Connection::open(gate.folder.path().join("gate.db")).unwrap();
    file.execute_batch(
        "CREATE TRIGGER broken BEFORE INSERT ON events BEGIN SELECT RAISE(ABORT, 'broken'); END",
    )
    .unwrap();
    let (event, now) = (r#"{"type":"subject-revoked","subject":"s"}"#, Timestamp::now());
    let refused = gate.call("POST /v1/events", event).await;
    assert!(refused.problem(503).contains("state store"), "{refused:?}");
    assert!(refused.field("retry-after").is_some(), "{refused:?}");
    assert_eq!(gate.judge(A, "s", now), None);
    gate.shows(r#"portcullis_state_errors_total{kind="failed"} 1"#);
    file.execute_batch("DROP TRIGGER broken").unwrap();
    gate.publish(event).await;
    assert_eq!(gate.judge(A, "s", now), Some(Ended::Subject));
}
