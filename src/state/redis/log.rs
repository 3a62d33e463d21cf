//! The shared log as seen by one replica: appends to it, reads it in order, and detects when it has been
//! replaced or truncated.

use std::sync::Arc;
use std::time::Duration;

use redis::Value;
use tokio::sync::oneshot;

use super::entry::{LogEntry, encode};
use super::fault::RedisFault;
use super::follows::{Gap, LogOrigin};
use super::keys::VERSION;
use super::removed::Removed;
use super::terms::KeptTerms;
use super::{RESPONSE_TIMEOUT, SharedStore};
use crate::state::StoreError;
use crate::state::mirror::{self, Adopted, Lost};
use crate::state::record::{
    Appended, Event, EventKind, EventSource, Identity, IdleTerms, PerIssuer, StoredEvent, Undone,
};
use crate::state::rows::{self, Arrival};
use crate::time::{Monotonic, Timestamp};

/// How many events one call appends, so that the server is not blocked for more than a few milliseconds.
const BATCH: usize = 500;
/// How many entries one call reads.
pub(super) const PAGE: usize = 2_000;

/// Changes by other replicas, to be put in force here.
#[derive(Debug)]
pub struct ReplicaChanges {
    /// In the order of the log.
    pub items: Vec<ReplicaChange>,
    /// When the beginning of the log has changed: since when everything is known.
    pub created_at: Option<Timestamp>,
    /// What is known of all removed entries, if that has changed.
    pub removed: Option<Vec<Removed>>,
    /// The idle timeouts of the fleet, if they have changed.
    pub idle: Option<PerIssuer<IdleTerms>>,
    /// Sent once all of it is in force.
    pub done: oneshot::Sender<()>,
}

/// Changes to put in force, as in [`ReplicaChanges`].
#[derive(Debug, Default)]
pub(super) struct Notice {
    pub(super) items: Vec<ReplicaChange>,
    pub(super) created_at: Option<Timestamp>,
    pub(super) removed: Option<Vec<Removed>>,
    pub(super) idle: Option<PerIssuer<IdleTerms>>,
}

/// One change by a replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReplicaChange {
    /// An event, and whether this replica appended it itself and may not have received the acknowledgement.
    Event(StoredEvent, bool),
    /// The event at this place was undone; [`crate::state::Store::undone`] returns what remains.
    Undone(u64),
}

/// What the server reports about the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Beat {
    /// The server's clock.
    pub(super) clock: Timestamp,
    pub(super) version: String,
    /// The log's identity; empty if it does not exist.
    pub(super) id: String,
    pub(super) created_at: Timestamp,
    /// The place of its last entry.
    pub(super) last: u64,
    /// What is known of missing entries.
    pub(super) ledger: LogOrigin,
    /// How long entries are kept, in milliseconds.
    pub(super) kept: i64,
    /// The log's age in ticks, and what was removed from it at which age.
    pub(super) ticks: i64,
    pub(super) dropped: String,
    /// The server's clock at the last write of a gate that proved that writes are accepted.
    pub(super) stamp: Option<Timestamp>,
    /// The idle timeouts of the fleet.
    pub(super) idle: Option<PerIssuer<KeptTerms>>,
}

impl Beat {
    /// Why the log must be read again after it was read up to `known`; `None` if it need not.
    pub(super) fn mismatch(&self, known: &EntryPosition) -> Option<&'static str> {
        if self.id != known.id {
            return Some("it was replaced by another one");
        }
        if self.created_at > known.said {
            return Some("events are missing from it");
        }
        (self.last < known.last).then_some("the event log was truncated")
    }
}

/// Identifies the log that was read, and says how far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct EntryPosition {
    /// The log's identity; empty if none has been read yet.
    pub(super) id: String,
    /// The place of the last entry that is in force here.
    pub(super) last: u64,
    /// The highest place that was ever read.
    pub(super) read: u64,
    /// Whether the log was ever read to its end.
    pub(super) complete: bool,
    /// Since when everything is known here.
    pub(super) created_at: Timestamp,
    /// Since when everything is known, according to the log.
    pub(super) said: Timestamp,
}

impl SharedStore {
    /// Appends events to the log; events that are already in it keep their place.
    pub(in crate::state) async fn append(
        &self,
        events: Arc<[Event]>,
        source: EventSource,
        received_at: Timestamp,
    ) -> Result<Vec<Appended>, StoreError> {
        self.require_fresh()?;
        let held = self.places(Arc::clone(&events)).await?;
        // While the log is being mended, it may lack events that are held here.
        let whole = self.is_whole();
        let missing = events.iter().zip(&held).filter(|(_, held)| held.is_none() || !whole);
        let missing: Vec<&Event> = missing.map(|(event, _)| event).collect();
        for batch in missing.chunks(BATCH) {
            self.put(batch.iter().map(|event| LogEntry::new(event, source, received_at)).collect()).await?;
        }
        let found = self.places(events).await?.into_iter().zip(held);
        let appended = found.map(|(found, held)| Some(Appended { new: held.is_none(), ..found? }));
        appended.collect::<Option<Vec<_>>>().ok_or(StoreError::Closed)
    }

    /// Undoes an event.
    pub(in crate::state) async fn undo(
        &self,
        sequence: u64,
        source: EventSource,
        now: Timestamp,
    ) -> Result<Option<Undone>, StoreError> {
        self.require_fresh()?;
        let found = self.mirror.run(move |db| rows::event(db, sequence)).await?;
        let Some(found) = found.filter(|found| found.event.kind != EventKind::Undone) else {
            return Ok(None);
        };
        if !found.undone {
            let event = found.event.undoing(now);
            let undoes = Some(Identity::of(&found.event));
            self.put(vec![LogEntry { undoes, ..LogEntry::new(&event, source, now) }]).await?;
        }
        // The copy has it as undone by now, so this only reads what remains.
        let arrival = Arrival { source, wall: now, uptime: 0 };
        self.mirror.run(move |db| rows::undo(db, sequence, arrival)).await
    }

    /// Appends entries and adopts the places that the server gave them.
    pub(super) async fn put(&self, mut entries: Vec<LogEntry>) -> Result<(), RedisFault> {
        let EntryPosition { id, last, .. } = self.position();
        let mut call = self.scripts.append.call(2);
        call.arg(&self.keys.origin).arg(&self.keys.events).arg(id).arg(last).arg(self.kept_millis());
        for entry in &mut entries {
            entry.writer = self.writer;
            call.arg(encode(entry));
        }
        let places: Vec<String> =
            self.log_lane()?.ask(&call, RESPONSE_TIMEOUT).await.inspect_err(|fault| self.report(fault))?;
        for (entry, place) in entries.iter_mut().zip(places) {
            entry.sequence = place
                .parse()
                .map_err(|_odd| RedisFault::Unreachable(format!("{place:?} is not a position")))?;
        }
        self.adopt(entries).await?;
        Ok(())
    }

    async fn places(&self, events: Arc<[Event]>) -> Result<Vec<Option<Appended>>, StoreError> {
        self.mirror.run(move |db| mirror::find_all(db, &events)).await
    }

    pub(super) async fn adopt(&self, entries: Vec<LogEntry>) -> Result<Vec<Adopted>, StoreError> {
        let (lost, uptime) = (Arc::clone(&self.lost), self.uptime.at(Monotonic::now()));
        let adopting = move |db: &rusqlite::Connection| {
            let lost = &mut *super::lock(&lost);
            entries.iter().map(|entry| mirror::adopt(db, entry, uptime, lost)).collect()
        };
        self.mirror.run(adopting).await
    }

    /// Reads the current state of the log from the server.
    pub(super) async fn beat(&self, patience: Duration) -> Result<Beat, RedisFault> {
        type Fields = (String, String, String, String, String, String, String, String, String);
        let mut call = self.scripts.beat.call(2);
        call.arg(&self.keys.origin).arg(&self.keys.stamp);
        let (clock, stamp, fields, idle): (i64, String, Fields, String) =
            self.log_lane()?.ask(&call, patience).await?;
        let (version, id, created, last, trimmed, filled, kept, ticks, dropped) = fields;
        Ok(Beat {
            clock: Timestamp::from_millis(clock),
            version,
            id,
            created_at: Timestamp::from_millis(created.parse().unwrap_or(0)),
            last: last.parse().unwrap_or(0),
            ledger: LogOrigin::parse(&trimmed, &filled),
            kept: kept.parse().unwrap_or(0),
            ticks: ticks.parse().unwrap_or(0),
            dropped,
            stamp: stamp.parse().ok().map(Timestamp::from_millis),
            idle: KeptTerms::parse(&idle),
        })
    }

    /// Creates the log if it does not exist.
    pub(super) async fn create_log(&self, id: &str) -> Result<(), RedisFault> {
        self.create_log_as(id, VERSION).await
    }

    /// Like [`Self::create_log`], with this version.
    pub(super) async fn create_log_as(&self, id: &str, version: &str) -> Result<(), RedisFault> {
        let mut call = self.scripts.found.call(2);
        call.arg(&self.keys.origin).arg(&self.keys.events).arg(version).arg(id);
        self.log_lane()?.ask::<i64>(&call, RESPONSE_TIMEOUT).await?;
        Ok(())
    }

    /// Moves the time since which the log is complete forward.
    pub(super) async fn raise(&self, id: &str, created_at: Timestamp) -> Result<(), RedisFault> {
        let mut call = self.scripts.raise.call(1);
        call.arg(&self.keys.origin).arg(id).arg(created_at.as_millis());
        self.log_lane()?.ask::<i64>(&call, RESPONSE_TIMEOUT).await?;
        Ok(())
    }

    /// Moves that time back to what is known here, and lists filled gaps. Returns false if another gate has
    /// raised it since it was last read; then nothing changes, because that gate lacks events that have not
    /// been published again yet.
    pub(super) async fn lower(&self, known: &EntryPosition, filled: &[Gap]) -> Result<bool, RedisFault> {
        let mut call = self.scripts.lower.call(1);
        call.arg(&self.keys.origin).arg(&known.id);
        call.arg(known.created_at.as_millis()).arg(known.said.as_millis()).arg(self.retentions());
        for gap in filled {
            call.arg(gap.to_string());
        }
        Ok(self.log_lane()?.ask::<i64>(&call, RESPONSE_TIMEOUT).await? == 1)
    }

    /// Puts a page of entries in force here, in order.
    pub(super) async fn put_in_force(&self, page: Vec<LogEntry>) -> Result<(), RedisFault> {
        let Some(last) = page.last().map(|entry| entry.sequence) else { return Ok(()) };
        self.applying.send_replace(true);
        let applied = self.apply(page).await;
        self.applying.send_replace(false);
        applied?;
        self.advance(last);
        Ok(())
    }

    async fn apply(&self, page: Vec<LogEntry>) -> Result<(), RedisFault> {
        let own: Vec<bool> = page.iter().map(|entry| entry.writer == self.writer).collect();
        let adopted = self.adopt(page).await?;
        let items = adopted.into_iter().zip(own).filter_map(|(adopted, own)| match adopted {
            Adopted::New(stored) => Some(ReplicaChange::Event(stored, own)),
            Adopted::Undone(sequence) => Some(ReplicaChange::Undone(sequence)),
            Adopted::Known => None,
        });
        self.announce(Notice { items: items.collect(), ..Notice::default() }).await
    }

    /// Waits until the follower has put these changes in force.
    pub(super) async fn announce(&self, notice: Notice) -> Result<(), RedisFault> {
        let Notice { items, created_at, removed, idle } = notice;
        if items.is_empty() && created_at.is_none() && removed.is_none() && idle.is_none() {
            return Ok(());
        }
        let (done, in_force) = oneshot::channel();
        let gone = |_| RedisFault::Unreachable("the gate is shutting down".to_owned());
        let changes = ReplicaChanges { items, created_at, removed, idle, done };
        self.changes.send(changes).await.map_err(|_closed| gone(()))?;
        in_force.await.map_err(|_closed| gone(()))
    }

    /// Whether this replica has the entry at this place.
    pub(super) async fn holds(&self, place: u64) -> Result<bool, RedisFault> {
        Ok(self.mirror.run(move |db| mirror::has(db, place)).await?)
    }

    /// The places of entries that only this replica has, after the last one that both have.
    pub(super) async fn only_here(&self, after: u64) -> Result<Lost, RedisFault> {
        Ok(self.mirror.run(move |db| mirror::places_after(db, after)).await?)
    }

    /// The entries at these places, to be appended again. Entries that are no longer held have expired.
    pub(super) async fn entries_at(&self, places: Vec<u64>) -> Result<Vec<LogEntry>, RedisFault> {
        let found = self
            .mirror
            .run(move |db| {
                places.iter().map(|place| mirror::entry(db, *place)).collect::<rusqlite::Result<Vec<_>>>()
            })
            .await?;
        Ok(found.into_iter().flatten().collect())
    }
}

/// # Errors
/// When the stream contains anything but entries of this log: skipping it could miss events.
pub(super) fn entries(values: &[Value]) -> Result<Vec<LogEntry>, RedisFault> {
    let read: Option<Vec<LogEntry>> = values.iter().map(LogEntry::read).collect();
    read.ok_or_else(|| {
        RedisFault::Refused("the event stream contains an entry that this release cannot read; was it written by another program, or by a later release?".to_owned())
    })
}

#[cfg(test)]
mod tests;
