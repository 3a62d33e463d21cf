//! The embedded authority: users, their applications' credentials, and the tokens those get (RFC 6749 §4.4).
//!
//! Optional. Everything that a token request needs is in memory; the store is written when administrators change
//! something and when signing keys take turns, never for a token.

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use jsonwebtoken::Algorithm;
use tokio::sync::RwLock;
use tokio::time::sleep;
use tracing::{error, info, warn};

use crate::enforce::decide::InForce;
use crate::events::{self, EventLog};
use crate::keys::set::KeySet;
use crate::keys::store::KeyStore;
use crate::keys::{self, jwks};
use crate::metrics::Metrics;
use crate::state::{Store, StoreError};
use crate::time::Timestamp;

mod accounts;
mod changes;
mod client;
mod directory;
mod endpoints;
mod error;
mod form;
mod rotation;
mod rows;
mod secret;
mod signing;
mod throttle;
mod token;

pub use accounts::{Edit, NewCredential, NewUser, Refused};
pub use directory::{Credential, User};
pub use endpoints::{Call, Endpoint, MAX_BODY};
pub use rotation::stored_key_set;
pub use secret::Secret;

use directory::Directory;
use rotation::{KeyRing, Rules};
use throttle::Throttle;

/// The algorithms that it can sign with.
pub const ALGORITHMS: [Algorithm; 3] = [Algorithm::ES256, Algorithm::RS256, Algorithm::EdDSA];

/// How long after a failure of the store it is tried again.
const RETRY: Duration = Duration::from_secs(5);
/// The longest that the next turn of keys is slept for: clocks are set.
const LONGEST_SLEEP: Duration = Duration::from_secs(3600);

/// The authority, as configured (`[authority]`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// `iss`; also the base of the URLs it publishes.
    pub issuer: Arc<str>,
    /// `aud`.
    pub audience: String,
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
    issuers: Arc<ArcSwap<Vec<events::Issuer>>>,
    directory: Directory,
    ring: ArcSwap<KeyRing>,
    /// Where the keys are looked up that prove its tokens.
    key_stores: std::sync::Mutex<Vec<Weak<KeyStore>>>,
    throttle: ArcSwap<Throttle>,
    metrics: Metrics,
    /// Held while something is changed.
    changing: Arc<RwLock<()>>,
    /// A change was cut off and is still to be carried out.
    unsettled: AtomicBool,
    reconfigured: tokio::sync::Notify,
}

/// What an authority works with.
#[derive(Debug)]
pub struct Parts {
    /// Where users, credentials and keys are.
    pub store: Store,
    /// Where it makes known what ends tokens.
    pub log: Arc<EventLog>,
    /// What has ended tokens.
    pub in_force: InForce,
    /// What events need to know of issuers; its own is among them.
    pub issuers: Arc<ArcSwap<Vec<events::Issuer>>>,
    /// Where it counts.
    pub metrics: Metrics,
}

impl Authority {
    /// Opens it: carries out what was cut off, reads users and credentials, and makes a signing key when there is none.
    ///
    /// # Errors
    /// When its store cannot be used.
    pub async fn open(settings: Settings, parts: Parts) -> Result<Arc<Self>, StoreError> {
        let Parts { store, log, in_force, issuers, metrics } = parts;
        let ring = rotation::rotate(&store, settings.rules(), Timestamp::now()).await?;
        let (users, credentials) =
            store.transact(|db| Ok((rows::users(db)?, rows::credentials(db)?))).await?;
        let authority = Arc::new(Self {
            directory: Directory::new(users, credentials),
            ring: ArcSwap::from_pointee(ring),
            key_stores: std::sync::Mutex::default(),
            throttle: ArcSwap::from_pointee(settings.throttle()),
            settings: ArcSwap::from_pointee(settings),
            store,
            log,
            in_force,
            issuers,
            metrics,
            changing: Arc::default(),
            unsettled: AtomicBool::new(true),
            reconfigured: tokio::sync::Notify::new(),
        });
        let alone = authority.alone().await;
        if let Err(error) = authority.settle().await {
            warn!(%error, "a change that was cut off cannot be carried out yet; it will be tried again");
        }
        drop(alone);
        let (users, credentials) = authority.directory.counts();
        info!(users, credentials, kid = authority.ring.load().signing.kid(), "the authority is open");
        Ok(authority)
    }

    /// How it is configured.
    #[must_use]
    pub fn settings(&self) -> Arc<Settings> {
        self.settings.load_full()
    }

    /// What a path is for, if it is the authority's.
    #[must_use]
    pub fn endpoint(&self, path: &str) -> Option<Endpoint> {
        self.settings.load().endpoint(path)
    }

    /// Puts other settings into effect. Those of issuer and file are those of the start.
    pub fn reconfigure(&self, settings: &Settings) {
        let before = self.settings();
        if *before == *settings {
            return;
        }
        let rates = |settings: &Settings| (settings.failures_per_client, settings.failures_per_address);
        if rates(&before) != rates(settings) {
            self.throttle.store(Arc::new(settings.throttle()));
        }
        self.settings.store(Arc::new(settings.clone()));
        self.reconfigured.notify_one();
    }

    /// Its keys as those of an issuer, for as long as anybody holds them: never fetched, never stale.
    ///
    /// # Errors
    /// When the issuer may use none of its algorithms.
    pub fn key_store(&self, settings: &keys::Settings) -> Result<Arc<KeyStore>, jwks::Error> {
        let mut stores = self.key_stores.lock().unwrap_or_else(PoisonError::into_inner);
        let set = key_set(&self.ring.load(), settings)?;
        let store = KeyStore::fixed(settings.clone(), set, self.metrics.clone());
        stores.retain(|store| store.strong_count() > 0);
        stores.push(Arc::downgrade(&store));
        Ok(store)
    }

    /// Lets keys take turns, and tries again what the store failed. Runs as long as it is polled.
    pub async fn upkeep(self: Arc<Self>) {
        loop {
            let now = Timestamp::now();
            let wait = self.ring.load().until.since(now).min(LONGEST_SLEEP);
            let wait = if self.unsettled.load(Ordering::Relaxed) { wait.min(RETRY) } else { wait };
            tokio::select! {
                () = sleep(wait) => {}
                () = self.reconfigured.notified() => {}
            }
            if self.unsettled.load(Ordering::Relaxed) {
                let alone = self.alone().await;
                if let Err(error) = self.settle().await {
                    warn!(%error, "a change that was cut off cannot be carried out yet; it will be tried again");
                }
                drop(alone);
            }
            match rotation::rotate(&self.store, self.settings().rules(), Timestamp::now()).await {
                Ok(ring) => self.take_ring(ring),
                Err(error) => {
                    error!(%error, "signing keys cannot take turns; the ones there are go on");
                    sleep(RETRY).await;
                }
            }
        }
    }

    fn take_ring(&self, ring: KeyRing) {
        // Put in force first: nothing is signed by a key that the gate does not know.
        let stores = self.key_stores.lock().unwrap_or_else(PoisonError::into_inner);
        for store in stores.iter().filter_map(Weak::upgrade) {
            match key_set(&ring, store.settings()) {
                Ok(set) => store.install(set),
                Err(error) => error!(%error, "the authority's keys cannot be used"),
            }
        }
        self.ring.store(Arc::new(ring));
    }

    /// What events about its tokens need to know of it.
    fn event_issuer(&self) -> events::Issuer {
        let settings = self.settings();
        let issuers = self.issuers.load();
        // The configuration holds that it is among them. Were it not, events about it would still be kept long enough.
        issuers.iter().find(|known| known.issuer == settings.issuer).cloned().unwrap_or_else(|| {
            events::Issuer {
                issuer: Arc::clone(&settings.issuer),
                leeway: Duration::from_secs(60),
                max_lifetime: settings.token_lifetime,
            }
        })
    }
}

fn key_set(ring: &KeyRing, settings: &keys::Settings) -> Result<KeySet, jwks::Error> {
    jwks::parse(&ring.jwks, &settings.algorithms).map(|parsed| KeySet::new(parsed.keys))
}

impl Settings {
    fn rules(&self) -> Rules {
        Rules {
            algorithm: self.signing_algorithm,
            rotation: self.key_rotation,
            token_lifetime: self.token_lifetime,
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
