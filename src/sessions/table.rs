//! The sessions in memory: a moka cache, bounded in count and in bytes.
//!
//! A session leaves once it is idle or its token is dead by the monotonic clock; for space, the one seen in
//! use least recently is evicted. A periodic scan finds the former: moka's own expiry would keep a timer for
//! each session, a tenth of a session's memory. The table knows when to keep a session, not whether it is in
//! use.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use moka::notification::RemovalCause;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;

use super::Left;
use super::limits::SessionLimits;
use super::session::Session;
use crate::identity::{AsIs, TokenKey};
use crate::state::record::PerIssuer;
use crate::time::{Monotonic, Now, Timestamp};

/// Minimum weight of a session in bytes. A table of `max_tracked` sessions may use this much for each: more
/// than a session needs whose client has a name of usual length.
const UNIT: u32 = 450;
/// Bytes of a session with moka's overhead, without its client's name (`cargo bench --bench sessions`).
const OWN: usize = 398;

/// A scan of a million sessions takes about a second. So that it does not occupy a worker's core all that
/// time, it sleeps after this many.
const STEP: usize = 500;
const REST: Duration = Duration::from_millis(1);

/// The sessions in memory.
pub(super) struct SessionTable {
    cache: Cache<TokenKey, Arc<Session>, AsIs>,
    limits: Arc<ArcSwap<PerIssuer<SessionLimits>>>,
    gone: Arc<Gone>,
    /// When the last scan started: milliseconds of the monotonic clock.
    scanned: AtomicI64,
}

/// Counters of sessions that left the table.
#[derive(Debug, Default)]
struct Gone {
    expired: AtomicUsize,
    idle: AtomicUsize,
    capacity: AtomicUsize,
}

impl fmt::Debug for SessionTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table").field("sessions", &self.cache.entry_count()).finish_non_exhaustive()
    }
}

impl SessionTable {
    /// Creates an empty table of at most `max_tracked` sessions; calls `evicted` for each that is evicted.
    pub(super) fn new(
        max_tracked: usize,
        limits: Arc<ArcSwap<PerIssuer<SessionLimits>>>,
        evicted: impl Fn(TokenKey) + Send + Sync + 'static,
    ) -> Self {
        let gone = Arc::new(Gone::default());
        let (counted, in_force) = (Arc::clone(&gone), Arc::clone(&limits));
        let listener = move |token: Arc<TokenKey>, session: Arc<Session>, cause| {
            // Marked first: a request or stream that holds it must enter the table again before it counts
            // another use.
            session.mark_evicted();
            match cause {
                RemovalCause::Size => {
                    counted.capacity.fetch_add(1, Ordering::Relaxed);
                    evicted(*token);
                }
                RemovalCause::Expired | RemovalCause::Explicit | RemovalCause::Replaced => {
                    // The distinction matters only for the counters.
                    let expired = session.is_expired(Timestamp::now(), in_force.load().common().leeway);
                    let counter = if expired { &counted.expired } else { &counted.idle };
                    counter.fetch_add(1, Ordering::Relaxed);
                }
            }
        };
        let capacity = u64::try_from(max_tracked).unwrap_or(u64::MAX).saturating_mul(UNIT.into());
        let cache = Cache::builder()
            .max_capacity(capacity)
            .weigher(|_token, session: &Arc<Session>| weight(session))
            .eviction_policy(EvictionPolicy::lru())
            .eviction_listener(listener)
            .build_with_hasher(AsIs::default());
        Self { cache, limits, gone, scanned: AtomicI64::new(i64::MIN) }
    }

    /// The number of sessions, as of moka's last maintenance.
    pub(super) fn len(&self) -> usize {
        usize::try_from(self.cache.entry_count()).unwrap_or(usize::MAX)
    }

    /// Finds the token's session.
    pub(super) fn find(&self, token: TokenKey) -> Option<Arc<Session>> {
        self.cache.get(&token)
    }

    /// Returns the token's session, created by `new` if it has none. Two requests that bring a new token at
    /// the same time get the same session.
    pub(super) fn enter(&self, token: TokenKey, new: impl Fn() -> Arc<Session>) -> Arc<Session> {
        let entered = self.cache.get_with(token, &new);
        if !entered.is_evicted() {
            return entered;
        }
        // A scan found it idle, marked it and is about to remove it; in a fleet it may be in use elsewhere.
        self.cache.invalidate(&token);
        self.cache.get_with(token, new)
    }

    /// Keeps a session that is in use in the table; called once per fraction of its idle timeout.
    pub(super) fn touch(&self, session: &Arc<Session>, now: Monotonic) {
        session.touch(now);
        if !self.cache.get(&session.token()).is_some_and(|kept| Arc::ptr_eq(&kept, session)) {
            session.mark_evicted();
        }
    }

    /// Iterates over all sessions, in no particular order, without keeping any of them from eviction.
    pub(super) fn iter(&self) -> impl Iterator<Item = Arc<Session>> {
        self.cache.iter().map(|(_, session)| session)
    }

    /// Runs pending maintenance, so that [`Self::len`] is exact.
    pub(super) fn settle(&self) {
        self.cache.run_pending_tasks();
    }

    /// Removes idle and dead sessions, at most once per fraction of the shortest idle timeout. Takes seconds
    /// for a million sessions.
    pub(super) fn scan(&self, now: Now) {
        let limits = self.limits.load_full();
        let fraction = limits.values().map(SessionLimits::fraction).min().unwrap_or_default();
        let is_due = |last| now.monotonic.since(Monotonic::from_millis(last)) >= fraction;
        let due = |last| is_due(last).then_some(now.monotonic.as_millis());
        // One caller scans; the others need not wait.
        if self.scanned.fetch_update(Ordering::AcqRel, Ordering::Acquire, due).is_err() {
            return;
        }
        for (count, (token, session)) in (1_usize..).zip(self.cache.iter()) {
            if count.is_multiple_of(STEP) {
                std::thread::sleep(REST);
            }
            if session.evict_if_done(limits.of(session.issuer()), now) {
                self.cache.invalidate(&*token);
            }
        }
    }

    /// Counts the sessions that left since the last call.
    pub(super) fn left(&self) -> Left {
        self.settle();
        let taken = |counter: &AtomicUsize| counter.swap(0, Ordering::Relaxed);
        let Gone { expired, idle, capacity } = &*self.gone;
        Left { expired: taken(expired), idle: taken(idle), capacity: taken(capacity) }
    }
}

fn weight(session: &Session) -> u32 {
    u32::try_from(OWN + session.heap_size()).unwrap_or(u32::MAX).max(UNIT)
}
