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

/// Which log it is, and how far it has grown: what tells a log from a copy of its past.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogPosition {
    /// Tells it from any other log; empty when it was not reached yet.
    pub identity: String,
    /// The last sequence that was given.
    pub sequence: u64,
}

impl Store {
    fn arrival(&self, source: EventSource, now: Now) -> Arrival {
        Arrival { source, wall: now.wall, uptime: self.uptime().at(now.monotonic) }
    }

    /// Which log it keeps, and how far it has grown.
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

    /// Puts all of these events into the log or, on an error, none.
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

    /// Undoes the event with this sequence; `None` when there is none that can be. Doing it again changes nothing.
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

    /// Up to `limit` events after the given sequence, in order.
    ///
    /// # Errors
    /// When the disk fails.
    pub async fn events(&self, after: u64, limit: usize) -> Result<Vec<StoredEvent>, StoreError> {
        self.writer.read(move |db| rows::events(db, after, limit)).await
    }

    /// Up to `limit` events after the given sequence that still count, in order; with `of`, only those of a kind and
    /// key.
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

    /// What is left after another replica undid this event.
    ///
    /// # Errors
    /// When the copy of the log cannot be read.
    pub async fn undone(&self, sequence: u64) -> Result<Option<Undone>, StoreError> {
        let arrival = Arrival { source: EventSource::Replica, wall: Timestamp::EPOCH, uptime: 0 };
        // Nothing is written for an event that is undone already.
        self.writer.run(move |db| rows::undo(db, sequence, arrival)).await
    }

    /// Deletes events whose time is over, of the next thousand after a place; `kept` are the settings in force.
    ///
    /// # Errors
    /// When the disk is full or fails; nothing was deleted then.
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

    /// What is known of deleted events.
    ///
    /// # Errors
    /// When the disk fails.
    pub async fn forgotten(&self) -> Result<Vec<Forgotten>, StoreError> {
        let clock = self.uptime();
        self.writer.read(move |db| trim::forgotten(db, clock)).await
    }

    /// Nothing is known of tokens issued before `not_before`, which is no later than was thought.
    ///
    /// # Errors
    /// When the disk is full or fails.
    pub async fn lower_not_before(&self, not_before: Timestamp) -> Result<(), StoreError> {
        self.writer.run(move |db| rows::lower_not_before(db, not_before)).await
    }
}
