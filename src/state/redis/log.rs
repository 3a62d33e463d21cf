//! The shared log as seen by one replica: appends to it, reads it in order, and detects when it is not the same log.

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
use super::{Fleet, PATIENCE};
use crate::state::StoreError;
use crate::state::mirror::{self, Adopted, Lost};
use crate::state::record::{
    Appended, Event, EventKind, EventSource, Identity, IdleTerms, PerIssuer, StoredEvent, Undone,
};
use crate::state::rows::{self, Arrival};
use crate::time::{Monotonic, Timestamp};

/// Events appended by one call, so that the server is not held up for more than a few milliseconds.
const BATCH: usize = 500;
/// Entries read by one call.
pub(super) const PAGE: usize = 2_000;

/// What other replicas did, to be put in force here.
#[derive(Debug)]
pub struct ReplicaChanges {
    /// In the order of the log.
    pub items: Vec<News>,
    /// What is known of the log's beginning, when that changed: nothing is known of what was revoked before.
    pub created_at: Option<Timestamp>,
    /// What is known of all removed entries, when that changed.
    pub removed: Option<Vec<Removed>>,
    /// The idle timeouts of the fleet, when they changed.
    pub idle: Option<PerIssuer<IdleTerms>>,
    /// To be told when all of it is in force.
    pub done: oneshot::Sender<()>,
}

/// What is to be put in force, as in [`ReplicaChanges`].
#[derive(Debug, Default)]
pub(super) struct Notice {
    pub(super) items: Vec<News>,
    pub(super) created_at: Option<Timestamp>,
    pub(super) removed: Option<Vec<Removed>>,
    pub(super) idle: Option<PerIssuer<IdleTerms>>,
}

/// One thing that another replica did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// An event, and whether it is this replica's own, whose acknowledgement may have been lost on the way.
    Event(StoredEvent, bool),
    /// The event at this place was undone; [`crate::state::Store::undone`] tells what is left.
    Undone(u64),
}

/// What the server says of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Beat {
    /// The server's clock.
    pub(super) clock: Timestamp,
    pub(super) version: String,
    /// Empty: there is no log.
    pub(super) id: String,
    pub(super) created_at: Timestamp,
    /// The place of its last entry.
    pub(super) last: u64,
    /// What is known of entries that are missing.
    pub(super) ledger: LogOrigin,
    /// Milliseconds for which entries are kept.
    pub(super) kept: i64,
    /// Its age, and what was removed from it at which age.
    pub(super) ticks: i64,
    pub(super) dropped: String,
    /// The server's clock when a gate wrote last to prove that it takes writes.
    pub(super) stamp: Option<Timestamp>,
    /// The idle timeouts of the fleet.
    pub(super) idle: Option<PerIssuer<KeptTerms>>,
}

impl Beat {
    /// Why what was read up to `known` has to be read again, if it has to.
    pub(super) fn breaks(&self, known: &EntryPosition) -> Option<&'static str> {
        if self.id != known.id {
            return Some("it was replaced by another one");
        }
        if self.created_at > known.said {
            return Some("events are missing from it");
        }
        (self.last < known.last).then_some("the event log was truncated")
    }
}

/// Which log was read, and how far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct EntryPosition {
    /// The log's identity; empty: none was read yet.
    pub(super) id: String,
    /// The place of the last entry that is in force here.
    pub(super) last: u64,
    /// The highest place up to which it was ever read.
    pub(super) read: u64,
    /// Whether it was ever read to its end.
    pub(super) complete: bool,
    /// Since when everything is known here.
    pub(super) created_at: Timestamp,
    /// Since when everything is known according to the log.
    pub(super) said: Timestamp,
}

impl Fleet {
    /// Puts events into the log; known ones have their place already.
    pub(in crate::state) async fn append(
        &self,
        events: Arc<[Event]>,
        source: EventSource,
        received_at: Timestamp,
    ) -> Result<Vec<Appended>, StoreError> {
        self.require_fresh()?;
        let held = self.places(Arc::clone(&events)).await?;
        // While the log is being mended, what is held here may not be held there.
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
        // Which is done by now, so nothing is written.
        let arrival = Arrival { source, wall: now, uptime: 0 };
        self.mirror.run(move |db| rows::undo(db, sequence, arrival)).await
    }

    /// Appends entries, and takes in where they came to stand.
    pub(super) async fn put(&self, mut entries: Vec<LogEntry>) -> Result<(), RedisFault> {
        let EntryPosition { id, last, .. } = self.position();
        let mut call = self.scripts.append.call(2);
        call.arg(&self.keys.origin).arg(&self.keys.events).arg(id).arg(last).arg(self.kept_millis());
        for entry in &mut entries {
            entry.writer = self.writer;
            call.arg(encode(entry));
        }
        let places: Vec<String> =
            self.log_lane()?.ask(&call, PATIENCE).await.inspect_err(|fault| self.noticed(fault))?;
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

    /// What the server says of the log now.
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

    /// Creates the log if there is none.
    pub(super) async fn found(&self, id: &str) -> Result<(), RedisFault> {
        self.found_as(id, VERSION).await
    }

    /// The same, of this version.
    pub(super) async fn found_as(&self, id: &str, version: &str) -> Result<(), RedisFault> {
        let mut call = self.scripts.found.call(2);
        call.arg(&self.keys.origin).arg(&self.keys.events).arg(version).arg(id);
        self.log_lane()?.ask::<i64>(&call, PATIENCE).await?;
        Ok(())
    }

    /// Moves on the time since which the log is complete.
    pub(super) async fn raise(&self, id: &str, created_at: Timestamp) -> Result<(), RedisFault> {
        let mut call = self.scripts.raise.call(1);
        call.arg(&self.keys.origin).arg(id).arg(created_at.as_millis());
        self.log_lane()?.ask::<i64>(&call, PATIENCE).await?;
        Ok(())
    }

    /// Moves it back to what is known here, and lists gaps that were filled. False when another gate has raised it since
    /// it was last read: nothing changed then, because that gate misses what was not published again yet.
    pub(super) async fn lower(&self, known: &EntryPosition, filled: &[Gap]) -> Result<bool, RedisFault> {
        let mut call = self.scripts.lower.call(1);
        call.arg(&self.keys.origin).arg(&known.id);
        call.arg(known.created_at.as_millis()).arg(known.said.as_millis()).arg(self.retentions());
        for gap in filled {
            call.arg(gap.to_string());
        }
        Ok(self.log_lane()?.ask::<i64>(&call, PATIENCE).await? == 1)
    }

    /// Puts a page of entries in force here, in order.
    pub(super) async fn take_in(&self, page: Vec<LogEntry>) -> Result<(), RedisFault> {
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
            Adopted::New(stored) => Some(News::Event(stored, own)),
            Adopted::Undone(sequence) => Some(News::Undone(sequence)),
            Adopted::Known => None,
        });
        self.announce(Notice { items: items.collect(), ..Notice::default() }).await
    }

    /// Waits until the follower has put this in force.
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

    /// The places that only this replica has, after one that both have.
    pub(super) async fn only_here(&self, after: u64) -> Result<Lost, RedisFault> {
        Ok(self.mirror.run(move |db| mirror::places_after(db, after)).await?)
    }

    /// The entries at these places, to be appended again. All that is still held: what is too old has left by itself.
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
/// When something else than this log's entries is there: reading on would be to miss events.
pub(super) fn entries(values: &[Value]) -> Result<Vec<LogEntry>, RedisFault> {
    let read: Option<Vec<LogEntry>> = values.iter().map(LogEntry::read).collect();
    read.ok_or_else(|| {
        RedisFault::Refused("the event stream contains an entry that this release cannot read; was it written by another program, or by a later release?".to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_read_again_when_it_is_another_one_or_lacks_something() {
        let at = Timestamp::from_millis;
        let known = EntryPosition { id: "a".into(), last: 50, said: at(100), ..EntryPosition::default() };
        let table = [
            ("a", 100, 50, None),
            ("a", 100, 60, None),
            ("a", 90, 50, None),
            ("b", 100, 50, Some("it was replaced by another one")),
            ("", 0, 0, Some("it was replaced by another one")),
            ("a", 101, 50, Some("events are missing from it")),
            ("a", 100, 49, Some("the event log was truncated")),
            ("a", 100, 0, Some("the event log was truncated")),
        ];
        for (id, created_at, last, why) in table {
            let beat = Beat {
                clock: at(1_000),
                version: VERSION.to_owned(),
                id: id.to_owned(),
                created_at: at(created_at),
                last,
                ledger: LogOrigin::default(),
                kept: 0,
                ticks: 0,
                dropped: String::new(),
                stamp: None,
                idle: None,
            };
            assert_eq!(beat.breaks(&known), why, "{id:?} {created_at} {last}");
        }
    }
}
