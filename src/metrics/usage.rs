//! How often each client was answered how: counted by the workers without meeting, collected now and then.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::clients::{ClientLabels, MAX_CLIENTS, OTHER};
use crate::time::Timestamp;

/// What was counted and not collected yet, of all workers; clones share it.
#[derive(Debug, Clone, Default)]
pub struct Tallies(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    labels: ClientLabels,
    /// Tallies that are not zero.
    counted: Mutex<Vec<Arc<Tally>>>,
}

/// One worker's count of one client's requests on one route that were answered with one status.
#[derive(Debug)]
struct Tally {
    of: Used,
    count: AtomicU64,
    last: AtomicI64,
}

/// What is counted apart.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Used {
    /// The client, or `other`.
    pub client: Arc<str>,
    /// The route's pattern.
    pub route: Arc<str>,
    /// The status of the answer.
    pub status: u16,
}

impl Tallies {
    /// Gives a client that was counted before a restart a place among those that are counted by name.
    pub fn admit(&self, client: &str) {
        self.0.labels.admit(client);
    }

    /// How many clients are counted by name, once no more are; the rest share `other`.
    #[must_use]
    pub fn bound(&self) -> Option<usize> {
        self.0.labels.is_full().then_some(MAX_CLIENTS)
    }

    /// Takes what was counted since the last time: what, how often, and when last.
    #[must_use]
    pub fn take(&self) -> Vec<(Used, u64, Timestamp)> {
        let counted = std::mem::take(&mut *self.0.counted.lock().unwrap_or_else(PoisonError::into_inner));
        let taken = |tally: &Arc<Tally>| {
            let count = tally.count.swap(0, Ordering::AcqRel);
            (tally.of.clone(), count, Timestamp::from_millis(tally.last.load(Ordering::Acquire)))
        };
        counted.iter().map(taken).collect()
    }
}

/// One worker's tallies under one configuration.
#[derive(Debug)]
pub struct UsageCounters {
    tallies: Tallies,
    /// The routes' patterns, by index.
    patterns: Vec<Arc<str>>,
    /// By client and route; few statuses each.
    handles: HashMap<Arc<str>, Vec<Vec<Arc<Tally>>>>,
}

impl UsageCounters {
    /// Counters for these routes' patterns, in the order of their indices.
    #[must_use]
    pub fn new(tallies: &Tallies, patterns: Vec<Arc<str>>) -> Self {
        Self { tallies: tallies.clone(), patterns, handles: HashMap::new() }
    }

    /// Counts one forwarded request of `client` on the route with this index.
    pub fn count(&mut self, client: &str, route: usize, status: u16, now: Timestamp) {
        let Some(tally) = self.tally(client, route, status) else { return };
        // Before the count, so that a reader of the count finds both.
        tally.last.fetch_max(now.as_millis(), Ordering::AcqRel);
        if tally.count.fetch_add(1, Ordering::AcqRel) == 0 {
            let tally = Arc::clone(tally);
            self.tallies.0.counted.lock().unwrap_or_else(PoisonError::into_inner).push(tally);
        }
    }

    fn tally(&mut self, client: &str, route: usize, status: u16) -> Option<&Arc<Tally>> {
        if !self.handles.contains_key(client) {
            let label = self.tallies.0.labels.admit(client).unwrap_or_else(|| Arc::from(OTHER));
            self.handles.entry(label).or_insert_with(|| vec![Vec::new(); self.patterns.len()]);
        }
        let client = if self.handles.contains_key(client) { client } else { OTHER };
        let label = self.handles.get_key_value(client).map(|(label, _)| Arc::clone(label))?;
        let (statuses, pattern) = (self.handles.get_mut(client)?.get_mut(route)?, self.patterns.get(route)?);
        let place = statuses.iter().position(|tally| tally.of.status == status).unwrap_or_else(|| {
            let of = Used { client: label, route: Arc::clone(pattern), status };
            statuses.push(Arc::new(Tally { of, count: AtomicU64::new(0), last: AtomicI64::new(0) }));
            statuses.len() - 1
        });
        statuses.get(place)
    }
}
