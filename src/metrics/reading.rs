//! Metrics as numbers, for the pages of the console.

use std::sync::Arc;

use prometheus::core::Collector as _;
use prometheus::proto::Metric;

use super::{Metrics, REQUEST_BUCKETS};
use crate::time::Timestamp;

/// Counts of requests so far, over all routes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Number of requests answered within each of [`Traffic::bounds`]; the last number counts all requests.
    pub answered: Vec<u64>,
    /// Decision, reason, and count.
    pub decisions: Vec<(Box<str>, Box<str>, u64)>,
}

impl Traffic {
    /// The upper bounds of the durations, in seconds.
    #[must_use]
    pub const fn bounds() -> &'static [f64] {
        REQUEST_BUCKETS
    }
}

impl Metrics {
    /// The counts of requests so far.
    #[must_use]
    pub fn traffic(&self) -> Traffic {
        let mut traffic = Traffic { answered: vec![0; REQUEST_BUCKETS.len() + 1], decisions: Vec::new() };
        for family in self.request_duration.collect() {
            for metric in family.get_metric() {
                let histogram = metric.get_histogram();
                let buckets = histogram.get_bucket().iter().map(|bucket| bucket.cumulative_count());
                let counts = buckets.take(REQUEST_BUCKETS.len()).chain([histogram.get_sample_count()]);
                traffic.answered.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
            }
        }
        for family in self.decisions.collect() {
            for metric in family.get_metric() {
                let count = whole(metric.get_counter().get_value());
                if count == 0 {
                    continue;
                }
                let (decision, reason) = (label(metric, "decision"), label(metric, "reason"));
                let mut known = traffic.decisions.iter_mut();
                match known.find(|(one, why, _)| **one == *decision && **why == *reason) {
                    Some((_, _, sum)) => *sum += count,
                    None => traffic.decisions.push((decision.into(), reason.into(), count)),
                }
            }
        }
        traffic
    }

    /// Events from this source, by type.
    #[must_use]
    pub fn events_from(&self, source: &str) -> Vec<(Box<str>, u64)> {
        let mut events = Vec::new();
        for family in self.events.collect() {
            let of_source = family.get_metric().iter().filter(|metric| label(metric, "source") == source);
            events.extend(
                of_source.map(|one| (label(one, "type").into(), whole(one.get_counter().get_value()))),
            );
        }
        events
    }

    /// Open connections, by listener.
    #[must_use]
    pub fn open_connections(&self) -> Vec<(&'static str, i64)> {
        let open =
            |listener: &&'static str| (*listener, self.connections.with_label_values(&[*listener]).get());
        ["public", "admin", "telemetry"].iter().map(open).collect()
    }

    /// Current revocations, by kind.
    #[must_use]
    pub fn revoked(&self) -> Vec<(Box<str>, i64)> {
        let families = self.revocations.collect();
        let metrics = families.iter().flat_map(|family| family.get_metric());
        #[expect(clippy::cast_possible_truncation, reason = "it was made of an integer")]
        let count = |metric: &Metric| (label(metric, "kind").into(), metric.get_gauge().get_value() as i64);
        metrics.map(count).collect()
    }

    /// The certificates in use, and when each expires.
    #[must_use]
    pub fn certificates_in_use(&self) -> Arc<Vec<(String, Timestamp)>> {
        self.certificates.load_full()
    }

    /// Counts a reload.
    pub fn reloaded(&self, accepted: bool) {
        self.config_reloads.with_label_values(&[if accepted { "ok" } else { "error" }]).inc();
        self.last_reload.set(accepted.into());
        self.reloaded_at.store(Some(Arc::new(Timestamp::now())));
    }

    /// When the configuration was last reloaded, and whether that was accepted.
    #[must_use]
    pub fn last_reload(&self) -> Option<(Timestamp, bool)> {
        self.reloaded_at.load_full().map(|at| (*at, self.last_reload.get() == 1))
    }
}

fn label<'a>(metric: &'a Metric, name: &str) -> &'a str {
    metric.get_label().iter().find(|label| label.name() == name).map_or("", |label| label.value())
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a counter of integers, which the text format makes a float of"
)]
fn whole(count: f64) -> u64 {
    count as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traffic_is_summed_over_routes() {
        let metrics = Metrics::new().unwrap();
        for (decision, reason, route, count) in [
            ("allow", "none", "/a", 3),
            ("allow", "none", "/b", 4),
            ("deny", "expired", "/a", 2),
            ("deny", "idle", "/a", 0),
        ] {
            metrics.decisions.with_label_values(&[decision, reason, route]).inc_by(count);
        }
        for (route, seconds) in [("/a", 0.000_4), ("/b", 0.002), ("/b", 100.0)] {
            metrics.request_duration.with_label_values(&[route]).observe(seconds);
        }
        let mut traffic = metrics.traffic();
        traffic.decisions.sort();
        assert_eq!(
            traffic.decisions,
            [("allow".into(), "none".into(), 7), ("deny".into(), "expired".into(), 2)]
        );
        assert_eq!(traffic.answered.len(), Traffic::bounds().len() + 1);
        assert_eq!(traffic.answered[..4], [1, 1, 2, 2]);
        assert_eq!(traffic.answered[Traffic::bounds().len() - 1..], [2, 3]);
    }

    #[test]
    fn instruments_are_read_by_their_labels() {
        let metrics = Metrics::new().unwrap();
        metrics.events.with_label_values(&["session-revoked", "ssf"]).inc_by(2);
        metrics.events.with_label_values(&["session-revoked", "admin"]).inc_by(5);
        assert_eq!(metrics.events_from("ssf"), [("session-revoked".into(), 2)]);
        metrics.revocations.with_label_values(&["client"]).set(7);
        assert!(metrics.revoked().contains(&("client".into(), 7)));
        metrics.connections.with_label_values(&["admin"]).set(3);
        assert_eq!(metrics.open_connections(), [("public", 0), ("admin", 3), ("telemetry", 0)]);
        assert_eq!(metrics.last_reload(), None);
        metrics.reloaded(false);
        assert!(metrics.last_reload().is_some_and(|(_, accepted)| !accepted));
    }
}
