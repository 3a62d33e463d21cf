//! The store: what must survive a restart, in one file or in memory.
//!
//! Keeps events, last uses, key sets and usage, and knows no rule about them: what an event means is the business of
//! `revocations`, when a session ends that of `sessions`. The memory store is the same engine without a file.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::identity::{Key, TokenKey};
use crate::time::Timestamp;

pub mod record;
mod rows;
mod schema;
mod writer;

use record::{Appended, Event, EventKind, SessionRow, Source, StoredEvent, Undone, UsageRow};
use schema::Database;
use writer::Writer;

/// A handle to the store; clones share it.
#[derive(Debug, Clone)]
pub struct Store {
    writer: Arc<Writer>,
    created_at: Timestamp,
    durable: bool,
}

/// Why the store could not be opened. Each says what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OpenError {
    /// Another process holds this lock file.
    InUse(PathBuf),
    /// The file is something else.
    Foreign(PathBuf),
    /// A later release wrote the file.
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: i64,
        /// The last version known here.
        known: i64,
    },
    /// The file is damaged.
    Corrupt(PathBuf, String),
    /// The file could not be used.
    Io(PathBuf, String),
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InUse(path) => {
                write!(
                    f,
                    "{}: another process holds this lock; each gate needs a store of its own",
                    path.display()
                )
            }
            Self::Foreign(path) => {
                write!(f, "{}: not a Portcullis database; it was left as it is", path.display())
            }
            Self::Newer { path, version, known } => write!(
                f,
                "{}: written by a later release (version {version}, this one knows {known}); it was left as it is",
                path.display()
            ),
            Self::Corrupt(path, what) => write!(
                f,
                "{}: the database is damaged ({what}); restore it, or move it away to start with an empty one",
                path.display()
            ),
            Self::Io(path, what) => write!(f, "{}: cannot be used: {what}", path.display()),
        }
    }
}

impl std::error::Error for OpenError {}

/// Why the store could not do what was asked. Nothing of it was kept, and the next call may succeed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreError {
    /// The disk is full.
    Full,
    /// The database said this.
    Failed(String),
    /// The store is closed.
    Closed,
}

impl StoreError {
    /// One word: the metric label.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Failed(_) => "failed",
            Self::Closed => "closed",
        }
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => f.write_str("the disk of the state store is full"),
            Self::Failed(what) => write!(f, "the state store failed: {what}"),
            Self::Closed => f.write_str("the state store is closed"),
        }
    }
}

impl std::error::Error for StoreError {}

/// Rows that one piece of work reads or writes at most, so that nothing waits long for it.
const CHUNK: usize = 1_000;

impl Store {
    /// Opens the file, creating it if there is none; `now` becomes the time of its creation. Blocks.
    ///
    /// # Errors
    /// When the file is in use, not ours, of a later version, damaged, or cannot be read or written.
    pub fn open(path: &Path, now: Timestamp) -> Result<Self, OpenError> {
        Self::start(schema::open(path, now)?, true, path)
    }

    /// Opens the file for reading, beside a gate that may be using it; `None` when there is no store yet. What would
    /// write fails. Blocks.
    ///
    /// # Errors
    /// When the file is not ours, of another version, damaged, or cannot be read.
    pub fn open_read_only(path: &Path) -> Result<Option<Self>, OpenError> {
        schema::open_read_only(path)?.map(|database| Self::start(database, true, path)).transpose()
    }

    /// A store that is created now and forgotten when it is dropped.
    ///
    /// # Errors
    /// When the engine cannot be started.
    pub fn in_memory(now: Timestamp) -> Result<Self, OpenError> {
        Self::start(schema::in_memory(now)?, false, Path::new(":memory:"))
    }

    fn start(database: Database, durable: bool, path: &Path) -> Result<Self, OpenError> {
        let created_at = database.created_at;
        let writer =
            Writer::start(database).map_err(|error| OpenError::Io(path.to_owned(), error.to_string()))?;
        Ok(Self { writer: Arc::new(writer), created_at, durable })
    }

    /// Runs `work` in a transaction of its own or shared with other work; what it answers is told only when its changes
    /// are durable. For rooms that keep tables of their own in the file, whose statements they own.
    ///
    /// An error of `work` is one of the disk, and fails the work it shares the transaction with as well.
    pub(crate) async fn transact<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&rusqlite::Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        self.writer.run(work).await
    }

    /// When it was created: nothing is known of what was revoked before.
    #[must_use]
    pub fn created_at(&self) -> Timestamp {
        self.created_at
    }

    /// Whether what it keeps survives a restart.
    #[must_use]
    pub fn is_durable(&self) -> bool {
        self.durable
    }

    /// Puts all of these events into the log or, on an error, none.
    ///
    /// # Errors
    /// When the disk is full or fails.
    pub async fn append(
        &self,
        events: Arc<[Event]>,
        source: Source,
        received_at: Timestamp,
    ) -> Result<Vec<Appended>, StoreError> {
        self.writer
            .run(move |db| events.iter().map(|event| rows::append(db, event, source, received_at)).collect())
            .await
    }

    /// Takes back the event with this sequence; `None` when there is none that can be. Doing it again changes nothing.
    ///
    /// # Errors
    /// When the disk is full or fails.
    pub async fn undo(
        &self,
        sequence: u64,
        source: Source,
        now: Timestamp,
    ) -> Result<Option<Undone>, StoreError> {
        self.writer.run(move |db| rows::undo(db, sequence, source, now)).await
    }

    /// Up to `limit` events after the given sequence, in order.
    ///
    /// # Errors
    /// When the disk fails.
    pub async fn events(&self, after: u64, limit: usize) -> Result<Vec<StoredEvent>, StoreError> {
        self.writer.read(move |db| rows::events(db, after, limit)).await
    }

    /// Up to `limit` events after the given sequence that still count at `now`, in order; with `of`, only those of a
    /// kind and key.
    ///
    /// # Errors
    /// When the disk fails.
    pub async fn live_events(
        &self,
        of: Option<(EventKind, Key)>,
        after: u64,
        limit: usize,
        now: Timestamp,
    ) -> Result<Vec<StoredEvent>, StoreError> {
        self.writer.read(move |db| rows::live_events(db, of, after, limit, now)).await
    }

    /// Forgets the tokens in `gone`, then keeps these last uses.
    ///
    /// # Errors
    /// When the disk is full or fails; some may have been kept then.
    pub async fn save_sessions(
        &self,
        mut used: Vec<SessionRow>,
        gone: Vec<TokenKey>,
    ) -> Result<(), StoreError> {
        // First, because a token that left for room may have come back and been used again.
        for chunk in gone.chunks(CHUNK) {
            let chunk = chunk.to_vec();
            self.writer
                .run(move |db| chunk.iter().try_for_each(|token| rows::forget_session(db, *token)))
                .await?;
        }
        // In the order of the tree they go into, neighbours share its pages.
        used.sort_unstable_by_key(|row| row.token);
        for chunk in used.chunks(CHUNK) {
            let chunk = chunk.to_vec();
            self.writer.run(move |db| chunk.iter().try_for_each(|row| rows::save_session(db, row))).await?;
        }
        Ok(())
    }

    /// Up to `limit` sessions after the given token, in the order of their keys.
    ///
    /// # Errors
    /// When the disk fails.
    pub async fn sessions(
        &self,
        after: Option<TokenKey>,
        limit: usize,
    ) -> Result<Vec<SessionRow>, StoreError> {
        self.writer.read(move |db| rows::sessions(db, after, limit)).await
    }

    /// Keeps the last good key set of an issuer, as it was fetched.
    ///
    /// # Errors
    /// When the disk is full or fails.
    pub async fn save_key_set(
        &self,
        issuer: &str,
        body: &[u8],
        fetched_at: Timestamp,
    ) -> Result<(), StoreError> {
        let (issuer, body) = (issuer.to_owned(), body.to_owned());
        self.writer.run(move |db| rows::save_key_set(db, &issuer, &body, fetched_at)).await
    }

    /// The last good key set of an issuer, and when it was fetched.
    ///
    /// # Errors
    /// When the disk fails.
    pub async fn key_set(&self, issuer: &str) -> Result<Option<(Vec<u8>, Timestamp)>, StoreError> {
        let issuer = issuer.to_owned();
        self.writer.read(move |db| rows::key_set(db, &issuer)).await
    }

    /// Adds these counts to those kept.
    ///
    /// # Errors
    /// When the disk is full or fails; nothing was added then.
    pub async fn add_usage(&self, rows: Vec<UsageRow>) -> Result<(), StoreError> {
        self.writer.run(move |db| rows.iter().try_for_each(|row| rows::add_usage(db, row))).await
    }

    /// What a client, or every client, used.
    ///
    /// # Errors
    /// When the disk fails.
    pub async fn usage(&self, client: Option<&str>) -> Result<Vec<UsageRow>, StoreError> {
        let client = client.map(str::to_owned);
        self.writer.read(move |db| rows::usage(db, client.as_deref())).await
    }

    /// Forgets events that can touch no living token, and sessions that are expired for `leeway` or unused for `idle`;
    /// says how many of both. A little at a time, so that an event never waits long.
    ///
    /// # Errors
    /// When the disk is full or fails.
    pub async fn trim(&self, now: Timestamp, idle: Duration, leeway: Duration) -> Result<usize, StoreError> {
        let mut trimmed = 0;
        loop {
            let gone = self.writer.run(move |db| rows::trim_events(db, now, CHUNK)).await?;
            trimmed += gone;
            if gone < CHUNK {
                break;
            }
        }
        for part in 0..=u8::MAX {
            let (unused, expired) = (now.minus(idle), now.minus(leeway));
            trimmed += self.writer.run(move |db| rows::trim_sessions(db, part, unused, expired)).await?;
        }
        Ok(trimmed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let store = Store::open(&folder.path().join("gate.db"), Timestamp::from_secs(1)).unwrap();
        let now = Timestamp::from_secs(100);
        let limit = |pages: u32| {
            store.writer.run(move |db| {
                db.pragma_update_and_check(None, "max_page_count", pages, |row| row.get::<_, u32>(0))
            })
        };
        store.append(batch(0), Source::Admin, now).await.unwrap();
        limit(1).await.unwrap(); // SQLite takes the size it has for the least there is
        for _ in 0..100 {
            let (full, listed) =
                tokio::join!(store.append(batch(100), Source::Admin, now), store.events(0, 1_000));
            assert_eq!(full, Err(StoreError::Full));
            assert_eq!(listed.unwrap().len(), 100, "none of the batch, and no failure of those who read");
        }
        assert!(
            !store.append(batch(0), Source::Admin, now).await.unwrap()[0].new,
            "a repetition needs no room"
        );

        limit(1_000_000).await.unwrap();
        store.append(batch(100), Source::Admin, now).await.unwrap();
        assert_eq!(store.events(0, 1_000).await.unwrap().len(), 200);
    }
}
