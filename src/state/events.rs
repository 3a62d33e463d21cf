//! The event log of the store: append, list, undo and trim.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::record::{
    Appended, Event, EventKind, EventSource, Forgotten, Kept, StoredEvent, TrimCursor, Trimmed, Undone,
};
use super::rows::{self, Arrival};
use super::{CHUNK, Store, StoreError, trim};
use crate::identity::Key;
use crate::time::{Now, Timestamp};

/// Identifies a log and says how far it has grown, which distinguishes the log from an older copy of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogPosition {
    /// Distinguishes it from any other log; empty until the shared store has been reached.
    pub identity: String,
    /// The last sequence that was assigned.
    pub sequence: u64,
}

impl Store {
    fn arrival(&self, source: EventSource, now: Now) -> Arrival {
        Arrival { source, wall: now.wall, uptime: self.uptime().at(now.monotonic) }
    }

    /// Identifies the store's log and says how far it has grown.
    #[must_use]
    pub fn log(&self) -> LogPosition {
        match self.fleet() {
            Some(fleet) => fleet.log(),
            None => LogPosition {
                identity: self.identity.to_string(),
                sequence: self.last.load(Ordering::Relaxed),
            },
        }
    }

    /// Appends all of these events to the log or, on an error, none.
    ///
    /// # Errors
    /// When the disk is full or fails.
    pub async fn append(
        &self,
        events: Arc<[Event]>,
        source: EventSource,
        now: Now,
    ) -> Result<Vec<Appended>, StoreError> {
        if let Some(fleet) = self.fleet() {
            return fleet.append(events, source, now.wall).await;
        }
        let arrival = self.arrival(source, now);
        let append = move |db: &rusqlite::Connection| {
            rows::count_uptime(db, arrival.uptime)?;
            events.iter().map(|event| rows::append(db, event, arrival)).collect()
        };
        self.writer.run(append).await
    }

    /// Undoes the event with this sequence; `None` if there is no such event or it cannot be undone. Idempotent.
    ///
    /// # Errors
    /// When the disk is full or fails.
    pub async fn undo(
        &self,
        sequence: u64,
        source: EventSource,
        now: Now,
    ) -> Result<Option<Undone>, StoreError> {
        if let Some(fleet) = self.fleet() {
            return fleet.undo(sequence, source, now.wall).await;
        }
        let arrival = self.arrival(source, now);
        self.writer.run(move |db| rows::undo(db, sequence, arrival)).await
    }

    /// Returns up to `limit` events after the given sequence, in order.
    ///
    /// # Errors
    /// When the disk fails.
    pub async fn events(&self, after: u64, limit: usize) -> Result<Vec<StoredEvent>, StoreError> {
        self.writer.read(move |db| rows::events(db, after, limit)).await
    }

    /// Returns up to `limit` events after the given sequence that are still in effect, in order; with `of`,
    /// only those with this kind and key.
    ///
    /// # Errors
    /// When the disk fails.
    pub async fn live_events(
        &self,
        of: Option<(EventKind, Key)>,
        after: u64,
        limit: usize,
    ) -> Result<Vec<StoredEvent>, StoreError> {
        self.writer.read(move |db| rows::live_events(db, of, after, limit)).await
    }

    /// Marks an event as undone by another replica, and returns the events that remain for its key.
    ///
    /// # Errors
    /// When the copy of the log cannot be read.
    pub async fn undone(&self, sequence: u64) -> Result<Option<Undone>, StoreError> {
        let arrival = Arrival { source: EventSource::Replica, wall: Timestamp::EPOCH, uptime: 0 };
        // Writes nothing if the event is already undone.
        self.writer.run(move |db| rows::undo(db, sequence, arrival)).await
    }

    /// Deletes expired events among the next thousand after the cursor; `kept` are the retentions in force.
    ///
    /// # Errors
    /// When the disk is full or fails; nothing is deleted then.
    pub async fn trim_events(
        &self,
        after: Option<TrimCursor>,
        now: Now,
        kept: Arc<[Kept]>,
    ) -> Result<Trimmed, StoreError> {
        let clock = self.uptime();
        let terms = trim::TrimTerms { wall: now.wall, uptime: clock.at(now.monotonic), clock, kept };
        self.writer.run(move |db| trim::trim(db, after, CHUNK, &terms)).await
    }

    /// Returns what is remembered of deleted events.
    ///
    /// # Errors
    /// When the disk fails.
    pub async fn forgotten(&self) -> Result<Vec<Forgotten>, StoreError> {
        let clock = self.uptime();
        self.writer.read(move |db| trim::forgotten(db, clock)).await
    }

    /// Moves back the moment since which the store knows everything; a later `not_before` changes nothing.
    ///
    /// # Errors
    /// When the disk is full or fails.
    pub async fn lower_not_before(&self, not_before: Timestamp) -> Result<(), StoreError> {
        self.writer.run(move |db| rows::lower_not_before(db, not_before)).await
    }
}
