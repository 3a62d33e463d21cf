//! The store: everything that must survive a restart, in one file, in memory, or in Redis for all replicas.
//!
//! Stores events, last uses, key sets and usage without knowing their rules: `revocations` decides what an
//! event means, `sessions` when a session ends. The memory store is the same engine without a file; so is the
//! local copy of a shared store's log.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64};
use std::time::Duration;

use crate::identity::TokenKey;
use crate::time::{Clock, Now, Timestamp};

mod backup;
mod backwards;
mod directory;
mod error;
mod events;
pub mod freshness;
mod idle_rows;
mod key_sets;
mod last_uses;
mod migrations;
mod mirror;
mod proofs;
pub mod record;
pub mod redis;
mod rows;
mod schema;
mod seen;
mod session_rows;
mod streams;
pub mod transfer;
mod trim;
pub(crate) mod uptime;
mod usage_rows;
mod writer;

pub use directory::{DirectoryEntry, DirectoryNews, DirectoryRevision};
pub use error::{OpenError, StoreError};
pub use events::LogPosition;
use freshness::Freshness;
use redis::{ReplicaChanges, SharedStore, SharedUse};
use schema::{Database, WantedDatabase};
pub use seen::Past;
pub use streams::{AskedState, StreamLease};
use uptime::Uptime;
use writer::StoreWriter;

/// A handle to the store; clones share it.
#[derive(Debug, Clone)]
pub struct Store {
    writer: Arc<StoreWriter>,
    created_at: Timestamp,
    not_before: Timestamp,
    identity: Arc<str>,
    /// The last sequence of its log.
    last: Arc<AtomicU64>,
    past: Past,
    uptime: Uptime,
    durable: bool,
    /// The connection to the store that replicas share; the database then holds a copy of its log.
    shared: Option<Arc<redis::Running>>,
}

/// The most rows that one job reads or writes, so that other jobs do not wait long.
const CHUNK: usize = 1_000;

impl Store {
    /// Opens the file, creating it if it does not exist; `now` becomes its creation time. Blocks.
    ///
    /// # Errors
    /// When the file is in use, not a Portcullis database, written by a later release, damaged, or cannot be
    /// read or written.
    pub fn open(path: &Path, now: Now) -> Result<Self, OpenError> {
        Self::open_on(path, now, Clock::Machine)
    }

    /// Like [`Self::open`], on a clock that a simulation may drive.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_on(path: &Path, now: Now, clock: Clock) -> Result<Self, OpenError> {
        let mut database = schema::open(path, WantedDatabase::Any, now)?;
        database.clock = clock;
        Self::start(database, true, path)
    }

    /// Creates the file, and returns what the side file says about an earlier store there. With
    /// `accept_existing_tokens` the store assumes that nothing was revoked before; otherwise tokens issued
    /// before now are rejected. Blocks.
    ///
    /// # Errors
    /// As [`Self::open`], and when the store already exists.
    pub fn create(path: &Path, now: Now, accept_existing_tokens: bool) -> Result<Past, OpenError> {
        let database = schema::open(path, WantedDatabase::New, now)?;
        if accept_existing_tokens {
            rows::lower_not_before(&database.connection, Timestamp::EPOCH)
                .map_err(|error| OpenError::Io(path.to_owned(), error.to_string()))?;
        }
        Ok(database.past)
    }

    /// Opens the file for reading while a gate may be using it; `None` if the store does not exist yet.
    /// Operations that would write fail. Blocks.
    ///
    /// # Errors
    /// When the file is not a Portcullis database, of another version, damaged, or cannot be read.
    pub fn open_read_only(path: &Path) -> Result<Option<Self>, OpenError> {
        schema::open_read_only(path)?.map(|database| Self::start(database, true, path)).transpose()
    }

    /// Copies the file to `to`, which must not exist yet, while a gate may be using it, and returns the last
    /// sequence of the copy. Blocks.
    ///
    /// # Errors
    /// When the store does not exist, is not a Portcullis database, was written by a later release or is
    /// damaged, or the copy cannot be written.
    pub fn back_up(path: &Path, to: &Path) -> Result<u64, OpenError> {
        backup::copy(path, to)
    }

    /// Creates a store in memory, which is lost when it is dropped.
    ///
    /// # Errors
    /// When the engine cannot be started.
    pub fn in_memory(now: Now) -> Result<Self, OpenError> {
        Self::start(schema::in_memory(now)?, false, Path::new(":memory:"))
    }

    fn start(database: Database, durable: bool, path: &Path) -> Result<Self, OpenError> {
        let Database { created_at, not_before, uptime, past, .. } = database;
        let (identity, last) = (database.identity.as_str().into(), database.seen.last());
        let writer = StoreWriter::start(database)
            .map_err(|error| OpenError::Io(path.to_owned(), error.to_string()))?;
        let writer = Arc::new(writer);
        Ok(Self { writer, created_at, not_before, identity, last, past, uptime, durable, shared: None })
    }

    /// Opens a store that replicas share. Connects in the background, retrying until it succeeds. The changes
    /// of other replicas come through the receiver, which must be read from the start.
    ///
    /// # Errors
    /// When the CA certificates cannot be read, or a thread cannot be started.
    pub fn shared(
        settings: redis::Settings,
        terms: redis::RedisTerms,
        metrics: crate::metrics::Metrics,
    ) -> Result<(Self, tokio::sync::mpsc::Receiver<ReplicaChanges>), OpenError> {
        let (running, writer, changes) = redis::start(settings, terms, metrics)?;
        let store = Self {
            writer,
            created_at: Timestamp::EPOCH,
            not_before: Timestamp::EPOCH,
            identity: "".into(),
            last: Arc::default(),
            past: Past::Continuous,
            uptime: running.fleet.uptime,
            durable: true,
            shared: Some(Arc::new(running)),
        };
        Ok((store, changes))
    }

    fn fleet(&self) -> Option<&SharedStore> {
        self.shared.as_ref().map(|running| &*running.fleet)
    }

    /// Whether replicas share it.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.shared.is_some()
    }

    /// Runs a task to its end on the thread of the shared store.
    pub fn beside(&self, task: impl Future<Output = ()> + Send + 'static) {
        if let Some(running) = &self.shared {
            drop(running.handle.spawn(task));
        }
    }

    /// Waits until the shared store has been used for the first time or cannot be reached; returns at once
    /// for an embedded store.
    ///
    /// # Errors
    /// When it cannot work as configured.
    pub async fn opened(&self, patience: Duration) -> Result<(), OpenError> {
        match self.fleet() {
            Some(fleet) => fleet.opened(patience).await,
            None => Ok(()),
        }
    }

    /// How fresh the local knowledge of it is.
    #[must_use]
    pub fn freshness(&self) -> Arc<Freshness> {
        self.fleet().map_or_else(|| Arc::new(Freshness::always()), |fleet| Arc::clone(&fleet.freshness))
    }

    /// The milliseconds between the local clock and the clock that all replicas go by.
    #[must_use]
    pub fn clock_offset(&self) -> Arc<AtomicI64> {
        self.fleet().map_or_else(Arc::default, |fleet| Arc::clone(&fleet.offset))
    }

    /// What is wrong with the shared store, if anything.
    #[must_use]
    pub fn condition(&self) -> Option<String> {
        self.fleet().and_then(SharedStore::condition)
    }

    /// Counts how often the shared store was found empty; each time, all last uses must be saved again.
    #[must_use]
    pub fn emptied(&self) -> Option<tokio::sync::watch::Receiver<u64>> {
        self.fleet().map(|fleet| fleet.emptied.subscribe())
    }

    /// Applies the settings that a reload may change.
    pub fn reconfigure(&self, terms: redis::RedisTerms) {
        if let Some(fleet) = self.fleet() {
            fleet.reconfigure(terms);
        }
    }

    /// Returns what all replicas know of a token's last use; see [`SharedUse`]. `known` is the last use known here,
    /// `idle` the idle timeout.
    pub async fn last_use(&self, token: TokenKey, known: Timestamp, idle: Option<Duration>) -> SharedUse {
        match self.fleet() {
            Some(fleet) => fleet.last_use(token, known, idle).await,
            None => SharedUse::LastUsed(known),
        }
    }

    /// Registers an authority for its issuer in the shared store, by the ids of its public keys. Returns the
    /// key ids of a different authority that is already registered; none if the store is not shared.
    ///
    /// # Errors
    /// When the store cannot be used.
    pub async fn claim_authority(
        &self,
        issuer: &str,
        key_ids: &[String],
    ) -> Result<Option<String>, StoreError> {
        match self.fleet() {
            Some(fleet) => fleet.claim_authority(issuer, key_ids).await,
            None => Ok(None),
        }
    }

    /// Runs `work` in a transaction, which it may share with other jobs; returns its result only once its
    /// changes are durable. For rooms that keep tables of their own in the file and own their statements.
    ///
    /// An error of `work` counts as an error of the disk, and also fails the jobs that share the transaction.
    pub(crate) async fn transact<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&rusqlite::Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        self.writer.run(work).await
    }

    /// When it was created.
    #[must_use]
    pub fn created_at(&self) -> Timestamp {
        self.created_at
    }

    /// Nothing is known of tokens issued before this moment: when the store was created, or earlier.
    #[must_use]
    pub fn not_before(&self) -> Timestamp {
        self.not_before
    }

    /// Whether it is the store that was in use here before, and still knows everything that one knew.
    #[must_use]
    pub fn past(&self) -> Past {
        self.past
    }

    /// Finishes the work requested so far and closes the file, so that another process can open it. Later requests fail.
    pub async fn close(&self) {
        self.writer.close().await;
    }

    /// Whether it has been closed.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.writer.is_closed()
    }

    /// Its running time, on which deletions are based.
    pub(crate) fn uptime(&self) -> Uptime {
        self.uptime
    }

    /// Whether its content survives a restart.
    #[must_use]
    pub fn is_durable(&self) -> bool {
        self.durable
    }
}

#[cfg(test)]
mod tests {
    use super::record::{Event, EventKind, EventSource};
    use super::*;
    use crate::time::Monotonic;

    fn batch(from: usize) -> Arc<[Event]> {
        let (issuer, at) = (Arc::from("https://a/"), Timestamp::from_secs(100));
        let name = |i: usize| format!("subject-{i}-{}", "x".repeat(500));
        let event = |i| {
            Event::subject(
                EventKind::SubjectRevoked,
                &issuer,
                &name(i),
                at,
                Timestamp::from_secs(i64::MAX / 1000),
            )
        };
        (from..from + 100).map(event).collect()
    }

    #[tokio::test]
    async fn a_full_disk_fails_the_call_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("gate.db"), Now::at_millis(1_000)).unwrap();
        let now = Now::at_millis(100_000);
        let limit = |pages: u32| {
            store.writer.run(move |db| {
                db.pragma_update_and_check(None, "max_page_count", pages, |row| row.get::<_, u32>(0))
            })
        };
        store.append(batch(0), EventSource::Admin, now).await.unwrap();
        limit(1).await.unwrap(); // SQLite does not go below its current size
        for _ in 0..100 {
            let (full, listed) =
                tokio::join!(store.append(batch(100), EventSource::Admin, now), store.events(0, 1_000));
            assert_eq!(full, Err(StoreError::Full));
            assert_eq!(listed.unwrap().len(), 100, "none of the batch, and no failure of those who read");
        }
        assert!(
            !store.append(batch(0), EventSource::Admin, now).await.unwrap()[0].new,
            "a repetition needs no room"
        );

        limit(1_000_000).await.unwrap();
        store.append(batch(100), EventSource::Admin, now).await.unwrap();
        assert_eq!(store.events(0, 1_000).await.unwrap().len(), 200);
    }

    #[tokio::test]
    async fn a_store_of_ones_own_says_so() {
        let store = Store::in_memory(Now::at_millis(1_000)).unwrap();
        assert!(!store.is_shared() && !store.is_durable() && !store.is_closed());
        assert_eq!(store.opened(Duration::ZERO).await.map_err(|error| error.to_string()), Ok(()));
        assert_eq!(store.condition(), None);
        assert!(store.emptied().is_none());
        assert_eq!(store.claim_authority("https://a/", &["key".to_owned()]).await, Ok(None));
        assert_eq!(
            store.save_first_uses(vec![(TokenKey::new("https://a/", "x"), Timestamp::EPOCH)]).await,
            Ok(())
        );
        assert!(store.freshness().is_fresh(Monotonic::now()));
        assert_eq!(store.clock_offset().load(std::sync::atomic::Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn what_was_taken_back_elsewhere_leaves_the_other_events_of_its_key() {
        let store = Store::in_memory(Now::at_millis(1_000)).unwrap();
        let (issuer, end) = (Arc::from("https://a/"), Timestamp::from_secs(1_000));
        let event =
            |at| Event::subject(EventKind::SubjectRevoked, &issuer, "alice", Timestamp::from_secs(at), end);
        let now = Now::at_millis(2_000);
        store.append([event(1), event(2)].into(), EventSource::Admin, now).await.unwrap();
        assert_eq!(store.undone(9).await, Ok(None), "there is none");
        store.undo(1, EventSource::Admin, now).await.unwrap().unwrap();
        let left = store.undone(1).await.unwrap().unwrap();
        assert_eq!((left.event.sequence, left.event.undone), (1, true));
        assert_eq!(left.remaining.iter().map(|event| event.sequence).collect::<Vec<_>>(), [2]);
        assert_eq!(store.undone(3).await, Ok(None), "a taking back is not taken back");
        assert_eq!(store.events(0, 9).await.unwrap().len(), 3, "nothing was written");
    }

    #[tokio::test]
    async fn a_session_is_forgotten_before_others_are_kept() {
        let store = Store::in_memory(Now::at_millis(1_000)).unwrap();
        let at = Timestamp::from_secs(1);
        let row = |jti: &str| record::SessionRow {
            token: TokenKey::new("https://a/", jti),
            issuer: "https://a/".into(),
            subject: None,
            client: None,
            names: Default::default(),
            issued_at: at,
            first_used_at: at,
            last_used_at: at,
            last_used_monotonic: Monotonic::from_millis(2_000),
            expires_at: Timestamp::from_secs(60),
        };
        let tokens = async || {
            let rows = store.sessions(None, 9).await.unwrap();
            rows.iter().map(|row| row.token).collect::<Vec<_>>()
        };
        store.save_sessions(vec![row("a"), row("b")], vec![]).await.unwrap();
        assert_eq!(tokens().await.len(), 2);
        store.save_sessions(vec![], vec![row("a").token]).await.unwrap();
        assert_eq!(tokens().await, [row("b").token]);
        store.save_sessions(vec![row("b")], vec![row("b").token]).await.unwrap();
        assert_eq!(tokens().await, [row("b").token], "it left for room and was used again");
    }

    #[tokio::test]
    async fn what_was_trimmed_is_known_to_be_gone() {
        let store = Store::in_memory(Now::at_millis(0)).unwrap();
        let event = Event::issuer(&"https://a/".into(), Timestamp::EPOCH, Timestamp::from_secs(121));
        store.append([event].into(), EventSource::Admin, Now::at_millis(1_000)).await.unwrap();
        assert_eq!(store.forgotten().await, Ok(Vec::new()));
        let trimmed = store.trim_events(None, Now::at_millis(121_000), [].into()).await.unwrap();
        assert_eq!(trimmed.deleted, 0, "two minutes, and not more");
        let trimmed = store.trim_events(None, Now::at_millis(121_001), [].into()).await.unwrap();
        assert_eq!(trimmed.deleted, 1);
        let gone = record::Forgotten {
            issuer: "https://a/".into(),
            until: Monotonic::from_millis(1_000),
            retention: Duration::from_secs(120),
        };
        assert_eq!(store.forgotten().await, Ok(vec![gone]));
    }
}
