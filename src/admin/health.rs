//! Readiness: collects the state of every component and decides whether the gate can serve requests.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use arc_swap::ArcSwap;
use serde_json::{Value, json};

use crate::enforce::signals::SignalClock;
use crate::keys::store::{Availability, KeyStore};
use crate::metrics::Metrics;
use crate::shutdown::{Phase, Shutdown};
use crate::state::{LogPosition, Store};
use crate::time::{Monotonic, Now};

/// What an admin or a load balancer reads for a part that works.
const OK: &str = "ok";

/// When the gate is ready for requests (`[telemetry] ready_when`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadyWhen {
    /// As soon as the tokens of one issuer can be judged, and no other is still on its first try.
    Any,
    /// Once the tokens of all can.
    All,
}

/// A transmitter whose heartbeat is listened to.
#[derive(Debug)]
pub struct HeardTransmitter {
    /// When it was last confirmed.
    pub clock: Arc<SignalClock>,
    /// Whether it is asked for at all.
    pub heartbeat: bool,
    /// The issuer whose tokens are refused while it is overdue.
    pub refused_for: Option<Arc<str>>,
}

/// The readiness of this process.
pub struct Health {
    when: AtomicBool,
    keys: ArcSwap<Vec<Arc<KeyStore>>>,
    heard: ArcSwap<Vec<HeardTransmitter>>,
    reported: Mutex<BTreeMap<&'static str, String>>,
    /// Whose log is named.
    store: OnceLock<Store>,
    shutdown: Shutdown,
}

impl Health {
    /// Judges by these key stores and the phase of the shutdown. `state` and `events` are well until somebody
    /// [reports](Self::report) otherwise.
    #[must_use]
    pub fn new(keys: Vec<Arc<KeyStore>>, when: ReadyWhen, shutdown: Shutdown) -> Self {
        let reported = ["state", "events"].map(|component| (component, OK.to_owned()));
        Self {
            when: AtomicBool::new(when == ReadyWhen::All),
            keys: ArcSwap::from_pointee(keys),
            heard: ArcSwap::default(),
            reported: Mutex::new(reported.into()),
            store: OnceLock::new(),
            shutdown,
        }
    }

    /// Names the log of this store, and how far it has grown, from now on: an operator tells by it that a copy of its past
    /// was put back, and whether replicas follow the same one.
    pub fn name_log(&self, store: Store) {
        // Once is enough: a process has one store.
        drop(self.store.set(store));
    }

    /// Uses another configuration from now on.
    pub fn replace_keys(&self, keys: Vec<Arc<KeyStore>>, when: ReadyWhen) {
        self.keys.store(Arc::new(keys));
        self.when.store(when == ReadyWhen::All, Ordering::Relaxed);
    }

    /// Listens to these transmitters from now on.
    pub fn replace_heard(&self, heard: Vec<HeardTransmitter>) {
        self.heard.store(Arc::new(heard));
    }

    /// Exports whether the gate is ready, and how long ago each transmitter was heard; those that are gone leave.
    pub fn export(&self, metrics: &Metrics, now: Now) {
        metrics.ready.set(i64::from(self.at(now).0));
        metrics.signals_age.reset();
        for heard in self.heard.load().iter().filter(|heard| heard.heartbeat) {
            let age = heard.clock.age(now.monotonic).as_secs_f64();
            metrics.signals_age.with_label_values(&[heard.clock.transmitter()]).set(age);
        }
    }

    /// Sets what a component says of itself: nothing, or in a few plain words why it cannot serve.
    pub fn report(&self, component: &'static str, condition: Result<(), String>) {
        let condition = condition.err().unwrap_or_else(|| OK.to_owned());
        self.reported.lock().unwrap_or_else(PoisonError::into_inner).insert(component, condition);
    }

    /// Whether the gate may serve at `now`, and the body of `/ready`, which names every component.
    pub(crate) fn at(&self, now: Now) -> (bool, Value) {
        let mut components = self.reported.lock().unwrap_or_else(PoisonError::into_inner).clone();
        components.insert("gate", self.gate().to_owned());
        let mut ready = components.values().all(|condition| condition == OK);
        let rooms = components.into_iter().map(|(name, condition)| (name.to_owned(), condition));
        let stores = self.keys.load_full();
        let heard = self.heard.load();
        let refuses = |store: &KeyStore| {
            let refusing =
                |one: &&HeardTransmitter| one.refused_for.as_deref() == Some(&*store.settings().issuer);
            heard.iter().filter(refusing).any(|one| one.clock.is_stale(now.monotonic))
        };
        let usable =
            |store: &&Arc<KeyStore>| store.availability(now) == Availability::Usable && !refuses(store);
        ready &= match stores.iter().filter(usable).count() {
            all if all == stores.len() => true,
            0 => false,
            _ => {
                let is_settled = |store: &Arc<KeyStore>| usable(&store) || store.was_tried();
                !self.when.load(Ordering::Relaxed) && stores.iter().all(is_settled)
            }
        };
        let keys = stores.iter().map(|store| {
            let condition = match store.availability(now) {
                Availability::Usable => OK,
                Availability::NeverLoaded => "never loaded",
                Availability::TooOld => "not confirmed for longer than max_stale",
            };
            let why = store.failure().filter(|_| condition != OK);
            let condition = why.map_or_else(|| condition.to_owned(), |why| format!("{condition}: {why}"));
            (format!("keys:{}", store.settings().issuer), condition)
        });
        let signals = heard.iter().map(|one| {
            let name = one.clock.transmitter();
            (format!("signals:{name}"), condition_of(&one.clock, now.monotonic))
        });
        let components: BTreeMap<String, String> = keys.chain(rooms).chain(signals).collect();
        let mut body = json!({ "ready": ready, "components": components });
        if let Some(store) = self.store.get() {
            let LogPosition { identity, sequence } = store.log();
            body["log"] = json!({ "identity": identity, "sequence": sequence });
        }
        (ready, body)
    }

    /// The key stores without which requests cannot be judged.
    pub(crate) fn key_stores(&self) -> Arc<Vec<Arc<KeyStore>>> {
        self.keys.load_full()
    }

    /// The store of the state.
    pub(crate) fn store(&self) -> Option<&Store> {
        self.store.get()
    }

    fn gate(&self) -> &'static str {
        match self.shutdown.phase() {
            Phase::Running => OK,
            Phase::Leaving | Phase::EndingStreams | Phase::Draining | Phase::HandedOver | Phase::Stopped => {
                "shutting down"
            }
        }
    }
}

/// What is said of a transmitter. The tokens of an issuer may be judged without it.
fn condition_of(clock: &SignalClock, now: Monotonic) -> String {
    match (clock.is_stale(now), clock.is_suspended()) {
        (false, _) => OK.to_owned(),
        (true, true) => "stale: the transmitter has stopped sending signals".to_owned(),
        (true, false) => {
            format!("stale: no heartbeat was confirmed for {} s", clock.age(now).as_secs())
        }
    }
}

impl std::fmt::Debug for Health {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Health").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::keys::Settings;
    use crate::keys::set::KeySet;
    use crate::shutdown;

    fn settings(issuer: &str) -> Settings {
        Settings {
            issuer: issuer.to_owned(),
            algorithms: vec![jsonwebtoken::Algorithm::ES256],
            ..Settings::default()
        }
    }

    /// After a start the keys of one issuer are there at once, and those of another, kept from a run long ago, are too old
    /// until they are fetched: the first requests of the other must not meet a gate that calls itself ready.
    #[test]
    fn the_gate_is_not_ready_while_an_issuer_is_on_its_first_try() {
        const KEY: &[u8] = br#"{"keys":[{"kty":"EC","crv":"P-256","kid":"a","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}]}"#;
        let metrics = Metrics::new().unwrap();
        let now = Now::read();
        let usable =
            KeyStore::fixed(settings("https://a.example/"), KeySet::new(Vec::new()), metrics.clone());
        let old = KeyStore::new(settings("https://b.example/"), metrics.clone());
        old.restore(KEY, now.wall.minus(Duration::from_secs(2 * 86_400)), None).unwrap();
        let fresh = KeyStore::new(settings("https://c.example/"), metrics.clone());
        fresh.restore(KEY, now.wall, None).unwrap();
        let never = KeyStore::new(settings("https://d.example/"), metrics);
        for (name, stores, any, all) in [
            ("usable", vec![&usable], true, true),
            ("restored and fresh", vec![&usable, &fresh], true, true),
            ("restored and too old, not tried", vec![&usable, &old], false, false),
            ("never loaded, not tried", vec![&usable, &never], false, false),
            ("none usable", vec![&old, &never], false, false),
        ] {
            for (when, expected) in [(ReadyWhen::Any, any), (ReadyWhen::All, all)] {
                let stores = stores.iter().map(|store| Arc::clone(store)).collect();
                let (_trigger, shutdown) = shutdown::channel();
                assert_eq!(Health::new(stores, when, shutdown).at(now).0, expected, "{name}, {when:?}");
            }
        }
    }

    /// A transmitter without which an issuer's tokens are not judged counts as that issuer's keys do; another is only named.
    #[test]
    fn a_transmitter_that_is_not_heard_is_named_and_counts_where_it_must_be_heard() {
        let metrics = Metrics::new().unwrap();
        let store =
            |issuer: &str| KeyStore::fixed(settings(issuer), KeySet::new(Vec::new()), metrics.clone());
        let now = Now::read();
        for (refused_for, stale, any, all) in [
            (None, true, true, true),
            (Some("https://a.example/"), false, true, true),
            (Some("https://a.example/"), true, false, false),
            (Some("https://other.example/"), true, true, true),
        ] {
            for (when, expected) in [(ReadyWhen::Any, any), (ReadyWhen::All, all)] {
                let (_trigger, shutdown) = shutdown::channel();
                let health = Health::new(vec![store("https://a.example/")], when, shutdown);
                let clock = Arc::new(SignalClock::new("okta", now.monotonic, Duration::from_secs(60)));
                let later = if stale { 61 } else { 60 };
                let later = Now { monotonic: now.monotonic.plus(Duration::from_secs(later)), ..now };
                let refused_for = refused_for.map(Arc::from);
                health.replace_heard(vec![HeardTransmitter {
                    clock: Arc::clone(&clock),
                    heartbeat: true,
                    refused_for: refused_for.clone(),
                }]);
                let (ready, body) = health.at(later);
                health.export(&metrics, later);
                assert_eq!(metrics.ready.get() == 1, ready);
                assert_eq!(ready, expected, "{refused_for:?}, stale: {stale}, {when:?}");
                let said = if stale { "stale: no heartbeat was confirmed for 61 s" } else { "ok" };
                assert_eq!(body["components"]["signals:okta"], said);
                clock.suspend();
                let (_, body) = health.at(now);
                assert_eq!(
                    body["components"]["signals:okta"],
                    "stale: the transmitter has stopped sending signals"
                );
            }
        }
        let two = Health::new(
            vec![store("https://a.example/"), store("https://b.example/")],
            ReadyWhen::Any,
            shutdown::channel().1,
        );
        let clock = Arc::new(SignalClock::new("okta", now.monotonic, Duration::ZERO));
        clock.suspend();
        let refused_for = Some("https://a.example/".into());
        two.replace_heard(vec![HeardTransmitter { clock, heartbeat: true, refused_for }]);
        two.export(&metrics, now);
        assert!(
            metrics.render().unwrap().contains("portcullis_signals_age_seconds{transmitter=\"okta\"} 0\n")
        );
        two.replace_heard(Vec::new());
        two.export(&metrics, now);
        assert!(!metrics.render().unwrap().contains("portcullis_signals_age_seconds{"));
    }
}
