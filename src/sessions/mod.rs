//! Idle clocks: which tokens are in use, and when each was last used.
//!
//! A token that is not in the table counts as last used when it was issued, so a session leaves the table
//! only once it is idle or its token has expired. A session evicted early for space is counted; its token is
//! then judged by its time of issue, which can only shorten its life. Judging has no side effects; only
//! [`Sessions::begin`] enters a token and counts its use. This room knows neither requests nor events.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;

use crate::identity::{SubjectKey, TokenKey};
use crate::state::record::{PerIssuer, SessionRow};
use crate::state::redis::SharedUse;
use crate::time::{Now, Timestamp};

pub(crate) mod limits;
mod names;
mod saved;
pub mod session;
mod shared;
mod table;
mod verdict;

use limits::SessionLimits;
use names::SessionNames;
use saved::Unsaved;
use session::UseResult;
pub use session::{Introduction, Session};
use shared::SharedClocks;
use table::SessionTable;
use verdict::IdleCase;
pub use verdict::Idleness;

/// Each issuer's idle timeout: a token unused for longer is permanently rejected. `None`: no timeout.
pub type IdleTimeouts = PerIssuer<Option<Duration>>;

/// The longest idle timeout; `None`: no token goes idle.
#[must_use]
pub fn longest_timeout(timeouts: &IdleTimeouts) -> Option<Duration> {
    timeouts.values().flatten().max().copied()
}

/// Configuration of the idle clocks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The idle timeouts.
    pub idle_timeouts: IdleTimeouts,
    /// Maximum number of sessions in memory.
    pub max_tracked: usize,
    /// The greatest `leeway` of the issuers: how long after `exp` a token may still be accepted.
    pub leeway: Duration,
    /// Whether last uses are saved, so that changed sessions must be tracked.
    pub saved: bool,
}

/// The token was unused for longer than the idle timeout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Idle;

/// The state of one token's idle clock, for display.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdleLook {
    /// The last use, or the time of issue if there was none.
    pub last_used_at: Timestamp,
    /// The idle timeout; a token unused for longer is permanently rejected. `None`: never.
    pub idle_timeout: Option<Duration>,
    /// Whether the token is in use, that is, not idle.
    pub in_force: bool,
}

/// Counts sessions that left the table, by cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Left {
    /// Removed because their tokens expired.
    pub expired: usize,
    /// Removed because they were idle.
    pub idle: usize,
    /// Evicted for space; their tokens are judged by their time of issue again.
    pub capacity: usize,
}

/// All sessions of this gate.
#[derive(Debug)]
pub struct Sessions {
    table: SessionTable,
    names: SessionNames,
    limits: Arc<ArcSwap<PerIssuer<SessionLimits>>>,
    unsaved: Arc<Unsaved>,
    /// The shared idle clocks, if other replicas use them too.
    shared: Option<SharedClocks>,
}

impl Sessions {
    /// Creates an empty table.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let Settings { idle_timeouts, max_tracked, leeway, saved } = settings;
        let limits = |idle: &_| SessionLimits { idle: *idle, leeway, floor: None, own_floor: None };
        let limits = idle_timeouts.map(limits);
        let limits = Arc::new(ArcSwap::from_pointee(limits));
        let unsaved = Arc::new(Unsaved::new(saved, max_tracked));
        let evicted = Arc::clone(&unsaved);
        let table = SessionTable::new(max_tracked, Arc::clone(&limits), move |token| evicted.forget(token));
        Self { table, names: SessionNames::new(), limits, unsaved, shared: None }
    }

    /// Applies other settings. What is idle by the old ones stays idle. Returns true if last uses must now be
    /// stored for longer: a shared store would drop them too early, or has dropped them already, until
    /// [`Self::save_again`].
    #[must_use]
    pub fn reconfigure(&self, timeouts: &IdleTimeouts, leeway: Duration, now: Now) -> bool {
        let theirs = self.on_shared_clock(now);
        let change = |old: &SessionLimits, idle: &_| SessionLimits { leeway, ..old.with_idle(*idle, theirs) };
        let old = self.limits.rcu(|old| old.zip(timeouts, change));
        self.unsaved.limits_changed();
        let longest = longest_timeout(timeouts);
        self.request_early_flush(Duration::MAX, longest);
        longest > longest_timeout(&old.map(|limits| limits.idle))
    }

    /// The limits that decide how long a session, and data stored with it, is useful.
    pub(crate) fn limits(&self) -> Arc<ArcSwap<PerIssuer<SessionLimits>>> {
        Arc::clone(&self.limits)
    }

    /// The number of sessions in the table.
    #[must_use]
    pub fn tracked(&self) -> usize {
        self.table.len()
    }

    /// Finds the session of a token that is in use.
    #[must_use]
    pub fn find(&self, token: TokenKey) -> Option<Arc<Session>> {
        self.table.find(token)
    }

    /// Decides whether a token is in use, without side effects. `session` is what [`Self::find`] returned,
    /// now or earlier; `told` is the answer of the other replicas, if they were asked.
    #[must_use]
    pub fn judge(
        &self,
        session: Option<&Session>,
        token: &Introduction<'_>,
        told: Option<SharedUse>,
        now: Now,
    ) -> Idleness {
        match self.case(session, token, told, now).judge(self.limits.load().of(token.issuer)) {
            Idleness::Ask(_) if self.is_known_to_be_over(token.token) => Idleness::Idle,
            verdict => verdict,
        }
    }

    /// Counts a use of the token: a request about to be forwarded, or bytes on a stream. `session` as for
    /// [`Self::judge`]; returns the session to use from now on, if it is another.
    ///
    /// # Errors
    /// When the token has gone idle: do not forward.
    pub fn begin(
        &self,
        session: Option<&Arc<Session>>,
        token: &Introduction<'_>,
        told: Option<SharedUse>,
        now: Now,
    ) -> Result<Option<Arc<Session>>, Idle> {
        let limits = self.limits.load();
        let limits = limits.of(token.issuer);
        if let Some(session) = session {
            match self.use_one(session, token, told, now, limits) {
                UseResult::Idle => return Err(Idle),
                UseResult::First(_) | UseResult::Again => return Ok(None),
                UseResult::Evicted => {}
            }
        }
        let found = self.table.find(token.token).filter(|found| !found.is_evicted());
        if found.is_none()
            && self.case(session.map(AsRef::as_ref), token, told, now).judge(limits) != Idleness::InUse
        {
            return Err(Idle);
        }
        let entered = found.unwrap_or_else(|| self.enter(token, limits.idle, now));
        match self.use_one(&entered, token, told, now, limits) {
            UseResult::Idle => Err(Idle),
            // Evicted again at once for lack of space; the use counts all the same.
            UseResult::First(_) | UseResult::Again | UseResult::Evicted => Ok(Some(entered)),
        }
    }

    fn use_one(
        &self,
        session: &Arc<Session>,
        token: &Introduction<'_>,
        told: Option<SharedUse>,
        now: Now,
        limits: &SessionLimits,
    ) -> UseResult {
        if session.is_due_for_touch(now.monotonic, limits.fraction()) {
            self.table.touch(session, now.monotonic);
        }
        let used = session.use_at(&self.case(Some(session), token, told, now), limits);
        if let UseResult::First(pause) = used
            && self.unsaved.is_kept()
        {
            self.unsaved.remember(session);
            self.request_early_flush(pause, limits.idle);
        }
        used
    }

    fn enter(&self, token: &Introduction<'_>, idle: Option<Duration>, now: Now) -> Arc<Session> {
        let created = Cell::new(false);
        let session = self.table.enter(token.token, || {
            created.set(true);
            Arc::new(Session::new(token, &self.names, now.wall, self.on_shared_clock(now)))
        });
        if created.get() && self.unsaved.is_kept() {
            self.unsaved.remember(&session);
            let theirs = self.on_shared_clock(now);
            self.request_early_flush(theirs.wall.since(token.issued_at), idle);
            self.note_first_use(&session);
        }
        session
    }

    fn case(
        &self,
        session: Option<&Session>,
        token: &Introduction<'_>,
        told: Option<SharedUse>,
        now: Now,
    ) -> IdleCase {
        IdleCase {
            tracked: session.map(Session::stamp),
            issued_at: token.issued_at,
            told,
            is_shared: self.is_shared(),
            now: self.on_shared_clock(now),
        }
    }

    /// Ends a session that is idle by the monotonic clock, before a request is denied for it, so that a
    /// request that read its clock earlier cannot revive it. Returns false if such a request used the token
    /// after it was judged; the token is then in use: judge it again.
    pub fn close(&self, session: &Session, token: &Introduction<'_>, now: Now) -> bool {
        let (limits, case) = (self.limits.load(), self.case(Some(session), token, None, now));
        let limits = limits.of(token.issuer);
        if case.is_shared || session.end_if_idle(&case, limits) {
            return true;
        }
        self.case(Some(session), token, None, now).judge(limits) != Idleness::InUse
    }

    /// Returns the verdict of [`Self::judge`] and the values behind it.
    #[must_use]
    pub fn look(&self, token: &Introduction<'_>, now: Now) -> IdleLook {
        let session = self.find(token.token);
        let verdict = self.judge(session.as_deref(), token, None, now);
        let last_used_at = session.as_ref().map_or(token.issued_at, |session| session.last_used_at());
        let idle_timeout = self.limits.load().of(token.issuer).idle;
        IdleLook { last_used_at, idle_timeout, in_force: verdict == Idleness::InUse }
    }

    /// Removes sessions that are idle or whose tokens are dead. Scans all sessions once per fraction of the
    /// shortest idle timeout, so do not call it on a worker. Asks no other replica.
    pub fn sweep(&self, now: Now) {
        self.table.scan(self.on_shared_clock(now));
    }

    /// Counts the sessions that left since the last call, by cause.
    #[must_use]
    pub fn left(&self) -> Left {
        self.table.left()
    }

    /// A predicate for sessions in use. A shared store is not asked: what seems idle here counts as idle.
    fn in_use(&self, now: Now) -> impl Fn(&Session) -> bool {
        let (theirs, limits) = (self.on_shared_clock(now), self.limits.load_full());
        move |session| {
            let (tracked, issued_at) = (Some(session.stamp()), session.last_used_at());
            let case = IdleCase { tracked, issued_at, told: None, is_shared: false, now: theirs };
            let limits = limits.of(session.issuer());
            case.judge(limits) == Idleness::InUse && !session.is_expired(now.wall, limits.leeway)
        }
    }

    /// Calls `show` for each session in use, in no particular order. Visits every session: not for a worker.
    pub fn each_in_use(&self, now: Now, mut show: impl FnMut(&Session)) {
        let is_in_use = self.in_use(now);
        self.table.iter().filter(|session| is_in_use(session)).for_each(|session| show(&session));
    }

    /// Lists up to `limit` sessions in use after the given token, ordered by key; with `subject`, only that
    /// subject's, and only those for which `wanted` is true. Visits every session.
    #[must_use]
    pub fn list(
        &self,
        subject: Option<SubjectKey>,
        after: Option<TokenKey>,
        limit: usize,
        now: Now,
        wanted: impl Fn(&SessionRow) -> bool,
    ) -> Vec<SessionRow> {
        let is_in_use = self.in_use(now);
        let mut first = BTreeMap::new();
        for session in self.table.iter() {
            let token = session.token();
            if after.is_some_and(|after| token <= after)
                || (subject.is_some() && session.subject() != subject)
                || (first.len() >= limit && first.last_key_value().is_some_and(|(last, _)| *last < token))
                || !is_in_use(&session)
            {
                continue;
            }
            let row = session.row();
            if wanted(&row) {
                first.insert(token, row);
            }
            if first.len() > limit {
                first.pop_last();
            }
        }
        first.into_values().collect()
    }
}

/// Nothing panics while holding one of these locks, so the data behind a poisoned lock is consistent.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
