//! What is written to the log and read from it, on a real server.

use testkit::redis_server::RedisServer;

use super::*;
use crate::state::redis::phase::{Outcome, RedisPhase};
use crate::state::redis::testing::{
    AT, EVENTS, Replica, TERMS, Told, created_at, news, origin, places, revoked, set_origin,
};

fn length(server: &RedisServer) -> u64 {
    server.ask(&["XLEN", EVENTS])
}

#[tokio::test]
async fn an_event_is_appended_once_and_keeps_its_place() {
    let server = RedisServer::start();
    let gate = Replica::following(&server).await;
    let first = gate.append(&["a", "b"]).await;
    assert!(first[0].sequence < first[1].sequence && first[0].at == AT, "{first:?}");
    assert_eq!((places(&first).len(), length(&server)), (2, 2));
    let again = gate.append(&["b", "c", "a"]).await;
    let known = |appended: &Appended| (appended.sequence, appended.new);
    assert_eq!(
        (known(&again[0]), known(&again[2])),
        ((first[1].sequence, false), (first[0].sequence, false))
    );
    assert_eq!((again[1].new, length(&server)), (true, 3));
    // While the log is being mended it may lack what is held here, so it is appended in any case.
    gate.store.enter(RedisPhase::Mending);
    let again = gate.append(&["a", "d"]).await;
    assert_eq!((known(&again[0]), again[1].new, length(&server)), ((first[0].sequence, false), true, 5));
}

#[tokio::test]
async fn more_events_than_one_call_takes_are_appended_in_order() {
    let server = RedisServer::start();
    let gate = Replica::following(&server).await;
    let tokens: Vec<String> = (0..=BATCH).map(|token| token.to_string()).collect();
    let places = places(&gate.append(&tokens).await);
    assert!(places.is_sorted() && places.len() == BATCH + 1, "{places:?}");
    assert_eq!(length(&server), BATCH as u64 + 1);
}

#[tokio::test]
async fn an_event_is_undone_once_on_every_gate() {
    let server = RedisServer::start();
    let (first, second) = (Replica::following(&server).await, Replica::following(&server).await);
    let place = places(&first.append(&["a"]).await)[0];
    let undo = |sequence| first.store.undo(sequence, EventSource::Admin, AT);
    let undone = undo(place).await.unwrap().unwrap();
    assert_eq!((undone.event.event, undone.remaining), (revoked("a"), vec![]));
    assert_eq!(length(&server), 2);
    assert!(undo(place).await.unwrap().is_some(), "as often as it is asked for");
    assert_eq!((undo(place + 7).await, length(&server)), (Ok(None), 2));
    second.catch_up().await;
    let told: Vec<ReplicaChange> = second.told().into_iter().flat_map(|told| told.items).collect();
    assert_eq!(told, [news("a", place), ReplicaChange::Undone(place)]);
    assert_eq!(undo(second.store.position().last).await, Ok(None), "what undoes cannot be undone");
}

#[tokio::test]
async fn an_entry_of_this_gate_that_it_did_not_know_of_is_told_as_its_own() {
    let server = RedisServer::start();
    let (first, second) = (Replica::following(&server).await, Replica::following(&server).await);
    let place = places(&first.append(&["a"]).await)[0];
    // As if the acknowledgement had been lost.
    first.forget(place).await;
    for (gate, is_own) in [(&first, true), (&second, false)] {
        gate.catch_up().await;
        let ReplicaChange::Event(event, own) = gate.told().remove(0).items.remove(0) else { unreachable!() };
        assert_eq!((event.sequence, own), (place, is_own));
    }
}

#[tokio::test]
async fn a_log_is_created_once() {
    let server = RedisServer::start();
    let gate = Replica::following(&server).await;
    let begun = (origin(&server, "id"), created_at(&server));
    gate.store.create_log("another").await.unwrap();
    assert_eq!((origin(&server, "id"), created_at(&server)), begun);
    server.ask::<String>(&["FLUSHALL"]);
    gate.store.create_log("another").await.unwrap();
    assert_eq!((origin(&server, "id"), origin(&server, "version")), ("another".into(), VERSION.into()));
}

#[tokio::test]
async fn its_beginning_moves_forward_for_a_gate_that_lacks_something_and_back_for_one_that_has_it() {
    let server = RedisServer::start();
    let gate = Replica::following(&server).await;
    let (since, hour) = (created_at(&server), Duration::from_secs(3_600));
    let known = gate.store.position();
    for (raised, now) in [(since.plus(hour), since.plus(hour)), (since, since.plus(hour))] {
        gate.store.raise(&known.id, raised).await.unwrap();
        assert_eq!(created_at(&server), now);
    }
    // Another gate has raised it since it was last read here.
    assert_eq!(gate.store.lower(&known, &[]).await, Ok(false));
    assert_eq!(created_at(&server), since.plus(hour));
    let said = EntryPosition { said: since.plus(hour), ..known.clone() };
    set_origin(&server, "filled", "1-2");
    set_origin(&server, "dropped", "5:70");
    let beat = Beat { dropped: "86400000:9,5:1".into(), ..gate.store.beat(RESPONSE_TIMEOUT).await.unwrap() };
    assert!(gate.store.newly_removed(&beat, Monotonic::from_millis(0)).is_some());
    let filled = [Gap { after: 1, upto: 2 }, Gap { after: 3, upto: 9 }];
    assert_eq!(gate.store.lower(&said, &filled).await, Ok(true));
    assert_eq!(created_at(&server), since);
    assert_eq!(
        (origin(&server, "filled"), origin(&server, "dropped")),
        ("1-2,3-9".to_owned(), "5:70,86400000:0".to_owned()),
        "what the log knew stays, and what it did not know was removed before it began"
    );
    // Nothing of this is done to another log.
    set_origin(&server, "id", "another");
    assert!(matches!(gate.store.lower(&said, &[]).await, Err(RedisFault::Moved(_))));
    assert!(matches!(gate.store.raise(&known.id, since).await, Err(RedisFault::Moved(_))));
}

#[tokio::test]
async fn what_was_removed_is_news_once() {
    let server = RedisServer::start();
    let gate = Replica::following(&server).await;
    let beat = gate.store.beat(RESPONSE_TIMEOUT).await.unwrap();
    let at = Monotonic::from_millis(0);
    for (dropped, is_news, retentions) in [
        ("", false, ""),
        ("5:1", true, "5"),
        ("5:1", false, "5"),
        ("5:1,7:2", true, "5,7"),
        // A log that was created again knows less; what this gate knows stays.
        ("", false, "5,7"),
        ("5:1,7:2", false, "5,7"),
    ] {
        let beat = Beat { dropped: dropped.to_owned(), ..beat.clone() };
        let removed = gate.store.newly_removed(&beat, at);
        let expected = is_news.then(|| dropped.split(',').count());
        assert_eq!(
            (removed.map(|removed| removed.len()), gate.store.retentions().as_str()),
            (expected, retentions)
        );
    }
}

#[tokio::test]
async fn each_part_of_a_notice_alone_is_told_and_an_empty_one_is_not() {
    let server = RedisServer::start();
    let gate = Replica::connected(&server).await;
    let told = [
        Told { items: vec![news("a", 7)], ..Told::default() },
        Told { created_at: Some(AT), ..Told::default() },
        Told { removed: Some(vec![]), ..Told::default() },
        Told {
            idle: Some(PerIssuer::new(IdleTerms { timeout: TERMS.longest_idle, floor: None }, [])),
            ..Told::default()
        },
    ];
    for Told { items, created_at, removed, idle, .. } in told.clone() {
        gate.store.announce(Notice { items, created_at, removed, idle }).await.unwrap();
        gate.store.announce(Notice::default()).await.unwrap();
    }
    assert_eq!(gate.told(), told);
}

#[tokio::test]
async fn a_gate_knows_what_it_holds_and_what_only_it_holds() {
    let server = RedisServer::start();
    let gate = Replica::following(&server).await;
    let held = places(&gate.append(&["a", "b", "c"]).await);
    for (place, is_held) in [(held[0], true), (held[2], true), (7, false)] {
        assert_eq!(gate.store.holds(place).await, Ok(is_held));
    }
    assert_eq!(gate.store.only_here(held[0]).await, Ok(Lost::from([held[1], held[2]])));
    assert_eq!(gate.store.only_here(held[2]).await, Ok(Lost::new()));
    let entries = gate.store.entries_at(vec![held[2], 7, held[0]]).await.unwrap();
    let found: Vec<u64> = entries.iter().map(|entry| entry.sequence).collect();
    assert_eq!(found, [held[2], held[0]]);
}

#[tokio::test]
async fn an_entry_that_cannot_be_read_is_not_skipped() {
    let server = RedisServer::start();
    let gate = Replica::following(&server).await;
    server.ask::<String>(&["XADD", EVENTS, "9-9", "p", "0", "e", "{}"]);
    let read = gate.store.catch_up(&mut Vec::new()).await;
    assert!(matches!(&read, Err(RedisFault::Refused(why)) if why.contains("cannot read")), "{read:?}");
    let outcome: Result<Outcome, RedisFault> = read;
    drop(outcome);
}

#[tokio::test]
async fn idle_timeouts_reach_other_gates_and_are_news_once() {
    let server = RedisServer::start();
    let (first, second) = (Replica::following(&server).await, Replica::following(&server).await);
    let minute = Duration::from_secs(60);
    for (common, own) in [(Some(minute), None), (None, Some(minute)), (Some(Duration::MAX), Some(minute))] {
        let of = |timeout| IdleTerms { timeout, floor: None };
        let terms = PerIssuer::new(of(common), [("https://a/".into(), of(own))]);
        first.store.save_idle_terms(&terms).await.unwrap();
        let beat = second.store.beat(RESPONSE_TIMEOUT).await.unwrap();
        let longest = Duration::from_millis(1 << 50);
        let told = terms.map(|terms| of(terms.timeout.map(|timeout| timeout.min(longest))));
        assert_eq!(second.store.new_terms(&beat), Some(told));
        assert_eq!(second.store.new_terms(&beat), None);
    }
}

#[test]
fn a_log_is_read_again_when_it_is_another_one_or_lacks_something() {
    let at = Timestamp::from_millis;
    let known = EntryPosition { id: "a".into(), last: 50, said: at(100), ..EntryPosition::default() };
    let table = [
        ("a", 100, 50, None),
        ("a", 100, 60, None),
        ("a", 90, 50, None),
        ("b", 100, 50, Some("it was replaced by another one")),
        ("", 0, 0, Some("it was replaced by another one")),
        ("a", 101, 50, Some("events are missing from it")),
        ("a", 100, 49, Some("the event log was truncated")),
        ("a", 100, 0, Some("the event log was truncated")),
    ];
    for (id, created_at, last, why) in table {
        let beat = Beat {
            clock: at(1_000),
            version: VERSION.to_owned(),
            id: id.to_owned(),
            created_at: at(created_at),
            last,
            ledger: LogOrigin::default(),
            kept: 0,
            ticks: 0,
            dropped: String::new(),
            stamp: None,
            idle: None,
        };
        assert_eq!(beat.mismatch(&known), why, "{id:?} {created_at} {last}");
    }
}
