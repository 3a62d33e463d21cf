//! Readiness: what each part of the gate last said of itself, and whether all of it together may serve.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use arc_swap::ArcSwap;
use serde_json::{Value, json};

use crate::keys::store::{Availability, KeyStore};
use crate::shutdown::{Phase, Shutdown};
use crate::state::{LogPosition, Store};
use crate::time::Now;

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

/// The readiness of this process.
pub struct Health {
    when: AtomicBool,
    keys: ArcSwap<Vec<Arc<KeyStore>>>,
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

    /// Judges by another configuration from now on.
    pub fn replace_keys(&self, keys: Vec<Arc<KeyStore>>, when: ReadyWhen) {
        self.keys.store(Arc::new(keys));
        self.when.store(when == ReadyWhen::All, Ordering::Relaxed);
    }

    /// Sets what a component says of itself: nothing, or in a few plain words why it cannot serve.
    pub fn report(&self, component: &'static str, condition: Result<(), String>) {
        let condition = condition.err().unwrap_or_else(|| OK.to_owned());
        self.reported.lock().unwrap_or_else(PoisonError::into_inner).insert(component, condition);
    }

    /// Whether the gate may serve at `now`, and the body of `/ready`, which names every component.
    pub(super) fn at(&self, now: Now) -> (bool, Value) {
        let mut components = self.reported.lock().unwrap_or_else(PoisonError::into_inner).clone();
        components.insert("gate", self.gate().to_owned());
        let mut ready = components.values().all(|condition| condition == OK);
        let rooms = components.into_iter().map(|(name, condition)| (name.to_owned(), condition));
        let stores = self.keys.load_full();
        let usable = |store: &&Arc<KeyStore>| store.availability(now) == Availability::Usable;
        ready &= match stores.iter().filter(usable).count() {
            all if all == stores.len() => true,
            0 => false,
            _ => !self.when.load(Ordering::Relaxed) && stores.iter().all(|store| store.was_tried()),
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
        let components: BTreeMap<String, String> = keys.chain(rooms).collect();
        let mut body = json!({ "ready": ready, "components": components });
        if let Some(store) = self.store.get() {
            let LogPosition { identity, sequence } = store.log();
            body["log"] = json!({ "identity": identity, "sequence": sequence });
        }
        (ready, body)
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

impl std::fmt::Debug for Health {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Health").finish_non_exhaustive()
    }
}
