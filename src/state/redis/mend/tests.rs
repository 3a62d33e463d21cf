//! What a gate publishes again after the log has lost it, and when it leaves that to others.

use testkit::eventually_async;
use testkit::redis_server::RedisServer;

use super::*;
use crate::log::testing::KeptLog;
use crate::state::redis::testing::{
    EVENTS, MENDER, Replica, created_at, lose, news, origin, places, set_origin,
};

fn length(server: &RedisServer) -> u64 {
    server.ask(&["XLEN", EVENTS])
}

/// The counts in the line about restored events: those that were lost, and those that this gate published.
fn restored(log: KeptLog) -> Vec<(u64, u64)> {
    let lines = log.lines("restored events that the shared store had lost");
    let count = |line: &serde_json::Value, name: &str| line[name].as_u64().unwrap();
    lines.iter().map(|line| (count(line, "lost"), count(line, "published"))).collect()
}

#[tokio::test]
async fn a_gate_publishes_what_the_log_lost_and_moves_its_beginning_back() {
    for count in [3, AGAIN + 1] {
        let server = RedisServer::start();
        let gate = Replica::following(&server).await;
        let since = created_at(&server);
        let tokens: Vec<String> = (0..count).map(|token| token.to_string()).collect();
        gate.append(&tokens).await;
        gate.catch_up().await;
        server.ask::<String>(&["FLUSHALL"]);
        assert_eq!(gate.catch_up().await, (Outcome::FoundLoss, vec![]));
        let log = KeptLog::start();
        assert_eq!(gate.store.mend(&[]).await, Ok(Outcome::Mended));
        let count = count as u64;
        assert_eq!((restored(log), length(&server)), (vec![(count, count)], count));
        assert_eq!((created_at(&server), lock(&gate.store.lost).len()), (since, 0));
        assert_eq!(server.ask::<i64>(&["EXISTS", MENDER]), 0, "the lock is released");
        let other = Replica::following(&server).await;
        assert_eq!(other.store.position().created_at, since);
        assert_eq!(other.store.only_here(0).await.unwrap().len() as u64, count);
        assert_eq!(gate.catch_up().await, (Outcome::CaughtUp, vec![]));
    }
}

#[tokio::test]
async fn a_gap_whose_events_are_there_again_is_listed_as_filled() {
    let server = RedisServer::start();
    let gate = Replica::following(&server).await;
    let held = places(&gate.append(&["a", "b", "c"]).await);
    gate.catch_up().await;
    lose(&server, &[held[1]]);
    // Another gate noticed it.
    let later = created_at(&server).plus(Duration::from_secs(1));
    set_origin(&server, "created_at", &later.as_millis().to_string());
    let (outcome, filled) = gate.catch_up().await;
    assert_eq!((outcome, filled.len()), (Outcome::FoundLoss, 1));
    assert_eq!(gate.store.mend(&filled).await, Ok(Outcome::Mended));
    assert_eq!((origin(&server, "filled"), length(&server)), (filled[0].to_string(), 3));
    let other = Replica::connected(&server).await;
    assert_eq!(other.catch_up().await, (Outcome::CaughtUp, vec![]));
    let told: Vec<_> = other.told().into_iter().flat_map(|told| told.items).collect();
    assert_eq!(told, [news("a", held[0]), news("c", held[2]), news("b", other.store.position().last)]);
}

#[tokio::test]
async fn what_has_expired_here_is_not_published_again() {
    let server = RedisServer::start();
    let gate = Replica::following(&server).await;
    let held = places(&gate.append(&["a", "b"]).await);
    gate.catch_up().await;
    server.ask::<String>(&["FLUSHALL"]);
    gate.catch_up().await;
    gate.forget(held[0]).await;
    let log = KeptLog::start();
    assert_eq!(gate.store.mend(&[]).await, Ok(Outcome::Mended));
    assert_eq!((restored(log), length(&server)), (vec![(2, 1)], 1));
    // With nothing lost there is nothing to report.
    let log = KeptLog::start();
    assert_eq!(gate.store.mend(&[]).await, Ok(Outcome::Mended));
    assert_eq!((restored(log), length(&server)), (vec![], 1));
}

#[tokio::test]
async fn a_gate_leaves_the_beginning_to_one_that_found_more_missing() {
    let server = RedisServer::start();
    let gate = Replica::following(&server).await;
    let later = created_at(&server).plus(Duration::from_secs(10));
    set_origin(&server, "created_at", &later.as_millis().to_string());
    let log = KeptLog::start();
    assert_eq!(gate.store.mend(&[]).await, Ok(Outcome::Broken));
    assert_eq!(created_at(&server), later);
    let warned = "another gate found that events are missing from the shared log; rereading it";
    assert_eq!(log.lines(warned).len(), 1);
}

#[tokio::test]
async fn of_two_gates_that_have_the_same_events_one_publishes_them() {
    let server = RedisServer::start();
    let (first, second) = (Replica::following(&server).await, Replica::following(&server).await);
    first.append(&["a", "b"]).await;
    for gate in [&first, &second] {
        gate.catch_up().await;
    }
    server.ask::<String>(&["FLUSHALL"]);
    for gate in [&first, &second] {
        assert_eq!(gate.catch_up().await.0, Outcome::FoundLoss);
    }
    // It waits for its turn, and for what was published until then.
    server.ask::<String>(&["SET", MENDER, "another"]);
    let turn = async {
        tokio::time::timeout(LOOK_AGAIN, std::future::pending::<()>()).await.unwrap_err();
        assert_eq!(length(&server), 0, "it is not its turn");
        server.ask::<i64>(&["DEL", MENDER]);
    };
    let (mended, ()) = tokio::join!(first.store.mend(&[]), turn);
    assert_eq!((mended, length(&server)), (Ok(Outcome::Mended), 2));
    let log = KeptLog::start();
    let read = async {
        eventually_async("it is the turn of the second gate", || {
            (server.ask::<i64>(&["EXISTS", MENDER]) == 1).then_some(())
        })
        .await;
        tokio::time::timeout(LOOK_AGAIN * 10, std::future::pending::<()>()).await.unwrap_err();
        second.read().await;
    };
    let (mended, ()) = tokio::join!(second.store.mend(&[]), read);
    assert_eq!((mended, length(&server)), (Ok(Outcome::Mended), 2));
    assert_eq!(restored(log), [(2, 0)]);
}

#[tokio::test]
async fn a_gate_publishes_no_longer_than_it_may() {
    let server = RedisServer::start();
    let gate = Replica::following(&server).await;
    gate.append(&["a", "b"]).await;
    gate.catch_up().await;
    server.ask::<String>(&["FLUSHALL"]);
    gate.catch_up().await;
    assert_eq!((gate.store.publish_again(Duration::ZERO).await, length(&server)), (Ok(0), 0));
    assert_eq!(lock(&gate.store.lost).len(), 2, "they are left for the next turn");
    assert_eq!((gate.store.publish_again(PUBLISHING).await, length(&server)), (Ok(2), 2));
}
