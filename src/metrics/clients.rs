//! `portcullis_client_requests_total`: the one label whose values come from tokens, kept to a bounded number.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arc_swap::ArcSwap;
use prometheus::{IntCounter, IntCounterVec};

use super::Metrics;

/// Clients that get a label of their own.
pub(super) const MAX_CLIENTS: usize = 1000;
/// A longer client is not worth a label.
const MAX_LENGTH: usize = 128;
/// The label of the rest.
pub(super) const OTHER: &str = "other";

/// The clients of this process that have a label; read without waiting, copied by the few that add to it.
#[derive(Debug, Clone, Default)]
pub(super) struct ClientLabels(Arc<ArcSwap<HashSet<Arc<str>>>>);

impl ClientLabels {
    /// Whether another client is counted as `other`.
    pub(super) fn is_full(&self) -> bool {
        self.0.load().len() >= MAX_CLIENTS
    }

    /// The client's own label, if it has or can still get one.
    pub(super) fn admit(&self, client: &str) -> Option<Arc<str>> {
        if let Some(label) = self.0.load().get(client) {
            return Some(Arc::clone(label));
        }
        if client.len() > MAX_LENGTH || self.0.load().len() >= MAX_CLIENTS {
            return None;
        }
        // Another worker may be adding at this moment: the limit holds for what is swapped in.
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

/// One worker's handles for `portcullis_client_requests_total`; one per worker and configuration, never shared.
#[derive(Debug)]
pub struct ClientCounters {
    requests: IntCounterVec,
    labels: ClientLabels,
    /// The routes' patterns, by index.
    patterns: Vec<Arc<str>>,
    handles: HashMap<Arc<str>, Vec<Option<IntCounter>>>,
}

impl ClientCounters {
    /// Counters for these routes' patterns, in the order of their indices.
    #[must_use]
    pub fn new(metrics: &Metrics, patterns: Vec<Arc<str>>) -> Self {
        let Metrics { client_requests, client_labels, .. } = metrics;
        Self {
            requests: client_requests.clone(),
            labels: client_labels.clone(),
            patterns,
            handles: HashMap::new(),
        }
    }

    /// Counts one forwarded request of `client` on the route with this index.
    pub fn count(&mut self, client: &str, route: usize) {
        if !self.handles.contains_key(client) {
            let label = self.labels.admit(client).unwrap_or_else(|| Arc::from(OTHER));
            self.handles.entry(label).or_insert_with(|| vec![None; self.patterns.len()]);
        }
        let known = if self.handles.contains_key(client) { client } else { OTHER };
        let (Some(handles), Some(pattern)) = (self.handles.get_mut(known), self.patterns.get(route)) else {
            return;
        };
        if let Some(handle) = handles.get_mut(route) {
            handle.get_or_insert_with(|| self.requests.with_label_values(&[known, pattern])).inc();
        }
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
                worker.count(&format!("client-{client}"), 0);
            }
        }
        two.count("client-7", 1);
        two.count(&"x".repeat(200), 1);
        two.count("client-1", 9);
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
}
