//! State that moves between stores: a file, another file, and a real Redis server; what is refused, and what stays as it is.
#![expect(clippy::panic, clippy::unwrap_used, reason = "helpers of a test fail as the test does")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use portcullis::metrics::Metrics;
use portcullis::state::record::{Event, EventKind, EventSource, SessionRow, UsageRow};
use portcullis::state::redis::endpoint::RedisEndpoint;
use portcullis::state::redis::{self, RedisTerms};
use portcullis::state::transfer::{
    ExportedStore, ImportReport, ImportingStore, StateCopy, TransferHeader, export, import,
};
use portcullis::state::{OpenError, Store};
use portcullis::time::{Monotonic, Now, Timestamp};
use serde_json::{Value, json};
use testkit::redis_server::RedisServer;

mod beginnings;
mod directories;
mod format;
mod moves;
mod shared;

const ISSUER: &str = "https://a/";
const OTHER: &str = "https://b/";
const HOUR: Duration = Duration::from_secs(3600);
pub(crate) const TERMS: RedisTerms = RedisTerms {
    max_staleness: Duration::from_secs(2),
    flush_interval: Duration::from_secs(5),
    longest_idle: Some(Duration::from_secs(86_400)),
    kept: Duration::from_secs(300),
};

/// A store that state moves to and from.
enum Place<'s> {
    File(PathBuf),
    Shared(Box<redis::Settings>, &'s RedisServer),
}

impl<'s> Place<'s> {
    /// A file in a folder.
    fn file(folder: &Path, name: &str) -> Self {
        Self::File(folder.join(name))
    }

    /// The keys of a server that begin with this prefix.
    fn shared(server: &'s RedisServer, prefix: &str) -> Self {
        let endpoint = RedisEndpoint::parse(&server.url()).unwrap();
        let settings = redis::Settings { endpoint, events: None, ca: None, key_prefix: prefix.to_owned() };
        Self::Shared(Box::new(settings), server)
    }

    async fn import(&self, text: &str) -> Result<ImportReport, OpenError> {
        let copy = StateCopy::read(text).unwrap();
        let to = match self {
            Self::File(path) => ImportingStore::Embedded(path, vec![ISSUER, OTHER]),
            Self::Shared(settings, _) => ImportingStore::Redis(settings, TERMS),
        };
        import(&copy, to).await
    }

    /// The copy once nobody uses the store. A process that another test starts holds the lock of a file until it has become
    /// its own program.
    async fn export_unused(&self) -> (TransferHeader, String) {
        for _ in 0..1_000 {
            let (said, copied) = self.export().await.unwrap();
            if !said.in_use {
                return (said, copied);
            }
            testkit::let_pass_async(Duration::from_millis(5)).await;
        }
        panic!("the store stays in use");
    }

    async fn export(&self) -> Result<(TransferHeader, String), OpenError> {
        let from = match self {
            Self::File(path) => ExportedStore::Embedded(path),
            Self::Shared(settings, _) => ExportedStore::Redis(settings, TERMS, vec!["idp", "absent", "hr"]),
        };
        let mut written = Vec::new();
        let header = export(from, &mut written).await?;
        Ok((header, String::from_utf8(written).unwrap()))
    }

    /// What the store contains, line by line: its kind, and its content without what each store decides by itself.
    async fn content(&self) -> Vec<(String, Value)> {
        content(&self.export().await.unwrap().1)
    }

    /// The lines of these kinds.
    async fn lines(&self, kinds: &[&str]) -> Vec<Value> {
        let content = self.content().await.into_iter();
        content.filter(|(kind, _)| kinds.contains(&kind.as_str())).map(|(_, line)| line).collect()
    }

    /// What is counted: client, count, and the milliseconds from `base` to the last use.
    async fn counts(&self, base: i64) -> Vec<(String, u64, i64)> {
        let read = |line: Value| {
            let client = line["client"].as_str().unwrap().to_owned();
            (client, line["count"].as_u64().unwrap(), line["last_used_at"].as_i64().unwrap() - base)
        };
        self.lines(&["usage"]).await.into_iter().map(read).collect()
    }

    /// Uses the store as a gate does.
    async fn open(&self) -> Store {
        match self {
            Self::File(path) => Store::open(path, Now::read()).unwrap(),
            Self::Shared(settings, _) => follow(settings, TERMS).await,
        }
    }
}

/// Opens a store that processes share as a gate does, and waits until it can be used.
pub(crate) async fn follow(settings: &redis::Settings, terms: RedisTerms) -> Store {
    let (store, mut changes) = Store::shared(settings.clone(), terms, Metrics::new().unwrap()).unwrap();
    tokio::spawn(async move {
        while let Some(changes) = changes.recv().await {
            changes.done.send(()).unwrap();
        }
    });
    let freshness = store.freshness();
    testkit::eventually_async("the shared store is confirmed", || {
        freshness.is_fresh(Monotonic::now()).then_some(())
    })
    .await;
    store
}

/// The lines of a file between its header and its end: the kind of each, and its content without sequences and without
/// the times since, which go on.
fn content(text: &str) -> Vec<(String, Value)> {
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let parts = lines.map(|line| {
        let (kind, mut line) = line.as_object().unwrap().clone().into_iter().next().unwrap();
        for passing in ["sequence", "unused_for", "ago"] {
            line.as_object_mut().unwrap().remove(passing);
        }
        if let Some(floor) = line.get_mut("floor").and_then(Value::as_object_mut) {
            floor.remove("ago");
        }
        (kind, line)
    });
    parts.filter(|(kind, _)| kind != "header" && kind != "end").collect()
}

/// The milliseconds since what the lines of a file are about, in their order.
fn ages(text: &str) -> Vec<u64> {
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let age = |line: Value| {
        let line = line.as_object().unwrap().values().next().unwrap().clone();
        let found = [&line["unused_for"], &line["ago"], &line["floor"]["ago"]];
        found.into_iter().find_map(Value::as_u64)
    };
    lines.filter_map(age).collect()
}

/// A file with this header and these lines.
fn file(header: Value, lines: &[Value]) -> String {
    let end = json!({"end": {"lines": lines.len() + 1}});
    let lines = [json!({ "header": header })].into_iter().chain(lines.iter().cloned()).chain([end]);
    lines.map(|line| format!("{line}\n")).collect()
}

/// The header of a store that nobody was using.
fn header(identity: &str, not_before: i64) -> Value {
    json!({
        "format": "portcullis-state", "version": 1, "product": "1.0.0", "exported_at": 1_700_000_000_000_i64,
        "store": "embedded", "identity": identity, "not_before": not_before, "sequence": 9, "in_use": false,
    })
}

/// An event about a subject, at this place.
fn subject_line(sequence: u64, subject: &str, at: i64) -> Value {
    let key = portcullis::identity::SubjectKey::new(ISSUER, subject).0.to_string();
    json!({"event": {"sequence": sequence, "entry": {
        "k": 1, "h": key, "a": at, "i": ISSUER, "s": subject, "o": 0, "r": at, "x": at + 300_000, "w": 0,
    }}})
}

/// A token in use that was last used at `last`.
fn session_line(jti: &str, last: i64) -> Value {
    json!({"session": {
        "token": portcullis::identity::TokenKey::new(ISSUER, jti).0.to_string(), "issuer": ISSUER, "subject": null,
        "client": null, "names": null, "issued_at": last - 2_000, "first_used_at": last - 1_000, "last_used_at": last,
        "unused_for": 0, "expires_at": last + 9_000,
    }})
}

fn usage_line(client: &str, count: u64, last_used_at: i64) -> Value {
    json!({"usage": {"client": client, "route": "/x", "status": 200, "count": count, "last_used_at": last_used_at}})
}

fn directory_line(name: &str, revision: u64, entries: &[(&str, &str)]) -> Value {
    json!({"directory": {"name": name, "revision": revision, "entries": entries}})
}

/// Counts of a store that gets a copy.
fn counts_here(base: i64) -> Vec<UsageRow> {
    let row = |(client, count): (&str, u64)| UsageRow {
        client: client.into(),
        route: "/x".into(),
        status: 200,
        count,
        last_used_at: millis(base),
    };
    [("less", 2), ("more", 9), ("same", 5)].map(row).into()
}

/// Counts of the copy: more, fewer, as many, none, and of another client.
fn counts_there(base: i64) -> [Value; 5] {
    [("less", 7), ("more", 4), ("same", 5), ("none", 0), ("new", 1)]
        .map(|(client, count)| usage_line(client, count, base + 1))
}

/// What is counted afterwards, as [`Place::counts`] says it.
fn counts_together() -> Vec<(String, u64, i64)> {
    let counts = [("less", 7, 1), ("more", 9, 0), ("new", 1, 1), ("same", 5, 0)];
    counts.map(|(client, count, since)| (client.to_owned(), count, since)).into()
}

/// A subject that was revoked at this moment.
fn revoked(subject: &str, at: i64) -> Event {
    let until = millis(at + 300_000);
    Event::subject(EventKind::SubjectRevoked, &ISSUER.into(), subject, millis(at), until)
}

/// The lines of one kind.
fn of_kind(kind: &str, content: &[(String, Value)]) -> Vec<Value> {
    content.iter().filter(|(of, _)| of == kind).map(|(_, line)| line.clone()).collect()
}

/// Appends events that arrive at this moment.
async fn append(store: &Store, events: &[Event], now: Now) -> u64 {
    store.append(Arc::from(events), EventSource::Admin, now).await.unwrap().last().unwrap().sequence
}

fn millis(at: i64) -> Timestamp {
    Timestamp::from_millis(at)
}

/// What a report says about these events and sessions, with nothing kept.
fn reported(events: usize, known: usize, sessions: usize, not_before: i64) -> ImportReport {
    ImportReport { events, known, sessions, not_before: millis(not_before), ..ImportReport::default() }
}

/// A row of a token that was used last at this moment.
fn row(jti: &str, last: Now) -> SessionRow {
    SessionRow {
        token: portcullis::identity::TokenKey::new(ISSUER, jti),
        issuer: ISSUER.into(),
        subject: None,
        client: None,
        issued_at: last.wall.minus(Duration::from_secs(2)),
        first_used_at: last.wall.minus(Duration::from_secs(1)),
        last_used_at: last.wall,
        last_used_monotonic: last.monotonic,
        expires_at: last.wall.plus(Duration::from_secs(9)),
        names: None,
    }
}
