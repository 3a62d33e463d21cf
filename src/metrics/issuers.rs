//! Removes the series of issuers and transmitters that are no longer configured.

use std::collections::HashMap;

use prometheus::core::{Collector as _, MetricVec, MetricVecBuilder};

use super::Metrics;

impl Metrics {
    /// Removes the series of issuers and transmitters that are not in `kept`.
    pub fn retain_issuers(&self, kept: &[&str]) {
        retain(&self.keys, kept);
        retain(&self.keys_age, kept);
        retain(&self.keys_refresh, kept);
        retain(&self.clock_skew, kept);
    }
}

fn retain<T: MetricVecBuilder>(series: &MetricVec<T>, kept: &[&str]) {
    for metric in series.collect().iter().flat_map(|family| family.get_metric()) {
        let labels: HashMap<&str, &str> =
            metric.get_label().iter().map(|label| (label.name(), label.value())).collect();
        if labels.get("issuer").is_some_and(|issuer| !kept.contains(issuer)) {
            // An error means that it was already removed.
            drop(series.remove(&labels));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_series_of_an_issuer_leave_with_it_and_others_stay() {
        let metrics = Metrics::new().expect("instruments");
        for issuer in ["https://a/", "https://b/", "event_transmitters/t"] {
            metrics.keys.with_label_values(&[issuer]).set(1);
            metrics.keys_age.with_label_values(&[issuer]).set(1.0);
            for result in ["ok", "error"] {
                metrics.keys_refresh.with_label_values(&[issuer, result]).inc();
            }
            metrics.clock_skew.with_label_values(&[issuer]).observe(1.0);
        }
        let lines = |issuer: &str| {
            let page = metrics.render().expect("a page");
            page.lines().filter(|line| line.contains(&format!("issuer=\"{issuer}\""))).count()
        };
        let before = lines("https://a/");
        assert!(before > 4, "{before}");
        metrics.retain_issuers(&["https://a/"]);
        assert_eq!((lines("https://a/"), lines("https://b/"), lines("event_transmitters/t")), (before, 0, 0));
        metrics.retain_issuers(&[]);
        assert_eq!(lines("https://a/"), 0);
    }
}
