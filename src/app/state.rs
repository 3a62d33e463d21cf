//! The state that outlives requests, configurations and, with a durable store, the process: events, idle clocks, key
//! sets. Opened and replayed before the first request, flushed while the gate runs, and saved once more when it ends.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{mpsc, watch};
use tokio::task::spawn_local;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tracing::{error, info, warn};

use crate::admin::Health;
use crate::config::{OnEmpty, Settings, StateSettings, StoreSettings};
use crate::enforce::decide::{Enforcer, InForce};
use crate::events::EventLog;
use crate::keys::store::KeyStore;
use crate::metrics::Metrics;
use crate::replays::Replays;
use crate::revocations::Revocations;
use crate::sessions::{self, Sessions};
use crate::shutdown::{Phase, Shutdown};
use crate::state::redis::{self, ReplicaChanges};
use crate::state::{OpenError, Past, Store, StoreError};
use crate::time::{Monotonic, Now, Timestamp};
use crate::usage::Usage;

/// How often data that can no longer affect a live token is removed.
const TRIM: Duration = Duration::from_secs(600);
/// How often the freshness of a shared store is reported.
const POLL_INTERVAL: Duration = Duration::from_millis(200);

/// The store and what was read from it.
#[derive(Debug, Clone)]
pub(super) struct KeptState {
    pub(super) store: Store,
    pub(super) events: Arc<EventLog>,
    pub(super) usage: Arc<Usage>,
    pub(super) in_force: InForce,
}

/// A store and, if it is shared, the changes of other replicas.
pub(super) type Opened = (Store, Option<mpsc::Receiver<ReplicaChanges>>);

/// How long startup waits for a shared store. After that, the gate runs without being ready until the store
/// responds: a sidecar in a restart loop would only be another problem in an outage.
const FIRST_TRY: Duration = Duration::from_secs(5);

/// Opens the store as configured. Blocks; runs before anything is served.
pub(super) fn open(settings: &Settings, metrics: &Metrics, now: Now) -> Result<Opened, OpenError> {
    let terms = settings.terms();
    let settings = &settings.state;
    match &settings.store {
        StoreSettings::Embedded(path) => {
            let store = Store::open(path, now)?;
            warn_about(store.past(), path);
            metrics.state_rolled_back.set(i64::from(store.past() != Past::Continuous));
            Ok((store, None))
        }
        StoreSettings::Redis(redis) => {
            let (store, changes) = Store::shared(redis::Settings::clone(redis), terms, metrics.clone())?;
            Ok((store, Some(changes)))
        }
        StoreSettings::Memory => {
            match settings.on_empty {
                OnEmpty::Refuse => warn!(
                    "state.store is \"memory\", which is empty at every start: tokens issued before now are rejected"
                ),
                OnEmpty::Trust => warn!(
                    "state.store is \"memory\", which is empty at every start: revoked tokens are accepted again"
                ),
            }
            Ok((Store::in_memory(now)?, None))
        }
    }
}

/// Warns if the file is not the one that was in use here, or lacks some of its events.
pub(super) fn warn_about(past: Past, path: &Path) {
    match past {
        Past::Continuous => {}
        Past::Older { known, seen } => warn!(
            path = %path.display(),
            known,
            seen,
            "the state store is older than when it was last used here (a restored copy?): events after `known` up to `seen` are missing, and tokens that they ended are accepted again"
        ),
        Past::Unseen { known } => warn!(
            path = %path.display(),
            known,
            "this state store has not been used here before: if it is a copy, events after `known` are missing, and tokens that they ended are accepted again; make copies with `portcullis state backup`"
        ),
        Past::Replaced { seen } => warn!(
            path = %path.display(),
            seen,
            "a different state store was used here before, up to event `seen`; its events are no longer available"
        ),
    }
}

/// An error while reading: damage inside the file shows only then.
fn unreadable(settings: &StateSettings, error: StoreError) -> OpenError {
    let path = match &settings.store {
        StoreSettings::Embedded(path) => path.clone(),
        StoreSettings::Memory => PathBuf::from(":memory:"),
        StoreSettings::Redis(_) => return OpenError::Refused(error.to_string()),
    };
    match error {
        StoreError::Failed(what) => OpenError::Corrupt(path, what),
        other => OpenError::Io(path, other.to_string()),
    }
}

impl KeptState {
    /// Replays the stored state.
    pub(super) async fn replay(
        (store, changes): Opened,
        settings: &Settings,
        metrics: &Metrics,
    ) -> Result<Self, OpenError> {
        let failed = |error| unreadable(&settings.state, error);
        let began = Instant::now();
        let not_before = settings.state.on_empty.not_before(store.not_before());
        let revocations = Arc::new(Revocations::new(not_before));
        let clocks = sessions::Settings {
            idle_timeouts: settings.sessions.idle_timeouts.clone(),
            max_tracked: settings.sessions.max_tracked,
            leeway: settings.leeway(),
            saved: store.is_durable(),
        };
        let sessions = Arc::new(match store.is_shared() {
            true => Sessions::sharing(clocks, store.clone(), settings.state.flush_interval),
            false => Sessions::new(clocks),
        });
        let events = EventLog::start(store.clone(), Arc::clone(&revocations)).await.map_err(failed)?;
        if let Some(changes) = changes {
            let (log, sessions, metrics) = (Arc::clone(&events), Arc::clone(&sessions), metrics.clone());
            let refuse_older = settings.state.on_empty == OnEmpty::Refuse;
            store.beside(async move { log.follow(changes, &sessions, refuse_older, metrics).await });
            store.opened(FIRST_TRY).await?;
        }
        let restored = sessions.restore(&store, Now::read()).await.map_err(failed)?;
        let usage = Usage::start(metrics.usage.clone(), store.clone()).await.map_err(failed)?;
        let revoked = revocations.load().counts();
        info!(
            subjects = revoked.subjects,
            clients = revoked.clients,
            log_in_sessions = revoked.sessions,
            tokens = revoked.tokens,
            issuers = revoked.issuers,
            sessions = restored,
            took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
            "state replayed"
        );
        let shared = store.is_shared().then(|| store.clone());
        let replays = Arc::new(Replays::new(settings.enforce.dpop.max_tracked, shared));
        let in_force = InForce { revocations, sessions, freshness: store.freshness(), replays };
        Ok(Self { store, events, usage, in_force })
    }

    /// Loads the last good key set of its source into a new key store. Call this before the store's refresher starts.
    pub(super) async fn restore_keys(&self, keys: &KeyStore) {
        let issuer = &keys.settings().issuer;
        match self.store.key_set((issuer, &keys.settings().provenance())).await {
            Ok(Some((document, fetched_at, running))) => {
                if let Err(error) = keys.restore(&document, fetched_at, running) {
                    warn!(issuer, %error, "the stored keys are not usable");
                }
            }
            Ok(None) => {}
            Err(error) => warn!(issuer, %error, "cannot read the stored keys"),
        }
    }

    /// Saves the last good set of a key store, and each later one, until the key store is dropped.
    pub(super) fn keep_keys(&self, keys: &KeyStore) {
        let (store, mut last_good) = (self.store.clone(), keys.last_good());
        let (issuer, source) = (keys.settings().issuer.clone(), keys.settings().provenance());
        last_good.mark_changed();
        spawn_local(async move {
            while last_good.changed().await.is_ok() {
                let good = last_good.borrow_and_update().clone();
                let Some(good) = good else { continue };
                if let Err(error) = store.save_key_set((&issuer, &source), &good.jwks, good.fetched_at).await
                {
                    warn!(issuer, %error, "cannot store the keys; a restart must fetch them again");
                }
            }
        });
    }

    /// Applies the settings that a reload may change.
    pub(super) fn reconfigure(&self, settings: &Settings) {
        self.in_force.replays.reconfigure(settings.enforce.dpop.max_tracked);
        let sessions = &self.in_force.sessions;
        let longer = sessions.reconfigure(&settings.sessions.idle_timeouts, settings.leeway(), Now::read());
        self.store.reconfigure(settings.terms());
        if longer && sessions.is_shared() {
            let sessions = Arc::clone(sessions);
            // It visits every session, and this thread has other work.
            drop(tokio::task::spawn_blocking(move || sessions.save_again()));
        }
    }

    /// Flushes, removes what has expired and updates the gauges, until the last response is sent or
    /// another process takes over.
    pub(super) async fn upkeep(
        self,
        settings: Arc<ArcSwap<Settings>>,
        enforcer: Arc<ArcSwap<Enforcer>>,
        metrics: Metrics,
        mut shutdown: Shutdown,
    ) {
        let flush = settings.load().state.flush_interval;
        let mut flushes = interval(flush);
        flushes.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut trims = interval(TRIM);
        let mut emptied = self.store.emptied();
        // Concurrent with the flush: asking about many streams that seem idle must not delay saving.
        let asking = spawn_local(resolve_doubts(Arc::clone(&self.in_force.sessions), flush));
        let sessions = Arc::clone(&self.in_force.sessions);
        let telling = spawn_local(async move { sessions.tell_first_uses().await });
        loop {
            tokio::select! {
                () = shutdown.reached(Phase::HandedOver) => break,
                _ = flushes.tick() => {
                    self.correct_creation(&metrics).await;
                    self.save(&metrics).await;
                    self.sweep();
                    self.count_left(&metrics);
                    enforcer.load().sweep(Monotonic::now());
                }
                () = self.in_force.sessions.hurried() => self.save_sessions(&metrics).await,
                () = again(&mut emptied) => {
                    self.in_force.sessions.save_again();
                    self.save_sessions(&metrics).await;
                }
                _ = trims.tick() => {
                    if let Err(error) = self.trim(&settings.load_full()).await {
                        metrics.state_errors.with_label_values(&[error.kind()]).inc();
                        warn!(%error, "cannot remove old events and last uses from the store");
                    }
                }
            }
        }
        asking.abort();
        telling.abort();
    }

    /// Removes events and sessions that have expired under the settings in force.
    async fn trim(&self, settings: &Settings) -> Result<(), StoreError> {
        let now = Now::read();
        self.events.trim(now, &settings.event_issuers()).await?;
        self.in_force.sessions.trim(&self.store, now.monotonic).await?;
        Ok(())
    }

    async fn correct_creation(&self, metrics: &Metrics) {
        match self.events.correct_creation(Timestamp::now()).await {
            Ok(false) => {}
            Ok(true) => warn!(
                "the creation time of the state store is in the future: the clock was ahead then, or is behind now; tokens issued from now on are accepted"
            ),
            Err(error) => {
                metrics.state_errors.with_label_values(&[error.kind()]).inc();
                warn!(%error, "cannot correct the store's creation time on disk");
            }
        }
    }

    /// Exports the condition of a shared store: as metrics and in the readiness.
    pub(super) async fn report(self, health: Arc<Health>, metrics: Metrics) {
        if !self.store.is_shared() {
            return;
        }
        let (mut looks, began) = (interval(POLL_INTERVAL), Instant::now());
        loop {
            looks.tick().await;
            let (fresh, now) = (&self.in_force.freshness, Monotonic::now());
            let condition = match fresh.is_fresh(now) {
                true => Ok(()),
                false => Err(self
                    .store
                    .condition()
                    .unwrap_or_else(|| "not confirmed for max_staleness".to_owned())),
            };
            health.report("events", condition.clone());
            health.report("state", condition);
            metrics.state_age.set(fresh.age(now).unwrap_or_else(|| began.elapsed()).as_secs_f64());
        }
    }

    /// Saves everything and closes the file, so that another process can open it. Later changes fail. A
    /// shared store stays open.
    pub(super) async fn release(&self, metrics: &Metrics) {
        self.save(metrics).await;
        if !self.store.is_shared() {
            self.store.close().await;
        }
    }

    /// Saves everything for the last time, unless another process has the file by now.
    pub(super) async fn save_last(&self, metrics: &Metrics) {
        if !self.store.is_closed() {
            self.save(metrics).await;
        }
    }

    /// Saves last uses and usage; what cannot be saved now is retried later.
    pub(super) async fn save(&self, metrics: &Metrics) {
        if let Err(error) = self.usage.flush().await {
            metrics.state_errors.with_label_values(&[error.kind()]).inc();
            if self.store.condition().is_none() {
                warn!(%error, "cannot save usage");
            }
        }
        self.save_sessions(metrics).await;
    }

    async fn save_sessions(&self, metrics: &Metrics) {
        if !self.store.is_durable() {
            return;
        }
        if let Err(error) = self.in_force.sessions.save(&self.store).await {
            metrics.state_errors.with_label_values(&[error.kind()]).inc();
            // A problem with a shared store has already been logged.
            if self.store.condition().is_some() {
                return;
            }
            error!(%error, "cannot save last uses; after a restart, idle times count from the last saved use");
        }
    }

    /// Removes idle sessions. Concurrent with the flush, which must not wait while a million of them are removed.
    fn sweep(&self) {
        let sessions = Arc::clone(&self.in_force.sessions);
        drop(tokio::task::spawn_blocking(move || sessions.sweep(Now::read())));
    }

    fn count_left(&self, metrics: &Metrics) {
        let left = self.in_force.sessions.left();
        for (cause, count) in [("expired", left.expired), ("idle", left.idle), ("capacity", left.capacity)] {
            metrics.sessions_evicted.with_label_values(&[cause]).inc_by(count as u64);
        }
    }

    /// Returns a function that updates the gauges of the current state.
    pub(super) fn gauges(self, metrics: Metrics) -> impl Fn() + Send + Sync {
        move || self.set_gauges(&metrics)
    }

    fn set_gauges(&self, metrics: &Metrics) {
        self.count_left(metrics);
        let gauge = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        metrics.sessions_tracked.set(gauge(self.in_force.sessions.tracked()));
        let revoked = self.in_force.revocations.load().counts();
        for (kind, count) in [
            ("subject", revoked.subjects),
            ("client", revoked.clients),
            ("session", revoked.sessions),
            ("token", revoked.tokens),
            ("issuer", revoked.issuers),
        ] {
            metrics.revocations.with_label_values(&[kind]).set(gauge(count));
        }
    }
}

/// Asks the other gates about streams that seem idle here, until it is aborted.
async fn resolve_doubts(sessions: Arc<Sessions>, every: Duration) {
    let mut turns = interval(every);
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        turns.tick().await;
        sessions.resolve_doubts().await;
    }
}

/// Waits until a shared store has been found empty.
async fn again(emptied: &mut Option<watch::Receiver<u64>>) {
    if let Some(emptied) = emptied
        && emptied.changed().await.is_ok()
    {
        return;
    }
    std::future::pending().await
}
