//! All data of the live page, read at one moment.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Watched;
use super::history::{CountedTraffic, History};
use crate::admin::Api;
use crate::keys::store::{Availability, KeyStore};
use crate::state::record::EventSource;
use crate::time::{Now, Timestamp};

/// The time span of the displayed rates.
const LATELY: Duration = Duration::from_secs(60);
/// The time span for which decisions are counted.
const WINDOW: Duration = Duration::from_secs(600);

/// The data of the page.
pub(super) struct LiveState {
    pub(super) now: Timestamp,
    pub(super) is_ready: bool,
    /// The components of the readiness, and their conditions.
    pub(super) components: Vec<(String, String)>,
    /// What was counted during the last minute; the next field is for the last ten.
    pub(super) lately: Option<CountedTraffic>,
    pub(super) window: Option<CountedTraffic>,
    pub(super) slots: Vec<Option<CountedTraffic>>,
    pub(super) tokens: i64,
    pub(super) streams: usize,
    pub(super) connections: Vec<(&'static str, i64)>,
    pub(super) keys: Vec<KeysRow>,
    pub(super) signals: Vec<SignalsRow>,
    /// Signals by event type.
    pub(super) signalled: Vec<(Box<str>, u64)>,
    pub(super) revoked: Vec<(Box<str>, i64)>,
    pub(super) state: StateRow,
    pub(super) certificates: Vec<(String, Timestamp)>,
    pub(super) reload: Option<(Timestamp, bool)>,
}

/// A key set.
pub(super) struct KeysRow {
    pub(super) issuer: String,
    pub(super) keys: usize,
    /// Time since the last confirmation; `None` before the first one, and for keys that do not become stale.
    pub(super) age: Option<Duration>,
    pub(super) ages: bool,
    pub(super) is_usable: bool,
    /// Why the last fetch failed.
    pub(super) failure: Option<String>,
}

/// A transmitter of signals.
pub(super) struct SignalsRow {
    pub(super) name: String,
    pub(super) issuer: String,
    /// When it sent the last token that this process accepted.
    pub(super) last: Option<Timestamp>,
    pub(super) keys: KeysRow,
}

/// The state store.
#[derive(Default)]
pub(super) struct StateRow {
    pub(super) is_shared: bool,
    /// Seconds since a shared store was confirmed.
    pub(super) age: f64,
    /// The sequence of the last event.
    pub(super) sequence: u64,
}

impl LiveState {
    pub(super) fn take(api: &Api, watched: &Watched, history: &History, now: Now) -> Self {
        (watched.gauges)();
        let (metrics, health) = (api.metrics(), &watched.health);
        let (is_ready, body) = health.at(now);
        let components: BTreeMap<String, String> =
            serde_json::from_value(body["components"].clone()).unwrap_or_default();
        let signals = api.receiver().transmitters().into_iter().map(|(transmitter, last)| SignalsRow {
            name: transmitter.settings().name.clone(),
            issuer: transmitter.settings().issuer.clone(),
            last,
            keys: KeysRow::of(transmitter.keys(), now),
        });
        let state = health.store().map(|store| StateRow {
            is_shared: store.is_shared(),
            age: metrics.state_age.get(),
            sequence: store.log().sequence,
        });
        Self {
            now: now.wall,
            is_ready,
            components: components.into_iter().collect(),
            lately: history.within(LATELY),
            window: history.within(WINDOW),
            slots: history.slots(),
            tokens: metrics.sessions_tracked.get(),
            streams: watched.connections.streams(),
            connections: metrics.open_connections(),
            keys: health.key_stores().iter().map(|store| KeysRow::of(store, now)).collect(),
            signals: signals.collect(),
            signalled: metrics.events_from(EventSource::Ssf.as_str()),
            revoked: metrics.revoked(),
            state: state.unwrap_or_default(),
            certificates: metrics.certificates_in_use().to_vec(),
            reload: metrics.last_reload(),
        }
    }
}

impl KeysRow {
    fn of(store: &KeyStore, now: Now) -> Self {
        Self {
            issuer: store.settings().issuer.clone(),
            keys: store.current().len(),
            age: store.age(now).filter(|_| store.ages()),
            ages: store.ages(),
            is_usable: store.availability(now) == Availability::Usable,
            failure: store.failure().map(|failure| failure.to_string()),
        }
    }
}
