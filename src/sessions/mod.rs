//! Idle clocks: which tokens are in use, and when each was last used.
//!
//! A token that is not in the table counts as last used when it was issued. So a session leaves the table only once it is
//! idle or its token has expired. A session that is evicted early for space is counted, and its token is then checked by its
//! time of issue, which can only shorten its life. Checking changes nothing; only [`Sessions::begin`] enters a token and
//! counts its use. Knows neither requests nor events.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;

use crate::identity::{SubjectKey, TokenKey};
use crate::state::record::{PerIssuer, SessionRow};
use crate::state::redis::Told;
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

/// How long a token of each issuer may be unused before it is permanently rejected; `None`: indefinitely.
pub type IdleTimeouts = PerIssuer<Option<Duration>>;

/// The longest of them; `None`: no token goes idle.
#[must_use]
pub fn longest_timeout(timeouts: &IdleTimeouts) -> Option<Duration> {
    timeouts.values().flatten().max().copied()
}

/// The idle clocks, as configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The idle timeouts.
    pub idle_timeouts: IdleTimeouts,
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
pub struct IdleLook {
    /// The last use; before the first, the issue.
    pub last_used_at: Timestamp,
    /// Unused for longer: permanently rejected. `None`: never.
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
    /// There was no space: their tokens are judged by their issue again.
    pub capacity: usize,
}

/// Every session of this gate.
#[derive(Debug)]
pub struct Sessions {
    table: SessionTable,
    names: SessionNames,
    limits: Arc<ArcSwap<PerIssuer<SessionLimits>>>,
    unsaved: Arc<Unsaved>,
    /// Clocks that other replicas use, too.
    shared: Option<SharedClocks>,
}

impl Sessions {
    /// An empty table.
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

    /// Uses other settings from now on. What is idle by the old ones stays so. True when last uses are needed for
    /// longer: a shared store would lose them too early, or does not have them, until [`Self::save_again`].
    #[must_use]
    pub fn reconfigure(&self, timeouts: &IdleTimeouts, leeway: Duration, now: Now) -> bool {
        let theirs = self.on_their_clock(now);
        let change = |old: &SessionLimits, idle: &_| SessionLimits { leeway, ..old.with_idle(*idle, theirs) };
        let old = self.limits.rcu(|old| old.zip(timeouts, change));
        self.unsaved.limits_changed();
        let longest = longest_timeout(timeouts);
        self.hurry_up(Duration::MAX, longest);
        longest > longest_timeout(&old.map(|limits| limits.idle))
    }

    /// What decides how long a session, or what is stored with it, is useful.
    pub(crate) fn limits(&self) -> Arc<ArcSwap<PerIssuer<SessionLimits>>> {
        Arc::clone(&self.limits)
    }

    /// How many sessions there are.
    #[must_use]
    pub fn tracked(&self) -> usize {
        self.table.len()
    }

    /// The token's session, if it is in use.
    #[must_use]
    pub fn find(&self, token: TokenKey) -> Option<Arc<Session>> {
        self.table.find(token)
    }

    /// Whether a token is in use. Changes nothing. `session` is what [`Self::find`] knew of it, now or earlier; `told` is
    /// what other replicas answered, if they were asked.
    #[must_use]
    pub fn judge(
        &self,
        session: Option<&Session>,
        token: &Introduction<'_>,
        told: Option<Told>,
        now: Now,
    ) -> Idleness {
        match self.case(session, token, told, now).judge(self.limits.load().of(token.issuer)) {
            Idleness::Ask(_) if self.is_known_to_be_over(token.token) => Idleness::Idle,
            verdict => verdict,
        }
    }

    /// Counts a request that is about to be forwarded, or bytes on a stream, as a use of the token. `session` as for
    /// [`Self::judge`]; returns the one to be used from now on, when that is another.
    ///
    /// # Errors
    /// When the token is idle by now: do not forward.
    pub fn begin(
        &self,
        session: Option<&Arc<Session>>,
        token: &Introduction<'_>,
        told: Option<Told>,
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
            // Out again at once, because there is no space: it was used all the same.
            UseResult::First(_) | UseResult::Again | UseResult::Evicted => Ok(Some(entered)),
        }
    }

    fn use_one(
        &self,
        session: &Arc<Session>,
        token: &Introduction<'_>,
        told: Option<Told>,
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
            self.hurry_up(pause, limits.idle);
        }
        used
    }

    fn enter(&self, token: &Introduction<'_>, idle: Option<Duration>, now: Now) -> Arc<Session> {
        let created = Cell::new(false);
        let session = self.table.enter(token.token, || {
            created.set(true);
            Arc::new(Session::new(token, &self.names, now.wall, self.on_their_clock(now)))
        });
        if created.get() && self.unsaved.is_kept() {
            self.unsaved.remember(&session);
            let theirs = self.on_their_clock(now);
            self.hurry_up(theirs.wall.since(token.issued_at), idle);
            self.note_first_use(&session);
        }
        session
    }

    fn case(
        &self,
        session: Option<&Session>,
        token: &Introduction<'_>,
        told: Option<Told>,
        now: Now,
    ) -> IdleCase {
        IdleCase {
            tracked: session.map(Session::stamp),
            issued_at: token.issued_at,
            told,
            is_shared: self.is_shared(),
            now: self.on_their_clock(now),
        }
    }

    /// Ends a session that the monotonic clock says is idle, before a request is denied for it: one that read its clock
    /// earlier must not bring it back. False when such a one used the token since it was judged, which is in use then: judge
    /// it again.
    pub fn close(&self, session: &Session, token: &Introduction<'_>, now: Now) -> bool {
        let (limits, case) = (self.limits.load(), self.case(Some(session), token, None, now));
        let limits = limits.of(token.issuer);
        if case.is_shared || session.end_if_idle(&case, limits) {
            return true;
        }
        self.case(Some(session), token, None, now).judge(limits) != Idleness::InUse
    }

    /// What [`Self::judge`] would find, and what it rests on.
    #[must_use]
    pub fn look(&self, token: &Introduction<'_>, now: Now) -> IdleLook {
        let session = self.find(token.token);
        let verdict = self.judge(session.as_deref(), token, None, now);
        let last_used_at = session.as_ref().map_or(token.issued_at, |session| session.last_used_at());
        let idle_timeout = self.limits.load().of(token.issuer).idle;
        IdleLook { last_used_at, idle_timeout, in_force: verdict == Idleness::InUse }
    }

    /// Lets sessions leave that are idle or whose tokens are dead. Looks at every session once in a fraction of the
    /// shortest idle timeout: not for a worker. Asks no other replica anything.
    pub fn sweep(&self, now: Now) {
        self.table.scan(self.on_their_clock(now));
    }

    /// How many sessions left since the last call, for any reason.
    #[must_use]
    pub fn left(&self) -> Left {
        self.table.left()
    }

    /// Whether sessions are in use. In a fleet too, what seems idle here is not.
    fn in_use(&self, now: Now) -> impl Fn(&Session) -> bool {
        let (theirs, limits) = (self.on_their_clock(now), self.limits.load_full());
        move |session| {
            let (tracked, issued_at) = (Some(session.stamp()), session.last_used_at());
            let case = IdleCase { tracked, issued_at, told: None, is_shared: false, now: theirs };
            let limits = limits.of(session.issuer());
            case.judge(limits) == Idleness::InUse && !session.is_expired(now.wall, limits.leeway)
        }
    }

    /// Shows every session in use, in no order. Looks at every session: not for a worker.
    pub fn each_in_use(&self, now: Now, mut show: impl FnMut(&Session)) {
        let is_in_use = self.in_use(now);
        self.table.iter().filter(|session| is_in_use(session)).for_each(|session| show(&session));
    }

    /// Up to `limit` sessions in use after the given token, in the order of their keys; with `subject`, only its own;
    /// only those that `wanted` says. Looks at every session.
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

/// Nothing here panics half way, so what a poisoned lock guards is whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
