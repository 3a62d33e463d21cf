//! The embedded authority: users, application credentials, and the tokens issued for them (RFC 6749 §4.4).
//!
//! Optional. Everything that a token request needs is in memory; the store is written only when administrators make changes
//! and when signing keys rotate, never for a token.

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, PoisonError, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use jsonwebtoken::Algorithm;
use tokio::sync::{Mutex, Notify, OwnedMutexGuard, RwLock, Semaphore};
use tokio::time::sleep;
use tracing::{error, info, warn};

use crate::enforce::decide::InForce;
use crate::events::{self, EventLog};
use crate::keys::set::KeySet;
use crate::keys::store::KeyStore;
use crate::keys::{self, jwks};
use crate::metrics::Metrics;
use crate::state::{Store, StoreError};
use crate::time::{Monotonic, Now, Timestamp};

mod accounts;
mod changes;
mod client;
mod directory;
mod endpoints;
mod error;
pub(crate) mod form;
mod password;
mod possession;
mod provided;
mod rotation;
mod rows;
mod secret;
mod signing;
pub(crate) mod throttle;
mod token;

pub use accounts::{Edit, NewCredential, NewUser, Refused};
pub use directory::{Credential, User};
pub use endpoints::{AuthorityEndpoint, EndpointCall, MAX_BODY, named_client};
pub use password::{PasswordHash, PasswordStamp, check_password};
pub use provided::ProvidedUser;
pub use rotation::{KEY_MARGIN, stored_key_set};
pub use secret::Secret;

use directory::Directory;
use rotation::{KeyRing, LOOK_AGAIN, PlanExtent, Rules};
use throttle::Throttle;

/// The algorithms that it can sign with.
pub const ALGORITHMS: [Algorithm; 3] = [Algorithm::ES256, Algorithm::RS256, Algorithm::EdDSA];

/// How long after a failure of the store it is tried again.
const RETRY: Duration = Duration::from_secs(5);
/// The leeway of an authority whose issuer is not configured, which the configuration rules out.
const LEEWAY: Duration = Duration::from_secs(60);

/// The authority, as configured (`[authority]`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// `iss`; also the base of the URLs it publishes.
    pub issuer: Arc<str>,
    /// `aud`, unless a resource is asked for.
    pub audience: String,
    /// The resources that tokens may be asked for, by their URLs.
    pub resources: Vec<String>,
    /// Where tokens are asked for; compared without case.
    pub token_path: String,
    /// From `iat` to `exp`, unless the credential ends before.
    pub token_lifetime: Duration,
    /// One of [`ALGORITHMS`].
    pub signing_algorithm: Algorithm,
    /// How long a key signs.
    pub key_rotation: Duration,
    /// The form field that must name the credential's tenant.
    pub tenant_parameter: Option<String>,
    /// Wrong secrets a minute for one client before further wrong ones are answered with 429.
    pub failures_per_client: NonZeroU32,
    /// Wrong secrets a minute from one address before further wrong ones are answered with 429.
    pub failures_per_address: NonZeroU32,
    /// The scopes there are.
    pub scopes: Vec<String>,
    /// The clients that may introspect the tokens of all clients, by their ids.
    pub introspection_clients: Vec<String>,
    /// Where all tokens of a user can be revoked by another provider, for the metadata.
    pub global_token_revocation: Option<String>,
    /// Clients may present certificates, and get tokens that are bound to them.
    pub binds_certificates: bool,
    /// The file with users, credentials and signing keys.
    pub path: PathBuf,
}

/// A running authority, shared by the workers and the admin listener.
#[derive(Debug)]
pub struct Authority {
    settings: ArcSwap<Settings>,
    store: Store,
    log: Arc<EventLog>,
    in_force: InForce,
    /// What events about its tokens need to know of it as an issuer; a reload puts others here.
    issuers: Arc<ArcSwap<Vec<events::EventIssuer>>>,
    directory: Directory,
    ring: ArcSwap<KeyRing>,
    /// When the latest token was issued by what the wall clock said then, in milliseconds; from before a restart only when
    /// the clock is behind it.
    latest_issue: AtomicI64,
    /// The latest `exp` of a token that this process has signed, in milliseconds.
    latest_expiry: AtomicI64,
    /// Held while keys are rotated, and from the plan of a reload to its commit.
    rotating: Arc<Mutex<()>>,
    /// Where the keys are looked up that prove its tokens.
    key_stores: std::sync::Mutex<Vec<Weak<KeyStore>>>,
    throttle: ArcSwap<Throttle>,
    metrics: Metrics,
    /// Bounds how many passwords are hashed at a time.
    hashing: Arc<Semaphore>,
    /// Held while something is changed.
    changing: Arc<RwLock<()>>,
    /// A change was interrupted and is still to be completed.
    unsettled: AtomicBool,
    /// Makes the upkeep look at once.
    wake: Notify,
}

/// Other settings for a running authority, with the keys they need. Until it is committed or dropped, no keys rotate.
#[derive(Debug)]
pub struct PlannedSettings {
    settings: Settings,
    /// `None`: the keys stay as they are.
    ring: Option<KeyRing>,
    rotating: OwnedMutexGuard<()>,
}

/// What an authority works with.
#[derive(Debug)]
pub struct Parts {
    /// Where users, credentials and keys are.
    pub store: Store,
    /// Where it announces what ends tokens.
    pub log: Arc<EventLog>,
    /// What has ended tokens.
    pub in_force: InForce,
    /// What events need to know of issuers; its own is among them.
    pub issuers: Arc<ArcSwap<Vec<events::EventIssuer>>>,
    /// Where it counts.
    pub metrics: Metrics,
}

impl Authority {
    /// Opens it: reads users and credentials, completes what was interrupted, and makes a signing key when there is none.
    ///
    /// # Errors
    /// When its store cannot be used.
    pub async fn open(settings: Settings, parts: Parts) -> Result<Arc<Self>, StoreError> {
        let Parts { store, log, in_force, issuers, metrics } = parts;
        let rules = settings.rules(&issuers.load());
        let now = Now::read();
        let ring = rotation::rotate(&store, rules, now, Timestamp::EPOCH, PlanExtent::Whole).await?;
        let last_look = ring.last_expiry.minus(ring.longest_life);
        // Tokens may have been issued until the next look.
        let latest_issue = if now.wall < last_look { last_look.plus(LOOK_AGAIN) } else { Timestamp::EPOCH };
        let authority = Arc::new(Self {
            directory: Directory::default(),
            ring: ArcSwap::from_pointee(ring),
            latest_issue: AtomicI64::new(latest_issue.as_millis()),
            latest_expiry: AtomicI64::new(0),
            rotating: Arc::default(),
            key_stores: std::sync::Mutex::default(),
            throttle: ArcSwap::from_pointee(settings.throttle()),
            settings: ArcSwap::from_pointee(settings),
            store,
            log,
            in_force,
            issuers,
            metrics,
            hashing: Arc::new(Semaphore::new(password::HASHED_AT_ONCE)),
            changing: Arc::default(),
            unsettled: AtomicBool::new(false),
            wake: Notify::new(),
        });
        authority.refresh().await?;
        let alone = authority.alone().await;
        if let Err(error) = authority.settle().await {
            warn!(%error, "cannot complete the interrupted change; will retry");
        }
        drop(alone);
        let (users, credentials) = authority.directory.counts();
        info!(users, credentials, kid = authority.ring.load().signing.kid(), "the authority is ready");
        Ok(authority)
    }

    /// Closes its store. Tokens are still issued, which needs only memory; what would change something fails.
    pub async fn close(&self) {
        self.store.close().await;
    }

    /// How it is configured.
    #[must_use]
    pub fn settings(&self) -> Arc<Settings> {
        self.settings.load_full()
    }

    /// What a path is for, if it is the authority's.
    #[must_use]
    pub fn endpoint(&self, path: &str) -> Option<AuthorityEndpoint> {
        self.settings.load().endpoint(path)
    }

    /// Prepares other settings. A key that they need is made and stored, but nothing is signed by it, and no key goes.
    /// Dropped without a commit, the plan leaves nothing in force; a key that it made is published until it expires.
    ///
    /// # Errors
    /// When the store cannot be used, or the random number generator fails.
    pub async fn plan(&self, settings: &Settings) -> Result<PlannedSettings, StoreError> {
        let rotating = Arc::clone(&self.rotating).lock_owned().await;
        let issuers = self.issuers.load();
        let ring = if settings.rules(&issuers) == self.settings().rules(&issuers) {
            None
        } else {
            Some(self.rotate(settings, PlanExtent::Additions).await?)
        };
        Ok(PlannedSettings { settings: settings.clone(), ring, rotating })
    }

    /// Puts other settings into effect. Issuer and file stay those of the start.
    pub fn commit(&self, change: PlannedSettings) {
        let PlannedSettings { settings, ring, rotating } = change;
        let before = self.settings();
        let rates = |settings: &Settings| (settings.failures_per_client, settings.failures_per_address);
        if rates(&before) != rates(&settings) {
            self.throttle.store(Arc::new(settings.throttle()));
        }
        self.settings.store(Arc::new(settings));
        if let Some(Err(error)) = ring.map(|ring| self.take_ring(ring)) {
            error!(%error, "key rotation failed; keeping the current keys");
        }
        drop(rotating);
        self.wake.notify_one();
    }

    /// Its keys as those of an issuer, for as long as they are held: never fetched, never stale. With a `change`,
    /// those that are in force after it.
    ///
    /// # Errors
    /// When the issuer may use none of its algorithms.
    pub fn key_store(
        &self,
        settings: &keys::Settings,
        change: Option<&PlannedSettings>,
    ) -> Result<Arc<KeyStore>, jwks::KeySetError> {
        let mut stores = self.key_stores.lock().unwrap_or_else(PoisonError::into_inner);
        let set = match change.and_then(|change| change.ring.as_ref()) {
            Some(ring) => key_set(ring, settings)?,
            None => key_set(&self.ring.load(), settings)?,
        };
        let store = KeyStore::fixed(settings.clone(), set, self.metrics.clone());
        stores.retain(|store| store.strong_count() > 0);
        stores.push(Arc::downgrade(&store));
        Ok(store)
    }

    /// The ids of its public keys.
    #[must_use]
    pub fn key_ids(&self) -> Vec<String> {
        let document: serde_json::Value = serde_json::from_slice(&self.ring.load().jwks).unwrap_or_default();
        let keys = document["keys"].as_array().into_iter().flatten();
        keys.filter_map(|key| key["kid"].as_str().map(str::to_owned)).collect()
    }

    /// Rotates keys, and completes what a failing store interrupted. Runs as long as it is polled.
    pub async fn upkeep(self: Arc<Self>) {
        loop {
            let wait = self.ring.load().until.since(Monotonic::now()).min(LOOK_AGAIN);
            let wait = if self.unsettled.load(Ordering::Relaxed) { wait.min(RETRY) } else { wait };
            tokio::select! {
                () = sleep(wait) => {}
                () = self.wake.notified() => {}
            }
            if self.unsettled.load(Ordering::Relaxed) {
                let alone = self.alone().await;
                if let Err(error) = self.settle().await {
                    warn!(%error, "cannot complete the interrupted change; will retry");
                }
                drop(alone);
            }
            let rotating = self.rotating.lock().await;
            let rotated = self.rotate(&self.settings(), PlanExtent::Whole).await;
            let taken = rotated.and_then(|ring| self.take_ring(ring));
            drop(rotating);
            if let Err(error) = taken {
                error!(%error, "key rotation failed; keeping the current keys");
                sleep(RETRY).await;
            }
        }
    }

    async fn rotate(&self, settings: &Settings, extent: PlanExtent) -> Result<KeyRing, StoreError> {
        let latest = Timestamp::from_millis(self.latest_expiry.load(Ordering::Relaxed));
        let rules = settings.rules(&self.issuers.load());
        rotation::rotate(&self.store, rules, Now::read(), latest, extent).await
    }

    /// Puts keys in force: first the gate knows them, then the one that signs signs.
    fn take_ring(&self, ring: KeyRing) -> Result<(), StoreError> {
        let registered = self.key_stores.lock().unwrap_or_else(PoisonError::into_inner);
        let stores: Vec<Arc<KeyStore>> = registered.iter().filter_map(Weak::upgrade).collect();
        // The store of a configuration that a reload is replacing may know none of them.
        let sets: Vec<_> = stores.iter().map(|store| key_set(&ring, store.settings()).ok()).collect();
        let (kid, algorithm) = (ring.signing.kid(), ring.signing.algorithm());
        let knows = |set: &KeySet| set.candidates(Some(kid), algorithm).next().is_some();
        if !stores.is_empty() && !sets.iter().flatten().any(knows) {
            return Err(StoreError::Failed(
                "the configured algorithms of the issuer do not accept the signing key".to_owned(),
            ));
        }
        for (store, set) in stores.iter().zip(sets) {
            set.into_iter().for_each(|set| store.install(set));
        }
        self.ring.store(Arc::new(ring));
        Ok(())
    }

    /// What events about its tokens need to know of it.
    fn event_issuer(&self) -> events::EventIssuer {
        let settings = self.settings();
        let issuers = self.issuers.load();
        // The configuration holds that it is among them. Were it not, events about it would still be kept long enough.
        issuers.iter().find(|known| known.issuer == settings.issuer).cloned().unwrap_or_else(|| {
            events::EventIssuer {
                issuer: Arc::clone(&settings.issuer),
                leeway: LEEWAY,
                max_lifetime: settings.token_lifetime,
            }
        })
    }
}

fn key_set(ring: &KeyRing, settings: &keys::Settings) -> Result<KeySet, jwks::KeySetError> {
    jwks::parse(&ring.jwks, &settings.algorithms).map(|parsed| KeySet::new(parsed.keys))
}

impl Settings {
    fn rules(&self, issuers: &[events::EventIssuer]) -> Rules {
        let own = issuers.iter().find(|known| known.issuer == self.issuer);
        Rules {
            algorithm: self.signing_algorithm,
            rotation: self.key_rotation,
            token_lifetime: self.token_lifetime,
            leeway: own.map_or(LEEWAY, |own| own.leeway),
        }
    }

    fn throttle(&self) -> Throttle {
        Throttle::new(self.failures_per_client, self.failures_per_address)
    }
}

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
