//! Idle clocks: which tokens are in use, and when each was last.
//!
//! A token that is not in the table counts as used last when it was issued. So a session leaves the table only once it
//! is idle or expired; one that must leave earlier, for room, is counted, and its token is judged by its issue again,
//! which can only shorten its life. Knows neither requests nor events.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::identity::{AsIs, SubjectKey, TokenKey};
use crate::state::record::SessionRow;
use crate::state::{Store, StoreError};
use crate::time::Timestamp;

pub mod session;
mod shared;

use session::Used;
pub use session::{Introduction, Session};
pub use shared::Doubt;
use shared::Shared;

/// The idle clocks, as configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Unused for longer: refused for good. `None`: never.
    pub idle_timeout: Option<Duration>,
    /// Sessions in memory at most.
    pub max_tracked: usize,
    /// The greatest `leeway` of the issuers: how long after `exp` a token may still be accepted.
    pub leeway: Duration,
    /// Whether last uses are saved, so that it must be known which changed.
    pub saved: bool,
}

/// A token was not used for longer than the idle timeout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Idle;

/// An idle clock, looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    /// The last use; before the first, the issue.
    pub last_used_at: Timestamp,
    /// Unused for longer: refused for good. `None`: never.
    pub idle_timeout: Option<Duration>,
    /// Whether the token is not idle.
    pub in_force: bool,
}

/// How many sessions left the table, by cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Left {
    /// Their tokens expired.
    pub expired: usize,
    /// They were idle.
    pub idle: usize,
    /// There was no room: their tokens are judged by their issue again.
    pub capacity: usize,
}

type Shard = HashMap<TokenKey, Arc<Session>, AsIs>;

/// Every session of this gate.
#[derive(Debug)]
pub struct Sessions {
    /// By the leading bits of the key, so that workers rarely meet and a sweep never holds one up for long.
    shards: Box<[Mutex<Shard>]>,
    settings: Settings,
    /// Milliseconds; changes with a reload.
    idle: AtomicI64,
    tracked: AtomicUsize,
    evicted: AtomicUsize,
    unsaved: Box<[Mutex<Vec<Arc<Session>>>]>,
    gone: Mutex<Vec<TokenKey>>,
    cursor: AtomicUsize,
    /// Clocks that other replicas use, too.
    shared: Option<Shared>,
}

/// Sessions of one shard, on average, when the table is full.
const SHARD: usize = 512;
/// Lists of sessions to be saved; more than there are cores to append to them.
const LISTS: usize = 64;
/// Sessions that are looked at when one must leave for room.
const SAMPLE: usize = 16;
/// How long an idle session is kept all the same: longer than a request that read the clock before it went idle can
/// take to get from there to the table.
const GRACE: Duration = Duration::from_secs(60);

impl Sessions {
    /// An empty table.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let shards = (settings.max_tracked / SHARD).next_power_of_two().clamp(1, 1 << 16);
        let sessions = Self {
            shards: (0..shards).map(|_| Mutex::default()).collect(),
            settings,
            idle: AtomicI64::new(0),
            tracked: AtomicUsize::new(0),
            evicted: AtomicUsize::new(0),
            unsaved: (0..LISTS).map(|_| Mutex::default()).collect(),
            gone: Mutex::default(),
            cursor: AtomicUsize::new(0),
            shared: None,
        };
        sessions.set_idle_timeout(settings.idle_timeout);
        sessions
    }

    /// Judges by another timeout from now on. What was found idle stays so.
    pub fn set_idle_timeout(&self, idle_timeout: Option<Duration>) {
        let millis =
            idle_timeout.map_or(i64::MAX, |idle| i64::try_from(idle.as_millis()).unwrap_or(i64::MAX));
        self.idle.store(millis, Ordering::Relaxed);
    }

    fn idle(&self) -> Duration {
        Duration::from_millis(u64::try_from(self.idle.load(Ordering::Relaxed)).unwrap_or(0))
    }

    /// How many sessions there are.
    #[must_use]
    pub fn tracked(&self) -> usize {
        self.tracked.load(Ordering::Relaxed)
    }

    /// The token's session, which is put into the table before it is judged, so that every other request with this
    /// token sees what becomes of it.
    ///
    /// # Errors
    /// When the token is idle.
    pub fn judge(&self, token: &Introduction<'_>, now: Timestamp) -> Result<Arc<Session>, Idle> {
        let idle = self.idle();
        let mut shard = self.shard(token.token);
        let session = match shard.get(&token.token) {
            Some(session) => Arc::clone(session),
            None if self.need_not_remember(now.since(token.issued_at), idle) => return Err(Idle),
            None => {
                self.make_room(&mut shard);
                let session = Arc::new(Session::new(token));
                shard.insert(token.token, Arc::clone(&session));
                session
            }
        };
        drop(shard);
        if session.is_in_force(now, idle) { Ok(session) } else { Err(Idle) }
    }

    /// What [`Self::judge`] would find, without a trace: the token neither gets a session by it nor loses one.
    #[must_use]
    pub fn look(&self, token: &Introduction<'_>, now: Timestamp) -> Look {
        let (idle, now) = (self.idle(), self.on_their_clock(now));
        let session = self.shard(token.token).get(&token.token).map(Arc::clone);
        let (last_used_at, in_force) = match session {
            Some(session) => (session.last_used_at(), session.seems_in_force(now, idle)),
            None => (token.issued_at, now.since(token.issued_at) <= idle),
        };
        let idle_timeout = (self.idle.load(Ordering::Relaxed) != i64::MAX).then_some(idle);
        Look { last_used_at, idle_timeout, in_force }
    }

    /// Whether a token that was unused for so long is refused without keeping that in mind: no request can still be on
    /// its way that would see it otherwise, or there is no room except that of a token in use.
    fn need_not_remember(&self, unused: Duration, idle: Duration) -> bool {
        unused > idle.saturating_add(GRACE) || (unused > idle && self.tracked() >= self.settings.max_tracked)
    }

    /// As [`Self::judge`], for a caller that kept the session: nothing is looked up while it is in force.
    ///
    /// # Errors
    /// When the token is idle.
    pub fn judge_again(
        &self,
        kept: &Arc<Session>,
        token: &Introduction<'_>,
        now: Timestamp,
    ) -> Result<Arc<Session>, Idle> {
        if kept.is_in_force(now, self.idle()) {
            return Ok(Arc::clone(kept));
        }
        // It may have left the table for room, and its token have been seen again since.
        self.judge(token, now)
    }

    /// A request is forwarded with the token, or bytes flowed on a stream that it opened; `now` is when that was judged.
    /// False when the token is over: do not forward.
    #[must_use]
    pub fn used(&self, session: &Arc<Session>, now: Timestamp) -> bool {
        match session.used(self.on_their_clock(now)) {
            Used::Over => return false,
            Used::First(pause) if self.settings.saved => {
                self.remember(session);
                self.hurry_up(pause);
            }
            Used::First(_) | Used::Again => {}
        }
        true
    }

    /// Whether a stream that the token opened may go on.
    #[must_use]
    pub fn is_in_force(&self, session: &Arc<Session>, now: Timestamp) -> bool {
        let in_use = match &self.shared {
            Some(shared) => self.may_go_on(shared, session, self.on_their_clock(now)),
            None => session.is_in_force(now, self.idle()),
        };
        in_use && !session.is_expired(now, self.settings.leeway)
    }

    /// Looks through the next `share`-th part of the table for sessions that are idle or expired, and drops them. Also
    /// tells how many left for room since the last call.
    pub fn sweep(&self, now: Timestamp, share: usize) -> Left {
        let (idle, now) = (self.idle(), self.on_their_clock(now));
        let mut left = Left { capacity: self.evicted.swap(0, Ordering::Relaxed), ..Left::default() };
        for _ in 0..self.shards.len().div_ceil(share.max(1)) {
            let index = self.cursor.fetch_add(1, Ordering::Relaxed) % self.shards.len();
            let mut shard = lock(&self.shards[index]);
            shard.retain(|_, session| {
                if session.is_expired(now, self.settings.leeway) {
                    session.end();
                    left.expired += 1;
                    return false;
                }
                let stays =
                    session.unused_for(now) <= idle.saturating_add(GRACE) || session.is_in_force(now, idle);
                left.idle += usize::from(!stays);
                stays
            });
            if shard.len() < shard.capacity() / 4 {
                shard.shrink_to_fit();
            }
        }
        self.tracked.fetch_sub(left.expired + left.idle, Ordering::Relaxed);
        left
    }

    /// Up to `limit` sessions in use after the given token, in the order of their keys; with `subject`, only its own.
    #[must_use]
    pub fn list(
        &self,
        subject: Option<SubjectKey>,
        after: Option<TokenKey>,
        limit: usize,
        now: Timestamp,
    ) -> Vec<SessionRow> {
        let (mut listed, seen) = (Vec::new(), self.on_their_clock(now));
        let first = after.map_or(0, |token| self.index(token));
        for shard in self.shards.iter().skip(first) {
            let mut rows: Vec<SessionRow> = lock(shard)
                .values()
                .filter(|session| subject.is_none() || session.subject() == subject)
                .filter(|session| after.is_none_or(|after| session.token() > after))
                .filter(|session| session.seems_in_force(seen, self.idle()))
                .filter(|session| !session.is_expired(now, self.settings.leeway))
                .filter_map(|session| session.row())
                .collect();
            rows.sort_unstable_by_key(|row| row.token);
            listed.append(&mut rows);
            if listed.len() >= limit {
                listed.truncate(limit);
                break;
            }
        }
        listed
    }

    /// Saves the last uses that changed since the last time; says how many. What could not be saved is tried again.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub async fn save(&self, store: &Store) -> Result<usize, StoreError> {
        let unsaved: Vec<Arc<Session>> =
            self.unsaved.iter().flat_map(|list| std::mem::take(&mut *lock(list))).collect();
        let gone = std::mem::take(&mut *lock(&self.gone));
        let rows = unsaved
            .iter()
            .filter_map(|session| {
                session.saving();
                session.row()
            })
            .collect();
        let saved = store.save_sessions(rows, gone.clone()).await;
        if saved.is_err() {
            unsaved.iter().filter(|session| session.not_saved()).for_each(|session| self.remember(session));
            lock(&self.gone).extend(gone);
        }
        let over: HashSet<TokenKey> = saved?.into_iter().collect();
        if !over.is_empty() {
            unsaved
                .iter()
                .filter(|session| over.contains(&session.token()))
                .for_each(|session| session.end());
        }
        Ok(unsaved.len())
    }

    /// Takes back in what was saved before a restart; says how many are still in use. Before the first request.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn restore(&self, store: &Store, now: Timestamp) -> Result<usize, StoreError> {
        const PAGE: usize = 10_000;
        let mut after = None;
        loop {
            let rows = store.sessions(after, PAGE).await?;
            let last = rows.last().map(|row| row.token);
            let complete = rows.len() < PAGE;
            for row in rows {
                let session = Session::from_row(row);
                let over =
                    session.unused_for(now) > self.idle() || session.is_expired(now, self.settings.leeway);
                if !over {
                    let mut shard = self.shard(session.token());
                    self.make_room(&mut shard);
                    shard.insert(session.token(), Arc::new(session));
                }
            }
            after = last;
            if complete {
                return Ok(self.tracked());
            }
        }
    }

    /// Counts one session more and, when that is too many, lets go the one of a few that was used least recently.
    fn make_room(&self, shard: &mut Shard) {
        if self.tracked.fetch_add(1, Ordering::Relaxed) < self.settings.max_tracked {
            return;
        }
        // Starting anywhere: the order of a shard does not depend on use, so a fixed start would pick on a few.
        let start = self.evicted.load(Ordering::Relaxed).wrapping_mul(SAMPLE) % shard.len().max(1);
        let oldest = shard.values().skip(start).take(SAMPLE).min_by_key(|session| session.last_used_at());
        let Some(oldest) = oldest.map(Arc::clone) else { return };
        oldest.end();
        shard.remove(&oldest.token());
        self.tracked.fetch_sub(1, Ordering::Relaxed);
        self.evicted.fetch_add(1, Ordering::Relaxed);
        let mut gone = lock(&self.gone);
        if self.settings.saved && gone.len() < self.settings.max_tracked {
            gone.push(oldest.token());
        }
    }

    fn remember(&self, session: &Arc<Session>) {
        let list = session.token().0.high() as usize % LISTS;
        lock(&self.unsaved[list]).push(Arc::clone(session));
    }

    fn shard(&self, token: TokenKey) -> MutexGuard<'_, Shard> {
        lock(&self.shards[self.index(token)])
    }

    /// The leading bits, so that shards lie in the order of their keys.
    fn index(&self, token: TokenKey) -> usize {
        ((u128::from(token.0.high()) * self.shards.len() as u128) >> 64) as usize
    }
}

/// Nothing here panics half way, so what a poisoned lock guards is whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
