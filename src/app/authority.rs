//! Opens the embedded authority next to the state.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::task::spawn_local;
use tokio::time::sleep;
use tracing::{error, info};

use super::state::{KeptState, warn_about};
use crate::authority::{self, Authority, Parts};
use crate::config::{StateSettings, StoreSettings};
use crate::events;
use crate::metrics::Metrics;
use crate::state::{Past, Store};
use crate::time::Now;

/// Opens it on its file, which may be that of the state store. Blocks for a moment, before anything is served.
pub(super) async fn open(
    wanted: &authority::Settings,
    state_settings: &StateSettings,
    state: &KeptState,
    issuers: &Arc<ArcSwap<Vec<events::EventIssuer>>>,
    metrics: &Metrics,
) -> Result<Arc<Authority>, Vec<String>> {
    let store = match &state_settings.store {
        StoreSettings::Embedded(path) if *path == wanted.path => state.store.clone(),
        _ => {
            let opened = Store::open(&wanted.path, Now::read());
            let store = opened.map_err(|error| vec![format!("[authority]: {error}")])?;
            warn_about(store.past(), &wanted.path);
            if store.past() != Past::Continuous {
                metrics.state_rolled_back.set(1);
            }
            store
        }
    };
    let parts = Parts {
        store,
        log: Arc::clone(&state.events),
        in_force: state.in_force.clone(),
        issuers: Arc::clone(issuers),
        metrics: metrics.clone(),
    };
    let opened = Authority::open(wanted.clone(), parts).await;
    let authority =
        opened.map_err(|error| vec![format!("[authority]: {}: {error}", wanted.path.display())])?;
    // Runs until the process ends, as the authority does.
    spawn_local(Arc::clone(&authority).upkeep());
    if state.store.is_shared() {
        spawn_local(register(state.store.clone(), Arc::clone(&authority), metrics.clone()));
    }
    Ok(authority)
}

/// How often an authority renews its registration, and how soon it retries when the shared store did not respond.
const RENEW: Duration = Duration::from_secs(60);
const RETRY: Duration = Duration::from_secs(1);

/// Registers the authority in the shared store, and logs a conflict with another authority for the same issuer.
async fn register(store: Store, authority: Arc<Authority>, metrics: Metrics) {
    loop {
        let issuer = authority.settings().issuer.clone();
        let claimed = store.claim_authority(&issuer, &authority.key_ids()).await;
        if let Ok(other) = &claimed {
            let before = metrics.authority_conflict.get();
            metrics.authority_conflict.set(i64::from(other.is_some()));
            match other {
                Some(keys) if before == 0 => error!(
                    issuer = %issuer,
                    keys,
                    "another gate of this fleet runs an authority with different keys for the same issuer, so each rejects the tokens of the other; keep [authority] on one gate and set jwks_url on the others"
                ),
                None if before == 1 => info!(issuer = %issuer, "the conflicting authority is gone"),
                _ => {}
            }
        }
        sleep(if claimed.is_ok() { RENEW } else { RETRY }).await;
    }
}
