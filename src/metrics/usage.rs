//! Counts of responses by client: each worker counts without contention, and the counts are collected
//! periodically.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::clients::{ClientLabels, MAX_CLIENTS};
use crate::time::Timestamp;

/// The counts of all workers that were not collected yet; clones share them.
#[derive(Debug, Clone, Default)]
pub struct Tallies(Arc<Uncollected>);

#[derive(Debug, Default)]
struct Uncollected {
    labels: ClientLabels,
    /// Tallies that are not zero.
    counted: Mutex<Vec<Arc<Tally>>>,
}

/// One worker's count of responses to one client on one route with one status.
#[derive(Debug)]
struct Tally {
    of: Used,
    count: AtomicU64,
    last: AtomicI64,
}

/// The key of a count.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Used {
    /// The client, or `other`.
    pub client: Arc<str>,
    /// The route's pattern.
    pub route: Arc<str>,
    /// The status of the response.
    pub status: u16,
}

impl Tallies {
    /// Gives a client that was counted before a restart a name of its own, if there is space.
    pub fn admit(&self, client: &str) {
        self.0.labels.admit(client);
    }

    /// The number of clients counted by name, once the limit is reached; all others share `other`.
    #[must_use]
    pub fn bound(&self) -> Option<usize> {
        self.0.labels.is_full().then_some(MAX_CLIENTS)
    }

    /// Takes the counts since the last call: key, count, and time of the last one.
    #[must_use]
    pub fn take(&self) -> Vec<(Used, u64, Timestamp)> {
        let counted = std::mem::take(&mut *self.0.counted.lock().unwrap_or_else(PoisonError::into_inner));
        let taken = |tally: &Arc<Tally>| {
            let count = tally.count.swap(0, Ordering::AcqRel);
            (tally.of.clone(), count, Timestamp::from_millis(tally.last.load(Ordering::Acquire)))
        };
        counted.iter().map(taken).collect()
    }

    /// The clients that usage is counted by.
    pub(super) fn labels(&self) -> &ClientLabels {
        &self.0.labels
    }
}

/// One worker's tallies of one client on one route. There are few statuses, so a list is faster than a map.
#[derive(Debug, Default)]
pub(super) struct StatusTallies(Vec<Arc<Tally>>);

impl StatusTallies {
    /// Counts one response with `status`; calls `used` for the first one with that status.
    pub(super) fn count(&mut self, all: &Tallies, status: u16, now: Timestamp, used: impl FnOnce() -> Used) {
        let tally = match self.0.iter().find(|tally| tally.of.status == status) {
            Some(tally) => tally,
            None => {
                self.0.push(Arc::new(Tally {
                    of: used(),
                    count: AtomicU64::new(0),
                    last: AtomicI64::new(0),
                }));
                let Some(tally) = self.0.last() else { return };
                tally
            }
        };
        // Stored before the count, so that a reader of the count sees both.
        tally.last.fetch_max(now.as_millis(), Ordering::AcqRel);
        if tally.count.fetch_add(1, Ordering::AcqRel) == 0 {
            let tally = Arc::clone(tally);
            all.0.counted.lock().unwrap_or_else(PoisonError::into_inner).push(tally);
        }
    }
}
