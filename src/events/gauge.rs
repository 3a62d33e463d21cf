//! `portcullis_revocations`: what is in force, counted when somebody asks, because each event would be too often.

use std::sync::Arc;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{IntGaugeVec, Opts};

use crate::metrics::Metrics;
use crate::revocations::Revocations;

struct Gauge {
    revocations: Arc<Revocations>,
    entries: IntGaugeVec,
}

/// Puts the number of revocations in force, by `kind` (subject, client, token, issuer), on the page.
///
/// # Errors
/// When it is there already.
pub fn register(metrics: &Metrics, revocations: Arc<Revocations>) -> Result<(), prometheus::Error> {
    let entries = IntGaugeVec::new(Opts::new("portcullis_revocations", "Revocations in force"), &["kind"])?;
    metrics.register(Box::new(Gauge { revocations, entries }))
}

impl Collector for Gauge {
    fn desc(&self) -> Vec<&Desc> {
        self.entries.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let counts = self.revocations.load().counts();
        let kinds = [
            ("subject", counts.subjects),
            ("client", counts.clients),
            ("token", counts.tokens),
            ("issuer", counts.issuers),
        ];
        for (kind, count) in kinds {
            self.entries.with_label_values(&[kind]).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
        self.entries.collect()
    }
}
