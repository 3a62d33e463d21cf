//! A whole state on its way: from a file to another file, to Redis, and back; and what a file that has a state of its own keeps.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use portcullis::identity::{SubjectKey, TokenKey, TokenNames};
use portcullis::state::record::{
    Event, EventKind, EventOrigin, EventSource, IdleFloor, IdleTerms, Kept, PerIssuer, SessionRow,
    SubjectKind, UsageRow,
};
use portcullis::state::transfer::ImportReport;
use portcullis::state::{DirectoryEntry, DirectoryRevision, OpenError, Past, Store};
use portcullis::time::{Monotonic, Now, Timestamp};
use serde_json::{Value, json};
use testkit::redis_server::RedisServer;

use super::{
    HOUR, ISSUER, OTHER, Place, ages, append, content, counts_here, counts_there, counts_together,
    directory_line, file, header, millis, of_kind, reported, revoked, row, session_line, subject_line,
};

/// The moment on both clocks this long ago.
fn ago(duration: Duration) -> Now {
    let now = Now::read();
    Now { wall: now.wall.minus(duration), monotonic: now.monotonic.minus(duration) }
}

fn event(kind: EventKind, subject: &str, at: Timestamp) -> Event {
    Event::subject(kind, &ISSUER.into(), subject, at, at.plus(HOUR))
}

/// One event of every form, `at` this moment, and the sequences of the two to undo.
fn events(at: Timestamp) -> (Vec<Event>, [usize; 2]) {
    let (issuer, until): (Arc<str>, _) = (ISSUER.into(), at.plus(HOUR));
    let signal = EventOrigin::signal("idp", "set-1", "session-revoked", at);
    let all = vec![
        Event::token(&issuer, "jti", at, until),
        Event::token_key(&issuer, TokenKey::new(ISSUER, "no jti"), at, until),
        Event { role_version: Some(7), ..event(EventKind::RoleChanged, "bob", at) },
        Event { origin: Some(signal), ..event(EventKind::SubjectRevoked, "carol", at) },
        event(EventKind::SubjectRevoked, "carol", at),
        Event::client(&issuer, "app", at, until),
        Event::session(&issuer, "sid", None, at, until),
        Event::session(&issuer, "sid", Some((SubjectKind::Email, "a@b.test")), at, until),
        Event::named(EventKind::SubjectRevoked, &OTHER.into(), (SubjectKind::Alias, "é"), at, until),
        Event::issuer(&OTHER.into(), at, until),
    ];
    (all, [3, 5])
}

/// A session with everything that one may have, last used this long ago.
fn full_session(last: Now) -> SessionRow {
    let subject = SubjectKey::new(ISSUER, "ada");
    let names =
        TokenNames::new(ISSUER, Some(subject), vec![SubjectKey::email(ISSUER, "a@b.test")], Some("sid"));
    SessionRow {
        subject: Some(subject),
        client: Some("app".into()),
        names: names.map(Arc::new),
        ..row("full", last)
    }
}

/// Fills a store with a state that has something of everything, and returns how many events it has.
async fn fill(store: &Store) -> usize {
    // An event that has been deleted since: what it may have ended is remembered.
    let old = ago(24 * HOUR);
    let minutes = Duration::from_secs(300);
    let forgotten = Event::issuer(&ISSUER.into(), old.wall, old.wall.plus(minutes));
    append(store, &[forgotten], old).await;
    let kept = Kept { issuer: ISSUER.into(), retention: minutes, leeway: Duration::ZERO };
    assert_eq!(store.trim_events(None, Now::read(), [kept].into()).await.unwrap().deleted, 1);

    let now = ago(HOUR / 2);
    let (events, undone) = events(now.wall);
    let last = append(store, &events, now).await;
    let first = last + 1 - u64::try_from(events.len()).unwrap();
    for place in undone {
        let sequence = first + u64::try_from(place).unwrap();
        store.undo(sequence, EventSource::Admin, now).await.unwrap().unwrap();
    }
    let sessions = vec![full_session(ago(HOUR / 3)), row("plain", ago(HOUR / 4))];
    store.save_sessions(sessions, Vec::new()).await.unwrap();
    let floor = ago(2 * HOUR);
    let floor = IdleFloor { monotonic: floor.monotonic, wall: floor.wall, timeout: HOUR / 4 };
    let common = IdleTerms { timeout: Some(HOUR / 2), floor: Some(floor) };
    let never = IdleTerms { timeout: None, floor: None };
    store.save_idle_terms(PerIssuer::new(common, [(OTHER.into(), never)])).await.unwrap();
    let used = |client: &str, status, count| UsageRow {
        client: client.into(),
        route: "/{id}".into(),
        status,
        count,
        last_used_at: now.wall,
    };
    store.add_usage(vec![used("app", 200, 3), used("app", 401, 1), used("", 200, 2)]).await.unwrap();
    for (name, key) in [("idp", "x"), ("hr", "y")] {
        let entry = DirectoryEntry { key: key.into(), body: Some("{}".into()) };
        let known = DirectoryRevision::default();
        store.change_directory(name, &known, vec![entry], 0).await.unwrap().unwrap();
    }
    events.len() + undone.len()
}

fn entries(content: &[(String, Value)]) -> Vec<Value> {
    of_kind("event", content).into_iter().map(|line| line["entry"].clone()).collect()
}

/// The events with those that undo others last, as an import into Redis appends them.
fn undoing_last(content: &[(String, Value)]) -> Vec<Value> {
    let events = entries(content).into_iter();
    let (undoing, others): (Vec<Value>, Vec<Value>) = events.partition(|entry| entry["k"] == 5);
    [others, undoing].concat()
}

/// The copy of a state that has something of everything.
struct Source {
    text: String,
    /// How many events it has.
    events: usize,
    /// When the store was created, and the identity of its log.
    created: i64,
    log: String,
    /// When it was copied.
    at: Monotonic,
}

impl Source {
    async fn copied(folder: &Path) -> Self {
        let path = folder.join("source.db");
        let store = Store::open(&path, ago(2 * HOUR)).unwrap();
        let place = Place::File(path);
        let events = fill(&store).await;
        let at = Monotonic::now();
        let (created, log) = (store.created_at().as_millis(), store.log());
        let (said, beside_a_gate) = place.export().await.unwrap();
        assert_eq!((said.in_use, &*said.store, &*said.identity), (true, "embedded", &*log.identity));
        store.close().await;
        drop(store);
        let (said, text) = place.export_unused().await;
        assert_eq!((said.sequence, said.not_before), (log.sequence, created));
        assert_eq!(content(&text), content(&beside_a_gate));
        Self { text, events, created, log: log.identity, at }
    }

    /// What imports of it report: first that all is new, then that all is known.
    fn reports(&self) -> [ImportReport; 2] {
        [(self.events, 0), (0, self.events)].map(|(new, known)| reported(new, known, 2, self.created))
    }
}

#[tokio::test]
async fn a_state_moves_to_another_file_and_keeps_everything() {
    let folder = tempfile::tempdir().unwrap();
    let source = Source::copied(folder.path()).await;
    let whole = content(&source.text);
    let kinds: Vec<&str> = whole.iter().map(|(kind, _)| kind.as_str()).collect();
    let expected = [
        vec!["event"; source.events],
        vec!["session"; 2],
        vec!["idle"; 2],
        vec!["forgotten"],
        vec!["usage"; 3],
        vec!["directory"; 2],
    ];
    assert_eq!(kinds, expected.concat());
    let second = Place::file(folder.path(), "second.db");
    for expected in source.reports() {
        assert_eq!(second.import(&source.text).await, Ok(expected));
        let (said, copied) = second.export_unused().await;
        assert_eq!(content(&copied), with_higher_revisions(&whole, &content(&copied)));
        assert_ne!(said.identity, source.log, "its own log");
        assert_eq!(said.not_before, source.created);
        let went_on = u64::try_from(Monotonic::now().since(source.at).as_millis()).unwrap();
        assert_eq!(ages(&copied).len(), ages(&source.text).len());
        for (before, after) in ages(&source.text).into_iter().zip(ages(&copied)) {
            assert!((before..=before + went_on).contains(&after), "{before} {after} {went_on}");
        }
    }
    let store = second.open().await;
    assert_eq!((store.past(), store.not_before()), (Past::Continuous, millis(source.created)));
    let live = store.live_events(None, 0, 100).await.unwrap().len();
    assert_eq!(live, source.events - 4, "two are undone by two");
}

#[tokio::test]
async fn a_state_moves_to_redis_and_back_and_keeps_everything_but_its_sessions() {
    let (folder, server) = (tempfile::tempdir().unwrap(), RedisServer::start());
    let (shared, back) = (Place::shared(&server, "t"), Place::file(folder.path(), "back.db"));
    let source = Source::copied(folder.path()).await;
    let whole = content(&source.text);
    for expected in source.reports() {
        assert_eq!(shared.import(&source.text).await, Ok(expected));
    }
    let (said, from_redis) = shared.export().await.unwrap();
    assert_eq!((&*said.store, said.in_use, said.not_before), ("redis", false, source.created));
    let copied = content(&from_redis);
    assert_eq!(entries(&copied), undoing_last(&whole));
    assert_eq!(of_kind("forgotten", &copied), [json!({"issuer": null, "retention": 300_000})]);
    assert_eq!(ages(&from_redis).last(), Some(&0), "until now: its log does not know when");
    for kind in ["idle", "usage"] {
        assert_eq!(of_kind(kind, &copied), of_kind(kind, &whole));
    }
    let names = |content: &[(String, Value)]| {
        let directories = of_kind("directory", content).into_iter();
        let named = directories.map(|line| (line["name"].to_string(), line["entries"].to_string()));
        named.collect::<BTreeMap<_, _>>()
    };
    assert_eq!(names(&copied), names(&whole));

    // Back in a file, what was forgotten counts for every configured issuer.
    assert_eq!(back.import(&from_redis).await, Ok(reported(source.events, 0, 0, source.created)));
    let returned = back.content().await;
    assert_eq!(entries(&returned), undoing_last(&whole));
    let forgotten = |issuer: &str| json!({"issuer": issuer, "retention": 300_000});
    assert_eq!(of_kind("forgotten", &returned), [forgotten(ISSUER), forgotten(OTHER)]);
    for kind in ["session", "idle", "usage"] {
        let expected = if kind == "session" { Vec::new() } else { of_kind(kind, &whole) };
        assert_eq!(of_kind(kind, &returned), expected);
    }
    assert_eq!(names(&returned), names(&whole));
}

/// What was copied, with the revisions of directories as they are `found`: higher ones.
fn with_higher_revisions(copied: &[(String, Value)], found: &[(String, Value)]) -> Vec<(String, Value)> {
    let mut expected = copied.to_vec();
    for ((_, before), (_, after)) in expected.iter_mut().zip(found) {
        if let (Some(old), Some(new)) = (before["revision"].as_u64(), after["revision"].as_u64()) {
            assert!(new > old, "{after}");
            before["revision"] = after["revision"].clone();
        }
    }
    expected
}

#[tokio::test]
async fn a_file_that_has_a_state_of_its_own_keeps_it_and_gets_what_it_lacks() {
    let folder = tempfile::tempdir().unwrap();
    let place = Place::file(folder.path(), "state.db");
    let store = place.open().await;
    let base = Timestamp::now().minus(HOUR).as_millis();
    let now = Now { wall: millis(base), monotonic: Monotonic::now() };
    append(&store, &["own", "both", "third"].map(|subject| revoked(subject, base)), now).await;
    let last = |jti: &str, at: i64| row(jti, Now { wall: millis(at), monotonic: Monotonic::now() });
    let used = vec![last("later here", base + 500), last("later there", base)];
    store.save_sessions(used, Vec::new()).await.unwrap();
    let terms = IdleTerms { timeout: Some(HOUR), floor: None };
    store.save_idle_terms(terms.into()).await.unwrap();
    store.add_usage(counts_here(base)).await.unwrap();
    store.close().await;
    drop(store);

    let lines = [
        subject_line(2, "early", base),
        subject_line(3, "both", base),
        subject_line(7, "late", base),
        subject_line(8, "later", base),
        session_line("later here", base),
        session_line("later there", base + 500),
        session_line("new", base),
        json!({"idle": {"issuer": null, "timeout": 1, "floor": null}}),
        json!({"forgotten": {"issuer": ISSUER, "retention": 60_000, "ago": 900_000}}),
    ];
    let text = file(header("a", 4_000), &[&lines[..], &counts_there(base)].concat());
    assert_eq!(place.import(&text).await, Ok(reported(3, 1, 3, 4_000)));
    assert_eq!(place.import(&text).await, Ok(reported(0, 4, 3, 4_000)), "again");
    assert_eq!(place.counts(base).await, counts_together());

    let store = place.open().await;
    let events = store.events(0, 100).await.unwrap();
    let events: Vec<_> =
        events.iter().map(|stored| (stored.sequence, stored.event.subject.as_deref())).collect();
    let expected = [(1, "own"), (2, "both"), (3, "third"), (4, "early"), (7, "late"), (8, "later")];
    assert_eq!(events, expected.map(|(sequence, subject)| (sequence, Some(subject))));
    let sessions = store.sessions(None, 100).await.unwrap();
    let used_at = |jti: &str| {
        let row = sessions.iter().find(|row| row.token == TokenKey::new(ISSUER, jti)).unwrap();
        row.last_used_at.as_millis() - base
    };
    assert_eq!(["later here", "later there", "new"].map(used_at), [500, 500, 0]);
    assert_eq!(store.idle_terms().await, Ok(Some(terms.into())), "those in force");
    let [forgotten] = &*store.forgotten().await.unwrap() else { panic!("one") };
    assert_eq!((&*forgotten.issuer, forgotten.retention), (ISSUER, Duration::from_secs(60)));
    assert!(Monotonic::now().since(forgotten.until) >= Duration::from_secs(900));
}

#[tokio::test]
async fn a_token_that_was_unused_for_long_by_either_clock_stays_so() {
    let folder = tempfile::tempdir().unwrap();
    let place = Place::file(folder.path(), "state.db");
    let now = Timestamp::now();
    let hours = |count: u32| u64::try_from((count * HOUR).as_millis()).unwrap();
    let line = |jti: &str, by_wall: u32, by_running_time: u32| {
        let mut line = session_line(jti, now.minus(by_wall * HOUR).as_millis());
        line["session"]["unused_for"] = json!(hours(by_running_time));
        line
    };
    let text = file(header("a", 0), &[line("by the wall clock", 5, 1), line("by running time", 1, 5)]);
    place.import(&text).await.unwrap();
    let floor = json!({"at": now.as_millis(), "ago": hours(7), "timeout": hours(1)});
    let idle = json!({"idle": {"issuer": null, "timeout": hours(2), "floor": floor}});
    let other = Place::file(folder.path(), "other.db");
    other.import(&file(header("a", 0), &[idle])).await.unwrap();
    let (first, second) = (place.export().await.unwrap().1, other.export().await.unwrap().1);
    let found = [ages(&first), ages(&second)];
    assert_eq!((found[0].len(), found[1].len()), (2, 1));
    assert!(found[0].iter().all(|age| *age >= hours(5)) && found[1][0] >= hours(7), "{found:?}");
    assert_eq!(other.lines(&["idle"]).await[0]["timeout"], json!(hours(2)));
}

#[tokio::test]
async fn the_file_of_a_new_store_has_its_name_only_when_it_is_complete() {
    let folder = tempfile::tempdir().unwrap();
    let text =
        file(header("a", 5), &[subject_line(4, "ada", 1_000), directory_line("idp", 3, &[("x", "1")])]);
    let names = |folder: &Path| {
        let names = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<String> = names.map(|name| name.into_string().unwrap()).collect();
        names.sort();
        names
    };
    // What an interrupted import has left, or somebody else where the store is to be.
    for (left, refused) in
        [(".importing", false), (".importing-wal", false), (".importing.seen", false), ("", true)]
    {
        let folder = tempfile::tempdir_in(folder.path()).unwrap();
        let place = Place::file(folder.path(), "state.db");
        std::fs::write(folder.path().join(format!("state.db{left}")), "half of a file, and nothing else")
            .unwrap();
        let done = place.import(&text).await;
        if refused {
            assert_eq!(done, Err(OpenError::Foreign(folder.path().join("state.db"))));
            continue;
        }
        assert_eq!(done, Ok(reported(1, 0, 0, 5)), "{left}");
        assert_eq!(names(folder.path()), ["state.db", "state.db.seen"], "{left}");
        assert_eq!(place.lines(&["event"]).await.len(), 1);
    }
    let empty = Place::file(folder.path(), "empty.db");
    std::fs::write(folder.path().join("empty.db"), "").unwrap();
    let idle = json!({"idle": {"issuer": null, "timeout": 1_000, "floor": null}});
    assert_eq!(empty.import(&file(header("a", 5), &[idle])).await, Ok(reported(0, 0, 0, 5)));
    let lines = empty.lines(&["idle"]).await;
    assert_eq!(
        lines,
        [json!({"issuer": null, "timeout": 1_000, "floor": null})],
        "a new store takes the timeouts"
    );

    let nowhere = folder.path().join("none").join("state.db");
    let missing = Place::File(nowhere.clone());
    assert!(matches!(missing.export().await, Err(OpenError::Missing(path)) if path == nowhere));
    assert!(matches!(missing.import(&text).await, Err(OpenError::Io(..))));
}

#[tokio::test]
async fn a_state_of_many_pages_moves_whole() {
    let (folder, server) = (tempfile::tempdir().unwrap(), RedisServer::start());
    let base = Timestamp::now().minus(HOUR).as_millis();
    let events = (1..=1_001).map(|place| subject_line(place, &format!("subject {place}"), base));
    let sessions = (0..1_001).map(|place| session_line(&format!("token {place}"), base));
    let text = file(header("a", 5), &events.chain(sessions).collect::<Vec<_>>());
    let place = Place::file(folder.path(), "state.db");
    assert_eq!(place.import(&text).await, Ok(reported(1_001, 0, 1_001, 5)));
    let copied = place.content().await;
    assert_eq!(of_kind("event", &copied), of_kind("event", &content(&text)));
    assert_eq!(of_kind("session", &copied).len(), 1_001);
    let shared = Place::shared(&server, "t");
    for (events, known) in [(1_001, 0), (0, 1_001)] {
        assert_eq!(shared.import(&text).await, Ok(reported(events, known, 1_001, 5)));
        assert_eq!(shared.lines(&["event"]).await, of_kind("event", &copied));
    }
}
