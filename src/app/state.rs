//! What outlives requests, configurations and – with a durable store – the process: events, idle clocks, key sets.
//! Opened and replayed before the first request, written behind while the gate runs, saved once more when it ends.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::task::spawn_local;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tracing::{error, info, warn};

use crate::config::{OnEmpty, Settings, StateSettings, Store as StoreSettings};
use crate::enforce::decide::{Enforcer, InForce};
use crate::events::EventLog;
use crate::keys::store::KeyStore;
use crate::metrics::Metrics;
use crate::revocations::Revocations;
use crate::sessions::{self, Sessions};
use crate::shutdown::{Phase, Shutdown};
use crate::state::{OpenError, Store, StoreError};
use crate::time::Timestamp;
use crate::usage::Usage;

/// How often the whole session table has been looked through for what may leave it.
const SWEEP: Duration = Duration::from_secs(30);
/// How often what can touch no living token is forgotten.
const TRIM: Duration = Duration::from_secs(600);

/// The store and what was read from it.
#[derive(Debug, Clone)]
pub(super) struct State {
    pub(super) store: Store,
    pub(super) events: Arc<EventLog>,
    pub(super) usage: Arc<Usage>,
    pub(super) in_force: InForce,
}

/// Opens the store as configured. Blocks, and ends before anything is served.
pub(super) fn open(settings: &StateSettings, now: Timestamp) -> Result<Store, OpenError> {
    match &settings.store {
        StoreSettings::Embedded(path) => Store::open(path, now),
        StoreSettings::Memory => {
            match settings.on_empty {
                OnEmpty::Refuse => warn!(
                    "state.store is \"memory\", and empty at every start: tokens issued before now are refused"
                ),
                OnEmpty::Trust => warn!(
                    "state.store is \"memory\", and empty at every start: tokens that were revoked are accepted again"
                ),
            }
            Store::in_memory(now)
        }
    }
}

/// Damage in the middle of the file shows when that is read.
fn unreadable(settings: &StateSettings, error: StoreError) -> OpenError {
    let path = match &settings.store {
        StoreSettings::Embedded(path) => path.clone(),
        StoreSettings::Memory => PathBuf::from(":memory:"),
    };
    match error {
        StoreError::Failed(what) => OpenError::Corrupt(path, what),
        other => OpenError::Io(path, other.to_string()),
    }
}

impl State {
    /// Replays what the store keeps.
    pub(super) async fn replay(
        store: Store,
        settings: &Settings,
        metrics: &Metrics,
    ) -> Result<Self, OpenError> {
        let replayed = Self::read(store, settings, metrics).await;
        replayed.map_err(|error| unreadable(&settings.state, error))
    }

    async fn read(store: Store, settings: &Settings, metrics: &Metrics) -> Result<Self, StoreError> {
        let (now, began) = (Timestamp::now(), Instant::now());
        let not_before = settings.state.on_empty.not_before(store.created_at());
        let revocations = Arc::new(Revocations::new(not_before));
        let sessions = Arc::new(Sessions::new(sessions::Settings {
            idle_timeout: settings.sessions.idle_timeout,
            max_tracked: settings.sessions.max_tracked,
            leeway: settings.leeway(),
            saved: store.is_durable(),
        }));
        let events = EventLog::start(store.clone(), Arc::clone(&revocations), now).await?;
        let restored = sessions.restore(&store, now).await?;
        let usage = Usage::start(metrics.usage.clone(), store.clone()).await?;
        let revoked = revocations.load().counts();
        info!(
            subjects = revoked.subjects,
            clients = revoked.clients,
            tokens = revoked.tokens,
            issuers = revoked.issuers,
            sessions = restored,
            took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
            "state replayed"
        );
        Ok(Self { store, events, usage, in_force: InForce { revocations, sessions } })
    }

    /// Gives a new key store the last good set of its issuer, and keeps the next ones. To be called before the store's
    /// refresher is started.
    pub(super) async fn keep_keys(&self, keys: &Arc<KeyStore>) {
        let issuer = keys.settings().issuer.clone();
        match self.store.key_set(&issuer).await {
            Ok(Some((document, fetched_at))) => {
                if let Err(error) = keys.restore(&document, fetched_at) {
                    warn!(issuer, %error, "the stored keys cannot be used");
                }
            }
            Ok(None) => {}
            Err(error) => warn!(issuer, %error, "the stored keys cannot be read"),
        }
        let (store, mut last_good) = (self.store.clone(), keys.last_good());
        // Ends when the key store does.
        spawn_local(async move {
            while last_good.changed().await.is_ok() {
                let good = last_good.borrow_and_update().clone();
                let Some(good) = good else { continue };
                if let Err(error) = store.save_key_set(&issuer, &good.jwks, good.fetched_at).await {
                    warn!(issuer, %error, "the keys cannot be stored; a restart will have to fetch them");
                }
            }
        });
    }

    /// Takes over what a reload may change.
    pub(super) fn reconfigure(&self, settings: &Settings) {
        self.in_force.sessions.set_idle_timeout(settings.sessions.idle_timeout);
    }

    /// Writes behind, lets go of what is over and keeps the gauges true, until the last request was answered.
    pub(super) async fn upkeep(
        self,
        settings: Settings,
        enforcer: Arc<ArcSwap<Enforcer>>,
        metrics: Metrics,
        mut shutdown: Shutdown,
    ) {
        let flush = settings.state.flush_interval;
        let share = usize::try_from(SWEEP.as_millis() / flush.as_millis().max(1)).unwrap_or(1).max(1);
        let (idle, leeway) = (settings.sessions.idle_timeout.unwrap_or(Duration::MAX), settings.leeway());
        let mut flushes = interval(flush);
        flushes.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut trims = interval(TRIM);
        loop {
            tokio::select! {
                () = shutdown.reached(Phase::Stopped) => break,
                _ = flushes.tick() => {
                    self.save(&metrics).await;
                    self.sweep(share, &metrics);
                    enforcer.load().sweep(share, Timestamp::now());
                }
                _ = trims.tick() => {
                    if let Err(error) = self.events.trim(Timestamp::now(), idle, leeway).await {
                        metrics.state_errors.with_label_values(&[error.kind()]).inc();
                        warn!(%error, "old events cannot be removed from the store");
                    }
                }
            }
        }
    }

    /// Saves last uses and usage; what cannot be saved now is tried again.
    pub(super) async fn save(&self, metrics: &Metrics) {
        if let Err(error) = self.usage.flush().await {
            metrics.state_errors.with_label_values(&[error.kind()]).inc();
            warn!(%error, "usage cannot be saved");
        }
        if !self.store.is_durable() {
            return;
        }
        if let Err(error) = self.in_force.sessions.save(&self.store).await {
            metrics.state_errors.with_label_values(&[error.kind()]).inc();
            error!(%error, "last uses cannot be saved; after a restart tokens count as idle from their last saved use");
        }
    }

    fn sweep(&self, share: usize, metrics: &Metrics) {
        let left = self.in_force.sessions.sweep(Timestamp::now(), share);
        for (cause, count) in [("expired", left.expired), ("idle", left.idle), ("capacity", left.capacity)] {
            metrics.sessions_evicted.with_label_values(&[cause]).inc_by(count as u64);
        }
        let gauge = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        metrics.sessions_tracked.set(gauge(self.in_force.sessions.tracked()));
        let revoked = self.in_force.revocations.load().counts();
        for (kind, count) in [
            ("subject", revoked.subjects),
            ("client", revoked.clients),
            ("token", revoked.tokens),
            ("issuer", revoked.issuers),
        ] {
            metrics.revocations.with_label_values(&[kind]).set(gauge(count));
        }
    }
}
