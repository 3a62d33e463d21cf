//! Publishes events: makes each durable, then puts it in force, then acknowledges it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{RwLock, mpsc};

use super::EventIssuer;
use crate::identity::{ClientKey, IssuerKey, Key, SessionKey, SubjectKey, TokenKey};
use crate::metrics::Metrics;
use crate::revocations::{Ends, Horizon, Revocations};
use crate::sessions::Sessions;
use crate::state::record::{Event, EventKind, EventSource, Forgotten, Kept, StoredEvent, Trimmed, Undone};
use crate::state::redis::{Removed, ReplicaChange, ReplicaChanges};
use crate::state::{Store, StoreError};
use crate::time::{Now, Timestamp};

/// Ties the store to what is in force.
#[derive(Debug)]
pub struct EventLog {
    store: Store,
    revocations: Arc<Revocations>,
    /// Publishers share it; undoing an event needs it alone, so that it cannot overtake the event itself on the way
    /// from the store into force.
    order: RwLock<()>,
}

/// Events that were acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Published {
    /// How many.
    pub accepted: usize,
    /// The highest sequence among them; 0 when there are none.
    pub sequence: u64,
}

/// A part of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventPage {
    /// The entries.
    pub items: Vec<StoredEvent>,
    /// After which sequence the next part begins, when there is one.
    pub next: Option<u64>,
}

/// Events read at once while the log is replayed.
const REPLAY: usize = 20_000;

impl EventLog {
    /// Replays what the store keeps into force. Ready when this returns.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn start(store: Store, revocations: Arc<Revocations>) -> Result<Arc<Self>, StoreError> {
        set_horizons(&revocations, &store.forgotten().await?);
        let mut after = 0;
        loop {
            let events = store.live_events(None, after, REPLAY).await?;
            let Some(last) = events.last() else { break };
            after = last.sequence;
            revocations.replay(events.iter().filter_map(|stored| ends(&stored.event)));
        }
        revocations.fold();
        Ok(Arc::new(Self { store, revocations, order: RwLock::new(()) }))
    }

    /// Makes all of these durable and puts them in force, or none. A repeated event changes nothing, and one that was
    /// undone stays undone: after an error, also one that leaves open what became of the events, the same call may be
    /// made again, by this process or by the next.
    ///
    /// Once this was polled it is carried through, whether or not the caller waits: an event must not be durable and
    /// yet not in force because a client hung up.
    ///
    /// # Errors
    /// When the store cannot be written; nothing is in force then.
    pub async fn publish(
        self: &Arc<Self>,
        events: Vec<Event>,
        source: EventSource,
        now: Now,
    ) -> Result<Published, StoreError> {
        let log = Arc::clone(self);
        carry_through(async move {
            let _shared = log.order.read().await;
            let events: Arc<[Event]> = events.into();
            let appended = log.store.append(Arc::clone(&events), source, now).await?;
            // A repetition as well, because an error may have left open what became of the first; with the time that was
            // stored, because memory and store must say the same.
            let standing = events.iter().zip(&appended).filter(|(_, put)| !put.undone);
            log.revocations.apply(standing.filter_map(|(event, put)| ends_at(event, put.at)));
            drop(log.fold());
            let sequence = appended.iter().map(|put| put.sequence).max().unwrap_or(0);
            Ok(Published { accepted: events.len(), sequence })
        })
        .await
    }

    /// Undoes the event with this sequence; other events under its key still count. `None` when there is no such
    /// event, or it is an undo event.
    ///
    /// # Errors
    /// When the store cannot be written; the event still counts then.
    pub async fn undo(
        self: &Arc<Self>,
        sequence: u64,
        source: EventSource,
        now: Now,
    ) -> Result<Option<StoredEvent>, StoreError> {
        let log = Arc::clone(self);
        carry_through(async move {
            let _alone = log.order.write().await;
            let Some(undone) = log.store.undo(sequence, source, now).await? else { return Ok(None) };
            log.restate(&undone);
            Ok(Some(undone.event))
        })
        .await
    }

    /// Puts in force what other replicas did, in the order of the log, until there are no more of them. With
    /// `refuse_older`, tokens from before the log's beginning are refused. `sessions` learn the idle timeouts of the others.
    pub async fn follow(
        &self,
        mut changes: mpsc::Receiver<ReplicaChanges>,
        sessions: &Sessions,
        refuse_older: bool,
        metrics: Metrics,
    ) {
        while let Some(ReplicaChanges { items, created_at, removed, idle, done }) = changes.recv().await {
            if let Some(terms) = idle {
                sessions.adopt(&terms, Now::read());
            }
            if let Some(removed) = removed {
                self.revocations.set_common_horizons(removed.iter().map(|removed| {
                    let Removed { until, retention } = *removed;
                    Horizon { until, retention }
                }));
            }
            if let Some(created_at) = created_at.filter(|_| refuse_older) {
                self.revocations.set_not_before(created_at);
            }
            for part in items.chunk_by(|one, other| {
                matches!((one, other), (ReplicaChange::Event(..), ReplicaChange::Event(..)))
            }) {
                match part {
                    [ReplicaChange::Undone(sequence)] => self.take_back(*sequence).await,
                    events => self.take_over(events, &metrics).await,
                }
            }
            // The replica may be ending; what is in force stays so.
            _ = done.send(());
        }
    }

    /// Puts in force what another process has stored in this log after a sequence; returns the last sequence seen. What was
    /// undone stays in force: rejecting too much is the lesser harm.
    ///
    /// # Errors
    /// When the other one's store cannot be read.
    pub async fn take_over_from(&self, reader: &Store, mut after: u64) -> Result<u64, StoreError> {
        loop {
            let events = reader.live_events(None, after, REPLAY).await?;
            let Some(last) = events.last() else { return Ok(after) };
            after = last.sequence;
            let _shared = self.order.read().await;
            self.revocations.replay(events.iter().filter_map(|stored| ends(&stored.event)));
        }
    }

    async fn take_over(&self, news: &[ReplicaChange], metrics: &Metrics) {
        let events = news.iter().filter_map(|news| match news {
            ReplicaChange::Event(stored, own) => Some((&stored.event, *own)),
            ReplicaChange::Undone(_) => None,
        });
        let _shared = self.order.read().await;
        self.revocations.replay(events.clone().filter_map(|(event, _)| ends(event)));
        for (event, _) in events.filter(|(_, own)| !own) {
            metrics.events.with_label_values(&[event.kind.as_str(), EventSource::Replica.as_str()]).inc();
        }
    }

    async fn take_back(&self, sequence: u64) {
        let _alone = self.order.write().await;
        match self.store.undone(sequence).await {
            Ok(Some(undone)) => self.restate(&undone),
            Ok(None) => {}
            // It stays in force here: refusing too much is the lesser harm.
            Err(error) => {
                tracing::warn!(%error, "an undone event stays in effect on this replica")
            }
        }
    }

    fn restate(&self, undone: &Undone) {
        if let Some(taken_back) = ends(&undone.event.event) {
            let remaining = undone.remaining.iter().filter_map(|left| ends(&left.event));
            self.revocations.restate([(taken_back, remaining)]);
        }
    }

    /// Folds what changed, on a thread that may wait, if that has become much.
    fn fold(&self) -> Option<tokio::task::JoinHandle<()>> {
        let revocations = self.revocations.is_due().then(|| Arc::clone(&self.revocations))?;
        Some(tokio::task::spawn_blocking(move || revocations.fold()))
    }

    /// The log after a sequence: every event that is kept, in order.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn events(&self, after: u64, limit: usize) -> Result<EventPage, StoreError> {
        self.store.events(after, limit.saturating_add(1)).await.map(|items| page(items, limit))
    }

    /// The log before a sequence, newest first; with `of`, only the events that name one of these keys.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn events_before(
        &self,
        of: &[Key],
        before: u64,
        limit: usize,
    ) -> Result<EventPage, StoreError> {
        let limit_and_one = limit.saturating_add(1);
        if of.is_empty() {
            return self
                .store
                .events_before(None, before, limit_and_one)
                .await
                .map(|items| page(items, limit));
        }
        let mut items = Vec::new();
        for key in of {
            items.extend(self.store.events_before(Some(*key), before, limit_and_one).await?);
        }
        items.sort_unstable_by_key(|stored| std::cmp::Reverse(stored.sequence));
        Ok(page(items, limit))
    }

    /// The events still in effect, in order; with `of`, only those of this kind that name this key.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn revocations(
        &self,
        of: Option<(EventKind, Key)>,
        after: u64,
        limit: usize,
    ) -> Result<EventPage, StoreError> {
        self.store.live_events(of, after, limit.saturating_add(1)).await.map(|items| page(items, limit))
    }

    /// Forgets what can no longer affect a live token by the settings of these issuers, which are those in force: in the store
    /// and then in memory, a little at a time. Both forget the same, so that memory says what a replay of the store would.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub async fn trim(&self, now: Now, issuers: &[EventIssuer]) -> Result<usize, StoreError> {
        let kept: Arc<[Kept]> = issuers.iter().map(Kept::from).collect();
        let (mut after, mut deleted) = (None, 0);
        loop {
            let part = {
                // An event published between the two steps would be forgotten with the others of its name.
                let _alone = self.order.write().await;
                let part = self.store.trim_events(after, now, Arc::clone(&kept)).await?;
                self.forget(&part);
                part
            };
            if let Some(folding) = self.fold() {
                folding.await.map_err(|_ending| StoreError::Closed)?;
            }
            deleted += part.deleted;
            match part.next {
                Some(next) => after = Some(next),
                None => return Ok(deleted),
            }
        }
    }

    fn forget(&self, trimmed: &Trimmed) {
        // Before the events themselves, which it stands for.
        set_horizons(&self.revocations, &trimmed.forgotten);
        let named = trimmed.names.iter().filter_map(|(kind, key, remaining)| {
            let nothing = named(*kind, *key, Timestamp::EPOCH, None)?;
            Some((nothing, remaining.iter().filter_map(|left| ends(&left.event))))
        });
        if !trimmed.names.is_empty() {
            self.revocations.restate(named);
        }
    }

    /// Corrects a store that says it was created later than now: its clock was ahead then, or is behind now. In the latter
    /// case tokens issued from now until its creation are accepted, of which nothing is known; that matters as long as
    /// tokens from before its creation are alive. Whether there was anything to correct.
    ///
    /// # Errors
    /// When the store cannot be written; memory is correct all the same.
    pub async fn correct_creation(&self, now: Timestamp) -> Result<bool, StoreError> {
        // A shared store's creation is told by its server, whose clock may differ, and includes the second that it lies in.
        let limit = now.plus(if self.store.is_shared() { CLOCKS } else { Duration::ZERO });
        if self.revocations.load().not_before().is_none_or(|not_before| not_before <= limit) {
            return Ok(false);
        }
        self.revocations.set_not_before(now);
        self.store.lower_not_before(now).await.map(|()| true)
    }
}

/// How far the clock of a shared store's server may be ahead of this one.
const CLOCKS: Duration = Duration::from_secs(60);

/// Puts all that is known of deleted events in force.
fn set_horizons(revocations: &Revocations, forgotten: &[Forgotten]) {
    if forgotten.is_empty() {
        return;
    }
    revocations.set_horizons(forgotten.iter().map(|forgotten| {
        let Forgotten { issuer, until, retention } = forgotten;
        (IssuerKey::new(issuer), Horizon { until: *until, retention: *retention })
    }));
}

async fn carry_through<T: Send + 'static>(
    work: impl Future<Output = Result<T, StoreError>> + Send + 'static,
) -> Result<T, StoreError> {
    // Cancelled or panicked: the process is ending, and nothing may be acknowledged.
    tokio::spawn(work).await.unwrap_or(Err(StoreError::Closed))
}

/// One entry more than `limit` was asked for, to know whether there is one.
fn page(mut items: Vec<StoredEvent>, limit: usize) -> EventPage {
    let more = items.len() > limit;
    items.truncate(limit);
    EventPage { next: items.last().filter(|_| more).map(|last| last.sequence), items }
}

/// What an event ends; nothing when it undoes another.
fn ends(event: &Event) -> Option<Ends> {
    ends_at(event, event.at)
}

/// What an event ends that happened then.
fn ends_at(event: &Event, at: Timestamp) -> Option<Ends> {
    named(event.kind, event.key, at, event.role_version)
}

fn named(kind: EventKind, key: Key, at: Timestamp, version: Option<u64>) -> Option<Ends> {
    Some(match kind {
        EventKind::RoleChanged => Ends::Roles { subject: SubjectKey(key), at, version },
        EventKind::SubjectRevoked => Ends::Subject(SubjectKey(key), at),
        EventKind::TokenRevoked => Ends::Token(TokenKey(key)),
        EventKind::ClientRevoked => Ends::Client(ClientKey(key), at),
        EventKind::SessionRevoked => Ends::Session(SessionKey(key), at),
        EventKind::IssuerRevoked => Ends::Issuer(IssuerKey(key), at),
        EventKind::Undone => return None,
    })
}

#[cfg(test)]
mod tests;
