//! Reads events from the gate that has taken over, so that requests still in flight are checked against them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::task::spawn_blocking;
use tokio::time::sleep;
use tracing::debug;

use super::state::KeptState;
use crate::config::{Settings, StoreSettings};
use crate::state::Store;

/// Every `check_interval`, puts in force the events that the next gate has stored since this one released the
/// file. A shared store delivers them by itself, and one in memory has no successor.
pub(super) async fn follow(state: KeptState, settings: Arc<ArcSwap<Settings>>) {
    let StoreSettings::Embedded(path) = settings.load().state.store.clone() else { return };
    let mut after = state.store.log().sequence;
    loop {
        sleep(settings.load().streams.check_interval).await;
        match read(&path).await {
            Ok(Some(reader)) => match state.events.take_over_from(&reader, after).await {
                Ok(last) => after = last,
                Err(error) => debug!(%error, "cannot read the state of the next gate"),
            },
            Ok(None) => {}
            // The next gate may be migrating it.
            Err(error) => debug!(error, "cannot open the state of the next gate"),
        }
    }
}

/// Opens the file again each time: until the next gate has written to it, SQLite would treat it as immutable.
async fn read(path: &Path) -> Result<Option<Store>, String> {
    let path: PathBuf = path.to_owned();
    let opening = spawn_blocking(move || Store::open_read_only(&path).map_err(|error| error.to_string()));
    opening.await.map_err(|error| error.to_string())?
}
