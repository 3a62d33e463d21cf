//! How long ago it was certain that nothing in a shared store is unknown here.
//!
//! One number, written by whoever confirms and read by every request without waiting.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use crate::time::Timestamp;

/// When the state was last confirmed, and how long that is good for.
#[derive(Debug)]
pub struct Freshness {
    /// Milliseconds; [`ALWAYS`] for a store that is not shared.
    confirmed_at: AtomicI64,
    max_staleness: AtomicI64,
}

const ALWAYS: i64 = i64::MAX;
const NEVER: i64 = i64::MIN;

/// A confirmation from ahead by more than this was made by a clock that was set back since: it proves nothing.
const AHEAD: Duration = Duration::from_secs(1);

impl Freshness {
    /// Of a store that nobody else writes to.
    #[must_use]
    pub const fn always() -> Self {
        Self { confirmed_at: AtomicI64::new(ALWAYS), max_staleness: AtomicI64::new(0) }
    }

    /// Never confirmed yet.
    pub(super) fn never(max_staleness: Duration) -> Self {
        let fresh = Self { confirmed_at: AtomicI64::new(NEVER), max_staleness: AtomicI64::new(0) };
        fresh.set_max_staleness(max_staleness);
        fresh
    }

    /// Judges by another limit from now on.
    pub fn set_max_staleness(&self, limit: Duration) {
        let millis = i64::try_from(limit.as_millis()).unwrap_or(i64::MAX);
        self.max_staleness.store(millis, Ordering::Relaxed);
    }

    /// Everything that was in the store at `at` is in force here.
    pub(super) fn confirm(&self, at: Timestamp) {
        self.confirmed_at.store(at.as_millis(), Ordering::Release);
    }

    /// Whether the state may be judged by.
    #[must_use]
    pub fn is_fresh(&self, now: Timestamp) -> bool {
        match self.confirmed_at.load(Ordering::Acquire) {
            ALWAYS => true,
            NEVER => false,
            at => {
                let at = Timestamp::from_millis(at);
                let limit = u64::try_from(self.max_staleness.load(Ordering::Relaxed)).unwrap_or(0);
                now.since(at) <= Duration::from_millis(limit) && at.since(now) <= AHEAD
            }
        }
    }

    /// How long ago it was confirmed; zero for a store that is not shared, `None` before the first time.
    #[must_use]
    pub fn age(&self, now: Timestamp) -> Option<Duration> {
        match self.confirmed_at.load(Ordering::Acquire) {
            ALWAYS => Some(Duration::ZERO),
            NEVER => None,
            at => Some(now.since(Timestamp::from_millis(at))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn secs(secs: i64) -> Timestamp {
        Timestamp::from_secs(secs)
    }

    #[test]
    fn a_confirmation_is_good_for_the_limit_and_no_longer() {
        let fresh = Freshness::never(Duration::from_secs(10));
        assert!(!fresh.is_fresh(secs(0)));
        assert_eq!(fresh.age(secs(0)), None);
        fresh.confirm(secs(100));
        assert!(fresh.is_fresh(secs(110)));
        assert!(!fresh.is_fresh(Timestamp::from_millis(110_001)));
        assert_eq!(fresh.age(secs(103)), Some(Duration::from_secs(3)));
    }

    #[test]
    fn a_clock_that_was_set_back_proves_nothing() {
        let fresh = Freshness::never(Duration::from_secs(10));
        fresh.confirm(secs(100));
        assert!(fresh.is_fresh(secs(99)));
        assert!(!fresh.is_fresh(secs(98)));
    }

    #[test]
    fn a_store_of_ones_own_is_always_fresh() {
        assert!(Freshness::always().is_fresh(secs(1)));
        assert_eq!(Freshness::always().age(secs(1)), Some(Duration::ZERO));
    }
}
