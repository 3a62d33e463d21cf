//! Last and first uses that gates share through a real server, and when a missing one proves nothing.

use testkit::redis_server::RedisServer;

use super::*;
use crate::identity::Key;
use crate::state::redis::FirstUse;
use crate::state::redis::testing::{Replica, TERMS, clock, set_origin, settings};
use crate::state::redis::{RedisTerms, prepare};
use crate::time::Monotonic;

fn token(first: u8, last: u8) -> TokenKey {
    let mut bytes = [0; 16];
    (bytes[0], bytes[15]) = (first, last);
    TokenKey(Key::from_bytes(bytes))
}

fn used(token: TokenKey, at: Timestamp) -> SessionRow {
    SessionRow {
        token,
        issuer: "https://a/".into(),
        subject: None,
        client: None,
        issued_at: at,
        first_used_at: at,
        last_used_at: at,
        last_used_monotonic: Monotonic::from_millis(0),
        expires_at: at,
        names: None,
    }
}

const MINUTE: Duration = Duration::from_secs(60);
const LONG_AGO: Timestamp = Timestamp::from_secs(1_000);

#[tokio::test]
async fn the_last_use_on_any_gate_counts_and_an_idle_token_is_over_on_all() {
    let server = RedisServer::start();
    let (first, second) = (Replica::following(&server).await, Replica::following(&server).await);
    let (busy, idle, now) = (token(1, 1), token(2, 2), clock(&server));
    assert_eq!(first.store.save_sessions(vec![used(busy, now), used(idle, LONG_AGO)]).await, Ok(vec![]));
    assert_eq!(first.store.metrics.state_saved.get(), 2);
    assert_eq!(second.store.last_use(busy, LONG_AGO, Some(MINUTE)).await, SharedUse::LastUsed(now));
    // A use that is known here only.
    assert_eq!(second.store.last_use(token(3, 3), now, Some(MINUTE)).await, SharedUse::LastUsed(now));
    assert_eq!(second.store.last_use(idle, LONG_AGO, None).await, SharedUse::LastUsed(LONG_AGO));
    assert_eq!(second.store.last_use(idle, LONG_AGO, Some(MINUTE)).await, SharedUse::Over);
    // That is final, although the first gate sees the token in use.
    assert_eq!(first.store.save_sessions(vec![used(busy, now), used(idle, now)]).await, Ok(vec![idle]));
    assert_eq!(first.store.last_use(idle, now, Some(MINUTE)).await, SharedUse::Over);
    assert_eq!((first.store.metrics.state_reads.get(), second.store.metrics.state_reads.get()), (1, 4));
    // Last uses are kept for a minute longer than the longest idle timeout, marks for as long as events.
    let left = |token| {
        let key = first.store.keys.session(token);
        let kept: i64 = redis::cmd("PTTL")
            .arg(key)
            .query(&mut redis::Client::open(server.url()).unwrap().get_connection().unwrap())
            .unwrap();
        Duration::from_millis(u64::try_from(kept).unwrap())
    };
    let (of_use, of_mark) = (left(busy), left(idle));
    assert!(of_use <= 2 * MINUTE, "{of_use:?}");
    assert!(of_mark > 2 * MINUTE && of_mark <= TERMS.kept, "{of_mark:?}");

    first.store.reconfigure(RedisTerms { longest_idle: None, ..TERMS });
    assert_eq!(first.store.save_sessions(vec![used(idle, now)]).await, Ok(vec![]), "nothing goes idle");
}

#[tokio::test]
async fn a_first_use_before_the_token_was_issued_is_shared_and_only_moves_back() {
    let server = RedisServer::start();
    let (first, second) = (Replica::following(&server).await, Replica::following(&server).await);
    let (early, ordinary) = (token(1, 1), token(2, 2));
    let later = LONG_AGO.plus(MINUTE);
    for saved in [later, LONG_AGO, later] {
        first.store.save_first_uses(vec![(early, saved)]).await.unwrap();
    }
    assert_eq!(second.store.first_use(early).await, FirstUse::At(LONG_AGO));
    assert_eq!(second.store.first_use(ordinary).await, FirstUse::Ordinary);
    second.store.settle(MINUTE);
    assert_eq!(second.store.first_use(early).await, FirstUse::At(LONG_AGO), "that it says in any case");
    assert_eq!(second.store.first_use(ordinary).await, FirstUse::Unknown);
    let unreachable = second.store.metrics.state_errors.with_label_values(&["unreachable"]);
    assert_eq!((second.store.metrics.state_reads.get(), unreachable.get()), (4, 1));
}

#[tokio::test]
async fn a_missing_last_use_proves_nothing_before_all_gates_have_written_theirs_again() {
    let server = RedisServer::start();
    for (round, (is_other, settles, is_settled)) in
        (1..).zip([(true, true, false), (true, false, false), (false, true, false), (false, false, true)])
    {
        let gate = Replica::following(&server).await;
        let id = gate.store.position().id;
        if settles {
            gate.store.settle(MINUTE);
        }
        set_origin(&server, "id", if is_other { "another" } else { &id });
        assert_eq!(gate.store.require_settled().await.is_ok(), is_settled, "{is_other} {settles}");
        let seems_idle = gate.store.last_use(token(round, round), LONG_AGO, Some(MINUTE)).await;
        assert_eq!(seems_idle == SharedUse::Unknown, !is_settled, "{is_other} {settles}");
        set_origin(&server, "id", &id);
    }
}

#[test]
fn last_uses_are_saved_in_batches_of_one_slot() {
    let uses = |firsts: &[u8]| -> Vec<(TokenKey, Timestamp)> {
        let tokens = firsts.iter().zip(0..);
        tokens.map(|(first, last): (&u8, u16)| (token(*first, last as u8), LONG_AGO)).collect()
    };
    let many = [vec![1; 501], vec![2; 3]].concat();
    for (url, firsts, sizes) in [
        ("redis://127.0.0.1:1", vec![2, 1, 2], vec![3]),
        ("redis-cluster://127.0.0.1:1", vec![2, 1, 2], vec![1, 2]),
        ("redis-cluster://127.0.0.1:1", many.clone(), vec![500, 1, 3]),
        ("redis://127.0.0.1:1", many, vec![500, 4]),
    ] {
        let (store, _changes) =
            prepare(settings(url), TERMS, crate::metrics::Metrics::new().unwrap()).unwrap();
        let mut uses = uses(&firsts);
        let batches = store.batches(&mut uses);
        assert_eq!(batches.iter().map(|batch| batch.len()).collect::<Vec<_>>(), sizes, "{url}");
        assert!(batches.concat().is_sorted_by_key(|(token, _)| *token));
    }
}

#[test]
fn an_answer_is_a_last_use_or_the_mark_of_an_idle_token() {
    for (found, expected) in [
        (1, SharedUse::LastUsed(Timestamp::from_millis(1))),
        (1_800_000_000_000, SharedUse::LastUsed(Timestamp::from_secs(1_800_000_000))),
        (0, SharedUse::Over),
        (-1, SharedUse::Over),
    ] {
        assert_eq!(told(found), expected);
    }
    for (duration, expected) in [(0, 0), (5, 5), (u64::MAX, 1_125_899_906_842_624)] {
        assert_eq!(millis(Duration::from_millis(duration)), expected);
    }
}
