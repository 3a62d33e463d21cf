//! The embedded store as files and processes: restarts, damaged or foreign files, a full disk, `kill -9`.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail where they stand")]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use portcullis::events::{EventIssuer, EventLog, parse};
use portcullis::identity::{IssuerKey, SubjectKey, TokenKey};
use portcullis::revocations::{Ended, Revocations, TokenFacts};
use portcullis::state::record::{EventKind, EventSource, UsageRow};
use portcullis::state::{OpenError, Store};
use portcullis::time::{Now, Timestamp};

const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);
const HOUR: Duration = Duration::from_secs(3600);

fn issuers() -> [EventIssuer; 1] {
    [EventIssuer { issuer: "https://a/".into(), leeway: Duration::from_secs(30), max_lifetime: HOUR }]
}

/// A moment at which both clocks agree.
fn at(wall: Timestamp) -> Now {
    Now::at_millis(wall.as_millis())
}

struct Gate {
    log: Arc<EventLog>,
    revocations: Arc<Revocations>,
    store: Store,
}

impl Gate {
    async fn start(path: &Path, now: Timestamp) -> Self {
        let store = Store::open(path, at(now)).unwrap();
        let revocations = Arc::new(Revocations::new(Some(store.created_at())));
        let log = EventLog::start(store.clone(), Arc::clone(&revocations)).await.unwrap();
        Self { log, revocations, store }
    }

    async fn publish(&self, json: &str) -> u64 {
        let events = parse::events(json.as_bytes(), &issuers(), NOW).unwrap();
        self.log.publish(events, EventSource::Admin, at(NOW)).await.unwrap().sequence
    }

    fn judge(&self, subject: &str, issued_at: Timestamp) -> Option<Ended> {
        self.revocations.load().judge(
            &TokenFacts {
                token: TokenKey::new("https://a/", "jti"),
                issuer: IssuerKey::new("https://a/"),
                subject: Some(SubjectKey::new("https://a/", subject)),
                client: None,
                issued_at,
                role_version: Some(3),
                names: None,
            },
            at(NOW),
        )
    }
}

#[tokio::test]
async fn a_restart_forgets_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gate.db");
    let gate = Gate::start(&path, NOW.minus(HOUR)).await;
    gate.publish(r#"[{"type":"subject-revoked","subject":"alice"},{"type":"role-changed","subject":"bob","role_version":4}]"#).await;
    let carol = gate.publish(r#"{"type":"subject-revoked","subject":"carol","at":1800000000}"#).await;
    let undone = gate.log.undo(carol, EventSource::Admin, at(NOW)).await.unwrap().unwrap();
    assert_eq!(undone.sequence, carol);
    gate.store.save_key_set(("https://a/", "url"), b"{}", at(NOW)).await.unwrap();
    let usage =
        UsageRow { client: "app".into(), route: "/x".into(), status: 200, count: 2, last_used_at: NOW };
    gate.store.add_usage(vec![usage.clone()]).await.unwrap();
    drop(gate);

    let gate = Gate::start(&path, NOW.plus(HOUR)).await;
    assert_eq!(gate.store.created_at(), NOW.minus(HOUR));
    assert_eq!(gate.judge("alice", NOW), Some(Ended::Subject));
    assert_eq!(gate.judge("bob", NOW), Some(Ended::Roles));
    assert_eq!(gate.judge("carol", NOW), None);
    assert_eq!(gate.judge("dave", NOW.minus(2 * HOUR)), Some(Ended::BeforeState));
    let (body, fetched_at, running) = gate.store.key_set(("https://a/", "url")).await.unwrap().unwrap();
    assert_eq!((body, fetched_at), (b"{}".to_vec(), NOW));
    assert!(running.is_some(), "counted in running time, too");
    assert_eq!(gate.store.key_set(("https://a/", "another")).await.unwrap(), None, "kept of another source");
    gate.store.add_usage(vec![usage.clone()]).await.unwrap();
    assert_eq!(gate.store.usage(Some("app")).await.unwrap(), vec![UsageRow { count: 4, ..usage }]);

    // Delivered again after it was taken back: accepted, without effect, under its old sequence.
    assert_eq!(gate.publish(r#"{"type":"subject-revoked","subject":"carol","at":1800000000}"#).await, carol);
    assert_eq!(gate.judge("carol", NOW), None);
    // Another event about the same subject counts.
    gate.publish(r#"{"type":"subject-revoked","subject":"carol","at":1799999999}"#).await;
    assert_eq!(gate.judge("carol", NOW.minus(Duration::from_secs(1))), Some(Ended::Subject));
    assert_eq!(gate.judge("carol", NOW), None);
}

#[tokio::test]
async fn undoing_leaves_what_other_events_say() {
    let folder = tempfile::tempdir().unwrap();
    let gate = Gate::start(&folder.path().join("gate.db"), NOW).await;
    let early = gate.publish(r#"{"type":"subject-revoked","subject":"alice","at":1800000000}"#).await;
    let late = gate.publish(r#"{"type":"subject-revoked","subject":"alice","at":1800000020}"#).await;
    let roles =
        gate.publish(r#"{"type":"role-changed","subject":"alice","role_version":4,"at":1800000000}"#).await;
    let after = NOW.plus(Duration::from_secs(10));
    assert_eq!(gate.judge("alice", after), Some(Ended::Subject));
    gate.log.undo(late, EventSource::Admin, at(NOW)).await.unwrap().unwrap();
    assert_eq!(gate.judge("alice", after), Some(Ended::Roles));
    assert_eq!(gate.judge("alice", NOW), Some(Ended::Subject));
    gate.log.undo(roles, EventSource::Admin, at(NOW)).await.unwrap().unwrap();
    assert_eq!(gate.judge("alice", after), None);
    gate.log.undo(early, EventSource::Admin, at(NOW)).await.unwrap().unwrap();
    assert_eq!(gate.judge("alice", NOW), None);

    // Each undo is an event; doing it again adds none, and there is none for what never was or is itself an undo.
    assert!(gate.log.undo(early, EventSource::Admin, at(NOW)).await.unwrap().is_some());
    let page = gate.log.events(roles, 2).await.unwrap();
    assert_eq!(page.items.iter().map(|event| event.undoes).collect::<Vec<_>>(), [Some(late), Some(roles)]);
    let rest = gate.log.events(page.next.unwrap(), 2).await.unwrap();
    assert_eq!((rest.items.len(), rest.next), (1, None));
    assert_eq!(gate.log.undo(rest.items[0].sequence, EventSource::Admin, at(NOW)).await.unwrap(), None);
    assert_eq!(gate.log.undo(4711, EventSource::Admin, at(NOW)).await.unwrap(), None);
    assert!(gate.log.revocations(None, 0, 10).await.unwrap().items.is_empty());
}

#[tokio::test]
async fn revocations_are_listed_while_they_count() {
    let folder = tempfile::tempdir().unwrap();
    let gate = Gate::start(&folder.path().join("gate.db"), NOW).await;
    for i in 0..5 {
        gate.publish(&format!(r#"{{"type":"subject-revoked","subject":"alice","at":180000000{i}}}"#)).await;
    }
    gate.publish(r#"{"type":"client-revoked","client":"alice"}"#).await;
    let of = Some((EventKind::SubjectRevoked, SubjectKey::new("https://a/", "alice").0));
    let page = gate.log.revocations(of, 0, 3).await.unwrap();
    assert_eq!(page.items.len(), 3);
    let rest = gate.log.revocations(of, page.next.unwrap(), 3).await.unwrap();
    assert_eq!((rest.items.len(), rest.next), (2, None));

    let later = NOW.plus(2 * HOUR);
    assert_eq!(gate.log.trim(at(later), &issuers()).await, Ok(6));
    assert!(gate.log.events(0, 10).await.unwrap().items.is_empty());
    assert_eq!(gate.revocations.load().counts(), Default::default());
    assert_eq!(gate.publish(r#"{"type":"issuer-revoked"}"#).await, 7, "a sequence is never given twice");
}

#[tokio::test]
async fn a_file_serves_one_gate() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gate.db");
    let gate = Gate::start(&path, NOW).await;
    assert!(matches!(Store::open(&path, at(NOW)), Err(OpenError::InUse(_))));
    drop(gate);
    assert!(Store::open(&path, at(NOW)).is_ok());
}

#[test]
fn what_is_not_our_database_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gate.db");
    let changed = |statement: &str| {
        drop(std::fs::remove_file(&path));
        drop(Store::open(&path, at(NOW)).unwrap());
        rusqlite::Connection::open(&path).unwrap().execute_batch(statement).unwrap();
    };

    std::fs::write(
        &path,
        "these are the notes of somebody else, and more than a hundred bytes of them ".repeat(9),
    )
    .unwrap();
    let before = std::fs::read(&path).unwrap();
    assert!(matches!(Store::open(&path, at(NOW)), Err(OpenError::Foreign(_))));
    assert_eq!(std::fs::read(&path).unwrap(), before);

    changed("PRAGMA application_id = 7");
    let before = std::fs::read(&path).unwrap();
    assert!(matches!(Store::open(&path, at(NOW)), Err(OpenError::Foreign(_))));
    assert_eq!(std::fs::read(&path).unwrap(), before);

    changed("PRAGMA user_version = 1000");
    let newer = Store::open(&path, at(NOW)).unwrap_err();
    assert!(matches!(newer, OpenError::Newer { version: 1000, .. }));
    assert!(newer.to_string().contains("gate.db"), "names the file: {newer}");

    assert!(matches!(Store::open(&folder.path().join("no/such/folder.db"), at(NOW)), Err(OpenError::Io(..))));
}

#[tokio::test]
async fn a_damaged_file_is_an_error_and_not_an_empty_gate() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gate.db");
    let gate = Gate::start(&path, NOW).await;
    let events: Vec<String> =
        (0..2_000).map(|i| format!(r#"{{"type":"subject-revoked","subject":"subject {i}"}}"#)).collect();
    gate.publish(&format!("[{}]", events.join(","))).await;
    drop(gate);
    let whole = std::fs::read(&path).unwrap();
    let mut seen = 0;
    for page in (0..whole.len() / 4096).step_by(whole.len() / 4096 / 12) {
        let mut damaged = whole.clone();
        damaged[page * 4096..][..4096].fill(0xa5);
        std::fs::write(&path, damaged).unwrap();
        // A log left behind, as after a crash, makes the store look at the whole file.
        std::fs::write(path.with_extension("db-wal"), "left behind").unwrap();
        match Store::open(&path, at(NOW)) {
            Err(OpenError::Corrupt(..) | OpenError::Foreign(_)) => seen += 1,
            other => panic!("page {page}: {other:?}"),
        }
    }
    assert!(seen >= 12);
}

#[tokio::test]
async fn a_full_disk_loses_nothing_that_was_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gate.db");
    drop(Store::open(&path, at(NOW)).unwrap());
    // A file of 512 KiB at most, as a quota would have it.
    let mut child = publisher(&path, &["sh", "-c", r#"trap '' XFSZ; ulimit -f 512; exec "$@""#, "sh"]);
    let lines: Vec<String> =
        BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap).collect();
    child.wait().unwrap();
    let acknowledged = lines.iter().filter_map(|line| line.strip_prefix("acknowledged ")).count();
    assert!(acknowledged > 0, "{lines:?}");
    assert!(lines.iter().any(|line| line == "refused"), "{lines:?}");
    assert!(lines.iter().any(|line| line == "still in force"), "{lines:?}");

    let gate = Gate::start(&path, NOW).await;
    (0..acknowledged).for_each(|i| assert_eq!(gate.judge(&subject(i), NOW), Some(Ended::Subject), "{i}"));
    gate.publish(r#"{"type":"subject-revoked","subject":"later"}"#).await;
    assert_eq!(gate.judge("later", NOW), Some(Ended::Subject));
}

#[tokio::test]
async fn what_was_acknowledged_survives_kill_9() {
    for round in 1..=8 {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gate.db");
        let mut child = publisher(&path, &["env"]);
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut acknowledged = 0;
        while acknowledged < round * 7 {
            let line = lines.next().unwrap().unwrap();
            acknowledged += usize::from(line.starts_with("acknowledged "));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        // What it still managed to say counts too.
        acknowledged += lines.map_while(Result::ok).filter(|line| line.starts_with("acknowledged ")).count();

        let gate = Gate::start(&path, NOW).await;
        (0..acknowledged).for_each(|i| assert_eq!(gate.judge(&subject(i), NOW), Some(Ended::Subject), "{i}"));
        let known =
            (acknowledged..acknowledged + 2).filter(|i| gate.judge(&subject(*i), NOW).is_some()).count();
        assert!(known <= 1, "one at most was on its way");
    }
}

fn subject(i: usize) -> String {
    format!("subject {i} {}", "x".repeat(1_000))
}

/// Runs this test program again as a gate that publishes events until it cannot.
fn publisher(path: &Path, through: &[&str]) -> Child {
    Command::new(through[0])
        .args(&through[1..])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "state::publisher_process_runs", "--nocapture"])
        .env("PORTCULLIS_TEST_STORE", path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// The process started by [`publisher`]; without its variable it does nothing.
#[tokio::test]
async fn publisher_process_runs() {
    let Some(path) = std::env::var_os("PORTCULLIS_TEST_STORE") else { return };
    let gate = Gate::start(Path::new(&path), NOW).await;
    for i in 0.. {
        let json = format!(r#"{{"type":"subject-revoked","subject":"{}"}}"#, subject(i));
        let events = parse::events(json.as_bytes(), &issuers(), NOW).unwrap();
        // A line of its own, whatever the test harness has printed before.
        match gate.log.publish(events, EventSource::Admin, at(NOW)).await {
            Ok(_) => println!("\nacknowledged {i}"),
            Err(_) => {
                assert_eq!(gate.judge(&subject(i), NOW), None, "refused, so not in force");
                println!("\nrefused");
                let listed = gate.log.events(0, 1).await.is_ok();
                if listed && gate.judge(&subject(i - 1), NOW).is_some() {
                    println!("\nstill in force");
                }
                return;
            }
        }
    }
}
