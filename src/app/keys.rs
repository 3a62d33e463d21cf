//! The key stores of issuers and transmitters, each with the task that refreshes it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::state::KeptState;
use crate::authority::{Authority, PlannedSettings};
use crate::client::Client;
use crate::config::Settings;
use crate::keys;
use crate::keys::refresh::spawn_refresher;
use crate::keys::store::{Availability, KeyStore};
use crate::metrics::Metrics;
use crate::shutdown::Shutdown;
use crate::time::Now;
use crate::tls;

/// How long a reload waits for the keys of an issuer that is new or whose source has changed.
const FIRST_KEYS: Duration = Duration::from_secs(5);

/// How often to check whether they have arrived.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// An issuer's keys, and the task that refreshes them as long as this value lives.
#[derive(Debug)]
pub(super) struct IssuerKeys {
    pub(super) store: Arc<KeyStore>,
    /// `None` for the keys of the authority in this process.
    refresher: Option<JoinHandle<()>>,
    /// The content of the CA file for the key source.
    roots: Option<Vec<u8>>,
}

impl IssuerKeys {
    /// Whether the same would be created from these settings. A CA file may have changed.
    fn fits(&self, settings: &keys::Settings) -> bool {
        self.store.settings() == settings && self.roots == roots(settings)
    }
}

fn roots(settings: &keys::Settings) -> Option<Vec<u8>> {
    // An unreadable file is reported where it is used.
    settings.ca.as_ref().and_then(|path| std::fs::read(path).ok())
}

impl Drop for IssuerKeys {
    fn drop(&mut self) {
        self.refresher.iter().for_each(JoinHandle::abort);
    }
}

/// The inputs for creating key stores.
#[derive(Debug, Clone, Copy)]
pub(super) struct Maker<'a> {
    pub(super) state: &'a KeptState,
    pub(super) metrics: &'a Metrics,
    pub(super) shutdown: &'a Shutdown,
}

impl Maker<'_> {
    /// Returns the key stores of issuers, then of transmitters, then of global revocation senders: those of
    /// `running` whose settings are unchanged, and new ones. The places of the authority's own keys stay empty.
    pub(super) async fn make(
        self,
        settings: &Settings,
        running: &[Arc<IssuerKeys>],
    ) -> Result<Vec<Option<Arc<IssuerKeys>>>, Vec<String>> {
        let mut keys: Vec<Result<Option<Arc<IssuerKeys>>, String>> =
            Vec::with_capacity(settings.issuers.len() + settings.transmitters.len());
        for wanted in all(settings) {
            // An issuer with several tables has one store.
            let made = keys.iter().flatten().flatten();
            let same = running.iter().chain(made).find(|keys| keys.fits(wanted)).map(Arc::clone);
            keys.push(match same {
                _ if wanted.source == keys::KeySource::Authority => Ok(None),
                Some(same) => Ok(Some(same)),
                None => self.start(wanted).await.map(Some),
            });
        }
        super::every(keys.into_iter())
    }

    async fn start(self, settings: &keys::Settings) -> Result<Arc<IssuerKeys>, String> {
        let roots = roots(settings);
        let trust = tls::client_config(settings.ca.as_deref(), None, &[b"http/1.1"])
            .map_err(|error| format!("issuer {}: {error}", settings.issuer))?;
        let store = KeyStore::new(settings.clone(), self.metrics.clone());
        self.state.restore_keys(&store).await;
        let refresher = spawn_refresher(Arc::clone(&store), Client::new(trust), self.shutdown.clone());
        Ok(Arc::new(IssuerKeys { store, refresher: Some(refresher), roots }))
    }
}

/// Fills the places of the authority's keys: with those of `running` if neither they nor their settings change,
/// otherwise with new ones. They are never fetched, and never stale.
pub(super) fn with_own(
    keys: Vec<Option<Arc<IssuerKeys>>>,
    settings: &Settings,
    authority: Option<(&Authority, Option<&PlannedSettings>)>,
    running: &[Arc<IssuerKeys>],
) -> Result<Vec<Arc<IssuerKeys>>, Vec<String>> {
    let own = |wanted: &keys::Settings| {
        if let Some(same) = running.iter().find(|keys| keys.fits(wanted)) {
            return Ok(Arc::clone(same));
        }
        let (authority, change) = authority.ok_or("[authority] is not configured")?;
        let store = authority.key_store(wanted, change);
        let store = store.map_err(|error| format!("issuer {}: {error}", wanted.issuer))?;
        Ok(Arc::new(IssuerKeys { store, refresher: None, roots: None }))
    };
    super::every(
        keys.into_iter().zip(all(settings)).map(|(keys, wanted)| keys.map_or_else(|| own(wanted), Ok)),
    )
}

/// The settings of all key stores, in their order.
fn all(settings: &Settings) -> impl Iterator<Item = &keys::Settings> {
    let issuers = settings.issuers.iter().map(|issuer| &issuer.keys);
    let transmitters = settings.transmitters.iter().map(|transmitter| &transmitter.keys);
    issuers.chain(transmitters).chain(settings.revocation.iter().map(|sender| &sender.keys))
}

/// Waits until every store has keys: replacing known keys with none would reject requests that were fine a moment ago.
pub(super) async fn all_loaded(keys: &[&Arc<IssuerKeys>]) -> Result<(), Vec<String>> {
    let deadline = Instant::now() + FIRST_KEYS;
    let missing = || {
        let never =
            |keys: &&&Arc<IssuerKeys>| keys.store.availability(Now::read()) == Availability::NeverLoaded;
        {
            let names = keys.iter().filter(never).map(|keys| keys.store.settings().issuer.clone());
            names.collect::<BTreeSet<_>>()
        }
    };
    loop {
        let missing = missing();
        if missing.is_empty() {
            return Ok(());
        }
        if Instant::now() >= deadline {
            let problem =
                |issuer| format!("issuer {issuer}: its keys could not be loaded within {FIRST_KEYS:?}");
            return Err(missing.into_iter().map(problem).collect());
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}
