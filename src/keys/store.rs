//! The keys of one issuer as every worker sees them: the set in force, how old it is, and the way to ask for a
//! newer one. Knows nothing of where sets come from; the refresher brings them.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use prometheus::{Gauge, IntCounter, IntGauge};
use tokio::sync::watch;
use tokio::time::timeout;
use tracing::{debug, error, info, warn};

use super::asking::Asking;
use super::jwks::{self, Parsed};
use super::set::KeySet;
use super::{Settings, Source};
use crate::metrics::Metrics;
use crate::time::Timestamp;

/// The longest that a request waits for the shared fetch.
const ASK_WAIT: Duration = Duration::from_secs(5);
/// The set was never loaded.
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

/// The document behind the set in force, and when it was last fetched: what a store may keep over a restart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastGood {
    /// The JWK Set as it came.
    pub jwks: Bytes,
    /// When it was last confirmed.
    pub fetched_at: Timestamp,
}

/// The keys of one issuer. Reading never waits; one writer, the refresher.
#[derive(Debug)]
pub struct KeyStore {
    settings: Settings,
    current: ArcSwap<KeySet>,
    /// When the set in force was last confirmed, in milliseconds.
    confirmed_at: AtomicI64,
    created_at: Timestamp,
    /// Keys that come from nowhere else (a secret, this process) do not get stale.
    ages: bool,
    asking: Asking,
    last_good: watch::Sender<Option<LastGood>>,
    instruments: Instruments,
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
    /// An empty store, to be filled by [`spawn_refresher`](super::refresh::spawn_refresher). A [`Source::Secret`] is in
    /// force at once; one that [`check_secret`](super::key::check_secret) refuses never is.
    #[must_use]
    pub fn new(settings: Settings, metrics: Metrics) -> Arc<Self> {
        if let Source::Secret(secret) = &settings.source {
            match KeySet::of_secret(secret, &settings.algorithms) {
                Ok(set) => return Self::fixed(settings, set, metrics),
                Err(error) => error!(issuer = settings.issuer, %error, "the secret cannot be used"),
            }
        }
        Arc::new(Self::build(settings, KeySet::new(Vec::new()), true, &metrics))
    }

    /// A store with keys that this process owns or a test made: never stale, never fetched.
    #[must_use]
    pub fn fixed(settings: Settings, set: KeySet, metrics: Metrics) -> Arc<Self> {
        let store = Self::build(settings, set, false, &metrics);
        store.confirm(store.created_at);
        Arc::new(store)
    }

    fn build(settings: Settings, set: KeySet, ages: bool, metrics: &Metrics) -> Self {
        let instruments = Instruments::new(&settings.issuer, metrics);
        instruments.set_keys(&set);
        Self {
            asking: Asking::new(settings.refresh_cooldown),
            settings,
            current: ArcSwap::from_pointee(set),
            confirmed_at: AtomicI64::new(NEVER),
            created_at: Timestamp::now(),
            ages,
            last_good: watch::Sender::new(None),
            instruments,
        }
    }

    /// What the store was made from.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The set in force; empty before the first load.
    #[must_use]
    pub fn current(&self) -> Arc<KeySet> {
        self.current.load_full()
    }

    /// Whether the set in force may be used at `now`.
    #[must_use]
    pub fn availability(&self, now: Timestamp) -> Availability {
        match self.confirmed_at() {
            None => Availability::NeverLoaded,
            Some(at) if self.ages && now.since(at) > self.settings.max_stale => Availability::TooOld,
            Some(_) => Availability::Usable,
        }
    }

    /// Whether [`ask`](Self::ask) could bring a key with this `kid`: a fetch may be asked for or is under way, and the
    /// last one did not already show that nobody knows the `kid`; or the key arrived since the caller looked.
    #[must_use]
    pub fn worth_asking(&self, kid: &str, now: Timestamp) -> bool {
        let hope = (self.is_loaded() && self.asking.is_open(now)) || self.asking.is_under_way();
        // The set is read last: when the fetch has just ended, its result is in force by now.
        (hope && !self.asking.remembers(kid, now)) || self.current.load().knows(kid)
    }

    /// Waits, at most five seconds, for the one fetch that all askers share; returns at once when it is not
    /// [worth asking](Self::worth_asking) or the `kid` is known. Callable from any thread and runtime.
    pub async fn ask(&self, kid: &str) {
        // Before anything is looked at, so that no end of a fetch is missed.
        let mut finished = self.asking.finished();
        if self.current.load().knows(kid) || !self.worth_asking(kid, Timestamp::now()) {
            return;
        }
        self.asking.want();
        let ended = matches!(timeout(ASK_WAIT, finished.changed()).await, Ok(Ok(())));
        let succeeded = *finished.borrow();
        if ended && succeeded && !self.current.load().knows(kid) {
            self.asking.remember(kid, Timestamp::now());
        }
    }

    /// Puts the keys of a fetched document in force. A document with the same content only confirms the set in force,
    /// whose generation stays. True when the set changed.
    ///
    /// # Errors
    /// When the document has no usable key; then nothing changes.
    pub fn accept(&self, document: Bytes, now: Timestamp) -> Result<bool, jwks::Error> {
        let changed = self.put_in_force(jwks::parse(&document, &self.settings.algorithms)?);
        self.confirm(now);
        self.last_good.send_replace(Some(LastGood { jwks: document, fetched_at: now }));
        Ok(changed)
    }

    /// Puts a document in force that an earlier process fetched at `fetched_at`; its age counts from then. To be called
    /// before the refresher is spawned; without effect once a set was loaded.
    ///
    /// # Errors
    /// When the document has no usable key.
    pub fn restore(&self, document: &[u8], fetched_at: Timestamp) -> Result<(), jwks::Error> {
        if self.is_loaded() {
            return Ok(());
        }
        self.put_in_force(jwks::parse(document, &self.settings.algorithms)?);
        // A time in the future, from a clock that was wrong, must not keep keys fresh for ever.
        self.confirm(fetched_at.min(Timestamp::now()));
        Ok(())
    }

    /// Replaces the keys of a [`fixed`](Self::fixed) store, for an issuer within this process.
    pub fn install(&self, set: KeySet) {
        self.publish(set);
        self.confirm(Timestamp::now());
    }

    /// The documents worth keeping over a restart, as they are confirmed.
    #[must_use]
    pub fn last_good(&self) -> watch::Receiver<Option<LastGood>> {
        self.last_good.subscribe()
    }

    /// Writes the age of the set to its gauge; before the first load, the age of the store.
    pub fn export(&self, now: Timestamp) {
        let age = if self.ages {
            now.since(self.confirmed_at().unwrap_or(self.created_at))
        } else {
            Duration::ZERO
        };
        self.instruments.age.set(age.as_secs_f64());
    }

    pub(super) fn confirm(&self, now: Timestamp) {
        self.confirmed_at.store(now.as_millis(), Ordering::Release);
        self.export(now);
    }

    pub(super) fn is_loaded(&self) -> bool {
        self.confirmed_at().is_some()
    }

    pub(super) fn asking(&self) -> &Asking {
        &self.asking
    }

    pub(super) fn instruments(&self) -> &Instruments {
        &self.instruments
    }

    fn confirmed_at(&self) -> Option<Timestamp> {
        let millis = self.confirmed_at.load(Ordering::Acquire);
        (millis != NEVER).then(|| Timestamp::from_millis(millis))
    }

    fn put_in_force(&self, parsed: Parsed) -> bool {
        let Parsed { keys, left_out } = parsed;
        let changed = self.publish(KeySet::new(keys));
        if changed {
            let issuer = &self.settings.issuer;
            info!(issuer, keys = self.current.load().len(), left_out = left_out.len(), "the key set changed");
            for key in left_out {
                let (position, kid, why) = (key.position, key.kid, key.why.to_string());
                if key.why.is_ordinary() {
                    debug!(issuer, position, kid, why, "a key was left out");
                } else {
                    warn!(issuer, position, kid, why, "a key was left out");
                }
            }
        }
        changed
    }

    /// True when `set` differs from the one in force, which it then replaces.
    fn publish(&self, set: KeySet) -> bool {
        if set.same_as(&self.current.load()) {
            return false;
        }
        self.asking.forget(set.kids());
        self.instruments.set_keys(&set);
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
mod tests {
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use jsonwebtoken::Algorithm;

    use super::*;

    const LOADED: Timestamp = Timestamp::from_secs(1_000_000);

    fn settings(source: Source) -> Settings {
        Settings {
            issuer: "https://idp.example.com/".to_owned(),
            source,
            algorithms: vec![Algorithm::ES256, Algorithm::HS256],
            ca: None,
            insecure_http: false,
            refresh_interval: Duration::from_secs(300),
            refresh_cooldown: Duration::from_secs(30),
            max_stale: Duration::from_secs(86_400),
        }
    }

    fn empty() -> Arc<KeyStore> {
        KeyStore::new(settings(Source::Discovery), Metrics::new().unwrap())
    }

    fn jwk(kid: &str) -> String {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let (x, y) = pair.public_key().as_ref()[1..].split_at(32);
        let (x, y) = (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y));
        format!(r#"{{"kty":"EC","crv":"P-256","kid":"{kid}","x":"{x}","y":"{y}"}}"#)
    }

    fn jwks(keys: &[&str]) -> Bytes {
        format!(r#"{{"keys":[{}]}}"#, keys.join(",")).into()
    }

    #[test]
    fn the_last_good_set_is_never_replaced_by_a_broken_one() {
        let (store, a, b) = (empty(), jwk("a"), jwk("b"));
        assert_eq!(store.availability(LOADED), Availability::NeverLoaded);
        assert_eq!(store.accept(jwks(&[&a, &b]), LOADED), Ok(true));
        let first = store.current();
        for bad in ["", "{}", "[]", r#"{"keys":[]}"#, r#"{"keys":[{"kty":"oct","k":"AAAA"}]}"#, "<html>"] {
            assert!(
                store
                    .accept(Bytes::from_static(bad.as_bytes()), LOADED.plus(Duration::from_secs(5)))
                    .is_err()
            );
            assert!(Arc::ptr_eq(&store.current(), &first), "{bad}");
        }
        let deadline = LOADED.plus(Duration::from_secs(86_400));
        assert_eq!(store.availability(deadline), Availability::Usable, "a broken set confirms nothing");
        assert_eq!(store.availability(deadline.plus(Duration::from_millis(1))), Availability::TooOld);
        assert_eq!(
            store.availability(LOADED.minus(Duration::from_secs(9))),
            Availability::Usable,
            "clock set back"
        );
    }

    #[test]
    fn the_generation_changes_with_the_content_only() {
        let (store, a, b) = (empty(), jwk("a"), jwk("b"));
        store.accept(jwks(&[&a, &b]), LOADED).unwrap();
        let generation = store.current().generation();
        let later = LOADED.plus(Duration::from_secs(90_000));
        assert_eq!(store.availability(later), Availability::TooOld);
        let reordered = format!("{{ \"x\": 1, \"keys\": [{b}, {a}, {{\"kty\":\"new\"}}] }}");
        assert_eq!(store.accept(reordered.into(), later), Ok(false));
        assert_eq!(store.current().generation(), generation);
        assert_eq!(store.availability(later), Availability::Usable);
        assert_eq!(store.accept(jwks(&[&b]), later), Ok(true));
        assert_ne!(store.current().generation(), generation);
        assert!(!store.current().knows("a"), "a key that was removed is gone");
    }

    #[test]
    fn restored_keys_keep_their_age_and_yield_to_loaded_ones() {
        let (a, b) = (jwk("a"), jwk("b"));
        let source = empty();
        source.accept(jwks(&[&a]), LOADED).unwrap();
        let kept = source.last_good().borrow().clone().unwrap();
        assert_eq!(kept.fetched_at, LOADED);
        let store = empty();
        assert!(store.restore(b"{}", LOADED).is_err());
        assert_eq!(store.availability(LOADED), Availability::NeverLoaded);
        store.restore(&kept.jwks, kept.fetched_at).unwrap();
        assert!(store.current().knows("a"));
        assert_eq!(store.availability(LOADED.plus(Duration::from_secs(86_400))), Availability::Usable);
        assert_eq!(store.availability(LOADED.plus(Duration::from_secs(86_401))), Availability::TooOld);
        store.accept(jwks(&[&b]), LOADED).unwrap();
        store.restore(&kept.jwks, LOADED).unwrap();
        assert!(!store.current().knows("a"), "a loaded set is not replaced by a restored one");
        let future = empty();
        future.restore(&kept.jwks, Timestamp::from_millis(i64::MAX)).unwrap();
        let after = Timestamp::now().plus(Duration::from_secs(86_401 + 60));
        assert_eq!(future.availability(after), Availability::TooOld, "a time in the future is not believed");
    }

    #[test]
    fn a_secret_is_in_force_for_ever_unless_it_is_too_short() {
        let metrics = Metrics::new().unwrap();
        let store = KeyStore::new(settings(Source::Secret(vec![9; 32])), metrics.clone());
        assert_eq!(store.availability(Timestamp::from_millis(i64::MAX)), Availability::Usable);
        assert!(store.current().knows("any"));
        assert!(
            metrics.render().unwrap().contains(r#"portcullis_keys{issuer="https://idp.example.com/"} 1"#)
        );
        let short = KeyStore::new(settings(Source::Secret(vec![9; 31])), metrics);
        assert_eq!(short.availability(LOADED), Availability::NeverLoaded);
        assert!(!format!("{store:?}").contains("9, 9"), "no secret in a debug print");
    }

    #[tokio::test]
    async fn without_a_refresher_nobody_waits() {
        let metrics = Metrics::new().unwrap();
        let set = KeySet::new(jwks::parse(&jwks(&[&jwk("a")]), &[Algorithm::ES256]).unwrap().keys);
        let store = KeyStore::fixed(settings(Source::Discovery), set, metrics);
        assert!(!store.worth_asking("b", Timestamp::now()));
        assert!(store.worth_asking("a", Timestamp::now()), "it is there: look again");
        timeout(Duration::from_secs(1), store.ask("b")).await.expect("returns at once");
        let next = KeySet::new(jwks::parse(&jwks(&[&jwk("b")]), &[Algorithm::ES256]).unwrap().keys);
        store.install(next);
        assert!(store.current().knows("b") && !store.current().knows("a"));
    }

    #[test]
    fn the_age_is_exported() {
        let (store, line) = {
            let metrics = Metrics::new().unwrap();
            let store = KeyStore::new(settings(Source::Discovery), metrics.clone());
            (store, move || {
                let page = metrics.render().unwrap();
                let line =
                    page.lines().find(|line| line.starts_with("portcullis_keys_age_seconds{")).unwrap();
                line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()
            })
        };
        store.export(Timestamp::now().plus(Duration::from_secs(50)));
        assert!(line() >= 50.0, "never loaded: counted from the start");
        store.accept(jwks(&[&jwk("a")]), LOADED).unwrap();
        store.export(LOADED.plus(Duration::from_secs(7)));
        assert!((line() - 7.0).abs() < 0.001);
    }
}
