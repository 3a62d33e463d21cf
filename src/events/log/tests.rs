//! The log of events against what is in force: what a start replays, what other replicas and a predecessor did, what is
//! deleted, and what a page holds.

use tokio::sync::oneshot;

use super::*;
use crate::revocations::{Ended, TokenFacts};
use crate::sessions::Settings;
use crate::state::record::IdleTerms;
use crate::time::Monotonic;

/// The issuer of all tokens here.
const NAME: &str = "https://a/";
const SECOND: i64 = 1_000;
const IDLE: Duration = Duration::from_secs(60);

const fn at(secs: i64) -> Now {
    Now::at_millis(secs * SECOND)
}

/// Its events are kept for 62 minutes.
fn issuer() -> EventIssuer {
    let (leeway, max_lifetime) = (Duration::from_secs(30), Duration::from_secs(3_600));
    EventIssuer { issuer: NAME.into(), leeway, max_lifetime }
}

fn revoked(subject: &str, secs: i64) -> Event {
    let now = at(secs).wall;
    Event::subject(EventKind::SubjectRevoked, &issuer().issuer, subject, now, issuer().expiry(now))
}

/// A log that keeps no file, and what it puts in force.
async fn start() -> (Arc<EventLog>, Arc<Revocations>) {
    let revocations = Arc::new(Revocations::new(None));
    let store = Store::in_memory(at(0)).unwrap();
    (EventLog::start(store, Arc::clone(&revocations)).await.unwrap(), revocations)
}

fn judge(revocations: &Revocations, subject: &str, issued_at: i64, now: Now) -> Option<Ended> {
    let facts = TokenFacts {
        token: TokenKey::new(NAME, "jti"),
        issuer: IssuerKey::new(NAME),
        subject: Some(SubjectKey::new(NAME, subject)),
        client: None,
        issued_at: Timestamp::from_secs(issued_at),
        role_version: None,
        names: None,
    };
    revocations.load().judge(&facts, now)
}

fn changes(items: Vec<ReplicaChange>) -> (ReplicaChanges, oneshot::Receiver<()>) {
    let (done, told) = oneshot::channel();
    (ReplicaChanges { items, created_at: None, removed: None, idle: None, done }, told)
}

/// Follows one message, which must be answered.
async fn follow(log: &EventLog, changes: ReplicaChanges, refuse_older: bool, metrics: &Metrics) -> Sessions {
    let settings =
        Settings { idle_timeouts: Some(IDLE).into(), max_tracked: 10, leeway: Duration::ZERO, saved: false };
    let sessions = Sessions::new(settings);
    let (sender, receiver) = mpsc::channel(1);
    sender.send(changes).await.unwrap();
    drop(sender);
    log.follow(receiver, &sessions, refuse_older, metrics.clone()).await;
    sessions
}

#[tokio::test]
async fn what_other_replicas_did_is_in_force_when_they_are_answered() {
    let ((log, revocations), now) = (start().await, at(200));
    let metrics = Metrics::new().unwrap();
    let ours = log.publish(vec![revoked("alice", 100)], EventSource::Admin, at(100)).await.unwrap();
    assert_eq!(judge(&revocations, "alice", 100, now), Some(Ended::Subject));
    let stored = |subject: &str, sequence| StoredEvent {
        sequence,
        event: revoked(subject, 100),
        undoes: None,
        source: EventSource::Admin,
        received_at: at(100).wall,
        undone: false,
    };
    let (news, told) = changes(vec![
        ReplicaChange::Event(stored("bob", 7), false),
        ReplicaChange::Event(stored("carol", 8), true),
        ReplicaChange::Undone(ours.sequence),
        ReplicaChange::Event(stored("dave", 9), false),
    ]);
    follow(&log, news, true, &metrics).await;
    assert_eq!(told.await, Ok(()));
    for (subject, ended) in [("alice", false), ("bob", true), ("carol", true), ("dave", true), ("eve", false)]
    {
        for (issued_at, ended) in [(100, ended), (101, false)] {
            let expected = ended.then_some(Ended::Subject);
            assert_eq!(judge(&revocations, subject, issued_at, now), expected, "{subject} {issued_at}");
        }
    }
    let counted = metrics.events.with_label_values(&["subject-revoked", "replica"]).get();
    assert_eq!(counted, 2, "its own event was counted when it was published");
}

#[tokio::test]
async fn the_beginning_of_a_shared_log_counts_only_where_older_tokens_are_refused() {
    for (refuse_older, expected) in [(true, Some(at(50).wall)), (false, None)] {
        let (log, revocations) = start().await;
        let (news, told) = changes(Vec::new());
        let news = ReplicaChanges { created_at: Some(at(50).wall), ..news };
        follow(&log, news, refuse_older, &Metrics::new().unwrap()).await;
        assert_eq!(told.await, Ok(()));
        assert_eq!(revocations.load().not_before(), expected, "{refuse_older}");
    }
}

#[tokio::test]
async fn what_was_removed_from_a_shared_log_and_its_idle_timeout_are_taken_over() {
    let ((log, revocations), now) = (start().await, at(200));
    let removed = Removed { until: Monotonic::from_millis(30 * SECOND), retention: Duration::from_secs(10) };
    let (news, told) = changes(Vec::new());
    let idle = Some(IdleTerms { timeout: Some(IDLE / 2), floor: None }.into());
    let news = ReplicaChanges { removed: Some(vec![removed]), idle, ..news };
    let sessions = follow(&log, news, true, &Metrics::new().unwrap()).await;
    assert_eq!(told.await, Ok(()));
    assert_eq!(judge(&revocations, "alice", 30, now), Some(Ended::BeforeState));
    assert_eq!(judge(&revocations, "alice", 31, now), None);
    let floor = sessions.limits().load().common().floor.map(|floor| floor.timeout);
    assert_eq!(floor, Some(IDLE / 2), "what was idle by it stays so");
    // News without either leaves them as they are.
    let (news, told) = changes(Vec::new());
    let sessions = follow(&log, news, true, &Metrics::new().unwrap()).await;
    assert_eq!(told.await, Ok(()));
    assert_eq!(judge(&revocations, "alice", 30, now), Some(Ended::BeforeState));
    assert_eq!(sessions.limits().load().common().floor, None);
}

#[tokio::test]
async fn what_a_successor_stored_is_taken_over_from_where_it_was_read() {
    let (theirs, now) = (Store::in_memory(at(0)).unwrap(), at(200));
    let names = ["alice", "bob", "carol"];
    let events: Vec<Event> = names.map(|name| revoked(name, 100)).into();
    theirs.append(events.into(), EventSource::Admin, at(100)).await.unwrap();
    for after in 0..=3 {
        let (log, revocations) = start().await;
        assert_eq!(log.take_over_from(&theirs, after).await, Ok(3));
        for (sequence, name) in (1..).zip(names) {
            let expected = (sequence > after).then_some(Ended::Subject);
            assert_eq!(judge(&revocations, name, 100, now), expected, "{name} after {after}");
        }
        assert_eq!(log.take_over_from(&theirs, 3).await, Ok(3), "there is nothing more");
    }
    let (log, _) = start().await;
    assert_eq!(log.take_over_from(&Store::in_memory(at(0)).unwrap(), 5).await, Ok(5));
}

#[tokio::test]
async fn much_that_changed_is_folded() {
    // Tokens that lie in one part of their table.
    let events = |range: std::ops::Range<u64>| -> Vec<Event> {
        let event = |i: u64| {
            issuer().token_revoked(TokenKey(Key::from_bytes(u128::from(i).to_be_bytes())), at(100).wall)
        };
        range.map(event).collect()
    };
    let (log, revocations) = start().await;
    revocations.apply(events(0..65).iter().filter_map(ends));
    assert!(revocations.is_due());
    assert_eq!(log.trim(at(100), &[issuer()]).await, Ok(0));
    assert!(!revocations.is_due(), "by the upkeep");
    assert_eq!(revocations.load().counts().tokens, 65);
    assert!(log.fold().is_none(), "nothing changed since");
    revocations.apply(events(100..165).iter().filter_map(ends));
    assert!(log.fold().unwrap().await.is_ok());
    assert!(!revocations.is_due());
    assert_eq!(revocations.load().counts().tokens, 130);
}

#[tokio::test]
async fn what_was_deleted_ends_old_tokens_also_after_a_restart() {
    let revocations = Arc::new(Revocations::new(None));
    let store = Store::in_memory(at(0)).unwrap();
    let log = EventLog::start(store.clone(), Arc::clone(&revocations)).await.unwrap();
    log.publish(vec![revoked("alice", 1_000)], EventSource::Admin, at(1_000)).await.unwrap();
    assert_eq!(log.trim(at(1_000 + 3_720), &[issuer()]).await, Ok(0), "it may matter still");
    let over = at(1_000 + 3_720).plus(Duration::from_millis(1));
    assert_eq!(log.trim(over, &[issuer()]).await, Ok(1));
    let restarted = Arc::new(Revocations::new(None));
    EventLog::start(store, Arc::clone(&restarted)).await.unwrap();
    for revocations in [revocations, restarted] {
        // Any subject: of a deleted event it is not known whom it named. The issuer may be ahead by the leeway.
        for (issued_at, expected) in [(1_030, Some(Ended::BeforeState)), (1_031, None)] {
            assert_eq!(judge(&revocations, "bob", issued_at, at(9_000)), expected, "{issued_at}");
        }
        assert_eq!(revocations.load().counts().subjects, 0);
    }
}

#[tokio::test]
async fn a_page_tells_where_the_next_one_begins_only_when_there_is_one() {
    let (log, _) = start().await;
    let events: Vec<Event> = ["alice", "bob", "carol"].map(|name| revoked(name, 100)).into();
    log.publish(events, EventSource::Admin, at(100)).await.unwrap();
    for (after, limit, sequences, next) in [
        (0, 1, vec![1], Some(1)),
        (0, 2, vec![1, 2], Some(2)),
        (0, 3, vec![1, 2, 3], None),
        (0, 4, vec![1, 2, 3], None),
        (2, 1, vec![3], None),
        (3, 1, vec![], None),
    ] {
        for page in [log.events(after, limit).await, log.revocations(None, after, limit).await] {
            let page = page.unwrap();
            let found: Vec<u64> = page.items.iter().map(|stored| stored.sequence).collect();
            assert_eq!((found, page.next), (sequences.clone(), next), "{limit} after {after}");
        }
    }
}

#[tokio::test]
async fn a_creation_that_lies_ahead_is_corrected_for_good() {
    let folder = tempfile::tempdir().unwrap();
    for (name, created, now, corrected) in
        [("past", 99, 100, false), ("now", 100, 100, false), ("ahead", 101, 100, true)]
    {
        let path = folder.path().join(name);
        let store = Store::open(&path, at(created)).unwrap();
        let not_before = store.not_before();
        assert_eq!(not_before, at(created).wall, "{name}");
        let revocations = Arc::new(Revocations::new(Some(not_before)));
        let log = EventLog::start(store.clone(), Arc::clone(&revocations)).await.unwrap();
        assert_eq!(log.correct_creation(at(now).wall).await, Ok(corrected), "{name}");
        assert_eq!(log.correct_creation(at(now).wall).await, Ok(false), "{name}: once");
        let expected = if corrected { at(now).wall } else { not_before };
        assert_eq!(revocations.load().not_before(), Some(expected), "{name}");
        store.close().await;
        drop((log, store));
        assert_eq!(Store::open(&path, at(created)).unwrap().not_before(), expected, "{name}: on the disk");
    }
    let (log, revocations) = start().await;
    assert_eq!(log.correct_creation(at(-1).wall).await, Ok(false), "nothing is refused here");
    assert_eq!(revocations.load().not_before(), None);
}
