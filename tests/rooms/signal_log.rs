//! What signals are published to: a log over a store, and no sessions.

#![expect(clippy::unwrap_used, reason = "helpers of a test fail as the test does")]

use std::sync::Arc;
use std::time::Duration;

use portcullis::events::EventLog;
use portcullis::metrics::Metrics;
use portcullis::revocations::Revocations;
use portcullis::sessions::{self, Sessions};
use portcullis::signals::SignalLog;
use portcullis::state::Store;

/// A log of signals and its surroundings.
pub(crate) struct Published {
    pub(crate) log: Arc<EventLog>,
    pub(crate) revocations: Arc<Revocations>,
    pub(crate) sessions: Arc<Sessions>,
    pub(crate) signals: Arc<SignalLog>,
}

impl Published {
    /// Starts it over this store.
    pub(crate) async fn over(store: Store, metrics: &Metrics) -> Self {
        let revocations = Arc::new(Revocations::new(None));
        let log = EventLog::start(store, Arc::clone(&revocations)).await.unwrap();
        let settings = sessions::Settings {
            idle_timeouts: None.into(),
            max_tracked: 1,
            leeway: Duration::ZERO,
            saved: false,
        };
        let sessions = Arc::new(Sessions::new(settings));
        let signals =
            SignalLog::start(Arc::clone(&log), Arc::clone(&revocations), Arc::clone(&sessions), metrics);
        Self { log, revocations, sessions, signals }
    }
}
