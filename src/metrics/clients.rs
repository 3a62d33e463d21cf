//! Counts by client, limited to a fixed number of clients because their names come from tokens: forwarded
//! requests (`portcullis_client_requests_total`) and the usage that the store keeps.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arc_swap::ArcSwap;
use prometheus::{IntCounter, IntCounterVec};

use super::Metrics;
use super::usage::{StatusTallies, Tallies, Used};
use crate::time::Timestamp;

/// Maximum number of clients with a label of their own.
pub(super) const MAX_CLIENTS: usize = 1000;
/// Maximum length of a client's label; a longer client counts as `other`.
const MAX_LENGTH: usize = 128;
/// The label of all other clients.
pub(super) const OTHER: &str = "other";

/// The clients of this process that have a label. Reads never wait; the rare additions copy the set.
#[derive(Debug, Clone, Default)]
pub(super) struct ClientLabels(Arc<ArcSwap<HashSet<Arc<str>>>>);

impl ClientLabels {
    /// Whether a new client counts as `other`.
    pub(super) fn is_full(&self) -> bool {
        self.0.load().len() >= MAX_CLIENTS
    }

    /// The client's own label, if it has one or can still get one.
    pub(super) fn admit(&self, client: &str) -> Option<Arc<str>> {
        if let Some(label) = self.0.load().get(client) {
            return Some(Arc::clone(label));
        }
        if client.len() > MAX_LENGTH || self.0.load().len() >= MAX_CLIENTS {
            return None;
        }
        // Another worker may be adding at this moment: the limit is checked for the set that is swapped in.
        self.0.rcu(|labels| {
            let mut labels = HashSet::clone(labels);
            if labels.len() < MAX_CLIENTS {
                labels.insert(Arc::from(client));
            }
            labels
        });
        self.0.load().get(client).map(Arc::clone)
    }
}

/// One worker's counters by client under one configuration; not shared. A request looks up its client once.
#[derive(Debug)]
pub struct ClientCounters {
    requests: IntCounterVec,
    labels: ClientLabels,
    tallies: Tallies,
    /// The routes' patterns, by index.
    patterns: Vec<Arc<str>>,
    /// Indexes into `clients`: of each client with its own label, and of `other`.
    places: HashMap<Arc<str>, ClientPlace>,
    clients: Vec<ClientHandles>,
}

/// The index at which a worker counts the requests of one client under its configuration.
#[derive(Debug, Clone, Copy)]
pub struct ClientPlace(usize);

/// The handles of one client. It may have its own label in one kind of count and be `other` in the other.
#[derive(Debug)]
struct ClientHandles {
    /// The label in the metrics.
    label: Arc<str>,
    /// The name in the usage that the store keeps.
    used_by: Arc<str>,
    /// By route.
    routes: Vec<(Option<IntCounter>, StatusTallies)>,
}

impl ClientCounters {
    /// Creates counters for these routes' patterns, in index order.
    #[must_use]
    pub fn new(metrics: &Metrics, patterns: Vec<Arc<str>>) -> Self {
        let Metrics { client_requests, client_labels, usage, .. } = metrics;
        Self {
            requests: client_requests.clone(),
            labels: client_labels.clone(),
            tallies: usage.clone(),
            patterns,
            places: HashMap::new(),
            clients: Vec::new(),
        }
    }

    /// Counts one forwarded request of `client` on the route with this index; pass the result to
    /// [`Self::answered`].
    pub fn forwarded(&mut self, client: &str, route: usize) -> ClientPlace {
        let place = self.place(client);
        if let (Some(client), Some(pattern)) = (self.clients.get_mut(place.0), self.patterns.get(route))
            && let Some((requests, _)) = client.routes.get_mut(route)
        {
            requests.get_or_insert_with(|| self.requests.with_label_values(&[&client.label, pattern])).inc();
        }
        place
    }

    /// Counts the response to a forwarded request.
    pub fn answered(&mut self, place: ClientPlace, route: usize, status: u16, now: Timestamp) {
        if let (Some(client), Some(pattern)) = (self.clients.get_mut(place.0), self.patterns.get(route))
            && let Some((_, statuses)) = client.routes.get_mut(route)
        {
            let used_by = &client.used_by;
            let used = || Used { client: Arc::clone(used_by), route: Arc::clone(pattern), status };
            statuses.count(&self.tallies, status, now, used);
        }
    }

    fn place(&mut self, client: &str) -> ClientPlace {
        if let Some(place) = self.places.get(client) {
            return *place;
        }
        let (label, used_by) = (self.labels.admit(client), self.tallies.labels().admit(client));
        let other = || Arc::from(OTHER);
        let known = label.clone().or_else(|| used_by.clone()).unwrap_or_else(other);
        *self.places.entry(known).or_insert_with(|| {
            self.clients.push(ClientHandles {
                label: label.unwrap_or_else(other),
                used_by: used_by.unwrap_or_else(other),
                routes: self.patterns.iter().map(|_| (None, StatusTallies::default())).collect(),
            });
            ClientPlace(self.clients.len() - 1)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_clients_becomes_other() {
        let metrics = Metrics::new().expect("the page");
        let patterns: Vec<Arc<str>> = vec!["/a".into(), "/b".into()];
        let (mut one, mut two) =
            (ClientCounters::new(&metrics, patterns.clone()), ClientCounters::new(&metrics, patterns));
        for worker in [&mut one, &mut two] {
            for client in 0..1500 {
                worker.forwarded(&format!("client-{client}"), 0);
            }
        }
        two.forwarded("client-7", 1);
        two.forwarded(&"x".repeat(200), 1);
        two.forwarded("client-1", 9);
        let page = metrics.render().expect("the page");
        let series = page.lines().filter(|line| line.starts_with("portcullis_client_requests_total{"));
        assert_eq!(series.count(), 1000 + 1 + 2);
        for line in [
            r#"portcullis_client_requests_total{client="client-7",route="/a"} 2"#,
            r#"portcullis_client_requests_total{client="client-7",route="/b"} 1"#,
            r#"portcullis_client_requests_total{client="other",route="/a"} 1000"#,
            r#"portcullis_client_requests_total{client="other",route="/b"} 1"#,
        ] {
            assert!(page.lines().any(|found| found == line), "{line}");
        }
    }

    #[test]
    fn a_client_with_a_name_in_one_kind_of_count_may_be_other_in_the_other_kind() {
        let metrics = Metrics::new().expect("the page");
        (0..MAX_CLIENTS).for_each(|client| metrics.usage.admit(&format!("stored-{client}")));
        let mut worker = ClientCounters::new(&metrics, vec!["/a".into()]);
        for client in ["new", "stored-1", "new"] {
            let place = worker.forwarded(client, 0);
            worker.answered(place, 0, 200, Timestamp::from_millis(5));
        }
        let page = metrics.render().expect("the page");
        for line in [
            r#"portcullis_client_requests_total{client="new",route="/a"} 2"#,
            r#"portcullis_client_requests_total{client="stored-1",route="/a"} 1"#,
        ] {
            assert!(page.lines().any(|found| found == line), "{line}");
        }
        let taken = metrics.usage.take();
        let mut used: Vec<(&str, u64)> =
            taken.iter().map(|(used, count, _)| (&*used.client, *count)).collect();
        used.sort_unstable();
        assert_eq!(used, [("other", 2), ("stored-1", 1)]);
    }
}
