//! The heartbeat on a real server: what it proves, what it measures, and what it tells.

use testkit::eventually_async;
use testkit::redis_server::RedisServer;

use super::*;
use crate::log::testing::KeptLog;
use crate::state::StoreError;
use crate::state::record::{EventSource, IdleTerms, PerIssuer};
use crate::state::redis::RedisTerms;
use crate::state::redis::testing::{
    AT, Replica, STAMP, TERMS, Told, created_at, origin, places, revoked, set_origin,
};

const EVERY: Duration = Duration::from_secs(1);

#[test]
fn a_clock_that_drifts_did_not_step() {
    for (before, ahead, stepped) in
        [(0, 0, false), (5, -29_000, false), (0, 30_001, true), (0, i64::MAX, true)]
    {
        assert_eq!(is_step(before, ahead), stepped, "{before} {ahead}");
        assert_eq!(is_step(ahead, before), stepped, "{ahead} {before}");
    }
}

#[test]
fn only_a_stamp_that_is_recent_by_the_servers_clock_is_a_proof() {
    let limit = Duration::from_millis(500);
    let table = [
        (1_000, 1_000, Some(0)),
        (1_000, 1_500, Some(500)),
        (1_000, 1_501, None),
        // The server's clock stepped, by little and by days.
        (1_000, 999, None),
        (1_000, 86_401_000, None),
        (86_401_000, 1_000, None),
        (0, 1_000, None),
    ];
    for (stamp, clock, expected) in table {
        let found = age(Timestamp::from_millis(stamp), Timestamp::from_millis(clock), limit);
        assert_eq!(found, expected.map(Duration::from_millis), "{stamp} {clock}");
    }
}

#[tokio::test]
async fn a_server_that_was_demoted_is_no_longer_asked() {
    let (server, other) = (RedisServer::start(), RedisServer::start());
    let gate = Replica::following(&server).await;
    let beat = gate.store.beat_as_primary(RESPONSE_TIMEOUT).await.unwrap();
    assert_eq!(beat.id, origin(&server, "id"));
    server.ask::<String>(&["REPLICAOF", "127.0.0.1", &other.port.to_string()]);
    let fault = RedisFault::Moved("the server is no longer the primary".to_owned());
    assert_eq!(gate.store.beat_as_primary(RESPONSE_TIMEOUT).await, Err(fault));
}

#[tokio::test]
async fn a_recent_write_of_any_gate_is_a_proof_and_otherwise_this_gate_writes() {
    let server = RedisServer::start();
    let gate = Replica::following(&server).await;
    let asked_at = Monotonic::from_millis(1_000_000);
    let (now, kept) = (Timestamp::from_millis(900_000), 300_000);
    let beat = gate.store.beat(RESPONSE_TIMEOUT).await.unwrap();
    for (stamp, beat_kept, age) in [
        (Some(900_000), kept, Some(0)),
        (Some(899_500), kept, Some(500)),
        (Some(899_499), kept, None),
        (Some(900_000), kept + 1, Some(0)),
        // Entries are to be kept for longer than before, which the tick stores.
        (Some(900_000), kept - 1, None),
        (None, kept, None),
    ] {
        server.ask::<String>(&["SET", STAMP, "7"]);
        let stamp = stamp.map(Timestamp::from_millis);
        let beat = Beat { clock: now, stamp, kept: beat_kept, ..beat.clone() };
        let proven = gate.store.last_write(&beat, asked_at, EVERY).await;
        let written: String = server.ask(&["GET", STAMP]);
        let (at, expected) = match age {
            Some(age) => (asked_at.minus(Duration::from_millis(age)), "7"),
            None => (asked_at, "900000"),
        };
        assert_eq!((proven, written.as_str()), (Ok(at), expected), "{stamp:?} {beat_kept}");
    }
    assert_eq!(origin(&server, "kept"), kept.to_string());
}

#[tokio::test]
async fn a_server_without_memory_proves_that_it_accepts_what_needs_none() {
    let server = RedisServer::start();
    let gate = Replica::following(&server).await;
    server.ask::<i64>(&["DEL", STAMP]);
    server.ask::<String>(&["CONFIG", "SET", "maxmemory", "1"]);
    let asked_at = Monotonic::now();
    let beat = gate.store.beat(RESPONSE_TIMEOUT).await.unwrap();
    assert_eq!(gate.store.last_write(&beat, asked_at, EVERY).await, Ok(asked_at));
    let refused = gate.store.append([revoked("a")].into(), EventSource::Admin, AT).await;
    assert!(matches!(refused, Err(StoreError::Full)), "{refused:?}");
}

#[tokio::test]
async fn a_server_that_rejects_writes_is_followed_but_proves_nothing() {
    let server = RedisServer::start();
    let first = Replica::following(&server).await;
    let places = places(&first.append(&["a"]).await);
    server.ask::<i64>(&["DEL", STAMP]);
    server.ask::<String>(&["CONFIG", "SET", "min-replicas-to-write", "1"]);
    let gate = Replica::connected(&server).await;
    assert_eq!(gate.catch_up().await, (Outcome::CaughtUp, vec![]));
    assert_eq!((gate.store.position().last, gate.store.freshness.age(Monotonic::now())), (places[0], None));
    let condition = gate.store.condition().unwrap();
    assert!(
        condition.starts_with("Redis rejects writes: ") && condition.contains("NOREPLICAS"),
        "{condition}"
    );

    server.ask::<String>(&["CONFIG", "SET", "min-replicas-to-write", "0"]);
    let log = KeptLog::start();
    for _ in 0..2 {
        let beat = gate.store.beat(RESPONSE_TIMEOUT).await.unwrap();
        assert_eq!(gate.store.prove(&beat, Monotonic::now(), EVERY).await, Ok(()));
    }
    assert_eq!(gate.store.condition(), None);
    assert!(gate.store.freshness.is_fresh(Monotonic::now()));
    let connected = log.lines("connected to the shared store");
    assert_eq!((connected.len(), connected[0]["held"].as_bool()), (1, Some(true)));
}

#[tokio::test]
async fn the_offset_of_the_servers_clock_is_measured_by_quick_responses() {
    const AHEAD: i64 = 100_000;
    let server = RedisServer::start();
    let gate = Replica::connected(&server).await;
    let beat = fresh_beat(&gate).await;
    let ms = Duration::from_millis;
    let now = Now::read();
    for (round_trip, is_measured) in
        [(0, true), (200, true), (249, true), (250, false), (300, false), (5_000, false)]
    {
        gate.store.offset.store(7, Ordering::Relaxed);
        let beat = Beat { clock: now.wall.plus(ms(AHEAD.unsigned_abs())), ..beat.clone() };
        gate.store.measure(&beat, ms(round_trip), now);
        let half = i64::try_from(round_trip / 2).unwrap();
        let expected = if is_measured { AHEAD + half } else { 7 };
        assert_eq!(gate.store.offset.load(Ordering::Relaxed), expected, "{round_trip}");
    }
    assert_eq!(*gate.store.emptied.borrow(), 0, "it went on evenly");
}

#[tokio::test]
async fn a_clock_that_steps_makes_all_gates_write_their_last_uses_again() {
    let server = RedisServer::start();
    let gate = Replica::connected(&server).await;
    let beat = fresh_beat(&gate).await;
    let began = Now::read();
    let measure = |passed: u64, ahead: u64| {
        let (passed, ahead) = (Duration::from_secs(passed), Duration::from_secs(ahead));
        let now = Now { wall: began.wall.plus(passed), monotonic: began.monotonic.plus(passed) };
        gate.store.measure(&Beat { clock: now.wall.plus(ahead), ..beat.clone() }, Duration::ZERO, now);
    };
    measure(0, 1_000);
    measure(0, 1_010);
    measure(3_600, 1_010);
    assert_eq!((*gate.store.emptied.borrow(), gate.store.is_settling()), (0, false), "it went on evenly");
    let log = KeptLog::start();
    measure(3_600, 1_100);
    assert_eq!((*gate.store.emptied.borrow(), gate.store.is_settling()), (1, true));
    let settled_at = gate.store.settled_at.load(Ordering::Relaxed);
    assert!(settled_at > Monotonic::now().plus(STEPPED / 2).as_millis(), "longer than two flushes");
    let lines = log.lines("the clock of the shared store's server has jumped; idle times depend on it");
    assert_eq!(lines[0]["by_ms"], 90_000);
}

#[tokio::test]
async fn a_heartbeat_confirms_once_its_last_entry_is_in_force() {
    let server = RedisServer::start();
    let at = Monotonic::from_millis;
    // Columns: the last entry here, those of two heartbeats, what is confirmed at once, and by entry 30.
    for (last, beats, first, then) in [
        (20, (20, 20), Some(2_000), Some(2_000)),
        (21, (20, 21), Some(2_000), Some(2_000)),
        (20, (30, 40), None, Some(1_000)),
        (20, (20, 30), Some(1_000), Some(2_000)),
        (20, (31, 31), None, None),
        // The second says that the first is obsolete: the log is as far as this gate.
        (20, (30, 20), Some(2_000), Some(2_000)),
    ] {
        let gate = Replica::connected(&server).await;
        let beat = fresh_beat(&gate).await;
        let confirmed = || gate.store.freshness.age(at(10_000)).map(|age| 10_000 - age.as_millis() as i64);
        gate.store.advance(last);
        gate.store.confirmed_at(&Beat { last: beats.0, ..beat.clone() }, at(1_000));
        gate.store.confirmed_at(&Beat { last: beats.1, ..beat }, at(2_000));
        gate.store.caught_up();
        assert_eq!(confirmed(), first, "{last} {beats:?}");
        gate.store.advance(30);
        gate.store.caught_up();
        assert_eq!(confirmed(), then, "{last} {beats:?}");
    }
}

#[tokio::test]
async fn entries_that_do_not_arrive_for_half_of_the_staleness_are_late() {
    let server = RedisServer::start();
    let gate = Replica::connected(&server).await;
    let beat = Beat { last: 30, ..fresh_beat(&gate).await };
    gate.store.reconfigure(RedisTerms { max_staleness: Duration::from_secs(10), ..TERMS });
    let since = Monotonic::from_millis(1_000);
    for (pending, last, waiting, is_late) in [
        (true, 29, 5_001, true),
        (true, 29, 5_000, false),
        (true, 29, 60_000, true),
        (true, 30, 60_000, false),
        (true, 31, 60_000, false),
        (false, 29, 60_000, false),
    ] {
        *lock(&gate.store.pending) = pending.then_some((since, 30));
        gate.store.advance(last);
        let now = since.plus(Duration::from_millis(waiting));
        assert_eq!(gate.store.is_left_behind(&beat, now), is_late, "{pending} {last} {waiting}");
    }
}

/// The heartbeat of a log that the gate has not read.
async fn fresh_beat(gate: &Replica) -> Beat {
    gate.store.create_log("begun").await.unwrap();
    gate.store.beat(RESPONSE_TIMEOUT).await.unwrap()
}

/// A gate whose heartbeats a test asks for one by one.
struct Confirming {
    gate: Replica,
    outcome: tokio::task::JoinHandle<Result<Outcome, RedisFault>>,
}

impl Confirming {
    async fn on(server: &RedisServer) -> Self {
        let gate = Replica::following(server).await;
        let store = std::sync::Arc::clone(&gate.store);
        Self { gate, outcome: tokio::spawn(async move { store.confirm().await }) }
    }

    /// Waits until a heartbeat that began after this call has ended.
    async fn beat(&self) {
        // Each measures the server's clock first. The one that does so at the third time began after another had
        // ended, and that one began after this call.
        for _ in 0..3 {
            self.gate.store.offset.store(i64::MIN, Ordering::Relaxed);
            eventually_async("the heartbeat measures the clock", || {
                self.gate.store.doubt.notify_one();
                (self.gate.store.offset.load(Ordering::Relaxed) != i64::MIN).then_some(())
            })
            .await;
        }
    }
}

impl Drop for Confirming {
    fn drop(&mut self) {
        self.outcome.abort();
    }
}

#[tokio::test]
async fn what_other_gates_store_is_told_once_with_the_heartbeat() {
    let server = RedisServer::start();
    let (confirming, other) = (Confirming::on(&server).await, Replica::following(&server).await);
    confirming.beat().await;
    assert_eq!(confirming.gate.told(), []);
    let terms = PerIssuer::new(IdleTerms { timeout: None, floor: None }, []);
    other.store.save_idle_terms(&terms).await.unwrap();
    confirming.beat().await;
    assert_eq!(confirming.gate.told(), [Told { idle: Some(terms), ..Told::default() }]);
    set_origin(&server, "dropped", "86400000:0");
    confirming.beat().await;
    let told = confirming.gate.told();
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(told[0].removed.as_ref().map(Vec::len), Some(1));
    confirming.beat().await;
    assert_eq!(confirming.gate.told(), []);
}

#[tokio::test]
async fn a_beginning_that_was_moved_back_counts_once_the_events_before_it_are_in_force() {
    let server = RedisServer::start();
    let (confirming, other) = (Confirming::on(&server).await, Replica::following(&server).await);
    let gate = &confirming.gate;
    let since = created_at(&server);
    let earlier = |secs| since.minus(Duration::from_secs(secs));
    let lower = |secs| set_origin(&server, "created_at", &earlier(secs).as_millis().to_string());
    let told = |secs, last| [Told { created_at: Some(earlier(secs)), last, ..Told::default() }];
    // This gate does not follow the log, so what the other appends is not in force here.
    let held = places(&other.append(&["a", "b", "c"]).await);
    lower(10);
    confirming.beat().await;
    assert_eq!((gate.told(), gate.store.position().said), (vec![], earlier(10)));
    assert_eq!(gate.store.position().created_at, since);
    // Events that come later do not count for it.
    let later = places(&other.append(&["d"]).await)[0];
    confirming.beat().await;
    gate.store.advance(held[2]);
    confirming.beat().await;
    assert_eq!(gate.told(), told(10, held[2]));
    assert_eq!(gate.store.position().created_at, earlier(10));
    // Moved again before the first move counts: only the second is told, with its own last event.
    lower(20);
    confirming.beat().await;
    let last = places(&other.append(&["e"]).await)[0];
    lower(30);
    confirming.beat().await;
    gate.store.advance(later);
    confirming.beat().await;
    assert_eq!(gate.told(), []);
    gate.store.advance(last);
    confirming.beat().await;
    assert_eq!(gate.told(), told(30, last));
    assert!(!confirming.outcome.is_finished());
}

#[tokio::test]
async fn a_log_that_changed_is_read_again() {
    for (field, value) in [("id", "another"), ("created_at", "9000000000000"), ("last", "0")] {
        let server = RedisServer::start();
        let gate = Replica::following(&server).await;
        gate.append(&["a"]).await;
        gate.catch_up().await;
        set_origin(&server, field, value);
        gate.store.doubt.notify_one();
        assert_eq!(gate.store.confirm().await, Ok(Outcome::Broken), "{field}");
    }
}

#[tokio::test]
async fn a_gate_that_entries_do_not_reach_no_longer_reads_them_from_a_replica() {
    let server = RedisServer::start();
    let (gate, other) = (Replica::following(&server).await, Replica::following(&server).await);
    let places = places(&other.append(&["a"]).await);
    *lock(&gate.store.pending) = Some((Monotonic::now().minus(TERMS.max_staleness), places[0]));
    gate.store.doubt.notify_one();
    let fault = RedisFault::Unreachable("reading events lags behind".to_owned());
    assert_eq!(gate.store.confirm().await, Err(fault));
    assert!(!gate.store.trusts_replicas());
}

#[tokio::test]
async fn a_server_that_is_silent_for_two_heartbeats_is_unreachable() {
    let mut server = RedisServer::start();
    let gate = Replica::following(&server).await;
    gate.store.reconfigure(RedisTerms { max_staleness: Duration::from_secs(2), ..TERMS });
    let (every, began) = (gate.store.heartbeat(), Instant::now());
    server.kill();
    let outcome = gate.store.confirm().await;
    assert!(matches!(outcome, Err(RedisFault::Unreachable(_))), "{outcome:?}");
    assert!(began.elapsed() >= every * 2, "each call fails at once, but one alone is no outage");
}
