//! The keys of one issuer as every worker sees them: the current set, its age, and a way to request a newer one.
//!
//! This module does not know where sets come from; the refresher provides them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use bytes::Bytes;
use prometheus::{Gauge, IntCounter, IntGauge};
use tokio::sync::watch;
use tokio::time::timeout;
use tracing::{debug, error, info, warn};

use super::asking::Asking;
use super::jwks::{self, Parsed};
use super::set::KeySet;
use super::{KeySource, Settings};
use crate::metrics::Metrics;
use crate::time::{Monotonic, Now, Timestamp};

/// The longest time a request waits for the shared fetch.
const ASK_WAIT: Duration = Duration::from_secs(5);
/// No set was loaded yet.
const NEVER: i64 = i64::MIN;

/// Whether an issuer's keys may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Availability {
    /// A set is in force.
    Usable,
    /// No set was ever loaded.
    NeverLoaded,
    /// The last good set is older than `max_stale`.
    TooOld,
}

/// The key that a token needs and the set in force lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WantedKey {
    /// A key with this `kid`.
    Key(String),
    /// A newer set than the one with this generation, none of whose keys made the signature: an issuer may
    /// reuse a `kid` for a new key, or publish none.
    OtherThan(u64),
}

impl WantedKey {
    /// A key with this `kid`.
    #[must_use]
    pub fn key(kid: &str) -> Self {
        Self::Key(kid.to_owned())
    }
}

/// The document behind the set in force and when it was last fetched, to be saved across restarts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastGood {
    /// The JWK Set as it was received.
    pub jwks: Bytes,
    /// When it was last confirmed.
    pub fetched_at: Now,
}

/// The keys of one issuer. Reads never wait; the refresher is the only writer.
#[derive(Debug)]
pub struct KeyStore {
    settings: Settings,
    current: ArcSwap<KeySet>,
    /// When the set in force was last confirmed, in milliseconds of the monotonic clock.
    confirmed_at: AtomicI64,
    /// When a restored set was confirmed by an earlier process, in milliseconds of the wall clock: the
    /// monotonic clock does not count the time between processes.
    restored_from: AtomicI64,
    /// After how many seconds the document in force asks to be fetched again; 0 if it does not.
    refresh_hint: AtomicU64,
    created_at: Monotonic,
    /// Whether keys become stale. Keys from a secret or from this process do not.
    ages: bool,
    asking: Asking,
    /// Why the last fetch failed, if it did.
    failure: ArcSwapOption<String>,
    last_good: watch::Sender<Option<LastGood>>,
    instruments: Instruments,
    /// Whether this store sets the gauges. A store that a reload only prepares does not.
    exports: AtomicBool,
}

/// The issuer's own instruments, looked up once.
#[derive(Debug)]
pub(super) struct Instruments {
    keys: IntGauge,
    age: Gauge,
    pub(super) refreshed: IntCounter,
    pub(super) failed: IntCounter,
}

impl KeyStore {
    /// Creates an empty store, to be filled by [`spawn_refresher`](super::refresh::spawn_refresher). A
    /// [`KeySource::Secret`] is in force at once, unless [`check_secret`](super::key::check_secret) refuses
    /// it.
    #[must_use]
    pub fn new(settings: Settings, metrics: Metrics) -> Arc<Self> {
        if let KeySource::Secret(secret) = &settings.source {
            match KeySet::of_secret(secret, &settings.algorithms) {
                Ok(set) => return Self::fixed(settings, set, metrics),
                Err(error) => error!(issuer = settings.issuer, %error, "the secret is not usable"),
            }
        }
        Arc::new(Self::build(settings, KeySet::new(Vec::new()), true, &metrics))
    }

    /// Creates a store with keys that this process owns or a test made: never stale, never fetched.
    #[must_use]
    pub fn fixed(settings: Settings, set: KeySet, metrics: Metrics) -> Arc<Self> {
        let store = Self::build(settings, set, false, &metrics);
        store.confirm(Now::read());
        Arc::new(store)
    }

    fn build(settings: Settings, set: KeySet, ages: bool, metrics: &Metrics) -> Self {
        let instruments = Instruments::new(&settings.issuer, metrics);
        Self {
            asking: Asking::new(settings.refresh_cooldown),
            settings,
            current: ArcSwap::from_pointee(set),
            confirmed_at: AtomicI64::new(NEVER),
            restored_from: AtomicI64::new(NEVER),
            refresh_hint: AtomicU64::new(0),
            created_at: Monotonic::now(),
            ages,
            failure: ArcSwapOption::empty(),
            last_good: watch::Sender::new(None),
            instruments,
            exports: AtomicBool::new(false),
        }
    }

    /// Starts setting the gauges, because this store is now in force.
    pub fn begin_export(&self, now: Now) {
        self.exports.store(true, Ordering::Release);
        self.instruments.set_keys(&self.current.load());
        self.export(now);
    }

    /// The settings of this store.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The set in force; empty before the first load.
    #[must_use]
    pub fn current(&self) -> Arc<KeySet> {
        self.current.load_full()
    }

    /// The generation of the set in force, as [`KeySet::generation`].
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.current.load().generation()
    }

    /// Whether the set in force may be used at `now`.
    #[must_use]
    pub fn availability(&self, now: Now) -> Availability {
        match self.age(now) {
            None => Availability::NeverLoaded,
            Some(age) if self.ages && age > self.settings.max_stale => Availability::TooOld,
            Some(_) => Availability::Usable,
        }
    }

    /// How long ago the set in force was confirmed. For a restored set, the longer of the ages by the two
    /// clocks: a wall clock that is behind makes the set no younger, and one that is ahead counts only until
    /// it is right again.
    #[must_use]
    pub fn age(&self, now: Now) -> Option<Duration> {
        let confirmed = self.confirmed_at.load(Ordering::Acquire);
        let restored = self.restored_from.load(Ordering::Acquire);
        let age = (confirmed != NEVER).then(|| now.monotonic.since(Monotonic::from_millis(confirmed)))?;
        Some(match restored {
            NEVER => age,
            restored => age.max(now.wall.since(Timestamp::from_millis(restored))),
        })
    }

    /// Whether its keys become stale. Keys from a secret or from this process do not.
    #[must_use]
    pub const fn ages(&self) -> bool {
        self.ages
    }

    /// Why the last fetch failed; `None` if it did not.
    #[must_use]
    pub fn failure(&self) -> Option<Arc<String>> {
        self.failure.load_full()
    }

    pub(super) fn set_failure(&self, failure: Option<String>) {
        self.failure.store(failure.map(Arc::new));
    }

    /// Whether this process has tried to fetch keys; if the keys are still unusable after that, they stay so
    /// for a while. A restored set was fetched by an earlier process and does not count.
    #[must_use]
    pub fn was_tried(&self) -> bool {
        let is_restored = self.restored_from.load(Ordering::Acquire) != NEVER;
        (self.is_loaded() && !is_restored) || self.instruments.failed.get() > 0
    }

    /// Whether [`ask`](Self::ask) could bring the key: a fetch may be requested or is in progress, and the
    /// last one did not already show that the `kid` is unknown; or the key has arrived since the caller
    /// looked.
    #[must_use]
    pub fn worth_asking(&self, wanted: &WantedKey, now: Monotonic) -> bool {
        let hope = (self.is_loaded() && self.asking.is_open(now)) || self.asking.is_under_way();
        let in_vain = matches!(wanted, WantedKey::Key(kid) if self.asking.remembers(kid, now));
        // The set is read last: if the fetch has just ended, its result is in force by now.
        (hope && !in_vain) || self.has(wanted)
    }

    fn has(&self, wanted: &WantedKey) -> bool {
        let current = self.current.load();
        match wanted {
            WantedKey::Key(kid) => current.knows(kid),
            WantedKey::OtherThan(generation) => current.generation() != *generation,
        }
    }

    /// Waits, at most five seconds, for the fetch that all callers share. Returns at once if that is not
    /// [worth it](Self::worth_asking) or the key is there. Callable from any thread and runtime.
    pub async fn ask(&self, wanted: &WantedKey) {
        // Subscribes before looking at anything, so that the end of a fetch is not missed.
        let mut finished = self.asking.finished();
        if self.has(wanted) || !self.worth_asking(wanted, Monotonic::now()) {
            return;
        }
        self.asking.request();
        let ended = matches!(timeout(ASK_WAIT, finished.changed()).await, Ok(Ok(())));
        let succeeded = *finished.borrow();
        if let WantedKey::Key(kid) = wanted
            && ended
            && succeeded
            && !self.has(wanted)
        {
            self.asking.remember(kid, Monotonic::now());
        }
    }

    /// Puts the keys of a fetched document in force; returns true if the set changed. A document with the
    /// same content only confirms the set in force, which keeps its generation.
    ///
    /// # Errors
    /// When the document has no usable key; nothing changes then.
    pub fn accept(&self, document: Bytes, now: Now) -> Result<bool, jwks::KeySetError> {
        let changed = self.put_in_force(self.parse(&document)?);
        self.confirm(now);
        self.last_good.send_replace(Some(LastGood { jwks: document, fetched_at: now }));
        Ok(changed)
    }

    /// Puts a document in force that an earlier process fetched at `fetched_at`, and at `running` on the
    /// monotonic clock if the running time since then is known; its age counts from then. Call this before
    /// the refresher is spawned. It has no effect once a set was loaded.
    ///
    /// # Errors
    /// When the document has no usable key.
    pub fn restore(
        &self,
        document: &[u8],
        fetched_at: Timestamp,
        running: Option<Monotonic>,
    ) -> Result<(), jwks::KeySetError> {
        if self.is_loaded() {
            return Ok(());
        }
        self.put_in_force(self.parse(document)?);
        let now = Monotonic::now();
        self.restored_from.store(fetched_at.as_millis(), Ordering::Release);
        self.confirmed_at.store(running.map_or(now, |at| at.min(now)).as_millis(), Ordering::Release);
        Ok(())
    }

    /// Replaces the keys of a [`fixed`](Self::fixed) store, for an issuer within this process.
    pub fn install(&self, set: KeySet) {
        self.publish(set);
        self.confirm(Now::read());
    }

    /// Watches the documents worth saving across restarts, as they are confirmed.
    #[must_use]
    pub fn last_good(&self) -> watch::Receiver<Option<LastGood>> {
        self.last_good.subscribe()
    }

    /// Exports the age of the set, once the store [is in force](Self::begin_export); before the first load,
    /// the age of the store.
    pub fn export(&self, now: Now) {
        if !self.exports.load(Ordering::Acquire) {
            return;
        }
        let age = self.age(now).unwrap_or_else(|| now.monotonic.since(self.created_at));
        self.instruments.age.set(if self.ages { age.as_secs_f64() } else { 0.0 });
    }

    pub(super) fn confirm(&self, now: Now) {
        self.confirmed_at.store(now.monotonic.as_millis(), Ordering::Release);
        self.restored_from.store(NEVER, Ordering::Release);
        self.export(now);
    }

    pub(super) fn is_loaded(&self) -> bool {
        self.confirmed_at.load(Ordering::Acquire) != NEVER
    }

    pub(super) fn asking(&self) -> &Asking {
        &self.asking
    }

    pub(super) fn instruments(&self) -> &Instruments {
        &self.instruments
    }

    /// The time from a fetch to the next one: the configured interval, or less if the document asks for it,
    /// but at least the cooldown.
    pub(super) fn refresh_interval(&self) -> Duration {
        let Settings { refresh_interval, refresh_cooldown, .. } = self.settings;
        match self.refresh_hint.load(Ordering::Acquire) {
            0 => refresh_interval,
            hint => Duration::from_secs(hint).max(refresh_cooldown).min(refresh_interval),
        }
    }

    fn parse(&self, document: &[u8]) -> Result<Parsed, jwks::KeySetError> {
        jwks::parse_for(document, &self.settings.algorithms, self.settings.for_svids)
    }

    fn put_in_force(&self, parsed: Parsed) -> bool {
        let Parsed { keys, left_out, refresh_hint } = parsed;
        self.refresh_hint.store(refresh_hint.map_or(0, |hint| hint.as_secs()), Ordering::Release);
        let changed = self.publish(KeySet::new(keys));
        if changed {
            let issuer = &self.settings.issuer;
            info!(issuer, keys = self.current.load().len(), left_out = left_out.len(), "the key set changed");
            for key in left_out {
                let (position, kid, why) = (key.position, key.kid, key.why.to_string());
                if key.why.is_ordinary() {
                    debug!(issuer, position, kid, why, "ignoring a key that is not usable");
                } else {
                    warn!(issuer, position, kid, why, "ignoring a key that is not usable");
                }
            }
        }
        changed
    }

    /// Replaces the set in force if `set` differs; returns whether it did.
    fn publish(&self, set: KeySet) -> bool {
        if set.same_as(&self.current.load()) {
            return false;
        }
        self.asking.forget(set.kids());
        if self.exports.load(Ordering::Acquire) {
            self.instruments.set_keys(&set);
        }
        self.current.store(Arc::new(set));
        true
    }
}

impl Instruments {
    fn new(issuer: &str, metrics: &Metrics) -> Self {
        Self {
            keys: metrics.keys.with_label_values(&[issuer]),
            age: metrics.keys_age.with_label_values(&[issuer]),
            refreshed: metrics.keys_refresh.with_label_values(&[issuer, "ok"]),
            failed: metrics.keys_refresh.with_label_values(&[issuer, "error"]),
        }
    }

    fn set_keys(&self, set: &KeySet) {
        self.keys.set(i64::try_from(set.len()).unwrap_or(i64::MAX));
    }
}

#[cfg(test)]
mod tests;
