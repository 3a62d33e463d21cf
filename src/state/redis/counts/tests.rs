//! Single values that gates share through a real server: usage, key sets, proofs, nonces, and which authority signs.

use std::time::Duration;

use testkit::redis_server::RedisServer;

use super::*;
use crate::identity::Key;
use crate::state::redis::create;
use crate::state::redis::testing::{Replica, created_at, origin, settings};

const HOUR: Duration = Duration::from_secs(3_600);

fn row(client: &str, status: u16, count: u64, secs: i64) -> UsageRow {
    let last_used_at = Timestamp::from_secs(secs);
    UsageRow { client: client.into(), route: "/a \"b\"".into(), status, count, last_used_at }
}

#[tokio::test]
async fn the_usage_of_all_gates_is_added_up() {
    let server = RedisServer::start();
    let (first, second) = (Replica::connected(&server).await, Replica::connected(&server).await);
    first.store.add_usage(vec![row("x", 200, 3, 100), row("y", 200, 1, 50)]).await.unwrap();
    second.store.add_usage(vec![row("x", 200, 4, 90), row("x", 401, 1, 70)]).await.unwrap();
    let of_x = [row("x", 200, 7, 100), row("x", 401, 1, 70)];
    assert_eq!(first.store.usage(Some("x")).await.as_deref(), Ok(of_x.as_slice()));
    let all = [of_x.as_slice(), &[row("y", 200, 1, 50)]].concat();
    assert_eq!(second.store.usage(None).await, Ok(all));
    assert_eq!(second.store.usage(Some("z")).await, Ok(vec![]));
}

#[tokio::test]
async fn the_newest_key_set_of_an_issuer_is_kept() {
    let server = RedisServer::start();
    let (first, second) = (Replica::connected(&server).await, Replica::connected(&server).await);
    let (of, secs) = (("https://a/", "url"), Timestamp::from_secs);
    assert_eq!(second.store.key_set(of).await, Ok(None));
    for (body, at, kept) in
        [("one", 100, ("one", 100)), ("old", 99, ("one", 100)), ("two", 101, ("two", 101))]
    {
        first.store.save_key_set(of, body.as_bytes(), secs(at)).await.unwrap();
        assert_eq!(second.store.key_set(of).await, Ok(Some((kept.0.as_bytes().to_vec(), secs(kept.1)))));
    }
    assert_eq!(second.store.key_set(("https://a/", "other")).await, Ok(None));
}

#[tokio::test]
async fn a_proof_is_accepted_by_one_gate_and_all_use_the_same_nonces() {
    let server = RedisServer::start();
    let (first, second) = (Replica::connected(&server).await, Replica::connected(&server).await);
    let proof = |byte| Key::from_bytes([byte; 16]);
    for (gate, byte, is_new) in
        [(&first, 1, true), (&second, 1, false), (&first, 1, false), (&second, 2, true)]
    {
        assert_eq!(gate.store.claim_proof(proof(byte), HOUR).await, Ok(is_new));
    }
    // Even if it is forgotten at once, it was claimed.
    assert_eq!(first.store.claim_proof(proof(3), Duration::ZERO).await, Ok(true));
    for (gate, period, fresh, key) in
        [(&first, 7, "one", "one"), (&second, 7, "two", "one"), (&second, 8, "two", "two")]
    {
        let nonces = gate.store.nonce_key(period, fresh.as_bytes(), HOUR).await;
        assert_eq!(nonces, Ok(key.as_bytes().to_vec()), "{period} {fresh}");
    }
}

#[tokio::test]
async fn an_issuer_has_one_authority_that_may_rotate_its_keys() {
    let server = RedisServer::start();
    let gate = Replica::connected(&server).await;
    let ids = |ids: &[&str]| -> Vec<String> { ids.iter().map(|id| (*id).to_owned()).collect() };
    for (issuer, keys, other) in [
        ("https://a/", ids(&["1", "2"]), None),
        ("https://a/", ids(&["3"]), Some("1 2")),
        ("https://a/", ids(&["2", "3"]), None),
        ("https://a/", ids(&["3"]), None),
        ("https://b/", ids(&["9"]), None),
    ] {
        let claimed = gate.store.claim_authority(issuer, &keys).await;
        assert_eq!(claimed, Ok(other.map(str::to_owned)), "{issuer} {keys:?}");
    }
}

#[tokio::test]
async fn a_log_is_created_before_the_first_gate_once() {
    for accepts_existing_tokens in [false, true] {
        let server = RedisServer::start();
        let settings = settings(&server.url());
        assert_eq!(create(&settings, accepts_existing_tokens).await, Ok(()));
        assert_eq!(created_at(&server) == Timestamp::EPOCH, accepts_existing_tokens);
        let id = origin(&server, "id");
        let again = create(&settings, !accepts_existing_tokens).await.unwrap_err().to_string();
        assert!(again.contains("already exists under state.key_prefix; it was not changed"), "{again}");
        assert_eq!((origin(&server, "id"), id.len()), (id.clone(), 32));
        assert_eq!(created_at(&server) == Timestamp::EPOCH, accepts_existing_tokens);
    }
}
