//! How the embedded authority is opened beside the state.

use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::task::spawn_local;

use super::state::State;
use crate::authority::{self, Authority, Parts};
use crate::config::{StateSettings, Store as StoreSettings};
use crate::events;
use crate::metrics::Metrics;
use crate::state::Store;
use crate::time::Now;

/// Opens it on its file, which may be the one that the state is in. Blocks for a moment, before anything is served.
pub(super) async fn open(
    wanted: &authority::Settings,
    state_settings: &StateSettings,
    state: &State,
    issuers: &Arc<ArcSwap<Vec<events::Issuer>>>,
    metrics: &Metrics,
) -> Result<Arc<Authority>, Vec<String>> {
    let store = match &state_settings.store {
        StoreSettings::Embedded(path) if *path == wanted.path => state.store.clone(),
        _ => Store::open(&wanted.path, Now::read()).map_err(|error| vec![format!("[authority]: {error}")])?,
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
    // Ends with the process, as the authority does.
    spawn_local(Arc::clone(&authority).upkeep());
    Ok(authority)
}
