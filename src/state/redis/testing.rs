//! A gate of a fleet on a real server, whose phases a test goes through one by one.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use testkit::redis_server::RedisServer;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::endpoint::RedisEndpoint;
use super::follows::Gap;
use super::log::{ReplicaChange, ReplicaChanges};
use super::phase::{Outcome, RedisPhase};
use super::removed::Removed;
use super::{RedisTerms, Settings, SharedStore, entry, prepare};
use crate::metrics::Metrics;
use crate::state::record::{Appended, Event, EventSource, IdleTerms, PerIssuer, StoredEvent};
use crate::time::Timestamp;

/// Never stale, so that a test may take as long as it needs.
pub(super) const TERMS: RedisTerms = RedisTerms {
    max_staleness: Duration::from_secs(3_600),
    flush_interval: Duration::from_secs(5),
    longest_idle: Some(Duration::from_secs(60)),
    kept: Duration::from_secs(300),
};

/// When all events here happened and arrived.
pub(super) const AT: Timestamp = Timestamp::from_secs(1_800_000_000);

/// The settings for this URL.
pub(super) fn settings(url: &str) -> Settings {
    let endpoint = RedisEndpoint::parse(url).unwrap();
    Settings { endpoint, events: None, ca: None, key_prefix: "test".to_owned() }
}

/// The event that a token with this id was revoked.
pub(super) fn revoked(jti: &str) -> Event {
    Event::token(&"https://a/".into(), jti, AT, AT.plus(TERMS.kept))
}

/// What another gate's event about this token is here.
pub(super) fn news(jti: &str, sequence: u64) -> ReplicaChange {
    ReplicaChange::Event(
        StoredEvent {
            sequence,
            event: revoked(jti),
            undoes: None,
            source: EventSource::Admin,
            received_at: AT,
            undone: false,
        },
        false,
    )
}

/// What the gate was told to put in force, and the last entry that was in force by then.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Told {
    pub(super) items: Vec<ReplicaChange>,
    pub(super) created_at: Option<Timestamp>,
    pub(super) removed: Option<Vec<Removed>>,
    pub(super) idle: Option<PerIssuer<IdleTerms>>,
    pub(super) last: u64,
}

/// A gate whose supervisor does not run.
pub(super) struct Replica {
    pub(super) store: Arc<SharedStore>,
    told: Arc<Mutex<Vec<Told>>>,
    follower: JoinHandle<()>,
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.follower.abort();
    }
}

impl Replica {
    /// A gate that is not connected yet.
    pub(super) fn new(url: &str, terms: RedisTerms) -> Self {
        let (store, changes) = prepare(settings(url), terms, Metrics::new().unwrap()).unwrap();
        let told = Arc::<Mutex<Vec<Told>>>::default();
        let follower = tokio::spawn(put_in_force(changes, Arc::clone(&store), Arc::clone(&told)));
        Self { store, told, follower }
    }

    /// A gate that is connected, but has not read the log.
    pub(super) async fn connected(server: &RedisServer) -> Self {
        let gate = Self::new(&server.url(), TERMS);
        assert_eq!(gate.store.open().await, Ok(Outcome::Connected));
        gate
    }

    /// A gate that has read the log and now follows it, as far as it knows.
    pub(super) async fn following(server: &RedisServer) -> Self {
        let gate = Self::connected(server).await;
        assert_eq!(gate.catch_up().await, (Outcome::CaughtUp, Vec::new()));
        gate.store.enter(RedisPhase::Following);
        gate.told();
        gate
    }

    /// Reads the log to its end; returns the outcome and the gaps that this gate can fill.
    pub(super) async fn catch_up(&self) -> (Outcome, Vec<Gap>) {
        let mut filled = Vec::new();
        let outcome = self.store.catch_up(&mut filled).await.unwrap();
        (outcome, filled)
    }

    /// Puts the entries after the last one in force.
    pub(super) async fn read(&self) {
        let lane = self.store.log_lane().unwrap();
        let page = self.store.read(&lane, self.store.position().last).await.unwrap();
        self.store.put_in_force(page).await.unwrap();
    }

    /// Revokes tokens with these ids.
    pub(super) async fn append<T: AsRef<str>>(&self, tokens: &[T]) -> Vec<Appended> {
        let events = tokens.iter().map(|jti| revoked(jti.as_ref())).collect();
        self.store.append(events, EventSource::Admin, AT).await.unwrap()
    }

    /// Deletes an event here, as when it has expired.
    pub(super) async fn forget(&self, sequence: u64) {
        let place = i64::try_from(sequence).unwrap();
        let deleting =
            self.store.mirror.run(move |db| db.execute("DELETE FROM events WHERE sequence = ?1", [place]));
        assert_eq!(deleting.await, Ok(1));
    }

    /// What the gate was told since the last call.
    pub(super) fn told(&self) -> Vec<Told> {
        std::mem::take(&mut *self.told.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

async fn put_in_force(
    mut changes: mpsc::Receiver<ReplicaChanges>,
    store: Arc<SharedStore>,
    told: Arc<Mutex<Vec<Told>>>,
) {
    while let Some(ReplicaChanges { items, created_at, removed, idle, done }) = changes.recv().await {
        let last = store.position().last;
        told.lock().unwrap_or_else(PoisonError::into_inner).push(Told {
            items,
            created_at,
            removed,
            idle,
            last,
        });
        done.send(()).unwrap();
    }
}

/// The places of events that were all new.
pub(super) fn places(appended: &[Appended]) -> Vec<u64> {
    assert!(appended.iter().all(|appended| appended.new && !appended.undone), "{appended:?}");
    appended.iter().map(|appended| appended.sequence).collect()
}

/// A field of the log's origin.
pub(super) fn origin(server: &RedisServer, field: &str) -> String {
    server.ask::<Option<String>>(&["HGET", ORIGIN, field]).unwrap_or_default()
}

/// Writes a field of the log's origin.
pub(super) fn set_origin(server: &RedisServer, field: &str, value: &str) {
    server.ask::<i64>(&["HSET", ORIGIN, field, value]);
}

/// Since when the log is complete, as it says itself.
pub(super) fn created_at(server: &RedisServer) -> Timestamp {
    Timestamp::from_millis(origin(server, "created_at").parse().unwrap())
}

/// The server's clock.
pub(super) fn clock(server: &RedisServer) -> Timestamp {
    let (secs, micros): (i64, i64) = server.ask(&["TIME"]);
    Timestamp::from_millis(secs * 1_000 + micros / 1_000)
}

/// Removes entries from the log.
pub(super) fn lose(server: &RedisServer, places: &[u64]) {
    for place in places {
        assert_eq!(server.ask::<u64>(&["XDEL", EVENTS, &entry::id(*place)]), 1);
    }
}

pub(super) const ORIGIN: &str = "test:{test.log}:origin";
pub(super) const EVENTS: &str = "test:{test.log}:events";
pub(super) const STAMP: &str = "test:{test.log}:stamp";
pub(super) const MENDER: &str = "test:{test.log}:mender";

/// A cluster of one node.
pub(super) async fn cluster() -> (RedisServer, String) {
    let server = RedisServer::with(&["--cluster-enabled", "yes"]);
    server.ask::<String>(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]);
    testkit::eventually_async("the cluster is whole", || {
        let info: String = server.ask(&["CLUSTER", "INFO"]);
        info.contains("cluster_state:ok").then_some(())
    })
    .await;
    let url = format!("redis-cluster://127.0.0.1:{}", server.port);
    (server, url)
}
