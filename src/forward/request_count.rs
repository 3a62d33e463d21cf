//! Counts requests in flight against a limit, at one upstream or in the whole gate.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The number of requests in flight in all workers. Outlives the configuration that sets its limit.
#[derive(Debug, Default)]
pub struct RequestCount(AtomicUsize);

/// One request in flight, counted until dropped. A request that begins while there is no limit is not
/// counted.
#[derive(Debug, Default)]
pub struct RequestSlot(Option<Arc<RequestCount>>);

/// The limit of requests in flight is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AtCapacity;

impl RequestCount {
    /// Whether another request would exceed the limit.
    #[must_use]
    pub fn is_full(&self, limit: Option<NonZeroUsize>) -> bool {
        limit.is_some_and(|limit| self.0.load(Ordering::Relaxed) >= limit.get())
    }

    /// Counts another request; does nothing if there is no limit.
    ///
    /// # Errors
    /// When the limit is reached.
    pub fn begin(self: &Arc<Self>, limit: Option<NonZeroUsize>) -> Result<RequestSlot, AtCapacity> {
        let Some(most) = limit else { return Ok(RequestSlot::default()) };
        // Reads first: under overload, rejected requests do not write to memory that all workers share.
        if self.is_full(limit) {
            return Err(AtCapacity);
        }
        if self.0.fetch_add(1, Ordering::Relaxed) >= most.get() {
            self.0.fetch_sub(1, Ordering::Relaxed);
            return Err(AtCapacity);
        }
        Ok(RequestSlot(Some(Arc::clone(self))))
    }
}

impl Drop for RequestSlot {
    fn drop(&mut self) {
        if let Some(count) = &self.0 {
            count.0.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at_most(limit: usize) -> Option<NonZeroUsize> {
        NonZeroUsize::new(limit)
    }

    #[test]
    fn exactly_as_many_begin_as_the_limit_says_and_each_end_makes_room_for_one() {
        for limit in [1, 2, 7] {
            let count = Arc::new(RequestCount::default());
            let mut slots = Vec::new();
            for begun in 0..limit {
                assert!(!count.is_full(at_most(limit)), "{begun} of {limit}");
                slots.push(count.begin(at_most(limit)).unwrap());
            }
            assert!(count.is_full(at_most(limit)));
            assert_eq!(count.begin(at_most(limit)).unwrap_err(), AtCapacity);
            assert_eq!(count.0.load(Ordering::Relaxed), limit, "one that is rejected is not counted");
            slots.pop();
            assert!(!count.is_full(at_most(limit)));
            slots.push(count.begin(at_most(limit)).unwrap());
            assert!(count.begin(at_most(limit)).is_err());
            slots.clear();
            assert_eq!(count.0.load(Ordering::Relaxed), 0);
        }
    }

    #[test]
    fn without_a_limit_nothing_is_counted_and_what_began_then_gives_nothing_back() {
        let count = Arc::new(RequestCount::default());
        let uncounted = count.begin(None).unwrap();
        assert_eq!(count.0.load(Ordering::Relaxed), 0);
        assert!(!count.is_full(None));
        let counted = count.begin(at_most(1)).unwrap();
        drop(uncounted);
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        assert!(count.is_full(at_most(1)) && !count.is_full(None));
        // The limit is lifted while a request is in flight, and set again.
        drop((count.begin(None).unwrap(), counted));
        assert_eq!(count.0.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn another_limit_counts_those_that_began_under_the_one_before() {
        let count = Arc::new(RequestCount::default());
        let mut slots: Vec<_> = (0..3).map(|_| count.begin(at_most(3)).unwrap()).collect();
        assert!(count.begin(at_most(2)).is_err());
        slots.push(count.begin(at_most(4)).unwrap());
        for left in [3, 2] {
            slots.pop();
            assert!(count.begin(at_most(2)).is_err(), "{left} are in flight");
        }
        slots.pop();
        assert!(count.begin(at_most(2)).is_ok());
    }

    #[test]
    fn threads_never_hold_more_than_the_limit_together() {
        const LIMIT: usize = 3;
        let (count, held, rejected) =
            (Arc::new(RequestCount::default()), AtomicUsize::new(0), AtomicUsize::new(0));
        let attempt = || {
            let Ok(slot) = count.begin(at_most(LIMIT)) else {
                rejected.fetch_add(1, Ordering::Relaxed);
                return;
            };
            assert!(held.fetch_add(1, Ordering::SeqCst) < LIMIT);
            std::thread::yield_now();
            held.fetch_sub(1, Ordering::SeqCst);
            drop(slot);
        };
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| (0..20_000).for_each(|_| attempt()));
            }
        });
        assert!(rejected.load(Ordering::Relaxed) > 0, "eight threads want three slots");
        assert_eq!(count.0.load(Ordering::Relaxed), 0);
    }
}
