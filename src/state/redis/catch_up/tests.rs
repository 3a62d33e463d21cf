//! What a gate takes over when it reads the log, what it finds missing, and since when it then knows everything.

use testkit::redis_server::RedisServer;

use super::*;
use crate::log::testing::KeptLog;
use crate::state::record::{IdleTerms, PerIssuer};
use crate::state::redis::testing::{
    EVENTS, Replica, Told, clock, created_at, lose, news, origin, places, revoked, set_origin,
};

/// Gaps that were counted: those whose entries the gate held, and those that nobody could fill.
fn gaps(gate: &Replica) -> (u64, u64) {
    let counted = |held| gate.store.metrics.state_gaps.with_label_values(&[held]).get();
    (counted("true"), counted("false"))
}

fn lost(gate: &Replica) -> Vec<u64> {
    let mut lost: Vec<u64> = lock(&gate.store.lost).iter().copied().collect();
    lost.sort_unstable();
    lost
}

#[tokio::test]
async fn a_new_log_begins_now_and_a_later_gate_reads_all_of_it() {
    let server = RedisServer::start();
    let (before, first) = (clock(&server), Replica::connected(&server).await);
    assert_eq!(first.catch_up().await, (Outcome::CaughtUp, vec![]));
    let since = created_at(&server);
    assert!((before..=clock(&server)).contains(&since));
    let begun = first.store.position();
    let id = origin(&server, "id");
    assert_eq!(
        begun,
        EntryPosition { id: id.clone(), last: 0, read: 0, complete: true, created_at: since, said: since }
    );
    assert!(id.len() == 32 && id.bytes().all(|digit| digit.is_ascii_hexdigit()), "{id}");
    assert_eq!(first.told(), [Told { created_at: Some(since), ..Told::default() }]);
    assert_eq!((first.store.condition(), *first.store.emptied.borrow()), (None, 0));
    assert!(first.store.freshness.is_fresh(Monotonic::now()));
    assert_eq!(first.store.opened(Duration::ZERO).await, Ok(()));

    let places = places(&first.append(&["a", "b", "c"]).await);
    let second = Replica::connected(&server).await;
    assert_eq!(second.catch_up().await, (Outcome::CaughtUp, vec![]));
    let last = places[2];
    let items = vec![news("a", places[0]), news("b", places[1]), news("c", last)];
    assert_eq!(
        second.told(),
        [Told { items, ..Told::default() }, Told { created_at: Some(since), last, ..Told::default() },]
    );
    assert_eq!(
        second.store.position(),
        EntryPosition { id, last, read: last, complete: true, created_at: since, said: since }
    );
    assert_eq!((gaps(&second), *second.store.emptied.borrow()), ((0, 0), 0));
}

#[tokio::test]
async fn a_log_of_more_than_a_page_is_read_to_its_end() {
    let server = RedisServer::start();
    let first = Replica::following(&server).await;
    let tokens: Vec<String> = (0..=PAGE).map(|token| token.to_string()).collect();
    let places = places(&first.append(&tokens).await);
    let second = Replica::connected(&server).await;
    assert_eq!(second.catch_up().await, (Outcome::CaughtUp, vec![]));
    let told = second.told();
    let read: Vec<usize> = told.iter().map(|told| told.items.len()).collect();
    assert_eq!(read, [PAGE, 1, 0]);
    assert_eq!(told[1].items, [news(&PAGE.to_string(), places[PAGE])]);
    assert_eq!(told[2].last, places[PAGE]);
}

#[tokio::test]
async fn a_gate_reads_on_after_the_last_entry_that_it_shares_with_the_log() {
    let server = RedisServer::start();
    let (first, second) = (Replica::following(&server).await, Replica::following(&server).await);
    let held = places(&first.append(&["a", "b", "c"]).await);
    assert_eq!(first.catch_up().await.0, Outcome::CaughtUp);
    // What has expired here is not put in force again.
    first.forget(held[0]).await;
    first.told();
    for (begin, count) in [(0, 0), (0, 1), (1, 100), (101, 250)] {
        let tokens: Vec<String> = (begin..begin + count).map(|token| token.to_string()).collect();
        second.append(&tokens).await;
        assert_eq!(first.catch_up().await, (Outcome::CaughtUp, vec![]), "{count}");
        let told: Vec<usize> = first.told().iter().map(|told| told.items.len()).collect();
        assert_eq!(told, if count == 0 { vec![0] } else { vec![count, 0] });
    }
    assert_eq!((*first.store.emptied.borrow(), gaps(&first)), (0, (0, 0)));
}

#[tokio::test]
async fn what_the_heartbeat_says_besides_is_told_together_with_the_beginning() {
    let server = RedisServer::start();
    let first = Replica::following(&server).await;
    let terms = PerIssuer::new(IdleTerms { timeout: Some(Duration::from_secs(60)), floor: None }, []);
    first.store.save_idle_terms(&terms).await.unwrap();
    set_origin(&server, "dropped", "86400000:0");
    let second = Replica::connected(&server).await;
    second.catch_up().await;
    let told = second.told();
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!((told[0].created_at, told[0].idle.as_ref()), (Some(created_at(&server)), Some(&terms)));
    let removed = told[0].removed.as_ref().unwrap();
    assert_eq!((removed.len(), removed[0].retention), (1, Duration::from_secs(86_400)));
    // It is not news again.
    second.catch_up().await;
    assert_eq!(second.told(), [Told { created_at: Some(created_at(&server)), ..Told::default() }]);
}

#[tokio::test]
async fn an_entry_that_the_log_lost_is_found_missing_and_only_a_gate_that_read_it_can_fill_the_gap() {
    let server = RedisServer::start();
    let first = Replica::following(&server).await;
    let since = created_at(&server);
    let places = places(&first.append(&["a", "b", "c", "d"]).await);
    first.catch_up().await;
    lose(&server, &[places[1], places[3]]);
    let (inner, end) = (Gap { after: places[0], upto: places[1] }, Gap { after: places[2], upto: places[3] });

    let log = KeptLog::start();
    // It reads on after the last entry that it shares with the log.
    assert_eq!(first.catch_up().await, (Outcome::FoundLoss, vec![end]));
    assert_eq!(lost(&first), [places[3]]);
    let lines = log.lines(
        "events are missing from the shared log; this gate has them and republishes those that are still relevant",
    );
    assert_eq!(lines.len(), 1);
    assert_eq!(lines[0]["gaps"], 1);
    assert_eq!((gaps(&first), first.store.position().last), ((1, 0), places[3]));
    assert_eq!((created_at(&server), first.store.position().created_at), (since, since));

    let (log, second) = (KeptLog::start(), Replica::connected(&server).await);
    assert_eq!(second.catch_up().await, (Outcome::CaughtUp, vec![]), "it cannot help");
    let raised = created_at(&server);
    assert!(raised > since && raised.as_millis() % 1_000 == 0, "{raised}: the second of the event is over");
    assert_eq!((gaps(&second), second.store.position().last), ((0, 2), places[3]));
    assert_eq!((second.store.position().created_at, second.store.position().said), (raised, raised));
    assert_eq!(second.told().last().unwrap().created_at, Some(raised));
    let lines = log.lines(
        "events are missing from the shared log; older tokens are rejected as if the store were new, until another gate republishes the events",
    );
    assert_eq!(lines.len(), 1);

    // The first gate notices that, and looks at everything it has.
    let log = KeptLog::start();
    first.told();
    assert_eq!(first.catch_up().await, (Outcome::FoundLoss, vec![inner, end]));
    assert_eq!(lost(&first), [places[1], places[3]]);
    assert_eq!((first.store.position().created_at, first.store.position().said), (since, raised));
    assert_eq!(first.told().last().unwrap().created_at, Some(since));
    let lines = log.lines(
        "the shared event log was replaced or is incomplete; republishing the events that only this gate has",
    );
    assert_eq!(lines.len(), 1);
    assert_eq!((lines[0]["held"].as_u64(), *first.store.emptied.borrow()), (Some(4), 0));
}

#[tokio::test]
async fn a_loss_is_to_be_mended_even_if_nothing_is_left_to_publish() {
    let server = RedisServer::start();
    let gate = Replica::following(&server).await;
    let (since, places) = (created_at(&server), places(&gate.append(&["a", "b", "c"]).await));
    gate.catch_up().await;
    // Its beginning was moved by a gate that knew less.
    set_origin(&server, "created_at", &since.plus(CLOCKS).as_millis().to_string());
    assert_eq!(gate.catch_up().await, (Outcome::FoundLoss, vec![]));
    assert_eq!((lost(&gate), gate.store.position().said), (vec![], since.plus(CLOCKS)));
    set_origin(&server, "created_at", &since.as_millis().to_string());
    assert_eq!(gate.catch_up().await, (Outcome::CaughtUp, vec![]));
    // A gap at the end, whose event has expired here, too.
    lose(&server, &[places[2]]);
    gate.forget(places[2]).await;
    let gap = Gap { after: places[1], upto: places[2] };
    assert_eq!(gate.catch_up().await, (Outcome::FoundLoss, vec![gap]));
    assert_eq!((lost(&gate), gate.store.position().last), (vec![], places[2]));
}

#[tokio::test]
async fn entries_that_were_trimmed_are_not_missing() {
    let server = RedisServer::start();
    let first = Replica::following(&server).await;
    let (since, places) = (created_at(&server), places(&first.append(&["a", "b", "c"]).await));
    set_origin(&server, "trimmed", &places[2].to_string());
    server.ask::<u64>(&["DEL", EVENTS]);
    let second = Replica::connected(&server).await;
    assert_eq!(second.catch_up().await, (Outcome::CaughtUp, vec![]));
    assert_eq!((gaps(&second), second.store.position().last), ((0, 0), places[2]));
    assert_eq!(created_at(&server), since);
}

#[tokio::test]
async fn a_log_that_was_replaced_lacks_all_that_this_gate_has() {
    let server = RedisServer::start();
    let log = KeptLog::start();
    let gate = Replica::following(&server).await;
    let (before, places) = (gate.store.position(), places(&gate.append(&["a", "b"]).await));
    gate.catch_up().await;
    gate.catch_up().await;
    assert_eq!(gate.store.position().read, places[1]);
    gate.told();
    let warned =
        "the shared event log was replaced or is incomplete; republishing the events that only this gate has";
    assert!(log.lines(warned).is_empty());

    server.ask::<String>(&["FLUSHALL"]);
    let log = KeptLog::start();
    assert_eq!(gate.catch_up().await, (Outcome::FoundLoss, vec![]));
    assert_eq!(log.lines(warned)[0]["held"], 2);
    assert_eq!((lost(&gate), *gate.store.emptied.borrow()), (places, 1));
    assert!(gate.store.is_settling(), "last uses were lost as well");
    let (position, raised) = (gate.store.position(), created_at(&server));
    assert_ne!(position.id, before.id);
    assert_eq!((position.last, position.read), (0, 0));
    assert_eq!((position.created_at, position.said), (before.created_at, raised));
    assert_eq!(gate.told(), [Told { created_at: Some(before.created_at), ..Told::default() }]);
}

#[tokio::test]
async fn what_is_lost_was_appended_before_a_second_that_is_over() {
    let server = RedisServer::start();
    let gate = Replica::following(&server).await;
    let beat = gate.store.beat(RESPONSE_TIMEOUT).await.unwrap();
    let secs = Timestamp::from_secs;
    // A place is in microseconds.
    let upto = 1_000_500_000;
    for (clock, since) in [(5_000, 1_061), (1_030, 1_031), (1_060, 1_061), (1_059, 1_060)] {
        let beat = Beat { clock: secs(clock), ..beat.clone() };
        for gaps in [vec![Gap { after: 0, upto }], vec![Gap { after: 0, upto }, Gap { after: 0, upto: 7 }]] {
            let known = gate.store.account(&beat, &[], gaps, Timestamp::EPOCH).await;
            assert_eq!(known, Ok(secs(since)), "{clock}");
        }
    }
    let known = gate.store.account(&beat, &[], vec![Gap { after: 0, upto }], secs(2_000)).await;
    assert_eq!(known, Ok(secs(2_000)), "never earlier");
    let known = gate.store.account(&beat, &[Gap { after: 0, upto }], vec![], secs(7)).await;
    assert_eq!(known, Ok(secs(7)), "nothing was lost");
}

#[tokio::test]
async fn a_log_of_another_version_is_refused() {
    let server = RedisServer::start();
    let gate = Replica::following(&server).await;
    for (version, why) in [
        (
            "2",
            "the data under state.key_prefix has version \"2\", and this release supports \"1\"; update the gates, or use another prefix",
        ),
        (UNFINISHED, "an import into it was interrupted; run `portcullis state import` again"),
    ] {
        set_origin(&server, "version", version);
        let read = gate.store.catch_up(&mut Vec::new()).await;
        assert_eq!(read, Err(RedisFault::Refused(why.to_owned())));
    }
}

#[tokio::test]
async fn an_entry_that_somebody_added_by_hand_shows_that_anything_may_be_missing() {
    let server = RedisServer::start();
    let first = Replica::following(&server).await;
    let places = places(&first.append(&["a", "b"]).await);
    let entry = crate::state::redis::entry::encode(&LogEntry::new(
        &revoked("c"),
        crate::state::record::EventSource::Admin,
        Timestamp::EPOCH,
    ));
    let place = places[1] + 1_000;
    server.ask::<String>(&["XADD", EVENTS, &id(place), "p", "7", "e", &entry]);
    set_origin(&server, "last", &place.to_string());
    let second = Replica::connected(&server).await;
    second.catch_up().await;
    assert_eq!((gaps(&second), second.store.position().last), ((0, 1), place));
}
