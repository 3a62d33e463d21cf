//! How long ago this replica last confirmed that its copy of the shared state is complete.
//!
//! One number on the monotonic clock. The task that confirms writes it; every request reads it without waiting.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use crate::time::Monotonic;

/// When the state was last confirmed, and for how long that confirmation is valid.
#[derive(Debug)]
pub struct Freshness {
    /// Milliseconds; [`ALWAYS`] for a store that is not shared.
    confirmed_at: AtomicI64,
    max_staleness: AtomicI64,
}

const ALWAYS: i64 = i64::MAX;
const NEVER: i64 = i64::MIN;

impl Freshness {
    /// For a store that nobody else writes to: always fresh.
    #[must_use]
    pub const fn always() -> Self {
        Self { confirmed_at: AtomicI64::new(ALWAYS), max_staleness: AtomicI64::new(0) }
    }

    /// Not confirmed yet.
    pub(super) fn never(max_staleness: Duration) -> Self {
        let fresh = Self { confirmed_at: AtomicI64::new(NEVER), max_staleness: AtomicI64::new(0) };
        fresh.set_max_staleness(max_staleness);
        fresh
    }

    /// Sets a new staleness limit.
    pub fn set_max_staleness(&self, limit: Duration) {
        let millis = i64::try_from(limit.as_millis()).unwrap_or(i64::MAX);
        self.max_staleness.store(millis, Ordering::Relaxed);
    }

    /// Records that everything that was in the store at `at` is in force here. An earlier moment than the
    /// recorded one changes nothing.
    pub(super) fn confirm(&self, at: Monotonic) {
        self.confirmed_at.fetch_max(at.as_millis(), Ordering::AcqRel);
    }

    /// Whether requests may be decided with this state.
    #[must_use]
    pub fn is_fresh(&self, now: Monotonic) -> bool {
        match self.confirmed_at.load(Ordering::Acquire) {
            ALWAYS => true,
            NEVER => false,
            at => {
                let limit = u64::try_from(self.max_staleness.load(Ordering::Relaxed)).unwrap_or(0);
                now.since(Monotonic::from_millis(at)) <= Duration::from_millis(limit)
            }
        }
    }

    /// The time since the last confirmation; zero if the store is not shared, `None` before the first confirmation.
    #[must_use]
    pub fn age(&self, now: Monotonic) -> Option<Duration> {
        match self.confirmed_at.load(Ordering::Acquire) {
            ALWAYS => Some(Duration::ZERO),
            NEVER => None,
            at => Some(now.since(Monotonic::from_millis(at))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn secs(secs: i64) -> Monotonic {
        Monotonic::from_millis(secs * 1000)
    }

    #[test]
    fn a_confirmation_is_good_for_the_limit_and_no_longer() {
        let fresh = Freshness::never(Duration::from_secs(10));
        assert!(!fresh.is_fresh(secs(0)));
        assert_eq!(fresh.age(secs(0)), None);
        fresh.confirm(secs(100));
        assert!(fresh.is_fresh(secs(110)));
        assert!(!fresh.is_fresh(Monotonic::from_millis(110_001)));
        assert_eq!(fresh.age(secs(103)), Some(Duration::from_secs(3)));
    }

    #[test]
    fn an_older_confirmation_that_comes_late_takes_nothing_back() {
        let fresh = Freshness::never(Duration::from_secs(10));
        fresh.confirm(secs(-5));
        assert!(fresh.is_fresh(secs(5)), "confirmed before this process first read its clock");
        fresh.confirm(secs(100));
        fresh.confirm(secs(90));
        assert_eq!(fresh.age(secs(103)), Some(Duration::from_secs(3)));
    }

    #[test]
    fn a_store_of_ones_own_is_always_fresh() {
        assert!(Freshness::always().is_fresh(secs(1)));
        assert_eq!(Freshness::always().age(secs(1)), Some(Duration::ZERO));
    }
}
