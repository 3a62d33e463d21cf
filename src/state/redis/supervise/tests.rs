//! Connecting to a real server, following the log there, and what happens after a failure.

use futures_util::FutureExt as _;
use testkit::eventually_async;
use testkit::redis_server::RedisServer;

use super::*;
use crate::log::testing::KeptLog;
use crate::state::OpenError;
use crate::state::record::EventSource;
use crate::state::redis::lock;
use crate::state::redis::testing::{
    AT, EVENTS, ORIGIN, Replica, TERMS, Told, cluster, news, places, revoked,
};
use crate::time::Monotonic;

#[test]
fn the_pause_doubles_up_to_the_longest_and_begins_again_after_a_connection_that_lasted() {
    let ms = Duration::from_millis;
    for (before, lasted, pause) in [
        (0, 0, 100),
        (100, 0, 200),
        (800, 6_000, 1_500),
        (700, 0, 1_400),
        (1_500, 6_000, 1_500),
        (1_500, 6_001, 100),
        (0, 60_000, 100),
    ] {
        assert_eq!(next_pause(ms(before), ms(lasted)), ms(pause), "{before} {lasted}");
    }
}

#[test]
fn gates_that_failed_together_do_not_come_back_together() {
    let pause = Duration::from_secs(2);
    let pauses: Vec<Duration> = (0..2_000).map(|_| jittered(pause)).collect();
    let (least, most) = (*pauses.iter().min().unwrap(), *pauses.iter().max().unwrap());
    assert!(least >= pause / 2 && most < pause, "{least:?} {most:?}");
    assert!(least < pause.mul_f64(0.55) && most > pause.mul_f64(0.95), "{least:?} {most:?}");
    let ids: std::collections::HashSet<String> = (0..100).map(|_| random_id()).collect();
    assert_eq!(ids.len(), 100);
    assert!(ids.iter().all(|id| id.len() == 32 && id.bytes().all(|digit| digit.is_ascii_hexdigit())));
}

#[test]
fn the_first_entry_that_does_not_follow_breaks_the_log() {
    let entry = |(previous, sequence)| LogEntry {
        previous,
        sequence,
        ..LogEntry::new(&revoked("a"), EventSource::Admin, AT)
    };
    for (page, broken) in [
        (vec![], None),
        (vec![(10, 20), (20, 30)], None),
        (vec![(9, 20), (20, 30)], Some(20)),
        (vec![(10, 20), (25, 30), (30, 40)], Some(30)),
        (vec![(10, 20), (20, 20)], Some(20)),
    ] {
        let page: Vec<LogEntry> = page.into_iter().map(entry).collect();
        assert_eq!(first_break(10, &page).map(|entry| entry.sequence), broken, "{page:?}");
    }
}

#[tokio::test]
async fn a_failure_is_logged_once_and_a_refusal_as_an_error() {
    let server = RedisServer::start();
    let (no, silent) = (RedisFault::Refused("no".to_owned()), RedisFault::silent("it"));
    for (fault, level, message, opened) in [
        (no, "error", "the shared store rejected this gate", Err(OpenError::Refused("no".to_owned()))),
        (silent, "warn", "the shared store is unavailable; retrying", Ok(())),
    ] {
        let (gate, log) = (Replica::connected(&server).await, KeptLog::start());
        for _ in 0..2 {
            assert_eq!(gate.store.failed(fault.clone()), Outcome::Failed);
        }
        assert!(gate.store.lanes().is_none());
        assert_eq!(
            (gate.store.condition(), gate.store.opened(Duration::ZERO).await),
            (Some(fault.to_string()), opened)
        );
        let lines = log.lines(message);
        assert_eq!((lines.len(), lines[0]["level"].as_str()), (1, Some(level)));
    }
}

#[tokio::test]
async fn a_server_that_may_lose_keys_is_warned_of_once() {
    let server = RedisServer::with(&["--appendonly", "no", "--maxmemory-policy", "allkeys-lru"]);
    let gate = Replica::new(&server.url(), TERMS);
    let warnings = || {
        let gauge = &gate.store.metrics.state_setup_warnings;
        setup::WARNINGS.map(|warning| gauge.with_label_values(&[warning.setting]).get())
    };
    for told in [&["maxmemory-policy"][..], &[]] {
        let log = KeptLog::start();
        assert_eq!(gate.store.open().await, Ok(Outcome::Connected));
        assert_eq!(warnings(), [1, 1]);
        let lines = log.lines(setup::WARNINGS[0].advice);
        assert_eq!(lines.iter().map(|line| &line["setting"]).collect::<Vec<_>>(), told);
    }
    server.ask::<String>(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
    server.ask::<String>(&["CONFIG", "SET", "appendonly", "yes"]);
    assert_eq!(gate.store.open().await, Ok(Outcome::Connected));
    assert_eq!(warnings(), [0, 0]);
}

#[tokio::test]
async fn a_replica_of_a_server_is_refused() {
    let (server, primary) = (RedisServer::start(), RedisServer::start());
    server.ask::<String>(&["REPLICAOF", "127.0.0.1", &primary.port.to_string()]);
    let opened = Replica::new(&server.url(), TERMS).store.open().await;
    assert!(
        matches!(&opened, Err(RedisFault::Refused(why)) if why.contains("read-only replica")),
        "{opened:?}"
    );
}

#[tokio::test]
async fn a_user_that_may_not_load_scripts_is_refused() {
    let server = RedisServer::start();
    server.ask::<String>(&["ACL", "SETUSER", "gate", "on", ">pw", "~*", "&*", "+@all", "-script"]);
    let gate = Replica::new(&format!("redis://gate:pw@127.0.0.1:{}", server.port), TERMS);
    let opened = gate.store.open().await;
    assert!(matches!(&opened, Err(RedisFault::Refused(why)) if why.contains("ACL")), "{opened:?}");
    server.ask::<String>(&["ACL", "SETUSER", "gate", "+script"]);
    assert_eq!(gate.store.open().await, Ok(Outcome::Connected));
}

#[tokio::test]
async fn what_others_append_is_put_in_force_as_it_comes_until_the_log_has_a_gap() {
    let server = RedisServer::start();
    let (gate, other) = (Replica::following(&server).await, Replica::following(&server).await);
    let store = Arc::clone(&gate.store);
    assert_eq!(store.log_slot(), slot(ORIGIN.as_bytes()));
    let tail = store.open_tail(store.log_slot()).await.unwrap();
    let following = tokio::spawn(async move { store.follow(&tail).await });
    *lock(&gate.store.pending) = Some((Monotonic::from_millis(1_000), 1));
    let held = places(&other.append(&["a"]).await);
    let mut told = Vec::new();
    eventually_async("the event is in force", || {
        told.extend(gate.told());
        (gate.store.position().last == held[0]).then_some(())
    })
    .await;
    told.extend(gate.told());
    assert_eq!(told, [Told { items: vec![news("a", held[0])], ..Told::default() }]);
    eventually_async("the heartbeat is confirmed", || lock(&gate.store.pending).is_none().then_some(()))
        .await;
    assert!(!following.is_finished());
    let entry = crate::state::redis::entry::encode(&LogEntry::new(&revoked("b"), EventSource::Admin, AT));
    let place = held[0] + 1_000;
    server.ask::<String>(&["XADD", EVENTS, &id(place), "p", &(held[0] + 1).to_string(), "e", &entry]);
    assert_eq!(following.await.unwrap(), Ok(Outcome::Broken));
    assert_eq!((gate.told(), gate.store.position().last), (vec![], held[0]));
}

#[tokio::test]
async fn a_log_with_a_loss_is_mended_while_it_is_followed() {
    let server = RedisServer::start();
    let gate = Replica::following(&server).await;
    gate.append(&["a", "b"]).await;
    gate.catch_up().await;
    server.ask::<String>(&["FLUSHALL"]);
    let (outcome, filled) = gate.catch_up().await;
    assert_eq!(outcome, Outcome::FoundLoss);
    assert_eq!(gate.store.follow_and_mend(Some(&filled)).await, Ok(Outcome::Mended));
    assert_eq!(server.ask::<u64>(&["XLEN", EVENTS]), 2);
}

#[tokio::test]
async fn a_call_that_failed_is_a_reason_for_a_heartbeat() {
    let server = RedisServer::start();
    let gate = Replica::following(&server).await;
    let store = Arc::clone(&gate.store);
    let tending = tokio::spawn(async move { store.tend_lanes(0).await });
    gate.store.report(&RedisFault::silent("it"));
    eventually_async("a heartbeat is asked for", || gate.store.doubt.notified().now_or_never()).await;
    tending.abort();
}

#[tokio::test]
async fn connections_to_a_cluster_are_renewed_unless_the_log_has_moved() {
    let (server, url) = cluster().await;
    let gate = Replica::new(&url, TERMS);
    assert_eq!(gate.store.open().await, Ok(Outcome::Connected));
    assert_eq!(gate.catch_up().await, (Outcome::CaughtUp, vec![]));
    let slot = gate.store.log_slot();
    let of_tag: u16 = server.ask(&["CLUSTER", "KEYSLOT", ORIGIN]);
    assert_eq!(slot, of_tag);
    let before = gate.store.lanes().unwrap();
    server.ask::<String>(&["SCRIPT", "FLUSH"]);
    assert_eq!(gate.store.renew_lanes(slot).await, Ok(()));
    let renewed = gate.store.lanes().unwrap();
    assert!(!Arc::ptr_eq(&before, &renewed));
    assert!(gate.store.beat(RESPONSE_TIMEOUT).await.is_ok(), "with the scripts");
    // As after a failed call.
    let store = Arc::clone(&gate.store);
    let tending = tokio::spawn(async move { store.tend_lanes(slot).await });
    gate.store.report(&RedisFault::silent("it"));
    eventually_async("they are renewed", || {
        (!Arc::ptr_eq(&renewed, &gate.store.lanes().unwrap())).then_some(())
    })
    .await;
    tending.abort();
    gate.store.connect(Arc::new(Lanes::none()));
    let moved = RedisFault::Moved("the event log has moved to another node of the cluster".to_owned());
    assert_eq!(gate.store.renew_lanes(slot).await, Err(moved));
}
