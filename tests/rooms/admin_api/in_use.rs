//! Sessions and usage: which tokens are in use, how they are ended, and which client called what.

use portcullis::identity::{ClientKey, IssuerKey, SubjectKey, TokenKey};
use portcullis::metrics::Metrics;
use portcullis::metrics::clients::ClientCounters;
use portcullis::revocations::{Ended, TokenFacts};
use portcullis::state::Store;
use portcullis::time::{Now, Timestamp};
use portcullis::usage::Usage;
use serde_json::{Value, json};

use crate::admin_api::{A, B, Gate, Shown as _};

impl Gate {
    fn token_is_revoked(&self, token: TokenKey) -> bool {
        let facts = TokenFacts {
            token,
            issuer: IssuerKey::new(A),
            subject: Some(SubjectKey::new(A, "alice")),
            client: Some(ClientKey::new(A, "app")),
            issued_at: Timestamp::now(),
            role_version: None,
            names: None,
        };
        self.ledger.revocations.load().judge(&facts, Now::read()) == Some(Ended::Token)
    }
}

#[tokio::test]
async fn sessions_are_listed_and_ended() {
    let gate = Gate::start(&[A, B]).await;
    let alice = [gate.used(A, "alice", "1"), gate.used(A, "alice", "2"), gate.used(A, "alice", "3")];
    let (bob, namesake) = (gate.used(A, "bob", "4"), gate.used(B, "alice", "1"));
    let tokens = async |query: &str| {
        let items = gate.call(&format!("GET /v1/sessions?{query}"), "").await.items();
        let mut tokens: Vec<String> =
            items.iter().map(|item| item["token"].as_str().unwrap().to_owned()).collect();
        tokens.sort_unstable();
        tokens
    };
    let names = |keys: &[TokenKey]| {
        let mut names: Vec<String> = keys.iter().map(|key| key.0.to_string()).collect();
        names.sort_unstable();
        names
    };
    let hers = format!("subject=alice&issuer={A}");
    assert_eq!(tokens(&hers).await, names(&alice));
    assert_eq!(tokens("").await, names(&[alice[0], alice[1], alice[2], bob, namesake]));
    assert_eq!(tokens(&format!("issuer={B}")).await, names(&[namesake]));

    let item = gate.call(&format!("GET /v1/sessions?subject=bob&issuer={A}"), "").await.items().remove(0);
    let members: Vec<&str> = item.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(members, ["client", "expires_at", "first_used_at", "issuer", "last_used_at", "token"]);
    assert_eq!((&item["client"], &item["issuer"]), (&json!("app"), &json!(A)));
    assert!(item["first_used_at"].as_str().unwrap() <= item["expires_at"].as_str().unwrap());

    let one = format!("DELETE /v1/sessions/{}", alice[1].0);
    assert_eq!(gate.call(&one, "").await.status(), 204);
    assert!(gate.token_is_revoked(alice[1]));
    assert_eq!(gate.call(&one, "").await.status(), 404, "in use no more");
    assert_eq!(tokens(&hers).await, names(&[alice[0], alice[2]]));
    assert_eq!(gate.call(&format!("DELETE /v1/sessions?{hers}"), "").await.status(), 204);
    assert!(alice.iter().all(|token| gate.token_is_revoked(*token)));
    assert!(!gate.token_is_revoked(bob) && !gate.token_is_revoked(namesake));
    assert!(tokens(&hers).await.is_empty());
    assert_eq!(gate.call(&format!("DELETE /v1/sessions?{hers}"), "").await.status(), 204, "nothing to do");
    gate.shows(r#"portcullis_events_total{source="admin",type="token-revoked"} 3"#);

    let at = Timestamp::now().as_millis() as f64 / 1000.0;
    gate.publish(&json!({"type": "subject-revoked", "issuer": A, "subject": "bob", "at": at}).to_string())
        .await;
    assert_eq!(tokens("").await, names(&[namesake]), "what was revoked otherwise is in use no more");
}

#[tokio::test]
async fn pages_of_sessions_lead_through_all_of_them() {
    let gate = Gate::start(&[A]).await;
    let mut all: Vec<String> =
        (0..2_500).map(|i| gate.used(A, &format!("s{}", i % 2), &i.to_string()).0.to_string()).collect();
    all.sort_unstable();
    let (mut seen, mut after) = (Vec::new(), String::new());
    loop {
        let page = gate.call(&format!("GET /v1/sessions?limit=999{after}"), "").await;
        seen.extend(page.items().iter().map(|item| item["token"].as_str().unwrap().to_owned()));
        match page.json()["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => break,
        }
    }
    assert_eq!(seen, all);
    assert_eq!(gate.call("DELETE /v1/sessions?subject=s0", "").await.status(), 204);
    assert_eq!(gate.ledger.revocations.load().counts().tokens, 1_250);
    let left = gate.call("GET /v1/sessions?limit=1000", "").await;
    assert_eq!((left.items().len(), left.json()["next"].is_string()), (1_000, true));
}

/// Counts one forwarded request and its response.
fn count(worker: &mut ClientCounters, client: &str, route: usize, status: u16, now: Timestamp) {
    let place = worker.forwarded(client, route);
    worker.answered(place, route, status, now);
}

#[tokio::test]
async fn usage_is_told_at_once_and_kept() {
    let gate = Gate::start(&[A]).await;
    let now = Timestamp::now();
    let mut workers = [0, 1].map(|_| ClientCounters::new(&gate.metrics, vec!["/a".into(), "/b/{id}".into()]));
    for worker in &mut workers {
        count(worker, "app", 0, 200, now);
        count(worker, "app", 0, 200, now.minus(crate::admin_api::HOUR));
        count(worker, "app", 1, 404, now);
        count(worker, "o&her/=", 1, 200, now);
        count(worker, "app", 7, 200, now);
    }
    let row = |client: &str, route: &str, status: u16, count: u64| json!({"client": client, "route": route, "status": status, "count": count, "last_used_at": now.to_string()});
    let rows = [row("app", "/a", 200, 4), row("app", "/b/{id}", 404, 2), row("o&her/=", "/b/{id}", 200, 2)];
    assert_eq!(gate.call("GET /v1/usage?client=app", "").await.items(), rows[..2]);
    assert_eq!(gate.call("GET /v1/usage?client=o%26her/%3D", "").await.items(), rows[2..]);

    gate.ledger.usage.flush().await.unwrap();
    count(&mut workers[1], "app", 0, 200, now);
    let first = gate.call("GET /v1/usage?limit=2", "").await;
    assert_eq!(first.items(), [row("app", "/a", 200, 5), rows[1].clone()]);
    let next = first.json()["next"].as_str().unwrap().to_owned();
    let rest = gate.call(&format!("GET /v1/usage?after={next}"), "").await;
    assert_eq!((rest.items(), &rest.json()["next"]), (vec![rows[2].clone()], &Value::Null));
}

#[tokio::test]
async fn usage_survives_a_restart_with_its_thousand_clients() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("usage.db");
    let now = Timestamp::now();
    let start = async || {
        let metrics = Metrics::new().unwrap();
        let store = Store::open(&path, Now::read()).unwrap();
        (
            Usage::start(metrics.usage.clone(), store).await.unwrap(),
            ClientCounters::new(&metrics, vec!["/".into()]),
        )
    };
    let (usage, mut worker) = start().await;
    (0..1_500).for_each(|client| count(&mut worker, &format!("client-{client}"), 0, 200, now));
    usage.flush().await.unwrap();
    drop(usage);
    let (usage, mut worker) = start().await;
    count(&mut worker, "a new one", 0, 200, now);
    count(&mut worker, "client-999", 0, 200, now);
    let listed = usage.list(None).await.unwrap();
    assert_eq!(listed.len(), 1_001);
    let count = |client: &str| listed.iter().find(|row| &*row.client == client).map(|row| row.count);
    assert_eq!((count("client-999"), count("other"), count("a new one")), (Some(2), Some(501), None));
}
